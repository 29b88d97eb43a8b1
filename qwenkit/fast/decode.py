"""A decode step: one new token through all layers in compiled kernels, or not at all.

`QwenForCausalLM.forward` is the reference. The step stands in for it only if the model is exactly
what `qwenkit.model` builds and `accelerate` has sped up, run by code that nobody has changed.
Everything is read from the live modules at each token: there is no table of weights.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from qwenkit.fast._machine import cores, kernels_problem, memory, plain_process
from qwenkit.fast.identity import changed_code
from qwenkit.fast.int8 import FastInt8Embedding, FastInt8Linear
from qwenkit.fast.linear import FastLinear
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.model import (
    MLP,
    Attention,
    DecoderLayer,
    KVCache,
    QwenForCausalLM,
    QwenModel,
    RMSNorm,
    RotaryEmbedding,
    check_input_ids,
)

_EMPTY: dict[torch.dtype, NDArray[Any]] = {
    torch.float32: np.empty(0, np.float32),
    torch.bfloat16: np.empty(0, np.uint16),
}


class _Declined(Exception):
    """Why the step may not serve."""


def decode_step(
    model: QwenForCausalLM,
    input_ids: Tensor,
    cache: KVCache,
    attention_mask: Tensor | None = None,
) -> Tensor | None:
    """Return what `model(input_ids, cache=cache, logits_to_keep=1)` returns, by the kernels.

    Args:
        model: a language model.
        input_ids: the new tokens.
        cache: all tokens before them; the new one is added.
        attention_mask: as of the model's forward.

    Returns:
        (1, 1, V) logits; None, with nothing written, where the kernels may not serve.
    """
    if input_ids.shape != (1, 1) or attention_mask is not None or not cache.length:
        return None
    try:
        layers = _layers(model)
        buffers = _buffers(model, cache)
    except _Declined:
        return None
    from qwenkit.fast.kernels import decoder_layer

    inner = model.model
    check_input_ids(input_ids, model.config, model.device, cache.length)
    x = inner.embed_tokens(input_ids)  # (1, 1, C)
    rope = inner.rotary_emb(torch.tensor([[cache.length]]), x.dtype)  # 2 × (1, 1, D)
    cos, sin = (memory(table.float().reshape(-1)) for table in rope)  # (D)
    stream = memory(x.float().reshape(-1).clone())  # (C)
    with cores():
        for (layer, eps), (keys, values) in zip(layers, buffers, strict=True):
            decoder_layer(stream, layer, keys, values, cache.length, cos, sin, eps)
    x = torch.from_numpy(stream).to(x.dtype).view(1, 1, -1)  # (1, 1, C)
    logits = model.head(inner.norm(x))  # (1, 1, V)
    cache.advance(1)
    return logits


def why_not(model: QwenForCausalLM) -> str | None:
    """Say why a decode step may not serve this model as it is now; None: it may."""
    try:
        _layers(model)
    except _Declined as reason:
        return str(reason)
    return None


def _layers(model: QwenForCausalLM) -> list[tuple[Any, tuple[float, float]]]:
    """Return each layer's memory, and the eps of its two norms.

    Raises:
        _Declined: something is not as the kernels know it.
    """
    if not isinstance(model, QwenForCausalLM):
        raise _Declined(f"the model is a {type(model).__name__}, not a QwenForCausalLM")
    if plain_process():
        raise _Declined("QWENKIT_PLAIN is set")
    if type(model) is not FastQwenForCausalLM:
        raise _Declined("the model is not accelerated: it is small, or was made plain")
    problem = _observed() or changed_code() or kernels_problem()
    if problem:
        raise _Declined(problem)
    _untouched(model, "the model")
    inner = _part(model, "model", QwenModel)
    _part(inner, "embed_tokens", nn.Embedding, FastInt8Embedding)
    _part(inner, "norm", RMSNorm)
    _part(inner, "rotary_emb", RotaryEmbedding)
    if model.lm_head is not None:
        _part(model, "lm_head", FastLinear, FastInt8Linear)
    found = [
        _layer(layer, index, model)
        for index, layer in enumerate(_part(inner, "layers", nn.ModuleList))
    ]
    if len({kinds for kinds, _, _ in found}) > 1:  # each mixture would be compiled separately
        raise _Declined("the layers are stored in different dtypes")
    return [(layer, eps) for _, layer, eps in found]


def _layer(layer: Any, index: int, model: QwenForCausalLM) -> tuple[Any, Any, tuple[float, float]]:
    """Return a layer's dtypes, its memory and the eps of its norms."""
    from qwenkit.fast.kernels import Layer

    where, config = f"layers.{index}", model.config
    if type(layer) is not DecoderLayer:
        raise _Declined(f"{where} is a {type(layer).__name__}, not a DecoderLayer")
    _untouched(layer, where)
    attention = _part(layer, "self_attn", Attention, of=where)
    mlp = _part(layer, "mlp", MLP, of=where)
    norms = [
        _part(layer, name, RMSNorm, of=where)
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    own = attention.config.num_attention_heads, attention.config.num_key_value_heads
    if attention.layer != index or own != (heads, kv_heads):
        raise _Declined(f"{where}.self_attn was made for another layer or config")
    hidden, dim = config.hidden_size, config.head_dim
    neurons = mlp.down_proj.weight.shape[-1]
    shapes = {
        "q_proj": (heads * dim, hidden),
        "k_proj": (kv_heads * dim, hidden),
        "v_proj": (kv_heads * dim, hidden),
        "o_proj": (hidden, heads * dim),
        "gate_proj": (neurons, hidden),
        "up_proj": (neurons, hidden),
        "down_proj": (hidden, neurons),
    }
    small = norms[0].weight.dtype
    first, second = (_memory(norm.weight, where, small, (hidden,)) for norm in norms)
    parents = [attention] * 4 + [mlp] * 3
    projections = [
        _projection(parent, name, shape, small, where)
        for parent, (name, shape) in zip(parents, shapes.items(), strict=True)
    ]
    kinds = (small, *(part.weight.dtype for part in projections))
    memory_of_layer: Any = Layer(first, *projections[:4], second, *projections[4:])  # type: ignore[call-arg]
    return kinds, memory_of_layer, (float(norms[0].eps), float(norms[1].eps))


def _observed() -> str | None:
    """Say what torch does with every call at present: then each of them must be made."""
    if torch_modules._has_any_global_hook():  # type: ignore[no-untyped-call]
        return "a global hook of torch is registered"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "a mode of torch watches every call"
    return "gradients are enabled" if torch.is_grad_enabled() else None


def _part(parent: nn.Module, name: str, *kinds: type, of: str = "model") -> Any:
    """Return a module's part, if it is of a class that belongs there and nobody has touched it."""
    part = getattr(parent, name)
    if type(part) not in kinds:
        raise _Declined(f"{of}.{name} is a {type(part).__name__}, not a {kinds[0].__name__}")
    _untouched(part, f"{of}.{name}")
    return part


def _untouched(module: nn.Module, name: str) -> None:
    """Decline a module with a hook, or with a method of its class overridden on the instance."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise _Declined(f"{name} has a forward hook")
    if module._backward_hooks or module._backward_pre_hooks:
        raise _Declined(f"{name} has a backward hook")
    overridden = module.__dict__.keys() & _methods(type(module))  # type: ignore[arg-type]
    if overridden:
        raise _Declined(f"{min(overridden)} of {name} was replaced")


@functools.cache
def _methods(kind: type) -> frozenset[str]:
    """Return the names of a class that an instance's own attribute would take the place of."""
    named = ((name, getattr(kind, name)) for name in dir(kind))
    found = {name for name, value in named if callable(value) or isinstance(value, property)}
    return frozenset(found | {"_compiled_call_impl"})


def _projection(
    parent: nn.Module, name: str, shape: tuple[int, int], small: torch.dtype, where: str
) -> Any:
    """Return a projection's memory; `small` is the dtype that its scale and bias must have."""
    from qwenkit.fast.kernels import Projection

    part = _part(parent, name, FastLinear, FastInt8Linear, of=where)
    full, outputs = f"{where}.{name}", shape[:1]
    int8 = type(part) is FastInt8Linear
    return Projection(
        _memory(part.weight, full, torch.int8 if int8 else small, shape),
        _memory(part.weight_scale, full, small, outputs) if int8 else _EMPTY[small],
        _EMPTY[small] if part.bias is None else _memory(part.bias, full, small, outputs),
    )


def _memory(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    if type(tensor) not in (Tensor, nn.Parameter) or not tensor.is_cpu:
        raise _Declined(f"a tensor of {name} is not an ordinary tensor on the CPU")
    if tensor.shape != shape or not tensor.is_contiguous():
        raise _Declined(f"a tensor of {name} has another shape or layout")
    if tensor.dtype != dtype or (dtype not in _EMPTY and dtype != torch.int8):
        raise _Declined(f"{name} holds {tensor.dtype}, which the kernels do not expect there")
    return memory(tensor)


def _buffers(model: QwenForCausalLM, cache: KVCache) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return each layer's keys and values in the cache, (KV, S, D)."""
    config, count = model.config, len(model.model.layers)
    if type(cache) is not KVCache or not vars(cache).keys().isdisjoint(_methods(KVCache)):
        raise _Declined("a method of the cache was replaced")
    windows = {config.window(layer) for layer in range(count)} - {None}
    if any(cache.length >= window for window in windows if window is not None):
        raise _Declined("the sliding window leaves out tokens of the cache")
    if len(cache.keys) != count or len(cache.values) != count or cache.length >= cache.max_length:
        raise _Declined("the cache has no room, or was made for another model")
    shape = (1, config.num_key_value_heads, cache.max_length, config.head_dim)
    dtype = cache.keys[0].dtype
    if dtype not in _EMPTY:
        raise _Declined(f"the cache holds {dtype}")
    return [
        (_memory(keys, "the cache", dtype, shape)[0], _memory(values, "the cache", dtype, shape)[0])
        for keys, values in zip(cache.keys, cache.values, strict=True)
    ]
