"""A model computed by the reader's functions: the package's, with parts replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.mine._collect import load
from qwenkit.mine._source import NAME
from qwenkit.mine.stand_ins import stand_in
from qwenkit.model import (
    Attention,
    DecoderLayer,
    KVCache,
    QwenForCausalLM,
    RMSNorm,
    RotaryEmbedding,
    apply_rope,
    eager_attention,
    fused_attention,
    repeat_kv,
)
from qwenkit.model.mlp import MLP
from qwenkit.trace import TraceAt, tap

_Functions = dict[str, Any]  # name -> function

PARTS = {
    "my_norm": ("03", "RMSNorm"),
    "frequencies": ("04", "the frequencies of RoPE"),
    "tables": ("04", "the cos and sin tables"),
    "rotate": ("04", "the rotation of queries and keys"),
    "attend": ("05", "scores, mask, softmax, weighted sum"),
    "join": ("05", "the heads, joined and projected"),
    "repeat": ("06", "kv heads, repeated"),
    "my_mlp": ("07", "the MLP"),
    "decoder_layer": ("08", "the wiring of a layer"),
}


@dataclass(frozen=True)
class Parts:
    """Which parts of a model are the reader's; the package's stand in for the others.

    Args:
        mine: name -> function, of those that are kept.
    """

    mine: dict[str, Callable[..., Any]]

    def __str__(self) -> str:
        """Return a line per part, and how many are the reader's."""
        lines = [
            f"{notebook}  {name:<14}{'yours' if name in self.mine else 'package':<9}{what}"
            for name, (notebook, what) in PARTS.items()
        ]
        return "\n".join([*lines, f"{len(self.mine)} of {len(PARTS)} parts are yours"])


def parts() -> Parts:
    """Return which parts of a model the reader's file has.

    Raises:
        InputError: the file cannot be run.
    """
    module = load()
    found: _Functions = {name: getattr(module, name, None) for name in PARTS}
    # one that the file only imports is not the reader's
    return Parts({n: one for n, one in found.items() if getattr(one, "__module__", "") == NAME})


def functions() -> tuple[Callable[..., Any], ...]:
    """Return a function per part, in the order of `PARTS`: the reader's where it is kept.

    The package's stand in for the others, with the same names and arguments.

    Raises:
        InputError: the file cannot be run.
    """
    mine = parts().mine
    return tuple(mine.get(name) or stand_in(name) for name in PARTS)


def model(model: QwenForCausalLM) -> QwenForCausalLM:
    """Return a model with the same weights in which the reader's functions compute.

    It is a `QwenForCausalLM`: it generates, takes a cache and a trace, and can be trained. A mask
    for padding or a sliding window, which no exercise asks for, is left to the package's attention,
    as are the scores and patterns that a trace wants to see.

    Args:
        model: the model whose weights are used; it stays as it is and shares them.

    Raises:
        InputError: the file cannot be run, or the model uses a RoPE scaling.
    """
    if not isinstance(model, QwenForCausalLM):
        raise InputError(f"model is a {type(model).__name__}; it must be a QwenForCausalLM")
    mine = parts().mine
    if model.config.rope_scaling is not None and {"tables", "frequencies"} & mine.keys():
        raise InputError("your RoPE has no scaling, and this model's config asks for one")
    shared = {id(one): one for one in [*model.parameters(), *model.buffers(), model.config]}
    result = copy.deepcopy(model, shared)
    for module in result.modules():
        if type(module) in _OURS:
            module.__class__ = _OURS[type(module)]
            vars(module)["mine"] = mine
    return result


class _Norm(RMSNorm):
    mine: _Functions

    def forward(self, x: Tensor) -> Tensor:
        if "my_norm" not in self.mine:
            return super().forward(x)
        return cast(Tensor, self.mine["my_norm"](x, self.weight, self.eps))


class _Rotary(RotaryEmbedding):
    mine: _Functions

    def frequencies(self, device: torch.device) -> Tensor:
        if "frequencies" not in self.mine:
            return super().frequencies(device)
        found = self.mine["frequencies"](self.config.head_dim, self.config.rope_theta)
        return cast(Tensor, found.to(device))

    def forward(
        self, positions: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        if "tables" not in self.mine:
            return super().forward(positions, dtype)
        frequencies = self.frequencies(positions.device)
        rows = [self.mine["tables"](one, frequencies, dtype) for one in positions]  # of each text
        cos, sin = zip(*rows, strict=True)
        return torch.stack(cos), torch.stack(sin)  # (B, T, D) each


class _Attention(Attention):
    mine: _Functions

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None = None,
        trace: TraceAt | None = None,
    ) -> Tensor:
        batch, length, _ = x.shape
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        rotate = self.mine.get("rotate", apply_rope)

        def split(projected: Tensor, count: int) -> Tensor:
            return projected.view(batch, length, count, -1).transpose(1, 2)  # (B, count, T, D)

        q = tap(trace, "attn.q", split(self.q_proj(x), heads))  # (B, H, T, D)
        k = tap(trace, "attn.k", split(self.k_proj(x), kv_heads))  # (B, KV, T, D)
        v = tap(trace, "attn.v", split(self.v_proj(x), kv_heads))  # (B, KV, T, D)
        q = tap(trace, "attn.q_rot", rotate(q, *rope))
        k = tap(trace, "attn.k_rot", rotate(k, *rope))
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, KV, S, D)
        repeat = self.mine.get("repeat", repeat_kv)
        k, v = repeat(k, heads // kv_heads), repeat(v, heads // kv_heads)  # (B, H, S, D)
        z: Tensor
        if trace is not None and (trace.wants("attn.scores") or trace.wants("attn.pattern")):
            z = eager_attention(q, k, v, mask, trace)
        elif "attend" in self.mine and mask is None:
            z = self.mine["attend"](q, k, v)
        else:
            z = fused_attention(q, k, v, mask)
        z = tap(trace, "attn.z", z)  # (B, H, T, D)
        if "join" in self.mine:
            return tap(trace, "attn.out", cast(Tensor, self.mine["join"](z, self.o_proj.weight)))
        return tap(trace, "attn.out", self.o_proj(z.transpose(1, 2).reshape(batch, length, -1)))


class _MLP(MLP):
    mine: _Functions

    def forward(self, x: Tensor, trace: TraceAt | None = None) -> Tensor:
        if "my_mlp" not in self.mine:
            return super().forward(x, trace)
        weights = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
        return tap(trace, "mlp.out", cast(Tensor, self.mine["my_mlp"](x, *weights)))


class _Layer(DecoderLayer):
    mine: _Functions

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None = None,
        trace: TraceAt | None = None,
    ) -> Tensor:
        if "decoder_layer" not in self.mine:
            return super().forward(x, rope, mask, cache, trace)

        def attention(normed: Tensor) -> Tensor:
            normed = tap(trace, "attn_norm", normed)
            return cast(Tensor, self.self_attn(normed, rope, mask, cache, trace))

        def mlp(normed: Tensor) -> Tensor:
            return cast(Tensor, self.mlp(tap(trace, "mlp_norm", normed), trace))

        def norm2(stream: Tensor) -> Tensor:
            return cast(Tensor, self.post_attention_layernorm(tap(trace, "resid_mid", stream)))

        x = tap(trace, "resid_pre", x)
        wired = self.mine["decoder_layer"]
        x = cast(Tensor, wired(x, self.input_layernorm, attention, norm2, mlp))
        return tap(trace, "resid_post", x)


_OURS: dict[type, Any] = {  # the package's class -> ours, which has the same weights
    RMSNorm: _Norm,
    RotaryEmbedding: _Rotary,
    Attention: _Attention,
    MLP: _MLP,
    DecoderLayer: _Layer,
}
