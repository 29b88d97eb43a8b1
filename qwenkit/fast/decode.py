"""A decode step: one new token of each text through all layers in compiled kernels, or not at all.

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
    addresses,
    look,
    memory_of,
    methods,
)
from qwenkit.fast.linear import KERNEL_UP_TO, VECTORS
from qwenkit.fast.team import together
from qwenkit.model import KVCache, PageBatch, PagePool, QwenForCausalLM, check_input_ids

# How many texts are decoded one after another, by the dtype of the weights. The modules read each
# weight once for all texts, and take their time between the products. With Qwen2.5-Coder-0.5B on
# two cores that was faster for four texts in bfloat16, and not yet for eight in int8.
TEXTS = {np.float32: 1, np.uint16: 2, np.int8: KERNEL_UP_TO, np.uint8: KERNEL_UP_TO}


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
        cache: all tokens before them, in one buffer or in pages; the new ones are added.
        attention_mask: as of the model's forward; that of the pages, or None.

    Returns:
        (B, 1, V) logits; None, with nothing written, where the kernels may not serve.
    """
    mask = cache.mask if isinstance(cache, PageBatch) else None
    if input_ids.shape[1:] != (1,) or attention_mask is not mask:
        return None
    try:
        found, held = memory_of(model)
        inner, config = model.model, model.model.config
        texts = _cached(config, len(found.layers), cache, found.dtype)
        if not 0 < len(texts) == len(input_ids) <= TEXTS.get(found.weights, 1):
            return None
        check_input_ids(input_ids, config, model.device, cache.length)
        x = inner.embed_tokens(input_ids)  # (B, 1, C)
        rope = inner.rotary_emb(torch.tensor([[one.length] for one in texts]), x.dtype)
        streams = _vectors(x, "the embedding", found.dtype, (len(texts), config.hidden_size))
        cos, sin = (_vectors(t, "RoPE", found.dtype, (len(texts), config.head_dim)) for t in rope)
    except (Declined, *INCOMPLETE):
        return None
    alone = len(texts) == 1 and len(found.layers) > 0
    logits = torch.empty(1, 1, config.vocab_size if alone else 0, dtype=found.logits)
    for cached, stream, c, s in zip(texts, streams, cos, sin, strict=True):
        _through_layers(found, config, cached, stream, c, s, memory(logits)[0])
    del held
    if not alone:  # the head is read once for all texts
        x = torch.from_numpy(streams).to(found.dtype)[:, None]  # (B, 1, C)
        logits = model.head(inner.norm(x))  # (B, 1, V)
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
    cos: NDArray[np.float32],
    sin: NDArray[np.float32],
    logits: NDArray[Any],
) -> None:
    """Let a token's residual stream become that after the last layer; write its logits.

    Args:
        found: the layers.
        config: of the model.
        cached: the token's text.
        x: (C) the residual stream before the first layer.
        cos: (D) of the token's position.
        sin: (D).
        logits: (1, V); or (1, 0), and the head is left out.
    """
    from qwenkit.fast import kernels

    if not len(found.layers):
        return
    own = found.scratch.pop() if found.scratch else kernels.scratch(
        len(found.layers), config.hidden_size, config.num_attention_heads,
        config.num_key_value_heads, config.head_dim, found.neurons, found.groups,
    )  # fmt: skip
    own.x[0] = x
    vectors = np.empty(0, VECTORS[found.dtype])
    kinds, head = (
        kernels.Kinds(np.empty(0, kind), vectors) for kind in (found.weights, found.head)
    )
    job = kernels.Step(kinds, found.layers, *cached, cos, sin, own, found.end, head, logits)
    together(kernels.lead_step, job, own.done)
    x[:] = own.x[-1]
    found.scratch.append(own)  # for the next token, of whichever thread


def _vectors(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, int]) -> NDArray[Any]:
    """Return a copy in float32 of one token's vector of each text, (B, 1, size), as (B, size)."""
    address(tensor, name, dtype, (shape[0], 1, shape[1]))
    return memory(tensor.float().clone()).reshape(shape)


def _cached(config: QwenConfig, layers: int, cache: KVCache, dtype: torch.dtype) -> list[Cached]:
    """Return where each text of a cache lies, if there is room for one more token."""
    kind: Any = type(cache)
    if kind not in (KVCache, PageBatch) or not vars(cache).keys().isdisjoint(methods(kind)):
        raise Declined("the cache is of another kind, or a method of it was replaced")
    length = cache.length
    if type(length) is not int or not 0 < length < cache.max_length:
        raise Declined("the cache is empty, or has no room")
    windows = {config.window(layer) for layer in range(layers)} - {None}
    if any(length >= window for window in windows if window is not None):
        raise Declined("the sliding window leaves out tokens of the cache")
    made_for, own = (
        (one.num_hidden_layers, one.num_key_value_heads, one.head_dim)
        for one in (cache.config, config)
    )
    texts = [([0], length)]
    held: KVCache | PagePool = cache
    shape = (1, own[1], cache.max_length, own[2])
    if isinstance(cache, PageBatch):
        held, texts = cache.pool, _texts(cache)
        shape = (held.num_pages + 1, own[1], held.page_size, own[2])
    if len(texts) != cache.batch_size:
        raise Declined("the cache is for several texts, and not in pages")
    if type(held.keys) is not list or type(held.values) is not list:
        raise Declined("the cache keeps its buffers in something else than a list")
    if made_for != own or not layers == len(held.keys) == len(held.values) == own[0]:
        raise Declined("the cache was made for another model")
    buffers = [*held.keys, *held.values]
    found = addresses(buffers, "the cache", dtype, shape)
    made_in_inference = not torch.is_inference_mode_enabled() and any(
        map(Tensor.is_inference, buffers)
    )
    if made_in_inference:
        raise Declined("the cache was made in inference mode, and may be written only there")
    both = np.array(found, np.int64).reshape(2, -1).T.copy()  # (L, 2)
    return [Cached(both, shape, _numbers(pages, shape, n), n) for pages, n in texts]


def _texts(cache: PageBatch) -> list[tuple[list[int], int]]:
    """Return each text's pages and its tokens in them."""
    lengths = [end - 1 for end in cache.ends]
    if [*cache.counts] != [1] * len(cache.tables) or len(lengths) != len(cache.tables):
        raise Declined("not every text is fed one token")
    if min(lengths) < 1 or max(lengths) != cache.length:
        raise Declined("a text is empty, or the view of its pages was changed")
    return [(table.pages, n) for table, n in zip(cache.tables, lengths, strict=True)]


def _numbers(pages: list[int], shape: tuple[int, int, int, int], length: int) -> NDArray[np.int64]:
    """Return the numbers of a text's pages, which must be there and have room for a token more."""
    numbers = np.array(pages)
    if numbers.dtype.kind != "i" or length >= len(pages) * shape[2]:
        raise Declined("the pages have no numbers, or no room for another token")
    if not 0 <= numbers.min() <= numbers.max() < shape[0]:
        raise Declined("a page of the text is not in the pool")
    return numbers.astype(np.int64)
