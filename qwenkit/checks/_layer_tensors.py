"""Exercise 08.2, a layer computed from the file's tensors: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.config import QwenConfig

_Layer = Callable[[Tensor, Mapping[str, Tensor], int, QwenConfig], Tensor]


class _Named:
    """The tensors of one layer, by the rest of their names."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]


def layer_with(**idea: Any) -> _Layer:
    """Return a layer; each entry of `idea` puts another idea into one step."""

    def layer(x: Tensor, tensors: Mapping[str, Tensor], number: int, config: QwenConfig) -> Tensor:
        of_layer = f"model.layers.{idea.get('number', number)}."
        weights = _Named(tensors, of_layer)
        first, second = idea.get("norms", ("input_layernorm", "post_attention_layernorm"))
        normed = _norm(x, weights, first, config, idea)
        attention = _attention(normed, weights, config, idea)
        middle = idea.get("add", torch.add)(x, attention)
        source = x if idea.get("parallel") else middle
        added = _mlp(_norm(source, weights, second, config, idea), weights, idea)
        return added if idea.get("mlp_alone") else middle + added

    return layer


def _norm(
    x: Tensor, weights: _Named, name: str, config: QwenConfig, idea: dict[str, Any]
) -> Tensor:
    eps = idea.get("eps", config.rms_norm_eps)
    if idea.get("no_norm") == name:
        return x
    if idea.get("centered"):
        x = x - x.mean(dim=-1, keepdim=True)
    square = x.pow(2).mean(dim=-1, keepdim=True) + eps
    normed = x / square if idea.get("no_root") else x * torch.rsqrt(square)
    return normed if idea.get("no_norm_weight") else normed * weights[f"{name}.weight"]


def _attention(x: Tensor, weights: _Named, config: QwenConfig, idea: dict[str, Any]) -> Tensor:
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    batch, length, _ = x.shape

    def project(name: str, count: int) -> Tensor:
        out = F.linear(x, weights[f"self_attn.{name}_proj.weight"])
        if name in idea.get("bias", "qkv"):
            out = out + weights[f"self_attn.{name}_proj.bias"]
        size = config.hidden_size // heads if idea.get("c_over_h") else dim
        if idea.get("heads_viewed"):
            return out.reshape(batch, count, length, size)
        return out.view(batch, length, count, size).transpose(1, 2)  # (B, count, T, D)

    q, k, v = project("q", heads), project("k", kv_heads), project("v", kv_heads)
    rotated = idea.get("rotated", "qk")
    q, k, v = (
        _rotate(one, config, idea) if name in rotated else one
        for name, one in (("q", q), ("k", k), ("v", v))
    )
    repeat = idea.get("repeat", lambda one, groups: one.repeat_interleave(groups, dim=1))
    k, v = repeat(k, heads // kv_heads), repeat(v, heads // kv_heads)
    scores = q @ k.transpose(-2, -1) * idea.get("scale", lambda dim: dim**-0.5)(dim)
    future = torch.ones(length, length, dtype=torch.bool).triu(idea.get("mask_from", 1))
    if not idea.get("no_mask"):
        scores = scores.masked_fill(future, float("-inf"))
    z = scores.softmax(dim=idea.get("over", -1)) @ v  # (B, H, T, D)
    joined = (z if idea.get("joined_as_is") else z.transpose(1, 2)).reshape(batch, length, -1)
    out = F.linear(joined, weights["self_attn.o_proj.weight"])
    return out + weights["self_attn.o_proj.bias"] if idea.get("o_bias") else out


def _rotate(x: Tensor, config: QwenConfig, idea: dict[str, Any]) -> Tensor:
    dim = x.shape[-1]
    pair = torch.arange(0, dim, 2) / dim
    angle = torch.arange(x.shape[2])[:, None] * idea.get("theta", config.rope_theta) ** -pair
    cos, sin = angle.cos(), idea.get("sign", 1) * angle.sin()
    if idea.get("interleaved"):
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _mlp(x: Tensor, weights: _Named, idea: dict[str, Any]) -> Tensor:
    gate, up, down = (weights[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    middle = idea.get("middle", lambda gate, up: F.silu(gate) * up)
    return F.linear(middle(F.linear(x, gate), F.linear(x, up)), down)


_NORM_2 = "post_attention_layernorm"
_FIXED = "with another {} it goes wrong: yours is fixed or missing. Take it from the config."
_REPEATED = (
    "with several kv heads it goes wrong: consecutive query heads share a kv head. In which order "
    "does your function repeat them?"
)
_ADDITION = "the result of attention replaces the stream. It should be added to it."
_HINTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("no biases", "the biases of q, k and v are in the file, but you do not add them.",
        {"bias": ""}),
    ("bias of q only", "you add the bias of q, but not those of k and v.", {"bias": "q"}),
    ("bias of o", "the file has no bias for o_proj. Which projections have one?",
        {"o_bias": True}),
    ("layer 0 always", "whatever the number, you use the tensors of layer 0. Put the number into "
        "the name.",
        {"number": 0}),
    *(("theta fixed", _FIXED.format("rope_theta"), {"theta": theta}) for theta in (1e4, 1e6)),
    *(("eps fixed", _FIXED.format("rms_norm_eps"), {"eps": eps}) for eps in (1e-6, 1e-5)),
    ("head_dim from C / H", "with another head_dim it goes wrong: you compute C / H. Take "
        "`head_dim` from the config.",
        {"c_over_h": True}),
    ("no mask", "your tokens see the future. What hides it?", {"no_mask": True}),
    ("no self", "your mask hides a token from itself. Which diagonal is the first that is hidden?",
        {"mask_from": 0}),
    ("no scale", "the scores are too large: they are divided by the square root of head_dim.",
        {"scale": lambda dim: 1.0}),
    ("scale without root", "you divide the scores by head_dim. It should be its square root.",
        {"scale": lambda dim: 1 / dim}),
    ("softmax over queries", "your attention weights add up to 1 over the queries. For each query, "
        "they should add up to 1 over the keys.",
        {"over": -2}),
    ("no RoPE", "your queries and keys are not rotated: the layer cannot tell the position of a "
        "token.",
        {"rotated": ""}),
    ("only q rotated", "only your queries are rotated. RoPE belongs to queries and keys.",
        {"rotated": "q"}),
    ("only k rotated", "only your keys are rotated. RoPE belongs to queries and keys.",
        {"rotated": "k"}),
    ("v rotated", "you rotate the values, too. RoPE belongs to queries and keys only.",
        {"rotated": "qkv"}),
    ("interleaved", "that is the interleaved rotation. In Qwen, dimension i pairs with i + D/2.",
        {"interleaved": True}),
    ("kv heads cycled", _REPEATED, {"repeat": lambda one, groups: one.repeat(1, groups, 1, 1)}),
    ("heads not split by token", "you reshape to heads before tokens. The values of one token are "
        "next to each other: split the last axis first, then transpose.",
        {"heads_viewed": True}),
    ("heads not joined by token", "you join the heads without a transpose, which mixes up the "
        "tokens. A token's heads must stand next to each other.",
        {"joined_as_is": True}),
    ("norms swapped", "each part uses the other's norm. Which name belongs to the MLP?",
        {"norms": (_NORM_2, "input_layernorm")}),
    ("one norm for both", "both parts use input_layernorm. There are two norms.",
        {"norms": ("input_layernorm", "input_layernorm")}),
    ("one norm for both", "both parts use post_attention_layernorm. There are two norms.",
        {"norms": (_NORM_2, _NORM_2)}),
    ("no first norm", "attention gets the raw stream. Which norm comes before it?",
        {"no_norm": "input_layernorm"}),
    ("no second norm", "the MLP gets the raw stream. Which norm comes before it?",
        {"no_norm": _NORM_2}),
    ("no norm weight", "your norms do not use their weights.", {"no_norm_weight": True}),
    ("mean subtracted", "your norm subtracts the mean, as LayerNorm does. RMSNorm does not.",
        {"centered": True}),
    ("no root", "your norm divides by the mean square. It should be its root.", {"no_root": True}),
    ("attention replaces", _ADDITION, {"add": lambda x, attention: attention}),
    ("MLP alone", "you return only what the MLP adds. What is missing is the stream.",
        {"mlp_alone": True}),
    ("parallel", "your MLP gets the stream from before attention. It should get the sum.",
        {"parallel": True}),
    ("gate and up swapped", "gate and up are swapped: SiLU is applied to only one of the two.",
        {"middle": lambda gate, up: gate * F.silu(up)}),
    ("no SiLU", "the activation function of the gate is missing.",
        {"middle": lambda gate, up: gate * up}),
    ("another activation", "the activation function of your gate is not SiLU, but similar.",
        {"middle": lambda gate, up: F.gelu(gate) * up}),
    ("another activation", "the activation function of your gate is not SiLU, but similar.",
        {"middle": lambda gate, up: F.relu(gate) * up}),
)  # fmt: skip
TENSOR_MISTAKES = tuple(Mistake(name, hint, layer_with(**idea)) for name, hint, idea in _HINTS)
