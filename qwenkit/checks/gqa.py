"""The checks of notebook 06, GQA: who reads whom, repetition, bytes, reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal, turned
from qwenkit.config import QwenConfig
from qwenkit.model import repeat_kv

EXERCISES = {
    "06.1": "which kv head",
    "06.2": "repeat by a view",
    "06.3": "bytes of the cache",
    "06.4": "read without repeating",
}
LOOSE = 1e-4  # in bfloat16 the order of two roundings shows; no mistake below is that small


def kv_head(learner: Callable[..., int]) -> Verdict:
    """Check `learner(head, heads, kv_heads)`, a kv head's number: exercise 06.1."""
    asked = [(3, 8, 2), (4, 8, 2), (0, 8, 2), (7, 8, 2), (6, 14, 2), (13, 14, 2), (23, 40, 8)]
    asked += [(2, 4, 4), (3, 4, 1)]
    cases = [Case(f"head {h} of {heads}, {kv} kv heads", (h, heads, kv)) for h, heads, kv in asked]
    praise = "neighbours share: a run of H / KV query heads reads one kv head."
    return judge("06.1", learner, _kv_head, cases, HEAD_MISTAKES, praise)


def repeat(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, groups)`, (B, KV, S, D) to (B, H, S, D): exercise 06.2."""
    plain = normal(1, 2, 3, 4)
    cases = [
        Case("two kv heads, four query heads", (plain, 2)),
        Case("two texts, three times each", (normal(2, 2, 5, 4), 3)),
        Case("groups of one", (plain, 1)),
        Case("one kv head for all", (normal(1, 1, 3, 4), 4)),
        Case("one token", (normal(1, 2, 1, 4), 2)),
        Case("not contiguous", (plain.transpose(1, 2).contiguous().transpose(1, 2), 2)),
        Case("bfloat16", (plain.bfloat16(), 2)),
    ]
    praise = "each kv head stands in a run, opposite the query heads that were trained on it."
    return judge("06.2", learner, repeat_kv, cases, REPEAT_MISTAKES, praise)


def cache_bytes(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config, tokens, size)`, bytes of a KV cache: exercise 06.3."""
    # vocabulary, hidden, intermediate, layers, heads, kv heads, head_dim: D is C / H in some only
    seven = QwenConfig(152_064, 3584, 18_944, 28, 28, 4)
    wide = QwenConfig(1000, 96, 200, 3, 6, 2, 40)
    own = QwenConfig(1000, 96, 200, 5, 4, 4, 16)
    cases = [
        Case("7B, 100 tokens, 2 bytes", (seven, 100, 2)),
        Case("7B, one token, 4 bytes", (seven, 1, 4)),
        Case("head_dim is not C / H", (wide, 10, 2)),
        Case("as many kv heads as query heads", (own, 7, 2)),
    ]
    praise = "keys and values, every layer, KV heads of D numbers: that is all a cache holds."
    return judge("06.3", learner, _cache_bytes, cases, BYTE_MISTAKES, praise)


def read_values(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(pattern, v)`, the weighted sums (B, H, T, D): exercise 06.4."""

    def case(words: str, *sizes: int) -> Case:
        batch, heads, kv_heads, queries, keys, size = sizes
        shares = normal(batch, heads, queries, keys).softmax(dim=-1)
        return Case(words, (shares, normal(batch, kv_heads, keys, size, seed=1)))

    shares, v = case("", 2, 4, 2, 3, 5, 4).arguments
    cases = [
        case("four heads, two kv heads", 1, 4, 2, 3, 3, 4),
        case("two texts, six heads, two kv heads", 2, 6, 2, 3, 3, 5),
        case("six heads, three kv heads", 1, 6, 3, 2, 2, 4),
        case("one new token behind five", 1, 4, 2, 1, 6, 4),
        case("a kv head for each query head", 1, 4, 4, 3, 3, 4),
        case("one kv head for all", 1, 4, 1, 3, 3, 4),
        Case("not contiguous", (turned(shares), turned(v))),
        Case("bfloat16", (shares.bfloat16(), v.bfloat16())),
    ]
    praise = "every query head reads its group's values, and no value is copied."
    return judge("06.4", learner, _read_values, cases, READ_MISTAKES, praise, LOOSE)


# --- 06.1 ---


def _kv_head(head: int, heads: int, kv_heads: int) -> int:
    return head // (heads // kv_heads)


HEAD_MISTAKES = (
    Mistake(
        "cycles",
        "you deal the kv heads out in turn: 0, 1, 0, 1, ... That is the order of `repeat`. Qwen's "
        "neighbours share: the first H / KV query heads all read kv head 0.",
        lambda h, heads, kv: h % kv,
    ),
    Mistake(
        "divided by KV",
        "you divide by how many kv heads there are. How many query heads share one?",
        lambda h, heads, kv: h // kv,
    ),
    Mistake(
        "place in the group",
        "that is where the head stands within its group. In which group is it?",
        lambda h, heads, kv: h % (heads // kv),
    ),
    Mistake(
        "first of the group",
        "that is the first query head of the group. Groups are counted 0, 1, 2, ...",
        lambda h, heads, kv: h - h % (heads // kv),
    ),
    Mistake(
        "not whole",
        "you get fractions. All heads of a group get the same whole number: `//` drops the rest.",
        lambda h, heads, kv: h * kv / heads,
    ),
    Mistake(
        "rounded",
        "you round to the nearest, so the second half of a group moves on to the next kv head. A "
        "whole group has one.",
        lambda h, heads, kv: round(h * kv / heads),
    ),
    Mistake(
        "counted from 1",
        "you count from 1. The first kv head has the number 0, as the first query head has.",
        lambda h, heads, kv: h // (heads // kv) + 1,
    ),
    Mistake(
        "backwards",
        "you count the kv heads from the end. Query head 0 reads kv head 0.",
        lambda h, heads, kv: kv - 1 - h // (heads // kv),
    ),
    Mistake(
        "its own",
        "you give each query head a kv head of its own. There are only KV of them.",
        lambda h, heads, kv: h,
    ),
)


# --- 06.2 ---

CYCLES = (
    "the order is k0, k1, k0, k1, ...: all kv heads, again and again. Query heads 0 and 1 share kv "
    "head 0, so k0 must stand twice in a row. Where does the new axis belong: before or behind KV?"
)
REPEAT_MISTAKES = (
    Mistake("cycles", CYCLES, lambda x, groups: x.repeat(1, groups, 1, 1)),
    Mistake(
        "not merged",
        "the copies are right and have an axis of their own: (B, KV, groups, S, D). Merge it with "
        "the axis of the kv heads.",
        lambda x, groups: x[:, :, None].expand(-1, -1, groups, -1, -1),
    ),
    Mistake(
        "tokens repeated, cut into heads",
        "the shape is right, but each *token* is repeated, and the long row is then cut into "
        "heads. A head must come back whole.",
        lambda x, groups: x.repeat_interleave(groups, dim=2).reshape(
            x.shape[0], -1, x.shape[2], x.shape[3]
        ),
    ),
    Mistake(
        "dimensions repeated, cut into heads",
        "the shape is right, but each *number* is repeated, and the result is then cut into heads. "
        "A head must come back whole.",
        lambda x, groups: x.repeat_interleave(groups, dim=3).reshape(
            x.shape[0], -1, x.shape[2], x.shape[3]
        ),
    ),
    Mistake(
        "tokens repeated",
        "you repeat the tokens: there are now groups × S of them. More heads are wanted, not a "
        "longer text.",
        lambda x, groups: x.repeat_interleave(groups, dim=2),
    ),
    Mistake(
        "tokens repeated",
        "you repeat the whole text behind itself. More heads are wanted, not a longer text.",
        lambda x, groups: x.repeat(1, 1, groups, 1),
    ),
    Mistake(
        "texts repeated",
        "you repeat along the first axis, the texts. Which axis of (B, KV, S, D) holds the heads?",
        lambda x, groups: x.repeat_interleave(groups, dim=0),
    ),
    Mistake(
        "flat",
        "a single long row comes back: without `dim`, `repeat_interleave` forgets all axes.",
        lambda x, groups: x.repeat_interleave(groups),
    ),
    Mistake(
        "heads reversed",
        "each kv head stands in a run, the last one first. Query head 0 reads kv head 0.",
        lambda x, groups: repeat_kv(x.flip(1), groups),
    ),
    Mistake("unchanged", "nothing is repeated: KV heads come back, not H.", lambda x, groups: x),
    Mistake(
        "divided",
        "you divide by the number of copies. Each query head needs the whole key: a copy is not a "
        "share.",
        lambda x, groups: repeat_kv(x, groups) / groups,
    ),
)


# --- 06.3 ---


def _cache_bytes(config: QwenConfig, tokens: int, size: int) -> int:
    return 2 * config.num_hidden_layers * _of_kv_heads(config) * tokens * size


def _of_kv_heads(c: QwenConfig) -> int:
    return c.num_key_value_heads * c.head_dim


def _of_query_heads(c: QwenConfig) -> int:
    return c.num_attention_heads * c.head_dim


def _instead(numbers: Callable[[QwenConfig], Any]) -> Callable[[QwenConfig, int, int], Any]:
    """Return the count with another number of values a token, layer and kind."""
    return lambda c, tokens, size: 2 * c.num_hidden_layers * numbers(c) * tokens * size


BYTE_MISTAKES = (
    Mistake(
        "query heads",
        "you count H heads. The cache holds keys and values before they are repeated, and of those "
        "there are fewer.",
        _instead(_of_query_heads),
    ),
    Mistake(
        "hidden size",
        "you count C numbers a token. That is the stream; a key has KV heads of D numbers.",
        _instead(lambda c: c.hidden_size),
    ),
    Mistake(
        "C / H",
        "right where D is C / H. That is not so in every model: take the config's own `head_dim`.",
        _instead(lambda c: c.num_key_value_heads * (c.hidden_size // c.num_attention_heads)),
    ),
    Mistake(
        "one head",
        "you count one kv head in each layer. How many are there?",
        _instead(lambda c: c.head_dim),
    ),
    Mistake(
        "queries too",
        "you keep the queries as well. An earlier token asks no more: it is only read.",
        lambda c, tokens, size: (
            c.num_hidden_layers * (2 * _of_kv_heads(c) + _of_query_heads(c)) * tokens * size
        ),
    ),
    Mistake(
        "keys only",
        "half of it. Keys are found by; what is passed on must be kept, too.",
        lambda c, tokens, size: _cache_bytes(c, tokens, size) // 2,
    ),
    Mistake(
        "one layer",
        "that is one layer's share. Each layer has keys and values of its own.",
        lambda c, tokens, size: _cache_bytes(c, tokens, size) // c.num_hidden_layers,
    ),
    Mistake(
        "numbers, not bytes",
        "you count numbers. How many bytes has each?",
        lambda c, tokens, size: _cache_bytes(c, tokens, 1),
    ),
    Mistake(
        "one token",
        "that is the share of one token. The cache keeps all of them.",
        lambda c, tokens, size: _cache_bytes(c, 1, size),
    ),
)


# --- 06.4 ---


def _read_values(pattern: Tensor, v: Tensor) -> Tensor:
    return pattern @ repeat_kv(v, pattern.shape[1] // v.shape[1])


def _by_group(pattern: Tensor, kv_heads: int) -> Tensor:
    return pattern.reshape(len(pattern), kv_heads, -1, *pattern.shape[2:])  # (B, KV, groups, T, S)


def _axis_in_front(pattern: Tensor, v: Tensor) -> Tensor:
    """Meet each place in a group with the kv head of that number, where both counts agree."""
    return (_by_group(pattern, v.shape[1]) @ v[:, None]).flatten(1, 2)


def _order_lost(pattern: Tensor, v: Tensor) -> Tensor:
    z = _by_group(pattern, v.shape[1]) @ v[:, :, None]  # (B, KV, groups, T, D)
    return z.transpose(1, 2).flatten(1, 2)


READ_MISTAKES = (
    Mistake(
        "cycles",
        "your query heads read k0, k1, k0, k1 in turn, as `repeat` would lay them. Cut H as "
        "(KV, groups), kv head first: a group is a run.",
        lambda p, v: p @ v.repeat(1, p.shape[1] // v.shape[1], 1, 1),
    ),
    Mistake(
        "not merged",
        "the values are right, in five axes: (B, KV, groups, T, D). Merge the two that make up H.",
        lambda p, v: _by_group(p, v.shape[1]) @ v[:, :, None],
    ),
    Mistake(
        "order lost",
        "each head is read rightly and then put in another place. `o_proj` expects the heads in "
        "the order in which the queries came.",
        _order_lost,
    ),
    Mistake(
        "axis in front",
        "the new axis of v stands before its kv heads, so the place within a group meets the kv "
        "head of that number. Where the two counts agree there is no error. Put it behind.",
        _axis_in_front,
    ),
    Mistake(
        "group added up",
        "you add the heads of a group up. They share what they read, and each asks for itself: H "
        "results, not KV.",
        lambda p, v: _by_group(p, v.shape[1]).sum(dim=2) @ v,
    ),
    Mistake(
        "group averaged",
        "you average the heads of a group. They share what they read, and each asks for itself.",
        lambda p, v: _by_group(p, v.shape[1]).mean(dim=2) @ v,
    ),
    Mistake(
        "first kv head only",
        "every head reads kv head 0. Right for MQA alone.",
        lambda p, v: p @ v[:, :1],
    ),
    Mistake(
        "values averaged",
        "you average over the kv heads, so that all heads read one mixture.",
        lambda p, v: p @ v.mean(dim=1, keepdim=True),
    ),
    Mistake(
        "pattern turned",
        "you turn the pattern over: the tokens that are read do the reading. Rows read.",
        lambda p, v: _read_values(p.transpose(-2, -1), v),
    ),
    Mistake(
        "groups backwards",
        "the groups are right and meet the kv heads in reverse order.",
        lambda p, v: _read_values(p, v.flip(1)),
    ),
)
