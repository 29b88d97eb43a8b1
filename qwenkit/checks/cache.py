"""The checks of notebook 10, the KV cache: one step, its bytes, what to keep, both offsets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._cache_counts import KEPT_MISTAKES, ROOM_MISTAKES, right_kept, room_for
from qwenkit.checks._cache_offsets import OFFSET_MISTAKES, Offsets, right_offsets
from qwenkit.checks._cache_step import STEP_MISTAKES, Step, right_step
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._kv import kv_values
from qwenkit.checks._samples import HALF_B, SEVEN_B, WIDE_HEADS, in_bfloat16, normal, not_contiguous

EXERCISES = {
    "10.1": "one step with a cache",
    "10.2": "tokens that fit",
    "10.3": "what to keep",
    "10.4": "both offsets, with padding",
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


def room(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config, free, batch, size)`, how many tokens fit in each row: 10.2."""
    ten = 10 * 2 * 3 * 2 * 40 * 2  # bytes
    cases = [
        Case("0.5B, a gigabyte, one text, 2 bytes", (HALF_B, 1_000_000_000, 1, 2)),
        Case("0.5B, a gigabyte, eight texts, 4 bytes", (HALF_B, 1_000_000_000, 8, 4)),
        Case("head_dim is not C / H", (WIDE_HEADS, 5_000_000, 3, 2)),
        Case("exactly ten tokens", (WIDE_HEADS, ten, 1, 2)),
        Case("a byte less than ten tokens", (WIDE_HEADS, ten - 1, 1, 2)),
        Case("7B, a gigabyte, two texts, 2 bytes", (SEVEN_B, 1_000_000_000, 2, 2)),
        Case("no room at all", (HALF_B, 100, 1, 2)),
    ]
    praise = "the formula for bytes, solved for the tokens and rounded down."
    return judge("10.2", learner, room_for(kv_values), cases, ROOM_MISTAKES, praise, 1e-9)


def kept(learner: Callable[..., int]) -> Verdict:
    """Check `learner(old, new)`, how many cached tokens can be kept: exercise 10.3."""
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
    return judge("10.3", learner, right_kept, cases, KEPT_MISTAKES, praise)


def offsets(learner: Callable[..., Offsets]) -> Verdict:
    """Check `learner(real, new)`: positions (B, T) and mask (B, T, S) of new tokens: 10.4."""

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
    return judge("10.4", learner, right_offsets, cases, OFFSET_MISTAKES, praise)


def _pair(*shape: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
