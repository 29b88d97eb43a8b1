"""One new token through all decoder layers, where nobody looks inside: by compiled loops.

`DecoderLayer.forward` is the reference. `layer_loops` computes the same without a tensor library;
here is decided when it may, and its numbers are gathered.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from qwenkit.model.attention import Attention
from qwenkit.model.cache import KVCache
from qwenkit.model.decoder import DecoderLayer
from qwenkit.model.mlp import MLP
from qwenkit.model.norm import RMSNorm
from qwenkit.model.reading import reading

OWN = (DecoderLayer, Attention, MLP, RMSNorm)
CACHED = (torch.float32, torch.bfloat16)


def through_layers(
    layers: Iterable[nn.Module],
    x: Float[Tensor, "1 1 C"],
    rope: tuple[Float[Tensor, "1 1 D"], Float[Tensor, "1 1 D"]],
    cache: KVCache,
) -> Float[Tensor, "1 1 C"] | None:
    """Return the residual stream after all layers, and write each layer's key and value.

    None, and nothing written, where the loops may not serve: a layer is not as this package builds
    it (a hook, LoRA, somebody's own module), is trained, or was not prepared for the loops; a cache
    without memory yet.

    Args:
        layers: the decoder layers.
        x: the embedded token.
        rope: cos and sin of its position.
        cache: all tokens before it.
    """
    if not cache.keys or torch.is_autocast_enabled("cpu"):
        return None
    if not x.is_cpu or (torch.is_grad_enabled() and x.requires_grad):
        return None
    gathered = []
    for layer in layers:
        found = _gather(layer, cache)
        if found is None:
            return None
        gathered.append(found)
    if len(gathered) != len(cache.keys):
        return None
    if len({kinds for kinds, *_ in gathered}) > 1:
        return None  # for each new mixture of dtypes the loops would be compiled anew
    from qwenkit.model.few_rows import cores
    from qwenkit.model.layer_loops import compiled_layer

    cos, sin = (table.float().reshape(-1).numpy() for table in rope)  # (D)
    stream = x.detach().float().reshape(-1).numpy().copy()  # (C)
    with cores(torch.get_num_threads()):
        for (_, eps, numbers), keys, values in zip(gathered, cache.keys, cache.values, strict=True):
            stored = _plain(keys[0]), _plain(values[0])  # (KV, S, D)
            compiled_layer(stream, numbers, *stored, cache.length, cos, sin, eps)
    return torch.from_numpy(stream).to(x.dtype).view(1, 1, -1)  # (1, 1, C)


def _gather(layer: Any, cache: KVCache) -> tuple[Any, float, Any] | None:
    """Return a layer's dtypes, eps and numbers; None where the loops may not serve.

    The norms are asked first: where they were not prepared, as in a small model, nothing else is
    looked at, and numba is not loaded.
    """
    if type(layer) is not DecoderLayer:
        return None
    attention, mlp = layer.self_attn, layer.mlp
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    parts = (layer, attention, mlp, first, second)
    if any(type(part) not in OWN or _hooked(part) for part in parts) or first.eps != second.eps:
        return None
    slot, config = cache.keys[0], attention.config
    room = slot.shape[1], slot.shape[3], slot.dtype  # not so where it is another model's cache
    if room[:2] != (config.num_key_value_heads, config.head_dim) or room[2] not in CACHED:
        return None
    norms = [_read(norm.weight) for norm in (first, second)]
    if norms[0] is None or norms[1] is None or norms[0].dtype != norms[1].dtype:
        return None
    from qwenkit.model.layer_loops import Layer

    small = norms[0].dtype
    products = [_product(getattr(attention, f"{name}_proj"), small) for name in "qkvo"]
    products += [_product(getattr(mlp, f"{name}_proj"), small) for name in ("gate", "up", "down")]
    if None in products:
        return None
    numbers: Any = Layer(norms[0], *products[:4], norms[1], *products[4:])  # type: ignore[call-arg]
    return (small, *(part.weight.dtype for part in products)), first.eps, numbers


def _product(part: Any, small: Any) -> Any:
    """Return a projection's numbers; `small` is the dtype that scales and biases must have."""
    from qwenkit.model.layer_loops import Product

    if not getattr(part, "is_plain", False) or _hooked(part):
        return None
    weight = _read(part.weight)
    beside: list[Any] = [
        np.empty(0, small) if tensor is None else _read(tensor)
        for tensor in (getattr(part, "weight_scale", None), part.bias)
    ]
    if weight is None or any(each is None or each.dtype != small for each in beside):
        return None
    return Product(weight, *beside)


def _read(tensor: Tensor) -> NDArray[Any] | None:
    trained = torch.is_grad_enabled() and tensor.requires_grad
    return None if trained else reading(tensor)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _plain(buffer: Tensor) -> NDArray[Any]:
    """Return a view of the cache's memory: float32, or bfloat16 as uint16."""
    return np.asarray(buffer.view(torch.uint16) if buffer.dtype == torch.bfloat16 else buffer)
