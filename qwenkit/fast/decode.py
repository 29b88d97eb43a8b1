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

from qwenkit.config import QwenConfig
from qwenkit.fast._machine import (
    is_ordinary,
    kernels_problem,
    memory,
    plain_process,
    use_all_cores,
    watched,
)
from qwenkit.fast.identity import changed_code
from qwenkit.fast.int4 import FastInt4Linear, Int4Embedding
from qwenkit.fast.int8 import FastInt8Embedding, FastInt8Linear, by_group
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


# What a model that lacks a part, or holds something else in its place, raises: it is not as built.
_INCOMPLETE = (AttributeError, TypeError, OverflowError)


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
    if input_ids.shape != (1, 1) or attention_mask is not None:
        return None
    try:
        layers, dtype = _layers(model)
        inner, config = model.model, model.model.config
        buffers = _buffers(config, len(layers), cache, dtype)
        check_input_ids(input_ids, config, model.device, cache.length)
        x = inner.embed_tokens(input_ids)  # (1, 1, C)
        rope = inner.rotary_emb(torch.tensor([[cache.length]]), x.dtype)  # 2 × (1, 1, D)
        stream = _vector(x, "the embedding", dtype, config.hidden_size)  # (C)
        cos, sin = (_vector(table, "RoPE", dtype, config.head_dim) for table in rope)  # (D)
    except (_Declined, *_INCOMPLETE):
        return None
    from qwenkit.fast.kernels import decoder_layer

    use_all_cores()
    for (layer, eps), (keys, values) in zip(layers, buffers, strict=True):
        decoder_layer(stream, layer, keys, values, cache.length, cos, sin, eps)
    x = torch.from_numpy(stream).to(dtype).view(1, 1, -1)  # (1, 1, C)
    logits = model.head(inner.norm(x))  # (1, 1, V)
    cache.advance(1)
    return logits


def why_not(model: QwenForCausalLM) -> str | None:
    """Say why a decode step may not serve this model as it is now; None: it may."""
    try:
        _layers(model)
    except (_Declined, *_INCOMPLETE) as reason:
        return str(reason)
    return None


def _layers(model: QwenForCausalLM) -> tuple[list[tuple[Any, tuple[float, float]]], torch.dtype]:
    """Return each layer's memory with the eps of its two norms, and the dtype they compute in.

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
    _part(inner, "embed_tokens", nn.Embedding, FastInt8Embedding, Int4Embedding)
    _part(inner, "norm", RMSNorm)
    _part(inner, "rotary_emb", RotaryEmbedding)
    if model.lm_head is not None:
        _part(model, "lm_head", FastLinear, FastInt8Linear, FastInt4Linear)
    dtype = model.dtype
    if dtype not in _EMPTY:
        raise _Declined(f"the norms hold {dtype}, which the kernels do not expect there")
    found = [
        _layer(layer, index, inner.config, dtype)
        for index, layer in enumerate(_part(inner, "layers", nn.ModuleList))
    ]
    stored = {tuple(part.weight.dtype for part in layer[1:5] + layer[6:]) for layer, _ in found}
    if len(stored) > 1:  # each mixture would be compiled separately
        raise _Declined("the layers are stored in different dtypes")
    return found, dtype


def _layer(
    layer: Any, index: int, config: QwenConfig, dtype: torch.dtype
) -> tuple[Any, tuple[float, float]]:
    """Return a layer's memory and the eps of its norms."""
    from qwenkit.fast.kernels import Int4Projection, Layer

    where = f"layers.{index}"
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
    if attention.layer != index or own != (heads, kv_heads) or heads % kv_heads:
        raise _Declined(f"{where}.self_attn was made for another layer or config")
    if not all(isinstance(norm.eps, float | int) for norm in norms):
        raise _Declined(f"the eps of a norm of {where} is not a number")

    def part(parent: nn.Module, name: str, *shape: int | None) -> Any:
        return _projection(parent, name, shape, dtype, where)

    hidden, dim = config.hidden_size, config.head_dim
    down = part(mlp, "down_proj", hidden, None)
    neurons = down.weight.shape[1] * (2 if isinstance(down, Int4Projection) else 1)
    first, second = (_memory(norm.weight, where, dtype, (hidden,)) for norm in norms)
    memory_of_layer = Layer(
        first,
        part(attention, "q_proj", heads * dim, hidden),
        part(attention, "k_proj", kv_heads * dim, hidden),
        part(attention, "v_proj", kv_heads * dim, hidden),
        part(attention, "o_proj", hidden, heads * dim),
        second,
        part(mlp, "gate_proj", neurons, hidden),
        part(mlp, "up_proj", neurons, hidden),
        down,
    )
    return memory_of_layer, (float(norms[0].eps), float(norms[1].eps))


def _observed() -> str | None:
    """Say who sees or records every call of a module or of torch at present."""
    if torch_modules._has_any_global_hook():  # type: ignore[no-untyped-call]
        return "a global hook of torch is registered"
    return watched() or ("gradients are enabled" if torch.is_grad_enabled() else None)


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
    parent: nn.Module, name: str, shape: tuple[int | None, ...], dtype: torch.dtype, where: str
) -> Any:
    """Return a projection's memory; `dtype` is that of its scale and bias."""
    from qwenkit.fast.kernels import Int4Projection, Int8Projection, Projection

    part = _part(parent, name, FastLinear, FastInt8Linear, FastInt4Linear, of=where)
    full, outputs = f"{where}.{name}", shape[:1]
    bias = _EMPTY[dtype] if part.bias is None else _memory(part.bias, full, dtype, outputs)
    if type(part) is FastInt4Linear:
        packed_shape = (shape[0], None if shape[1] is None else shape[1] // 2)
        packed = _memory(part.weight, full, torch.uint8, packed_shape)
        scale = _memory(part.weight_scale, full, dtype, (shape[0], None))
        zero = _memory(part.weight_zero, full, torch.uint8, scale.shape)
        if scale.shape[1] == 0 or packed.shape[1] % scale.shape[1]:
            raise _Declined(f"the scales of {full} do not fit its weight")
        return Int4Projection(packed, scale, zero, bias)
    if type(part) is FastInt8Linear:
        small = _memory(part.weight, full, torch.int8, shape)
        scale = _memory(by_group(part.weight_scale), full, dtype, (shape[0], None))
        if scale.shape[1] == 0 or small.shape[1] % scale.shape[1]:
            raise _Declined(f"the scales of {full} do not fit its weight")
        return Int8Projection(small, scale, bias)
    return Projection(_memory(part.weight, full, dtype, shape), bias)


def _memory(
    tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Return a tensor's memory, if it is what the kernels expect; None in a shape: any size."""
    if not is_ordinary(tensor):
        raise _Declined(f"a tensor of {name} is not an ordinary tensor on the CPU")
    fits = tensor.dim() == len(shape) and all(
        want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
    )
    if not fits or not tensor.is_contiguous():
        raise _Declined(f"a tensor of {name} has another shape or layout")
    if tensor.dtype != dtype:
        raise _Declined(f"{name} holds {tensor.dtype}, which the kernels do not expect there")
    return memory(tensor)


def _vector(tensor: Tensor, name: str, dtype: torch.dtype, size: int) -> NDArray[Any]:
    """Return a copy in float32 of one token's vector, (1, 1, size)."""
    _memory(tensor, name, dtype, (1, 1, size))
    return memory(tensor.float().clone()).reshape(-1)


def _buffers(
    config: QwenConfig, layers: int, cache: KVCache, dtype: torch.dtype
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return each layer's keys and values in the cache, (KV, S, D)."""
    if type(cache) is not KVCache or not vars(cache).keys().isdisjoint(_methods(KVCache)):
        raise _Declined("a method of the cache was replaced")
    length = cache.length
    if type(length) is not int or not 0 < length < cache.max_length or cache.batch_size != 1:
        raise _Declined("the cache is empty, has no room, or is for several texts")
    windows = {config.window(layer) for layer in range(layers)} - {None}
    if any(length >= window for window in windows if window is not None):
        raise _Declined("the sliding window leaves out tokens of the cache")
    made_for, own = (
        (one.num_hidden_layers, one.num_key_value_heads, one.head_dim)
        for one in (cache.config, config)
    )
    if type(cache.keys) is not list or type(cache.values) is not list:
        raise _Declined("the cache keeps its buffers in something else than a list")
    if made_for != own or not layers == len(cache.keys) == len(cache.values) == own[0]:
        raise _Declined("the cache was made for another model")
    shape = (1, own[1], cache.max_length, own[2])
    both = zip(cache.keys, cache.values, strict=True)
    return [(_buffer(keys, dtype, shape), _buffer(values, dtype, shape)) for keys, values in both]


def _buffer(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    found = _memory(tensor, "the cache", dtype, shape)
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise _Declined("the cache was made in inference mode, and may be written only there")
    return found[0]  # type: ignore[no-any-return]
