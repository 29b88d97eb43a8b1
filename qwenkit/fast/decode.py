"""A decode step: one new token through all layers in compiled kernels, or not at all.

`QwenForCausalLM.forward` is the reference. The step stands in for it only if the model is what
`fast.layers` expects. Every weight is read where the live modules hold it at that token.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.fast._machine import memory
from qwenkit.fast.layers import (
    INCOMPLETE,
    Declined,
    Memory,
    address,
    look,
    memory_of,
    methods,
)
from qwenkit.fast.linear import VECTORS
from qwenkit.fast.team import together
from qwenkit.model import KVCache, PageBatch, PagePool, QwenForCausalLM, check_input_ids


class Cached(NamedTuple):
    """Where the kernels read and write the keys and values of a text.

    Attributes:
        addresses: (L, 2) of each layer's keys and values.
        shape: (pages, KV, S, D) of each of them; a `KVCache` is one page.
        pages: (P) of the text, in order.
        length: its tokens.
    """

    addresses: NDArray[np.int64]
    shape: tuple[int, int, int, int]
    pages: NDArray[np.int64]
    length: int


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
        cache: all tokens before them, in one buffer or in pages; the new one is added.
        attention_mask: as of the model's forward.

    Returns:
        (1, 1, V) logits; None, with nothing written, where the kernels may not serve.
    """
    if input_ids.shape != (1, 1) or attention_mask is not None:
        return None
    try:
        found, held = memory_of(model)
        inner, config = model.model, model.model.config
        cached = _cached(config, len(found.layers), cache, found.dtype)
        check_input_ids(input_ids, config, model.device, cache.length)
        x = inner.embed_tokens(input_ids)  # (1, 1, C)
        rope = inner.rotary_emb(torch.tensor([[cache.length]]), x.dtype)  # 2 × (1, 1, D)
        stream = _vector(x, "the embedding", found.dtype, config.hidden_size)  # (C)
        cos, sin = (_vector(table, "RoPE", found.dtype, config.head_dim) for table in rope)  # (D)
    except (Declined, *INCOMPLETE):
        return None
    stream = _through_layers(found, config, cached, stream, (cos, sin))  # (C)
    del held
    x = torch.from_numpy(stream).to(found.dtype).view(1, 1, -1)  # (1, 1, C)
    logits = model.head(inner.norm(x))  # (1, 1, V)
    cache.advance(1)
    return logits


def why_not(model: QwenForCausalLM) -> str | None:
    """Say why a decode step may not serve this model as it is now; None: it may."""
    try:
        look(model)
    except (Declined, *INCOMPLETE) as reason:
        return str(reason)
    return None


def _through_layers(
    found: Memory,
    config: QwenConfig,
    cached: Cached,
    x: NDArray[np.float32],
    rope: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the residual stream after the last layer.

    Args:
        found: the layers.
        config: of the model.
        cached: the cache.
        x: (C) the residual stream before the first layer.
        rope: cos and sin (D) of the new token's position.
    """
    from qwenkit.fast import kernels

    if not len(found.layers):
        return x
    own = found.scratch.pop() if found.scratch else kernels.scratch(
        len(found.layers), config.hidden_size, config.num_attention_heads,
        config.num_key_value_heads, config.head_dim, found.neurons, found.groups,
    )  # fmt: skip
    own.x[0] = x
    kinds = kernels.Kinds(np.empty(0, found.weights), np.empty(0, VECTORS[found.dtype]))
    job = kernels.Step(kinds, found.layers, *cached, *rope, own)
    together(kernels.lead_step, job, own.done)
    x[:] = own.x[-1]
    found.scratch.append(own)  # for the next token, of whichever thread
    return x


def _vector(tensor: Tensor, name: str, dtype: torch.dtype, size: int) -> NDArray[Any]:
    """Return a copy in float32 of one token's vector, (1, 1, size)."""
    address(tensor, name, dtype, (1, 1, size))
    return memory(tensor.float().clone()).reshape(-1)


def _cached(config: QwenConfig, layers: int, cache: KVCache, dtype: torch.dtype) -> Cached:
    """Return where a cache lies, if it has room for one more token of one text."""
    kind: Any = type(cache)
    if kind not in (KVCache, PageBatch) or not vars(cache).keys().isdisjoint(methods(kind)):
        raise Declined("a method of the cache was replaced")
    length = cache.length
    if type(length) is not int or not 0 < length < cache.max_length or cache.batch_size != 1:
        raise Declined("the cache is empty, has no room, or is for several texts")
    windows = {config.window(layer) for layer in range(layers)} - {None}
    if any(length >= window for window in windows if window is not None):
        raise Declined("the sliding window leaves out tokens of the cache")
    made_for, own = (
        (one.num_hidden_layers, one.num_key_value_heads, one.head_dim)
        for one in (cache.config, config)
    )
    held: KVCache | PagePool = cache
    pages, shape = [0], (1, own[1], cache.max_length, own[2])
    if isinstance(cache, PageBatch):
        if ([*cache.counts], cache.ends) != ([1], [length + 1]):
            raise Declined("the view of the pages was changed")
        held, pages = cache.pool, cache.tables[0].pages
        shape = (held.num_pages + 1, own[1], held.page_size, own[2])
    if type(held.keys) is not list or type(held.values) is not list:
        raise Declined("the cache keeps its buffers in something else than a list")
    if made_for != own or not layers == len(held.keys) == len(held.values) == own[0]:
        raise Declined("the cache was made for another model")
    both = zip(held.keys, held.values, strict=True)
    addresses = np.array([[_buffer(one, dtype, shape) for one in pair] for pair in both], np.int64)
    return Cached(addresses, shape, _numbers(pages, shape, length), length)


def _numbers(pages: list[int], shape: tuple[int, int, int, int], length: int) -> NDArray[np.int64]:
    """Return the numbers of a text's pages, which must be there and have room for a token more."""
    numbers = np.array(pages)
    if numbers.dtype.kind != "i" or length >= len(pages) * shape[2]:
        raise Declined("the pages have no numbers, or no room for another token")
    if not 0 <= numbers.min() <= numbers.max() < shape[0]:
        raise Declined("a page of the text is not in the pool")
    return numbers.astype(np.int64)


def _buffer(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    found = address(tensor, "the cache", dtype, shape)
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise Declined("the cache was made in inference mode, and may be written only there")
    return found
