"""A decode step: new tokens of some texts through all layers in compiled kernels, or not at all.

It is one token of each text, or of texts in pages a few: short prompts, and ends of long ones.

`QwenForCausalLM.forward` is the reference. The step stands in for it only if the model is what
`fast.layers` expects. Every weight is read where the live modules hold it at that token.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.fast._machine import is_measured, is_ordinary, memory
from qwenkit.fast.closed_loop import ClosedLoop
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
from qwenkit.fast.linear import VECTORS
from qwenkit.fast.team import together
from qwenkit.model import (
    KVCache,
    PageBatch,
    PagePool,
    QwenForCausalLM,
    check_input_ids,
    real_tokens,
)

MOST = 1 << 28  # bytes that a step may work in; with many texts and a large model it would be more
READ = 128  # tokens of prompts, as many as a `Scheduler` reads at a time; more were not measured
KEPT = 4  # sizes of which the memory to work in is kept


class Cached(NamedTuple):
    """Where the kernels read and write the keys and values of N new tokens, each that of a text.

    Attributes:
        addresses: (L, 2) of each layer's keys and values.
        shape: (pages, KV, S, D) of each of them; each row of a `KVCache` is a page.
        pages: (N, P) of each text, in order.
        starts: (N) the slot of each text's first token; before it is padding.
        lengths: (N) the slots before its new token.
    """

    addresses: NDArray[np.int64]
    shape: tuple[int, int, int, int]
    pages: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def decode_step(
    model: QwenForCausalLM,
    input_ids: Tensor,
    cache: KVCache,
    attention_mask: Tensor | None = None,
    loop: ClosedLoop | None = None,
) -> Tensor | None:
    """Return what `model(input_ids, cache=cache, logits_to_keep=1)` returns, by the kernels.

    Args:
        model: a language model.
        input_ids: the new tokens.
        cache: all tokens before them, in one buffer or in pages; the new ones are added.
        attention_mask: as of the model's forward.
        loop: that of the caller, if no code but ours runs in it.

    Returns:
        (B, 1, V) logits; None, with nothing written, where the kernels may not serve.
    """
    count = input_ids.shape[1:].numel()
    if count != 1 and not isinstance(cache, PageBatch):
        return None
    try:
        held = _holder(cache)
        look = _look if loop is None else partial(loop.ask, _look)
        found, storages, buffers = look(model, held)
        inner, config = model.model, model.model.config
        texts = _cached(config, len(found.layers), cache, held, attention_mask, buffers, count)
        number, batch = len(texts.lengths), cache.batch_size
        if len(input_ids) != batch or not _is_served(found, config, number, count > 1):
            return None
        if not _are_ids(input_ids, config, cache.length + count):
            check_input_ids(input_ids, config, model.device, cache.length)
        if type(cache) is KVCache and attention_mask is not None:
            texts = texts._replace(starts=_padding(attention_mask, input_ids, cache.length))
        x = inner.embed_tokens(input_ids)  # (B, T, C)
        rows = _vectors(x, "the embedding", found.dtype, (batch, count, config.hidden_size))
        counts = cache.counts if isinstance(cache, PageBatch) else [1] * batch
        new = np.arange(count) >= count - np.array(counts)[:, None]  # (B, T) others are padding
        turn = partial(_rotations, model, found.dtype)
        positions = texts.lengths - texts.starts  # (N)
        if loop is None or count > 1:  # prompts do not go on token by token
            cos, sin = turn(positions)  # (N, D)
        else:
            cos, sin = loop.ahead(turn, positions)
    except (Declined, *INCOMPLETE):
        return None
    logits = torch.empty(batch, 1, config.vocab_size, dtype=found.logits)
    asked = np.cumsum(counts) - 1  # (B) each text's last token
    _through_layers(found, config, texts, rows[new], cos, sin, asked, memory(logits)[:, 0])
    del storages
    cache.advance(count)
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
    texts: Cached,
    x: NDArray[np.float32],
    cos: NDArray[np.float32],
    sin: NDArray[np.float32],
    asked: NDArray[np.int64],
    logits: NDArray[Any],
) -> None:
    """Write the keys and values of new tokens, and the logits of some.

    Args:
        found: the layers.
        config: of the model.
        texts: N of them.
        x: (N, C) the residual streams before the first layer.
        cos: (N, D) of each token's position.
        sin: (N, D).
        asked: (M) of which tokens.
        logits: (M, V).
    """
    from qwenkit.fast import kernels

    room = kernels.room_for(len(x))
    kept = found.scratch.pop(room, None)  # taken by one thread
    own = kept or kernels.scratch(
        room, len(found.layers), config.hidden_size, config.num_attention_heads,
        config.num_key_value_heads, config.head_dim, found.neurons, found.groups,
    )  # fmt: skip
    own.x[: len(x)] = x
    vectors = VECTORS[found.dtype]
    kinds = kernels.kinds_of(found.weights or found.head, vectors, vectors)
    head = kernels.kinds_of(found.head, vectors, VECTORS[found.logits])
    job = kernels.Step(kinds, found.layers, *texts, cos, sin, own, found.end, head, asked, logits)
    together(kernels.lead_step, job, own.done)
    for other in list(found.scratch)[: 1 - KEPT]:  # those that were not used for longest
        found.scratch.pop(other, None)
    found.scratch[room] = own  # for the next token, of whichever thread


def _is_served(found: Memory, config: QwenConfig, texts: int, reads: bool) -> bool:
    """Tell whether a step may be for so many new tokens, which may be read from prompts."""
    from qwenkit.fast.kernels import FEW

    values = texts * len(found.layers) * (8 * config.hidden_size + 4 * found.neurons)  # about
    # The race of other processors is of one token: tiles may lose to what they have for matrices.
    return 4 * values <= MOST and (texts <= FEW or is_measured()) and not (reads and texts > READ)


def _vectors(
    tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return a copy of a tensor in float32."""
    address(tensor, name, dtype, shape)
    return memory(tensor.float().clone())


def _are_ids(input_ids: Tensor, config: QwenConfig, total: int) -> bool:
    """Tell whether `check_input_ids` has nothing to say; in a tenth of its time.

    Args:
        input_ids: what was given.
        config: of the model.
        total: tokens with those in the cache.
    """
    ids = _integers(input_ids)
    if ids is None or total > config.max_position_embeddings:
        return False
    return bool(ids.min() >= 0 and ids.max() < config.vocab_size)


def _integers(tensor: Any) -> NDArray[np.int64] | None:
    """Return the memory of an int64 tensor on the CPU as an array; None: it is something else."""
    ours = isinstance(tensor, Tensor) and is_ordinary(tensor) and tensor.dtype == torch.int64
    return memory(tensor) if ours else None


def _rotations(
    model: QwenForCausalLM, dtype: torch.dtype, positions: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin of each position, with a dimension more: (..., D).

    Each is computed once: torch shares more than 2,048 of them among threads, which then spin.
    """
    different, places = np.unique(positions, return_inverse=True)
    found = model.model.rotary_emb(torch.from_numpy(different)[None], dtype)
    shape, places = (1, len(different), model.config.head_dim), places.reshape(positions.shape)
    cos, sin = (_vectors(t, "RoPE", dtype, shape)[0, places] for t in found)
    return cos, sin


def _look(
    model: QwenForCausalLM, held: KVCache | PagePool
) -> tuple[Memory, list[Any], NDArray[np.int64]]:
    """Return what `memory_of` does, and (L, 2) addresses of the keys and values that are held."""
    found, storages = memory_of(model)
    config = model.model.config
    made_for, own = (
        (one.num_hidden_layers, one.num_key_value_heads, one.head_dim)
        for one in (held.config, config)
    )
    if type(held.keys) is not list or type(held.values) is not list:
        raise Declined("the cache keeps its buffers in something else than a list")
    layers = len(found.layers)
    if made_for != own or not layers == len(held.keys) == len(held.values) == own[0]:
        raise Declined("the cache was made for another model")
    buffers = [*held.keys, *held.values]
    places = addresses(buffers, "the cache", found.dtype, _shape(held, config))
    made_in_inference = not torch.is_inference_mode_enabled() and any(
        map(Tensor.is_inference, buffers)
    )
    if made_in_inference:
        raise Declined("the cache was made in inference mode, and may be written only there")
    return found, storages, np.array(places, np.int64).reshape(2, -1).T.copy()


def _holder(cache: KVCache) -> KVCache | PagePool:
    """Return what holds the keys and values of a cache."""
    kind: Any = type(cache)
    if kind not in (KVCache, PageBatch) or not vars(cache).keys().isdisjoint(methods(kind)):
        raise Declined("the cache is of another kind, or a method of it was replaced")
    return cache.pool if isinstance(cache, PageBatch) else cache


def _shape(held: KVCache | PagePool, config: QwenConfig) -> tuple[int, int, int, int]:
    """Return (pages, KV, S, D) of a layer's keys; each row of a `KVCache` is a page."""
    if isinstance(held, PagePool):
        pages, size = held.num_pages + 1, held.page_size
    else:
        pages, size = held.batch_size, held.max_length
    return pages, config.num_key_value_heads, size, config.head_dim


def _cached(
    config: QwenConfig,
    layers: int,
    cache: KVCache,
    held: KVCache | PagePool,
    attention_mask: Tensor | None,
    buffers: NDArray[np.int64],
    count: int,
) -> Cached:
    """Return where the texts of a cache lie, if there is room for the new tokens of each."""
    length, least = cache.length, 0 if isinstance(cache, PageBatch) else 1
    if type(length) is not int or not least <= length <= cache.max_length - count:
        raise Declined("the cache is empty, or has no room")
    windows = {config.window(layer) for layer in range(layers)} - {None}
    if any(length + count > window for window in windows if window is not None):
        raise Declined("the sliding window leaves out tokens of the cache")
    shape = _shape(held, config)
    if isinstance(cache, PageBatch):
        pages, lengths = _texts(cache, shape, attention_mask, count)
    else:
        pages = np.arange(cache.batch_size)[:, None]
        lengths = np.full(cache.batch_size, length)
    return Cached(buffers, shape, pages, np.zeros_like(lengths), lengths)


def _padding(attention_mask: Tensor, input_ids: Tensor, past: int) -> NDArray[np.int64]:
    """Return how many tokens on the left of each text are padding, (N)."""
    shape = len(input_ids), past + 1
    given = _integers(attention_mask)
    real = None if given is None or given.shape != shape else given != 0  # (N, S)
    if real is None or (real != given).any():
        found = real_tokens(attention_mask, input_ids, past)
        real = np.ones(shape, np.bool_) if found is None else found.numpy()
    padding = ~real
    counts: NDArray[np.int64] = padding.sum(1)
    on_the_left = np.arange(padding.shape[1]) < counts[:, None]
    if (padding != on_the_left).any() or counts.max() == padding.shape[1]:
        raise Declined("the attention mask hides other tokens than padding on the left")
    return counts


def _texts(
    cache: PageBatch, shape: tuple[int, int, int, int], mask: Tensor | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pages of each new token's text, with room for it, and the tokens before it."""
    ends, counts = np.array(cache.ends), np.array(cache.counts)
    if mask is not cache.mask:
        raise Declined("the attention mask is not that of the pages")
    if not len(ends) == len(counts) == len(cache.tables) == cache.batch_size:
        raise Declined("the view of the pages was changed")
    if (ends.dtype.kind, counts.dtype.kind) != ("i", "i") or counts.min() < 1:
        raise Declined("a text is fed no token, or the view of its pages was changed")
    if counts.max() != count or (ends < counts).any() or ends.max() != cache.length + count:
        raise Declined("a text has fewer tokens than it is fed, or the view was changed")
    most = max(len(table.pages) for table in cache.tables)
    pages = np.zeros((len(ends), most), np.int64)
    for row, table, end in zip(pages, cache.tables, ends, strict=True):
        numbers = np.array(table.pages)
        if numbers.dtype.kind != "i" or end > len(numbers) * shape[2]:
            raise Declined("the pages have no numbers, or no room for another token")
        if not 0 <= numbers.min() <= numbers.max() < shape[0]:
            raise Declined("a page of the text is not in the pool")
        row[: len(numbers)] = numbers
    places = np.repeat(np.arange(len(ends)), counts)  # (N) of each new token's text
    firsts = np.cumsum(counts) - counts  # (B) of each text's new tokens
    return pages[places], (ends - counts)[places] + np.arange(len(places)) - firsts[places]
