"""The mistakes of exercise 09.3 within a layer: the package's model with other layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.checks._samples import Part
from qwenkit.checks._untied import Tensors
from qwenkit.checks._whole_model import changed, package_logits
from qwenkit.config import QwenConfig
from qwenkit.model import Attention, QwenForCausalLM, apply_rope, eager_attention

Model = Callable[[QwenConfig, Tensors, Tensor], Tensor]


def _with_tensors(change: Callable[[QwenConfig, str, Tensors], Tensor]) -> Model:
    """Return the model in which the tensor of each name is `change(config, name, tensors)`."""

    def logits(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
        changed = {name: change(config, name, tensors) for name in tensors}
        return package_logits(config, changed, ids)

    return logits


def _exchanged(one: str, other: str) -> Model:
    """Return the model in which two kinds of tensors are exchanged."""

    def change(config: QwenConfig, name: str, tensors: Tensors) -> Tensor:
        swapped = name.replace(one, "*").replace(other, one).replace("*", other)
        return tensors[swapped]

    return _with_tensors(change)


def _queries_times(factor: Callable[[int], float]) -> Model:
    return _with_tensors(lambda c, n, t: t[n] * factor(c.head_dim) if ".q_proj." in n else t[n])


def _norms(change: Callable[[Tensor], Tensor]) -> Model:
    return _with_tensors(lambda c, n, t: change(t[n]) if "norm" in n else t[n])


def _interleaved(config: QwenConfig, name: str, tensors: Tensors) -> Tensor:
    """Move row 2i of each query or key to i, and 2i + 1 to i + D/2: pairs of neighbors."""
    tensor = tensors[name]
    if ".q_proj." not in name and ".k_proj." not in name:
        return tensor
    pairs = tensor.view(-1, config.head_dim // 2, 2, *tensor.shape[1:])  # (heads, D/2, 2, ...)
    return pairs.transpose(1, 2).flatten(0, 2)


def _with_attention(**idea: Any) -> Model:
    """Return the model whose attention follows another idea; see `_attention`."""

    def change(model: QwenForCausalLM) -> None:
        for layer in model.model.layers:
            part: Any = layer.self_attn
            part.forward = lambda x, rope, *more, part=part: _attention(part, x, rope, **idea)

    return changed(change)


def _attention(
    part: Attention,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    rotated: str = "qk",
    transposed: bool = True,
    joined: bool = True,
    out: Callable[[Attention, Tensor], Tensor] = lambda part, joined: part.o_proj(joined),
) -> Tensor:
    """Attention with an idea of what is rotated, how heads are split and joined, and the end."""
    batch, length, _ = x.shape
    found = {}
    for name, project in (("q", part.q_proj), ("k", part.k_proj), ("v", part.v_proj)):
        heads = project(x)
        if transposed:
            heads = heads.view(batch, length, -1, part.config.head_dim).transpose(1, 2)
        else:
            heads = heads.view(batch, -1, length, part.config.head_dim)
        found[name] = apply_rope(heads, *rope) if name in rotated else heads
    z = eager_attention(found["q"], found["k"], found["v"])
    return out(part, (z.transpose(1, 2) if joined else z).reshape(batch, length, -1))


def _wired(wire: Callable[[Tensor, Part, Part, Part, Part], Tensor]) -> Model:
    """Return the model whose layers are `wire(x, norm1, attention, norm2, mlp)`."""

    def change(model: QwenForCausalLM) -> None:
        layer: Any
        for layer in model.model.layers:

            def forward(x: Tensor, rope: Any, *more: Any, layer: Any = layer) -> Tensor:
                def attention(normed: Tensor) -> Tensor:
                    found: Tensor = layer.self_attn(normed, rope, None)
                    return found

                norms = layer.input_layernorm, layer.post_attention_layernorm
                return wire(x, norms[0], attention, norms[1], layer.mlp)

            layer.forward = forward

    return changed(change)


def _with_activation(act: Part) -> Model:
    def change(model: QwenForCausalLM) -> None:
        for layer in model.model.layers:
            part: Any = layer.mlp
            part.forward = lambda x, *more, part=part: part.down_proj(
                act(part.gate_proj(x)) * part.up_proj(x)
            )

    return changed(change)


def _normed_twice(model: QwenForCausalLM) -> None:
    norm = model.model.norm
    norm.register_forward_hook(
        lambda part, given, out: out if hasattr(part, "busy") else _again(part, out)
    )


def _again(norm: Any, x: Tensor) -> Tensor:
    norm.busy = True
    found: Tensor = norm(x)
    del norm.busy
    return found


def _reused(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = x + attention(norm1(x))
    return x + mlp(norm1(x))


def _normed_stream(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = norm1(x)
    x = x + attention(x)
    x = norm2(x)
    return x + mlp(x)


def _after(x: Tensor, norm1: Part, attention: Part, norm2: Part, mlp: Part) -> Tensor:
    x = x + norm1(attention(x))
    return x + norm2(mlp(x))


_PAIRS = "your RoPE rotates neighbors, 2i with 2i + 1. Qwen pairs i with i + D/2: see notebook 04."
LAYER_MISTAKES = (
    Mistake("interleaved RoPE", _PAIRS, _with_tensors(_interleaved)),
    Mistake("values rotated", "the values are rotated, too. RoPE is for what the scores compare.",
        _with_attention(rotated="qkv")),
    Mistake("only queries rotated", "the queries are rotated, and the keys are not. Only two "
        "rotated vectors give a score that depends on the distance.",
        _with_attention(rotated="q")),
    Mistake("only keys rotated", "the keys are rotated, and the queries are not. Only two rotated "
        "vectors give a score that depends on the distance.",
        _with_attention(rotated="k")),
    Mistake("heads split in the wrong order", "with more than one token your heads are mixed: the "
        "last dimension of a projection is heads × D. Split that one, then transpose.",
        _with_attention(transposed=False)),
    Mistake("heads joined in the wrong order", "your heads are joined without moving the tokens in "
        "front of them. Which dimension must come before the heads?",
        _with_attention(joined=False)),
    Mistake("o_proj twice", "o_proj is applied twice. `join` has it inside.",
        _with_attention(out=lambda part, z:
            F.linear(part.o_proj(z), part.o_proj.weight) if z.shape[-1] ==
            part.o_proj.weight.shape[0] else part.o_proj(z))),
    Mistake("no o_proj", "the joined heads are added to the stream as they are. Which of the four "
        "projections is missing?",
        _with_attention(out=lambda part, z: z)),
    Mistake("gate and up exchanged", "SiLU is applied to up_proj's result. It belongs "
        "to gate_proj.",
        _exchanged("gate_proj", "up_proj")),
    *(Mistake("another activation", f"your MLP uses {name}. The config names another function.",
        _with_activation(act))
        for name, act in (("ReLU", torch.relu), ("GELU", F.gelu), ("a sigmoid", torch.sigmoid))),
    Mistake("norms exchanged", "the two norms of a layer are exchanged: input_layernorm is "
        "attention's, post_attention_layernorm the MLP's.",
        _exchanged("input_layernorm", "post_attention_layernorm")),
    Mistake("one norm for both", "your MLP reads through input_layernorm, and the other norm is "
        "never used.",
        _wired(_reused)),
    Mistake("parallel", "your MLP reads the stream as it was before attention. It should see what "
        "attention added.",
        _wired(lambda x, n1, attention, n2, mlp: x + attention(n1(x)) + mlp(n2(x)))),
    Mistake("no residual connection", "your layer returns what its parts compute, without the "
        "stream. What is added to what?",
        _wired(lambda x, n1, attention, n2, mlp: mlp(n2(attention(n1(x)))))),
    Mistake("the stream is normalized", "your layer normalizes the stream itself. A norm makes a "
        "copy for attention or the MLP; the stream goes on as it is.",
        _wired(_normed_stream)),
    Mistake("norm after the part", "your norms come after attention and MLP. Here they come "
        "before.",
        _wired(_after)),
    Mistake("last norm twice", "the last norm is applied twice.",
        changed(_normed_twice)),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _queries_times(math.sqrt)),
    Mistake("divided by D", "the scores are divided by D. Divide them by its square root.",
        _queries_times(lambda size: size**-0.5)),
    Mistake("norm without its weight", "your norms divide, and do not multiply by their weight.",
        _norms(torch.ones_like)),
    Mistake("norm with 1 + weight", "your norms multiply by 1 + weight. Gemma's do that; Qwen's "
        "weight is the factor itself.",
        _norms(lambda weight: 1 + weight)),
)  # fmt: skip
