"""The mistakes of exercise 09.3, a whole model: the package's model, broken in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks._forward import (
    ADDED_AGAIN,
    LAST_FLAT,
    LAST_MISSING,
    LOG_SOFTMAX,
    NO_HEAD,
    NORM_IN_ALL,
    REVERSED,
    SCALED,
    SOFTMAX,
)
from qwenkit.checks._judge import Mistake
from qwenkit.checks._untied import EMBEDDING, HEAD, Tensors
from qwenkit.checks._whole_layers import LAYER_MISTAKES
from qwenkit.checks._whole_model import (
    HeadAlthoughTied,
    LayersNotRegistered,
    NoHeadAlthoughUntied,
    TablesNotCut,
    changed,
    package_logits,
)
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Trace


def _once(mistake: Mistake) -> Mistake:
    """Return a mistake that computes each answer once: here, a config has one set of inputs."""
    found: dict[QwenConfig, Any] = {}

    def remembered(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Any:
        if config not in found:
            found[config] = mistake.function(config, tensors, ids)
        return found[config]

    return replace(mistake, function=remembered)


def _without_last_norm(model: QwenForCausalLM) -> None:
    model.model.norm.register_forward_hook(lambda _, given, out: given[0])


def _without_head(model: QwenForCausalLM) -> None:
    model.head = lambda x: x  # type: ignore[method-assign]


def _last_eps(eps: float) -> Callable[..., Tensor]:
    """Return the model whose last norm, and no other, has this eps."""

    def change(model: QwenForCausalLM) -> None:
        model.model.norm.eps = eps

    return changed(change)


def _c_over_h(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    """Rotate with tables for C / H dimensions: an error unless that is head_dim."""
    table = torch.ones(ids.shape[1], config.hidden_size // config.num_attention_heads)
    torch.mul(torch.ones(1, 1, ids.shape[1], config.head_dim), table)
    return package_logits(config, tensors, ids)


def _after_each_layer(
    change: Callable[[QwenForCausalLM, Tensor, Tensor], Tensor],
) -> Callable[..., Tensor]:
    """Return the model with `change(model, stream before, stream after)` after each layer."""

    def hook(model: QwenForCausalLM) -> None:
        for layer in model.model.layers:
            layer.register_forward_hook(lambda _, given, out: change(model, given[0], out))

    return changed(hook)


def _where(applies: Callable[[QwenConfig], bool], error: type[Exception]) -> Callable[..., Tensor]:
    """Return the model that raises an error with some configs, and is right with the others."""

    def answered(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
        if applies(config):
            raise error
        return package_logits(config, tensors, ids)

    return answered


def _with_layers(choose: Callable[[list[nn.Module]], list[nn.Module]]) -> Callable[..., Tensor]:
    def change(model: QwenForCausalLM) -> None:
        model.model.layers = nn.ModuleList(choose(list(model.model.layers)))

    return changed(change)


def _with_inputs(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Tensor]:
    """Return the model whose layers get other rope tables or another mask."""

    def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0], *change(given[1], given[2]), *given[3:])

    def hook(model: QwenForCausalLM) -> None:
        for layer in model.model.layers:
            layer.register_forward_pre_hook(before)

    return changed(hook)


def _normed_after_each(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    """Apply the last norm after each layer, and not once more at the end."""

    def change(model: QwenForCausalLM) -> None:
        norm = model.model.norm
        for layer in model.model.layers:
            layer.register_forward_hook(lambda _, given, out: norm(out))
        model.model.norm = nn.Identity()  # type: ignore[assignment]

    return package_logits(config, tensors, ids, change=change)


def _no_mask(rope: Any, mask: Any) -> tuple[Any, Any]:
    length = rope[0].shape[1]
    return rope, torch.ones(1, 1, length, length, dtype=torch.bool)


def _without_biases(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    zeros = {name: torch.zeros_like(one) for name, one in tensors.items() if "bias" in name}
    return package_logits(config, tensors | zeros, ids)


def _tied(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    return package_logits(config, {n: tensors[EMBEDDING if n == HEAD else n] for n in tensors}, ids)


def _cycled(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    """Give query head h the kv head h % KV: the same as another order of the query heads."""
    heads, groups = config.num_attention_heads, config.num_key_value_groups
    order = torch.arange(heads).view(groups, -1).T.flatten()
    rows = (order[:, None] * config.head_dim + torch.arange(config.head_dim)).flatten()
    cycled = dict(tensors)
    for name, tensor in tensors.items():
        if ".q_proj." in name:
            cycled[name] = tensor[rows]
        elif ".o_proj." in name:
            cycled[name] = tensor[:, rows]
    return package_logits(config, cycled, ids)


def _large_embedding(config: QwenConfig, tensors: Tensors, ids: Tensor) -> Tensor:
    edits = {"embed": lambda x: x * math.sqrt(config.hidden_size)}
    return package_logits(config, tensors, ids, Trace(keep=(), edits=edits))


_MISTAKES = (
    Mistake("no last norm", "the head reads the raw stream. Which tensor of the checkpoint did you "
        "not use?",
        changed(_without_last_norm)),
    *(Mistake("theta fixed", "with another rope_theta it goes wrong: your theta is fixed. Take it "
        "from the config.",
        lambda config, tensors, ids, theta=theta:
            package_logits(replace(config, rope_theta=theta), tensors, ids))
        for theta in (1e4, 1e6)),
    *(Mistake("eps fixed", "with another rms_norm_eps it goes wrong: your eps is fixed. Take it "
        "from the config.",
        lambda config, tensors, ids, eps=eps:
            package_logits(replace(config, rms_norm_eps=eps), tensors, ids))
        for eps in (1e-6, 1e-5)),
    *(Mistake("last norm's eps fixed", "with another rms_norm_eps it goes wrong: the eps of your "
        "last norm is fixed. Take it from the config.",
        _last_eps(eps)) for eps in (1e-6, 1e-5)),
    Mistake("head_dim from C / H", "with another head_dim it goes wrong: you compute C / H. Take "
        "`head_dim` from the config.",
        _c_over_h),
    Mistake("tables not cut", "your tables of cos and sin are as long as the longest text. They "
        "need one row per token of `ids`.",
        _where(lambda c: True, TablesNotCut)),
    Mistake("layers not registered", "PyTorch sees no parameter of a layer. A plain list hides "
        "them: put the layers into `nn.ModuleList`.",
        _where(lambda c: True, LayersNotRegistered)),
    Mistake("a head although tied", "a tied file has no `lm_head.weight`, but your model does. "
        "Create `lm_head` only where the config does not tie it.",
        _where(lambda c: c.tie_word_embeddings, HeadAlthoughTied)),
    Mistake("no head although untied", "one file has its own `lm_head.weight`, but your model does "
        "not. Create `lm_head` where the config does not tie it.",
        _where(lambda c: not c.tie_word_embeddings, NoHeadAlthoughUntied)),
    Mistake("the same layer each time", "all your layers are one layer, with the weights of the "
        "last one. Multiplying a list repeats one object: create a new layer each time.",
        _with_layers(lambda layers: layers[-1:] * len(layers))),
    Mistake("result not kept", "the logits do not depend on the layers. Assign each layer's result "
        "to x.",
        _with_layers(lambda layers: [])),
    Mistake("return inside the loop", "only the first layer runs. Do you return inside the loop?",
        _with_layers(lambda layers: layers[:1])),
    Mistake("added once more", ADDED_AGAIN,
        _after_each_layer(lambda model, before, after: before + after)),
    Mistake("norm after each layer", NORM_IN_ALL, _normed_after_each),
    Mistake("no head", NO_HEAD, changed(_without_head)),
    Mistake("tied although untied", "one config says that the head has its own matrix, but you use "
        "the embedding.",
        _tied),
    Mistake("no biases", "the biases of q, k and v have no effect. They are loaded; are they "
        "added?",
        _without_biases),
    Mistake("layers in reverse", REVERSED, _with_layers(lambda layers: layers[::-1])),
    Mistake("one layer for all", "layer 0 runs every time. Each iteration of the loop should use "
        "another layer.",
        _with_layers(lambda layers: layers[:1] * len(layers))),
    Mistake("last layer missing", LAST_MISSING, _with_layers(lambda layers: layers[:-1])),
    Mistake("kv heads cycled", "with several kv heads it goes wrong: query head h uses kv head h % "
        "KV. Consecutive query heads share a kv head: use repeat_interleave.",
        _cycled),
    Mistake("no mask", "your tokens see the future. What hides it?", _with_inputs(_no_mask)),
    Mistake("no RoPE", "your queries and keys are not rotated: the model cannot tell the position "
        "of a token.",
        _with_inputs(lambda rope, mask: ((torch.ones_like(rope[0]), 0 * rope[1]), mask))),
    Mistake("embedding scaled", SCALED, _large_embedding),
    Mistake("softmax inside", SOFTMAX, lambda *given: package_logits(*given).softmax(dim=-1)),
    Mistake("log-softmax inside", LOG_SOFTMAX,
        lambda *given: package_logits(*given).log_softmax(dim=-1)),
    Mistake("last position only", "you return only the last position. Every position predicts its "
        "next token.",
        lambda *given: package_logits(*given)[:, -1:]),
    Mistake("last position only", LAST_FLAT, lambda *given: package_logits(*given)[:, -1]),
)  # fmt: skip
WHOLE_MISTAKES = tuple(_once(mistake) for mistake in (*_MISTAKES, *LAYER_MISTAKES))
