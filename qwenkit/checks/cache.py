"""The checks of notebook 10, the KV cache: one step, its bytes, what to keep, both offsets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._kv import Count, kv_values, wrong_counts
from qwenkit.checks._samples import HALF_B, WIDE_HEADS, in_bfloat16, normal, not_contiguous
from qwenkit.config import QwenConfig
from qwenkit.model import causal_mask, eager_attention, repeat_kv

EXERCISES = {
    "10.1": "one step with a cache",
    "10.2": "tokens that fit",
    "10.3": "what to keep",
    "10.4": "both offsets, with padding",
}
Step = tuple[Tensor, Tensor, Tensor]
Offsets = tuple[Tensor, Tensor]


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
    return judge("10.1", learner, _step, cases, _STEP_MISTAKES, praise, LOOSE)


def room(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config, free, batch, size)`, how many tokens fit in each row: 10.2."""
    ten = 10 * 2 * 3 * 2 * 40 * 2  # bytes
    cases = [
        Case("0.5B, a gigabyte, one text, 2 bytes", (HALF_B, 1_000_000_000, 1, 2)),
        Case("0.5B, a gigabyte, eight texts, 4 bytes", (HALF_B, 1_000_000_000, 8, 4)),
        Case("head_dim is not C / H", (WIDE_HEADS, 5_000_000, 3, 2)),
        Case("exactly ten tokens", (WIDE_HEADS, ten, 1, 2)),
        Case("a byte less than ten tokens", (WIDE_HEADS, ten - 1, 1, 2)),
        Case("no room at all", (HALF_B, 100, 1, 2)),
    ]
    praise = "the formula for bytes, solved for the tokens and rounded down."
    return judge("10.2", learner, _room_for(kv_values), cases, _ROOM_MISTAKES, praise, 1e-9)


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
        Case("a repeated token", ([5, 5, 5], [5, 5, 6, 5])),
    ]
    praise = "the shared beginning is kept, and at least one token is left to feed."
    return judge("10.3", learner, _kept, cases, _KEPT_MISTAKES, praise)


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
    return judge("10.4", learner, _offsets, cases, _OFFSET_MISTAKES, praise)


def _pair(*shape: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)


# --- 10.1 ---


def _after(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=2)  # (B, KV, S + 1, D)


def _step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
    return _with_z(eager_attention)(q, k, v, keys, values)


def _with_z(z: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Step]:
    """Return a step that keeps the right tokens, and computes z in its own way."""

    def step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
        keys, values = _after(keys, k), _after(values, v)
        return z(q, keys, values), keys, values

    return step


def _with_cache(cache: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Step]:
    """Return a step that computes z correctly, and returns another cache."""
    return lambda *given: (_step(*given)[0], *cache(*given))


def _seen(part: slice) -> Callable[..., Step]:
    """Return a step whose token attends to a part of the tokens."""
    return _with_z(lambda q, k, v: eager_attention(q, k[:, :, part], v[:, :, part]))


def _repeated(q: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return repeat_kv(_after(old, new), q.shape[1] // old.shape[1])


def _cycled(q: Tensor, x: Tensor) -> Tensor:
    return x.repeat(1, q.shape[1] // x.shape[1], 1, 1)


_STEP_MISTAKES = (
    Mistake("does not see itself", "your new token attends only to the cached tokens. It may "
        "attend to itself too: which comes first, writing to the cache or reading from it?",
        _seen(slice(None, -1))),
    Mistake("cached tokens forgotten", "your new token attends only to itself. The cached keys and "
        "values are what the cache is for.",
        _seen(slice(-1, None))),
    Mistake("first key only", "your new token attends only to the first cached key: your triangle "
        "starts at the left. At which position is a single new token, and what may it not see?",
        _seen(slice(1))),
    Mistake("not kept", "this step is right, but the next one will be wrong: you return the cache "
        "unchanged. What must the next token find in it?",
        _with_cache(lambda q, k, v, keys, values: (keys, values))),
    Mistake("only the new one is kept", "you return only the new key and value, so the next token "
        "loses all earlier ones.",
        _with_cache(lambda q, k, v, keys, values: (k, v))),
    Mistake("in front", "your new row comes before the old ones. This step does not notice, since "
        "the order of the rows does not change a sum; a mask or trimming the cache would. Where "
        "does the newest token belong?",
        _with_cache(lambda q, k, v, keys, values: (_after(k, keys), _after(v, values)))),
    Mistake("oldest dropped", "your cache keeps its length: the newest token pushes out the "
        "oldest. It should grow by one.",
        lambda q, k, v, keys, values: _step(q, k, v, keys[:, :, 1:], values[:, :, 1:])),
    Mistake("newest overwritten", "your new row replaces the last old one. It belongs after it.",
        lambda q, k, v, keys, values: _step(q, k, v, keys[:, :, :-1], values[:, :, :-1])),
    Mistake("repeated in the cache", "z is right, but you keep several copies of every kv head: "
        "all that sharing saves is lost. Repeat after you store.",
        _with_cache(
            lambda q, k, v, keys, values: (_repeated(q, keys, k), _repeated(q, values, v)))),
    Mistake("kv heads cycled", "you repeat the kv heads in turn: 0, 1, 0, 1, ... Consecutive query "
        "heads share one kv head: see notebook 06.",
        _with_z(lambda q, k, v: eager_attention(q, _cycled(q, k), _cycled(q, v)))),
    Mistake("keys and values swapped", "you return the values in place of the keys. The order is "
        "z, keys, values.",
        _with_cache(lambda q, k, v, keys, values: (_after(values, v), _after(keys, k)))),
    Mistake("keys instead of values", "you add up keys. A key decides how much attention a token "
        "gets; what is passed on is the value.",
        _with_z(lambda q, k, v: eager_attention(q, k, k))),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _with_z(lambda q, k, v: eager_attention(q * q.shape[-1] ** 0.5, k, v))),
)  # fmt: skip


# --- 10.2 ---


def _room_for(count: Count) -> Callable[[QwenConfig, int, int, int], int]:
    """Return the room for tokens of `count(config)` values."""
    return lambda c, free, batch, size: free // (batch * size * count(c))


def _each(c: QwenConfig, batch: int, size: int) -> int:
    return batch * size * kv_values(c)  # bytes of one token of each text


_ROOM_MISTAKES = (
    *wrong_counts(_room_for),
    Mistake("values, not bytes", "you count each value as one byte. How many bytes does it take?",
        lambda c, free, batch, size: free // _each(c, batch, 1)),
    Mistake("one text", "right for one text. In a batch, each text has its own row in the cache, "
        "and all rows share the bytes.",
        lambda c, free, batch, size: free // _each(c, 1, size)),
    Mistake("all texts together", "you count the tokens of all texts together. The question is how "
        "long each text can be.",
        lambda c, free, batch, size: batch * (free // _each(c, batch, size))),
    Mistake("a fraction of a token", "half a token does not fit anywhere: return an integer, "
        "rounded down.",
        lambda c, free, batch, size: free / _each(c, batch, size)),
    Mistake("rounded up", "you round up, and the last token does not fit. A byte less than ten "
        "tokens is room for nine.",
        lambda c, free, batch, size: -(-free // _each(c, batch, size))),
    Mistake("rounded up", "you round to the nearest integer, and sometimes the last token does not "
        "fit. A byte less than ten tokens is room for nine.",
        lambda c, free, batch, size: round(free / _each(c, batch, size))),
    Mistake("bytes", "you return bytes. How many times do they fit into the free bytes?",
        lambda c, free, batch, size: _each(c, batch, size)),
)  # fmt: skip


# --- 10.3 ---


def _shared(old: list[int], new: list[int]) -> int:
    pairs = list(zip(old, new, strict=False))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))


def _kept(old: list[int], new: list[int]) -> int:
    return _capped(_shared)(old, new)


def _equal_positions(old: list[int], new: list[int]) -> int:
    return sum(one == other for one, other in zip(old, new, strict=False))


def _longest_run(old: list[int], new: list[int]) -> int:
    starts = [(i, j) for i in range(len(old)) for j in range(len(new))]
    return max((_shared(old[i:], new[j:]) for i, j in starts), default=0)


def _in_common(old: list[int], new: list[int]) -> int:
    return len(set(old) & set(new))


def _capped(count: Callable[[list[int], list[int]], int]) -> Callable[..., int]:
    """Return a count that leaves one token to feed, as the right one does."""
    return lambda old, new: min(count(old, new), len(new) - 1)


_SAME_POSITION = (
    "you go on counting after the first difference. A later token may be the same, but its keys "
    "and values are not: from the second layer on they depend on all tokens before it, including "
    "the one that differs."
)
_MOVED = (
    "you look for shared tokens at any position. At another position a token was rotated by "
    "another angle and has attended to another beginning: what is kept must be the same from the "
    "start."
)
_NO_TOKEN_LEFT = (
    "right if something new follows. But the same text again, or its beginning, would leave "
    "nothing to feed, and without a token the model returns no logits. How many tokens must be "
    "left?"
)
_KEPT_MISTAKES = (
    Mistake("nothing left to feed", _NO_TOKEN_LEFT, _shared),
    Mistake("continues after the difference", _SAME_POSITION, _capped(_equal_positions)),
    Mistake("continues after the difference", _SAME_POSITION, _equal_positions),
    Mistake("continues after the difference", _SAME_POSITION,
        lambda old, new: _equal_positions(old, new[:-1])),
    Mistake("at any position", _MOVED, _capped(_longest_run)),
    Mistake("at any position", _MOVED, _longest_run),
    Mistake("at any position", _MOVED, _capped(_in_common)),
    Mistake("at any position", _MOVED, _in_common),
    Mistake("at any position", _MOVED, lambda old, new: sum(token in old for token in new)),
    Mistake("from the end", "you count what is shared at the end. A cache is filled from the "
        "start, and trimmed at the end.",
        lambda old, new: _shared(old[::-1], new[::-1])),
    Mistake("one too many", "you also keep the first token that differs. Its index is the number "
        "of tokens before it.",
        lambda old, new: min(_shared(old, new) + 1, len(new))),
    Mistake("one too few", "you always feed one shared token again. That is needed only if nothing "
        "else is left to feed.",
        lambda old, new: max(_shared(old, new) - 1, 0)),
    Mistake("what is dropped", "you count the tokens that must be dropped. Count those that are "
        "kept.",
        lambda old, new: len(old) - _kept(old, new)),
    Mistake("what is fed", "you count the tokens that must be fed. Count those that are kept.",
        lambda old, new: len(new) - _kept(old, new)),
    Mistake("all or nothing", "you keep all or nothing. If the texts differ in the middle, their "
        "shared beginning can be kept.",
        lambda old, new: len(old) if new[: len(old)] == old and len(new) > len(old) else 0),
    Mistake("the tokens themselves", "you return the shared tokens. Return how many there are.",
        lambda old, new: new[: _kept(old, new)]),
)  # fmt: skip


# --- 10.4 ---


def _offsets(real: Tensor, new: int) -> Offsets:
    return _positions(real, new), _mask(real, new)


def _positions(real: Tensor, new: int) -> Tensor:
    return (real.long().cumsum(dim=-1) - 1)[:, real.shape[1] - new :]  # (B, T)


def _mask(real: Tensor, new: int) -> Tensor:
    return _causal(real, new) & real[:, None, :]  # (B, T, S)


def _causal(real: Tensor, new: int) -> Tensor:
    return causal_mask(new, _past(real, new)).expand(len(real), -1, -1)  # (B, T, S)


def _lower(real: Tensor, new: int, diagonal: int) -> Tensor:
    return torch.ones(len(real), new, real.shape[1], dtype=torch.bool).tril(diagonal)


def _counted(real: Tensor, start: int, new: int) -> Tensor:
    return torch.arange(start, start + new).expand(len(real), -1)  # (B, T)


def _past(real: Tensor, new: int) -> int:
    return real.shape[1] - new


def _with_mask(mask: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Offsets]:
    return lambda real, new: (_positions(real, new), mask(real, new))


def _with_positions(positions: Callable[[Tensor, int], Tensor]) -> Callable[..., Offsets]:
    return lambda real, new: (positions(real, new), _mask(real, new))


_OFFSET_MISTAKES = (
    Mistake("padding ignored", "right without padding. You do not use `real` at all: padding gets "
        "positions, and is attended to.",
        lambda real, new: (_counted(real, _past(real, new), new), _causal(real, new))),
    Mistake("padding counted", "the mask is right. Your positions count the padding: a padded text "
        "would be further to the right than the same text alone. How many *real* tokens come "
        "before each?",
        _with_positions(lambda real, new: _counted(real, _past(real, new), new))),
    Mistake("positions from 0", "your new tokens start at position 0, where the first cached "
        "tokens are already.",
        _with_positions(lambda real, new: _counted(real, 0, new))),
    Mistake("counted from 1", "each position is too large by one: the first real token is at 0. On "
        "its own that would not matter, but the cached tokens were counted from 0.",
        _with_positions(lambda real, new: _positions(real, new) + 1)),
    Mistake("all positions", "you return the positions of all tokens. Only the new ones are "
        "rotated.",
        _with_positions(lambda real, new: real.long().cumsum(dim=-1) - 1)),
    Mistake("mask without offset", "the positions are right. Your triangle starts at the left: the "
        "first new token sees only the first cached one. At which position is query row 0?",
        _with_mask(lambda real, new: _lower(real, new, 0) & real[:, None])),
    Mistake("padding visible", "the positions are right. Your mask lets tokens attend to padding.",
        _with_mask(_causal)),
    Mistake("sees the future", "the positions are right. In your mask each new token sees all real "
        "tokens, including later ones.",
        _with_mask(lambda real, new: real[:, None].expand(-1, new, -1))),
    Mistake("not itself", "the positions are right. In your mask a token stops one position before "
        "itself.",
        _with_mask(lambda real, new: _lower(real, new, _past(real, new) - 1) & real[:, None])),
    Mistake("inverted", "your mask is True where a token may *not* attend. True should mean that "
        "it may.",
        _with_mask(lambda real, new: ~_mask(real, new))),
)  # fmt: skip
