"""The checks of notebook 10, the KV cache: one step, its bytes, what may stay, and the offsets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal, turned
from qwenkit.config import QwenConfig
from qwenkit.model import causal_mask, eager_attention, repeat_kv

EXERCISES = {
    "10.1": "one step with a cache",
    "10.2": "tokens that fit",
    "10.3": "what may stay",
    "10.4": "both offsets, with padding",
}
LOOSE = 1e-4  # in bfloat16 the order of two roundings shows; no mistake below is that small
Step = tuple[Tensor, Tensor, Tensor]
Offsets = tuple[Tensor, Tensor]


def step(learner: Callable[..., Step]) -> Verdict:
    """Check `learner(q, k, v, keys, values)`: z, and keys and values with the new: 10.1."""

    def case(words: str, batch: int, heads: int, kv_heads: int, past: int, size: int) -> Case:
        q, k, v = normal(batch, heads, 1, size), *_pair(batch, kv_heads, 1, size)
        return Case(words, (q, k, v, *_pair(batch, kv_heads, past, size, seed=3)))

    q, k, v, keys, values = case("", 2, 4, 2, 5, 8).arguments
    cases = [
        case("two heads, three old tokens", 1, 2, 2, 3, 4),
        case("four heads, two kv heads", 1, 4, 2, 3, 4),
        case("two texts, six heads, two kv heads", 2, 6, 2, 5, 8),
        case("one old token", 1, 4, 2, 1, 4),
        case("an empty cache", 1, 4, 2, 0, 4),
        Case("not contiguous", (q, turned(k), turned(v), turned(keys), turned(values))),
        Case("bfloat16", tuple(one.bfloat16() for one in (q, k, v, keys, values))),
        Case("large values", (100 * q, 100 * k, v, 100 * keys, values)),
    ]
    praise = "one row of attention for the new token, and one row more in the cache."
    return judge("10.1", learner, _step, cases, STEP_MISTAKES, praise, LOOSE)


def room(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config, free, batch, size)`, how many tokens fit in each row: 10.2."""
    # vocabulary, hidden, intermediate, layers, heads, kv heads, head_dim: D is C / H in some only
    half = QwenConfig(151_936, 896, 4864, 24, 14, 2)
    wide = QwenConfig(1000, 96, 200, 3, 6, 2, 40)
    cases = [
        Case("0.5B, a gigabyte, one text, 2 bytes", (half, 1_000_000_000, 1, 2)),
        Case("0.5B, a gigabyte, eight texts, 4 bytes", (half, 1_000_000_000, 8, 4)),
        Case("head_dim is not C / H", (wide, 5_000_000, 3, 2)),
        Case("exactly ten tokens", (wide, 10 * 2 * 3 * 2 * 40 * 2, 1, 2)),
        Case("a byte less than ten tokens", (wide, 10 * 2 * 3 * 2 * 40 * 2 - 1, 1, 2)),
        Case("no room at all", (half, 100, 1, 2)),
    ]
    praise = "the same count as for bytes, read backwards, and rounded down."
    return judge("10.2", learner, _room, cases, ROOM_MISTAKES, praise, tolerance=1e-9)


def kept(learner: Callable[..., int]) -> Verdict:
    """Check `learner(old, new)`, how many cached tokens may stay: exercise 10.3."""
    cases = [
        Case("the last of five differs", ([5, 8, 2, 9, 4], [5, 8, 2, 9, 7])),
        Case("they part, and agree again later", ([5, 8, 2, 9, 4], [5, 8, 3, 9, 4, 6])),
        Case("the new text goes on", ([5, 8, 2], [5, 8, 2, 9, 4])),
        Case("the new text is shorter", ([5, 8, 2, 9, 4], [5, 8, 2])),
        Case("the same text again", ([5, 8, 2, 9], [5, 8, 2, 9])),
        Case("nothing in common but the end", ([1, 8, 2], [5, 8, 2])),
        Case("one token moved in front", ([8, 2, 9], [5, 8, 2, 9])),
        Case("an empty cache", ([], [5, 8])),
        Case("a token that comes twice", ([5, 5, 5], [5, 5, 6, 5])),
    ]
    praise = "all that is shared from the start, and one token is always left to feed."
    return judge("10.3", learner, _kept, cases, KEPT_MISTAKES, praise)


def offsets(learner: Callable[..., Offsets]) -> Verdict:
    """Check `learner(real, new)`: positions (B, T) and mask (B, T, S) of new tokens: 10.4."""

    def case(words: str, new: int, length: int, *padding: int) -> Case:
        real = torch.arange(length)[None] >= torch.tensor(padding)[:, None]  # (B, S)
        return Case(words, (real, new))

    cases = [
        case("one text, no cache, no padding", 4, 4, 0),
        case("two new tokens behind three", 2, 5, 0),
        case("two texts, the second with two blanks", 2, 6, 0, 2),
        case("one new token a text", 1, 5, 3, 0),
        case("three texts", 3, 8, 1, 0, 4),
    ]
    praise = "each text is counted from its own first token, and no one reads a blank."
    return judge("10.4", learner, _offsets, cases, OFFSET_MISTAKES, praise)


def _pair(*shape: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)


# --- 10.1 ---


def _behind(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=2)  # (B, KV, S + 1, D)


def _step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
    keys, values = _behind(keys, k), _behind(values, v)
    return eager_attention(q, keys, values), keys, values


def _with_z(z: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Step]:
    """Return a step that keeps what it should, and reads it in another way."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
        keys, values = _behind(keys, k), _behind(values, v)
        return z(q, keys, values), keys, values

    return wrong


def _with_cache(cache: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Step]:
    """Return a step that reads what it should, and hands back another cache."""
    return lambda *given: (_step(*given)[0], *cache(*given))


def _repeated(q: Tensor, x: Tensor) -> Tensor:
    return repeat_kv(x, q.shape[1] // x.shape[1])


def _cycled(q: Tensor, x: Tensor) -> Tensor:
    return x.repeat(1, q.shape[1] // x.shape[1], 1, 1)


STEP_MISTAKES = (
    Mistake(
        "does not read itself",
        "your new token reads the old ones alone. It may read itself, too: which comes first, "
        "writing into the cache or reading from it?",
        _with_z(lambda q, k, v: eager_attention(q, k[:, :, :-1], v[:, :, :-1])),
    ),
    Mistake(
        "old tokens forgotten",
        "your new token reads only itself. The old keys and values are what the cache is kept for.",
        _with_z(lambda q, k, v: eager_attention(q, k[:, :, -1:], v[:, :, -1:])),
    ),
    Mistake(
        "first key only",
        "your new token reads the first old key and no other: a triangle that begins at the left. "
        "At which place does a single new token stand, and what may it not read?",
        _with_z(lambda q, k, v: eager_attention(q, k[:, :, :1], v[:, :, :1])),
    ),
    Mistake(
        "not kept",
        "this step is right, the next will be wrong: you hand back the cache as it was. What must "
        "the next token find in it?",
        _with_cache(lambda q, k, v, keys, values: (keys, values)),
    ),
    Mistake(
        "only the new is kept",
        "you hand back the new key and value alone, so the next token forgets all before.",
        _with_cache(lambda q, k, v, keys, values: (k, v)),
    ),
    Mistake(
        "in front",
        "your new row stands before the old ones. This step does not notice, because the order of "
        "the rows changes no sum; a mask or a trim would. Where does the newest token belong?",
        _with_cache(lambda q, k, v, keys, values: (_behind(k, keys), _behind(v, values))),
    ),
    Mistake(
        "oldest dropped",
        "your cache stays as long as it was: the newest token pushes the oldest out. It is to grow "
        "by one.",
        lambda q, k, v, keys, values: _step(q, k, v, keys[:, :, 1:], values[:, :, 1:]),
    ),
    Mistake(
        "newest overwritten",
        "your new row takes the place of the last old one. It belongs behind it.",
        lambda q, k, v, keys, values: _step(q, k, v, keys[:, :, :-1], values[:, :, :-1]),
    ),
    Mistake(
        "repeated in the cache",
        "z is right, but you keep every kv head several times over: all that sharing saves is lost "
        "again. Repeat after you have kept.",
        _with_cache(
            lambda q, k, v, keys, values: (
                _repeated(q, _behind(keys, k)),
                _repeated(q, _behind(values, v)),
            )
        ),
    ),
    Mistake(
        "kv heads cycled",
        "you repeat the kv heads in turn: 0, 1, 0, 1, ... Neighbouring query heads share one: "
        "notebook 06.",
        _with_z(lambda q, k, v: eager_attention(q, _cycled(q, k), _cycled(q, v))),
    ),
    Mistake(
        "keys and values swapped",
        "you hand back the values where the keys belong. The order is z, keys, values.",
        _with_cache(lambda q, k, v, keys, values: (_behind(values, v), _behind(keys, k))),
    ),
    Mistake(
        "keys are passed on",
        "you add up keys. A key is there to be found by; what is passed on is the value.",
        _with_z(lambda q, k, v: eager_attention(q, k, k)),
    ),
    Mistake(
        "no scale",
        "the scores are not divided by the square root of D.",
        _with_z(lambda q, k, v: eager_attention(q * q.shape[-1] ** 0.5, k, v)),
    ),
)


# --- 10.2 ---


def _token(c: QwenConfig, size: int) -> int:
    return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * size


def _room(c: QwenConfig, free: int, batch: int, size: int) -> int:
    return free // (batch * _token(c, size))


def _of_another(token: Callable[[QwenConfig, int], int]) -> Callable[..., int]:
    """Return the room for tokens of another size."""
    return lambda c, free, batch, size: free // (batch * token(c, size))


ROOM_MISTAKES = (
    Mistake(
        "query heads",
        "you count H heads. The cache holds keys and values before they are repeated for them.",
        _of_another(
            lambda c, size: _token(c, size) * c.num_attention_heads // c.num_key_value_heads
        ),
    ),
    Mistake(
        "hidden size",
        "you count C numbers a token. That is the stream; a key has KV heads of D numbers.",
        _of_another(lambda c, size: 2 * c.num_hidden_layers * c.hidden_size * size),
    ),
    Mistake(
        "C / H",
        "right where D is C / H. That is not so in every model: take the config's own `head_dim`.",
        _of_another(
            lambda c, size: _token(c, size) // c.head_dim * (c.hidden_size // c.num_attention_heads)
        ),
    ),
    Mistake(
        "keys or values",
        "you count one of the two. A token keeps a key *and* a value.",
        _of_another(lambda c, size: _token(c, size) // 2),
    ),
    Mistake(
        "queries too",
        "you count queries as well. An earlier token asks nothing more, so its query is not kept.",
        _of_another(
            lambda c, size: (
                _token(c, size) + c.num_hidden_layers * c.num_attention_heads * c.head_dim * size
            )
        ),
    ),
    Mistake(
        "one layer",
        "you count one layer. Each has keys and values of its own.",
        _of_another(lambda c, size: _token(c, size) // c.num_hidden_layers),
    ),
    Mistake(
        "numbers, not bytes",
        "you count each number as one byte. How many has it?",
        _of_another(lambda c, size: _token(c, 1)),
    ),
    Mistake(
        "one text",
        "right for one text. With several, each has a row of its own in the cache, and all of them "
        "share the bytes.",
        lambda c, free, batch, size: free // _token(c, size),
    ),
    Mistake(
        "all texts together",
        "you count the tokens of all texts together. Asked for is the length of each.",
        lambda c, free, batch, size: batch * _room(c, free, batch, size),
    ),
    Mistake(
        "a part of a token",
        "half a token fits nowhere: return a whole number, rounded down.",
        lambda c, free, batch, size: free / (batch * _token(c, size)),
    ),
    Mistake(
        "rounded up",
        "you round up, and the last token has no room. A byte less than ten tokens is room for "
        "nine.",
        lambda c, free, batch, size: -(-free // (batch * _token(c, size))),
    ),
    Mistake(
        "rounded up",
        "you round to the nearest, and sometimes the last token has no room. A byte less than ten "
        "tokens is room for nine.",
        lambda c, free, batch, size: round(free / (batch * _token(c, size))),
    ),
    Mistake(
        "bytes",
        "you return bytes. How often do they go into what is free?",
        lambda c, free, batch, size: batch * _token(c, size),
    ),
)


# --- 10.3 ---


def _shared(old: list[int], new: list[int]) -> int:
    pairs = list(zip(old, new, strict=False))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))


def _kept(old: list[int], new: list[int]) -> int:
    return min(_shared(old, new), len(new) - 1)


def _equal_places(old: list[int], new: list[int]) -> int:
    return sum(one == other for one, other in zip(old, new, strict=False))


def _longest_run(old: list[int], new: list[int]) -> int:
    starts = [(i, j) for i in range(len(old)) for j in range(len(new))]
    return max((_shared(old[i:], new[j:]) for i, j in starts), default=0)


def _capped(count: Callable[[list[int], list[int]], int]) -> Callable[..., int]:
    """Return a count that leaves one token to feed, as the right one does."""
    return lambda old, new: min(count(old, new), len(new) - 1)


SAME_PLACE = (
    "you go on counting after the first difference. A later token is the same, but its keys and "
    "values are not: from the second layer on they hold what it read before it, the other token "
    "included."
)
MOVED = (
    "you look for the shared tokens anywhere. At another place a token was turned by another angle "
    "and has read another beginning: what is kept must be the same from the start."
)
NO_TOKEN_LEFT = (
    "right where something new comes. But the same text again, or its beginning, would leave "
    "nothing to feed, and without a token the model gives no logits. How many must be left?"
)

KEPT_MISTAKES = (
    Mistake("nothing left to feed", NO_TOKEN_LEFT, _shared),
    Mistake("goes on after the difference", SAME_PLACE, _capped(_equal_places)),
    Mistake("goes on after the difference", SAME_PLACE, _equal_places),
    Mistake(
        "goes on after the difference", SAME_PLACE, lambda old, new: _equal_places(old, new[:-1])
    ),
    Mistake("anywhere", MOVED, _capped(_longest_run)),
    Mistake("anywhere", MOVED, _longest_run),
    Mistake("anywhere", MOVED, _capped(lambda old, new: len(set(old) & set(new)))),
    Mistake("anywhere", MOVED, lambda old, new: len(set(old) & set(new))),
    Mistake("anywhere", MOVED, lambda old, new: sum(token in old for token in new)),
    Mistake(
        "from the end",
        "you count what is shared at the end. A cache is filled from the start, and trimmed at the "
        "end.",
        lambda old, new: _shared(old[::-1], new[::-1]),
    ),
    Mistake(
        "one too many",
        "you keep the first token that differs, too. Its number is how many come before it.",
        lambda old, new: min(_shared(old, new) + 1, len(new)),
    ),
    Mistake(
        "one too few",
        "you always feed one shared token again. That is needed only where nothing else is left.",
        lambda old, new: max(_shared(old, new) - 1, 0),
    ),
    Mistake(
        "what goes",
        "you count the tokens that must go. Asked for are those that stay.",
        lambda old, new: len(old) - _kept(old, new),
    ),
    Mistake(
        "what is fed",
        "you count the tokens that must be fed. Asked for are those that stay.",
        lambda old, new: len(new) - _kept(old, new),
    ),
    Mistake(
        "all or nothing",
        "you keep all or nothing. Where the texts part in the middle, their beginning can stay.",
        lambda old, new: len(old) if new[: len(old)] == old and len(new) > len(old) else 0,
    ),
    Mistake(
        "the tokens themselves",
        "you return the shared tokens. Asked for is their number.",
        lambda old, new: new[: _kept(old, new)],
    ),
)


# --- 10.4 ---


def _offsets(real: Tensor, new: int) -> Offsets:
    return _positions(real, new), _mask(real, new)


def _positions(real: Tensor, new: int) -> Tensor:
    return (real.long().cumsum(dim=-1) - 1)[:, real.shape[1] - new :]  # (B, T)


def _mask(real: Tensor, new: int) -> Tensor:
    return _causal(real, new) & real[:, None, :]  # (B, T, S)


def _causal(real: Tensor, new: int) -> Tensor:
    return causal_mask(new, real.shape[1] - new).expand(len(real), -1, -1)  # (B, T, S)


def _top_left(real: Tensor, new: int, diagonal: int = 0) -> Tensor:
    return torch.ones(len(real), new, real.shape[1], dtype=torch.bool).tril(diagonal)


def _counted(real: Tensor, start: int, new: int) -> Tensor:
    return torch.arange(start, start + new).expand(len(real), -1)  # (B, T)


def _past(real: Tensor, new: int) -> int:
    return real.shape[1] - new


OFFSET_MISTAKES: tuple[Mistake, ...] = (
    Mistake(
        "padding ignored",
        "right without padding. You do not use `real` at all: blanks are counted and read.",
        lambda real, new: (_counted(real, _past(real, new), new), _causal(real, new)),
    ),
    Mistake(
        "padding counted",
        "the mask is right. Your positions count the blanks: a padded text would stand further "
        "right than it does alone. How many *real* tokens come before each?",
        lambda real, new: (_counted(real, _past(real, new), new), _mask(real, new)),
    ),
    Mistake(
        "positions from 0",
        "your new tokens begin at position 0, where the first tokens of the cache stand already.",
        lambda real, new: (_counted(real, 0, new), _mask(real, new)),
    ),
    Mistake(
        "counted from 1",
        "each position is one too large: the first real token stands at 0. Alone that would not "
        "matter, but the cache was filled otherwise.",
        lambda real, new: (_positions(real, new) + 1, _mask(real, new)),
    ),
    Mistake(
        "all positions",
        "you return the positions of all tokens. Only the new ones are turned.",
        lambda real, new: (real.long().cumsum(dim=-1) - 1, _mask(real, new)),
    ),
    Mistake(
        "mask without offset",
        "the positions are right. Your triangle begins at the left: the first new token reads only "
        "the first old one. At which place does query row 0 stand?",
        lambda real, new: (_positions(real, new), _top_left(real, new) & real[:, None]),
    ),
    Mistake(
        "padding may be read",
        "the positions are right. In your mask a blank may be read.",
        lambda real, new: (_positions(real, new), _causal(real, new)),
    ),
    Mistake(
        "sees the future",
        "the positions are right. In your mask each new token reads all that is real, later ones "
        "included.",
        lambda real, new: (_positions(real, new), real[:, None].expand(-1, new, -1)),
    ),
    Mistake(
        "not itself",
        "the positions are right. In your mask a token stops one place before itself.",
        lambda real, new: (
            _positions(real, new),
            _top_left(real, new, _past(real, new) - 1) & real[:, None],
        ),
    ),
    Mistake(
        "turned round",
        "your mask says True where a token may *not* read. True is to mean: may read.",
        lambda real, new: (_positions(real, new), ~_mask(real, new)),
    ),
)  # fmt: skip
