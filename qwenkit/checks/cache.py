"""The checks of notebook 10, the KV cache: one step, both offsets, the loop, what to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._cache_kept import KEPT_MISTAKES, right_kept
from qwenkit.checks._cache_loop import cached_loop, loop_mistakes, measured
from qwenkit.checks._cache_offsets import OFFSET_MISTAKES, Offsets, right_offsets
from qwenkit.checks._cache_step import STEP_MISTAKES, Step, right_step
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous

EXERCISES = {
    "10.1": "one step with a cache",
    "10.2": "both offsets, with padding",
    "10.3": "the cached loop",
    "10b.1": "what to keep",
}


def step(learner: Callable[..., Step]) -> Verdict:
    """Check `learner(q, k, v, keys, values)`: z, and keys and values with the new token: 10.1."""

    def case(label: str, batch: int, heads: int, kv_heads: int, past: int, size: int) -> Case:
        q, k, v = normal(batch, heads, 1, size), *_pair(batch, kv_heads, 1, size)
        return Case(label, (q, k, v, *_pair(batch, kv_heads, past, size, seed=3)))

    q, k, v, keys, values = case("", 2, 4, 2, 5, 8).arguments
    cases = [
        case("two heads, three cached tokens", 1, 2, 2, 3, 4),
        case("four heads, two kv heads", 1, 4, 2, 3, 4),
        case("two texts, six heads, two kv heads", 2, 6, 2, 5, 8),
        case("one cached token", 1, 4, 2, 1, 4),
        case("an empty cache", 1, 4, 2, 0, 4),
        Case("not contiguous", (q, *not_contiguous(k, v, keys, values).arguments)),
        in_bfloat16(q, k, v, keys, values),
        Case("large values", (100 * q, 100 * k, v, 100 * keys, values)),
    ]
    praise = "one row of attention for the new token, and one more row in the cache."
    return judge("10.1", learner, right_step, cases, STEP_MISTAKES, praise, LOOSE)


def offsets(learner: Callable[..., Offsets]) -> Verdict:
    """Check `learner(real, new)`: positions (B, T) and mask (B, T, S) of new tokens: 10.2."""

    def case(label: str, new: int, length: int, *padding: int) -> Case:
        real = torch.arange(length)[None] >= torch.tensor(padding)[:, None]  # (B, S)
        return Case(label, (real, new))

    cases = [
        case("one text, no cache, no padding", 4, 4, 0),
        case("two new tokens after three", 2, 5, 0),
        case("two texts, the second with two padding tokens", 2, 6, 0, 2),
        case("one new token per text", 1, 5, 3, 0),
        case("three texts", 3, 8, 1, 0, 4),
    ]
    praise = "positions count from each text's first real token, and nothing attends to padding."
    return judge("10.2", learner, right_offsets, cases, OFFSET_MISTAKES, praise)


def loop(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(model, prompts, steps, stop_ids)`, the new tokens of each prompt: 10.3."""
    apart = [[5, 3, 9, 7], [8], [2, 14, 6, 10, 17, 3]]
    zeros = [[0, 9, 0, 4], [12, 5], [0, 7, 19]]
    cases = [
        Case("one prompt", ([[5, 3, 9, 7]], 5, ())),
        Case("two prompts of one length", ([[5, 3, 9, 7], [8, 2, 11, 4]], 6, ())),
        Case("three prompts of different lengths", (apart, 7, ())),
        Case("token 0 in a prompt", (zeros, 6, ())),
        Case("each text stops at another step", (apart, 7, (20, 13, 11))),
        Case("the longest prompt stops first", (zeros, 6, (1, 7))),
        Case("a stop token in a prompt", (zeros, 7, (19, 15))),
        Case("all stop at once", (apart, 7, (0, 5))),
        Case("a single step", (apart, 1, (5,))),
    ]
    praise = "each token is computed once, in one batch: that is how a model is served."
    learner = measured(learner) if callable(learner) else learner
    return judge("10.3", learner, measured(cached_loop()), cases, loop_mistakes(), praise)


def kept(learner: Callable[..., int]) -> Verdict:
    """Check `learner(old, new)`, how many cached tokens can be kept: exercise 10b.1."""
    cases = [
        Case("the last of five differs", ([5, 8, 2, 9, 4], [5, 8, 2, 9, 7])),
        Case("they differ, and agree again later", ([5, 8, 2, 9, 4], [5, 8, 3, 9, 4, 6])),
        Case("the new text is longer", ([5, 8, 2], [5, 8, 2, 9, 4])),
        Case("the new text is shorter", ([5, 8, 2, 9, 4], [5, 8, 2])),
        Case("the same text again", ([5, 8, 2, 9], [5, 8, 2, 9])),
        Case("nothing in common but the end", ([1, 8, 2], [5, 8, 2])),
        Case("one token inserted at the front", ([8, 2, 9], [5, 8, 2, 9])),
        Case("an empty cache", ([], [5, 8])),
        Case("one cached token, three new ones", ([5], [5, 8, 2, 9])),
        Case("a repeated token", ([5, 5, 5], [5, 5, 6, 5])),
    ]
    praise = "the shared beginning is kept, and at least one token is left to feed."
    return judge("10b.1", learner, right_kept, cases, KEPT_MISTAKES, praise)


def _pair(*shape: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
