"""A decode step: new tokens of some texts through all layers in compiled kernels, or not at all.

It is one token of each text, or a few: short prompts in pages or of a batch, and ends of long ones.
For a greedy loop it is several tokens, one after the other (`closed_loop.py`).

`QwenForCausalLM.forward` is the reference. The step stands in for it only if the model is what
`fast.layers` expects. Every weight is read where the live modules hold it at that token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
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
from qwenkit.fast.team import each_alone, together
from qwenkit.model import (
    KVCache,
    PageBatch,
    PagePool,
    QwenForCausalLM,
    check_input_ids,
    real_tokens,
)

MOST = 1 << 28  # bytes that a step may work in; with many texts and a large model it would be more
READ = 160  # tokens where prompts are read, as many as a `Scheduler` feeds; more were not measured
KEPT_LOGITS = 1 << 24  # bytes of logits that are computed at once
CACHED = 1 << 25  # bytes of weights, which each thread reads from the cache
KEPT = 4  # of what steps have worked in, for the next


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


class Fed(NamedTuple):
    """New tokens of N texts, and what the kernels choose after them in up to K steps.

    Attributes:
        texts: the texts.
        x: (N, C) the residual streams before the first layer.
        cos: (N, K, D) of each token's position, and of those that may follow.
        sin: (N, K, D).
        asked: (M) of which tokens logits are asked for.
        tokens: (K, N) what follows each step; empty: K is 1, and nothing is chosen.
    """

    texts: Cached
    x: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    asked: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def part(self, first: int, size: int) -> Fed:
        """Return the same for some texts, of each of which one token is new."""
        own, texts, tokens = slice(first, first + size), self.texts, self.tokens
        return Fed(
            texts._replace(
                pages=texts.pages[own], starts=texts.starts[own], lengths=texts.lengths[own]
            ),
            self.x[own], self.cos[own], self.sin[own], np.arange(size),
            np.empty((len(tokens), size), np.int64),
        )  # fmt: skip


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
        (B, 1, V) logits; None, with nothing written but empty buffers, where the kernels may not
        serve.
    """
    count = input_ids.shape[1:].numel()
    of_batch = loop is not None and len(input_ids) > 1
    if count != 1 and not isinstance(cache, PageBatch) and not of_batch:
        return None
    try:
        held = _holder(cache)
        if loop is not None and (known := _known(loop, model, cache, input_ids, attention_mask)):
            cache.advance(count)
            return known[0]()
        look = _look if loop is None else partial(loop.ask, _look)
        found, storages, buffers = look(model, held)
        inner, config = model.model, model.model.config
        texts = _cached(config, len(found.layers), cache, held, attention_mask, buffers, count)
        number, batch = len(texts.lengths), cache.batch_size
        if len(input_ids) != batch or not _is_served(found, config, number, count > 1):
            return None
        if not _are_ids(input_ids, config, cache.length + count):
            check_input_ids(input_ids, config, model.device, cache.length)
        counts = cache.counts if isinstance(cache, PageBatch) else [count] * batch
        if type(cache) is KVCache and attention_mask is not None:
            padding = _padding(attention_mask, input_ids, cache.length)
            texts, counts = _without(texts, padding, cache.length, count)
            number = len(texts.lengths)
        x = inner.embed_tokens(input_ids)  # (B, T, C)
        rows = _vectors(x, "the embedding", found.dtype, (batch, count, config.hidden_size))
        new = np.arange(count) >= count - np.array(counts)[:, None]  # (B, T) others are padding
        turn = partial(_rotations, model, found.dtype)
        positions = texts.lengths - texts.starts  # (N)
        most = 1 if loop is None else _most(loop, found, config, cache, held, number)
        if loop is None or count > 1:  # prompts do not go on token by token
            cos, sin = turn(positions[:, None])  # (N, 1, D)
        else:
            ahead = loop.ahead(turn, positions)
            cos, sin = (np.ascontiguousarray(one[:, :most]) for one in ahead)  # (N, K, D)
        most = cos.shape[1]
    except (Declined, *INCOMPLETE):
        return None
    tokens = np.empty((most if most > 1 else 0, number), np.int64)
    asked = np.cumsum(counts) - 1  # (B) each text's last token
    steps, logits = _through_layers(
        found, config, Fed(texts, rows[new], cos, sin, asked, tokens), loop
    )
    del storages
    if loop is not None and steps > 1:
        loop.keep(logits, tokens[:steps], cache.length)
    cache.advance(count)
    return logits(0)


def chosen_ahead(
    model: QwenForCausalLM,
    input_ids: Tensor,
    cache: KVCache,
    attention_mask: Tensor | None,
    loop: ClosedLoop,
) -> list[list[int]]:
    """Return some tokens of each text that follow these, if the kernels were there already.

    Each is that of the largest logit, and fed next. The cache holds what was fed; the caller counts
    it, by `advance`. Where not all logits are finite, the tokens end.

    Arguments are those of `decode_step`.
    """
    known = _known(loop, model, cache, input_ids, attention_mask)
    return [] if known is None else known[1]()


def _known(
    loop: ClosedLoop, model: QwenForCausalLM, cache: KVCache, ids: Tensor, mask: Tensor | None
) -> tuple[Callable[[], Tensor], Callable[[], list[list[int]]]] | None:
    """Return what `ClosedLoop.computed` does after these tokens."""
    fed, given = _integers(ids), None if mask is None else _integers(mask)
    if type(cache) is not KVCache or fed is None or fed.shape != (cache.batch_size, 1):
        return None
    if mask is not None and (given is None or not given[:, -1].all()):
        return None
    return loop.computed(fed, cache.length, _look, model, cache)


def _most(
    loop: ClosedLoop, found: Memory, config: QwenConfig, cache: KVCache, held: Any, texts: int
) -> int:
    """Return how many tokens of each text may be computed at once, if each one is as guessed."""
    if held is not cache or found.table is None:  # pages have room for one only
        return 1
    longest = min(cache.max_length, config.max_position_embeddings)
    longest = min([longest, *_windows(config, len(found.layers))])
    size: int = texts * config.vocab_size * found.logits.itemsize
    most: int = min(loop.most(cache.length), longest - cache.length, KEPT_LOGITS // size)
    return max(1, most)


def why_not(model: QwenForCausalLM) -> str | None:
    """Say why a decode step may not serve this model as it is now; None: it may."""
    try:
        look(model)
    except (Declined, *INCOMPLETE) as reason:
        return str(reason)
    return None


def _through_layers(
    found: Memory, config: QwenConfig, fed: Fed, loop: ClosedLoop | None
) -> tuple[int, Callable[[int], Tensor]]:
    """Write the keys and values of new tokens, and the logits after some.

    Returns:
        How many steps were computed, and what gives the logits of each, (M, 1, V).
    """
    from qwenkit.fast import kernels

    most, number = fed.cos.shape[1], len(fed.x)
    size = number // _alone(found, fed)
    parts = [fed] if size == number else [fed.part(n, size) for n in range(0, number, size)]
    shape = len(parts), most, len(parts[0].asked), config.vocab_size
    if loop is None or len(parts) == 1:
        logits = torch.empty(shape, dtype=found.logits)
    else:  # what `_logits_of` gives are copies
        logits = loop.memory(shape, found.logits)
    shared = np.array([most], np.int64)
    given = zip(parts, memory(logits), strict=True)
    jobs = [_job(found, config, part, loop, own, shared) for part, own in given]
    if len(jobs) == 1:
        steps = together(kernels.lead_step, jobs[0], jobs[0].scratch.done)
    else:
        steps = each_alone(jobs)
        np.concatenate([part.tokens for part in parts], 1, out=fed.tokens)
    for other in list(found.scratch)[: len(jobs) - KEPT]:  # those not used for longest
        found.scratch.pop(other, None)
    found.scratch.update(((len(job.scratch.x), n), job.scratch) for n, job in enumerate(jobs))
    return int(steps), partial(_logits_of, logits)


def _logits_of(logits: Tensor, step: int) -> Tensor:
    """Return the logits of a step, (M, 1, V), from those of parts, (parts, K, M / parts, V)."""
    own = logits[:, step]
    if len(own) == 1:
        return own[0, :, None]
    whole = memory(own).reshape(-1, 1, own.shape[-1])  # torch would share the copy among threads
    return torch.from_numpy(whole).view(logits.dtype)


def _alone(found: Memory, fed: Fed) -> int:
    """Return how many parts of the texts threads go through all layers with, each with its own.

    One: all share each product. With more, each thread reads all weights, but none ever waits.
    """
    from qwenkit.fast.tiles import HALF

    threads = torch.get_num_threads()
    fills = len(fed.x) % (threads * HALF) == 0 and len(fed.tokens) > 0
    return threads if fills and found.nbytes <= CACHED else 1


def _job(
    found: Memory,
    config: QwenConfig,
    fed: Fed,
    loop: ClosedLoop | None,
    logits: NDArray[Any],
    most: NDArray[np.int64],
) -> Any:
    """Return the `kernels.Step` for some texts, which may take memory that is kept."""
    from qwenkit.fast import kernels

    room = kernels.room_for(len(fed.x))
    kept = (found.scratch.pop(key, None) for key in [*found.scratch] if key[0] == room)
    own = next(filter(None, kept), None) or kernels.scratch(  # taken by one thread
        room, len(found.layers), config.hidden_size, config.num_attention_heads,
        config.num_key_value_heads, config.head_dim, found.neurons, found.groups,
    )  # fmt: skip
    own.x[: len(fed.x)] = fed.x
    vectors = VECTORS[found.dtype]
    kinds = kernels.kinds_of(found.weights or found.head, vectors, vectors)
    head = kernels.kinds_of(found.head, vectors, VECTORS[found.logits])
    table = found.head if found.table is None else found.table
    greedy = loop.greedy if loop is not None else None
    num_tokens, stops, _ = (0, (), 0) if greedy is None else greedy
    clocks = np.empty((0, 2), np.int64) if loop is None else loop.clocks
    ahead = kernels.Ahead(
        kernels.kinds_of(table, vectors, np.float32), found.end["table"], num_tokens,
        np.array([*stops], np.int64), fed.tokens, most, clocks,
    )  # fmt: skip
    return kernels.Step(
        kinds, found.layers, *fed.texts, fed.cos, fed.sin, own, found.end, head, fed.asked,
        logits, ahead,
    )  # fmt: skip


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
    if isinstance(held, KVCache) and not held.keys:
        held._allocate(
            torch.empty(1, config.num_key_value_heads, 1, config.head_dim, dtype=found.dtype)
        )
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
    length, least = cache.length, 0 if isinstance(cache, PageBatch) or count > 1 else 1
    if type(length) is not int or not least <= length <= cache.max_length - count:
        raise Declined("the cache is empty, or has no room")
    if any(length + count > window for window in _windows(config, layers)):
        raise Declined("the sliding window leaves out tokens of the cache")
    shape = _shape(held, config)
    if isinstance(cache, PageBatch):
        pages, lengths = _texts(cache, shape, attention_mask, count)
    else:
        pages = np.repeat(np.arange(cache.batch_size), count)[:, None]
        lengths = np.tile(np.arange(length, length + count), cache.batch_size)
    return Cached(buffers, shape, pages, np.zeros_like(lengths), lengths)


def _windows(config: QwenConfig, layers: int) -> set[int]:
    """Return the lengths of the layers' sliding windows."""
    each = (config.window(layer) for layer in range(layers))
    return {window for window in each if window is not None}


def _without(
    texts: Cached, padding: NDArray[np.int64], length: int, count: int
) -> tuple[Cached, list[int]]:
    """Leave out the new tokens that are padding; return how many of each text are left, too.

    Args:
        texts: `count` new tokens of each, one text after the other.
        padding: (B) how many tokens on the left of each are.
        length: of the cache before them.
        count: new tokens of each.
    """
    starts = np.repeat(padding, count)
    real = texts.lengths >= starts
    kept = texts._replace(pages=texts.pages[real], starts=starts[real], lengths=texts.lengths[real])
    return kept, np.minimum(length + count - padding, count).tolist()


def _padding(attention_mask: Tensor, input_ids: Tensor, past: int) -> NDArray[np.int64]:
    """Return how many tokens on the left of each text are padding, (B)."""
    shape = len(input_ids), past + input_ids.shape[1]
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
    each = [table.pages for table in cache.tables]
    numbers, sizes = np.array([*chain.from_iterable(each)]), np.array([*map(len, each)])
    if numbers.dtype.kind != "i" or (ends > sizes * shape[2]).any():
        raise Declined("the pages have no numbers, or no room for another token")
    if not 0 <= numbers.min() <= numbers.max() < shape[0]:
        raise Declined("a page of the text is not in the pool")
    pages = np.zeros((len(ends), sizes.max()), np.int64)
    pages[np.arange(sizes.max()) < sizes[:, None]] = numbers  # one text after the other
    places = np.repeat(np.arange(len(ends)), counts)  # (N) of each new token's text
    firsts = np.cumsum(counts) - counts  # (B) of each text's new tokens
    return pages[places], (ends - counts)[places] + np.arange(len(places)) - firsts[places]
