"""The checks of notebook 06, GQA: the kv head of a query head, repetition, bytes, values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._gqa_counts import BYTE_MISTAKES, HEAD_MISTAKES, bytes_of, kv_head_of
from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._kv import kv_values
from qwenkit.checks._samples import SEVEN_B, WIDE_HEADS, in_bfloat16, normal, not_contiguous
from qwenkit.config import QwenConfig
from qwenkit.model import repeat_kv

EXERCISES = {
    "06.1": "which kv head",
    "06.2": "repeat by a view",
    "06.3": "bytes of the cache",
    "06.4": "read values without repeating",
}


def kv_head(learner: Callable[..., int]) -> Verdict:
    """Check `learner(head, heads, kv_heads)`, the number of a kv head: exercise 06.1."""
    asked = [(3, 8, 2), (4, 8, 2), (0, 8, 2), (7, 8, 2), (6, 14, 2), (13, 14, 2), (23, 40, 8)]
    asked += [(2, 4, 4), (3, 4, 1)]
    cases = [Case(f"head {h} of {heads}, {kv} kv heads", (h, heads, kv)) for h, heads, kv in asked]
    praise = "H / KV consecutive query heads share one kv head."
    return judge("06.1", learner, kv_head_of, cases, HEAD_MISTAKES, praise)


def repeat(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, groups)`, (B, KV, S, D) to (B, H, S, D): exercise 06.2."""
    plain = normal(1, 2, 3, 4)
    cases = [
        Case("two kv heads, four query heads", (plain, 2)),
        Case("two texts, three times each", (normal(2, 2, 5, 4), 3)),
        Case("groups of one", (plain, 1)),
        Case("one kv head for all", (normal(1, 1, 3, 4), 4)),
        Case("one token", (normal(1, 2, 1, 4), 2)),
        Case("not contiguous", (*not_contiguous(plain).arguments, 2)),
        Case("bfloat16", (plain.bfloat16(), 2)),
    ]
    praise = "each kv head is repeated consecutively, in line with the query heads trained on it."
    forbidden = ("repeat_interleave", "repeat_kv")
    return judge("06.2", learner, repeat_kv, cases, _REPEAT_MISTAKES, praise, forbidden=forbidden)


def cache_bytes(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config, tokens, size)`, bytes of a KV cache: exercise 06.3."""
    cases = [
        Case("7B, 100 tokens, 2 bytes", (SEVEN_B, 100, 2)),
        Case("7B, one token, 4 bytes", (SEVEN_B, 1, 4)),
        Case("head_dim is not C / H", (WIDE_HEADS, 10, 2)),
        Case("as many kv heads as query heads", (_MHA, 7, 2)),
    ]
    praise = "keys and values, every layer, KV heads of D values: that is all a cache holds."
    forbidden = ("kv_bytes_per_token",)
    count = bytes_of(kv_values)
    return judge("06.3", learner, count, cases, BYTE_MISTAKES, praise, forbidden=forbidden)


def read_values(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(pattern, v)`, the weighted sums (B, H, T, D): exercise 06.4."""

    def case(label: str, *sizes: int) -> Case:
        batch, heads, kv_heads, queries, keys, size = sizes
        weights = normal(batch, heads, queries, keys).softmax(dim=-1)
        return Case(label, (weights, normal(batch, kv_heads, keys, size, seed=1)))

    weights, v = case("", 2, 4, 2, 3, 5, 4).arguments
    cases = [
        case("four heads, two kv heads", 1, 4, 2, 3, 3, 4),
        case("two texts, six heads, two kv heads", 2, 6, 2, 3, 3, 5),
        case("six heads, three kv heads", 1, 6, 3, 2, 2, 4),
        case("one new token after five", 1, 4, 2, 1, 6, 4),
        case("a kv head for each query head", 1, 4, 4, 3, 3, 4),
        case("one kv head for all", 1, 4, 1, 3, 3, 4),
        not_contiguous(weights, v),
        in_bfloat16(weights, v),
    ]
    praise = "every query head reads the values of its group."
    forbidden = ("repeat_interleave", "repeat_kv", "repeat", "tile")
    return judge("06.4", learner, _read_values, cases, _READ_MISTAKES, praise, LOOSE, forbidden)


_MHA = QwenConfig(1000, 96, 200, 5, 4, 4, 16)


# --- 06.2 ---

_CYCLES = (
    "the order is k0, k1, k0, k1, ...: all kv heads, again and again. Query heads 0 and 1 share kv "
    "head 0, so k0 must come twice in a row. Put a new axis after KV, and merge the two."
)
_EXPAND = (
    "`expand` repeats only an axis of size 1, and `view` cannot merge what it repeats. Insert a "
    "new axis after KV, expand it, and merge with `reshape` or `flatten`."
)
_FIXED = "you always make the same number of copies. Use the argument `groups`."
_TOKENS = (
    "you repeat the tokens: there are now groups × S of them. You need more heads, not a longer "
    "text."
)


def _cut_into_heads(x: Tensor, groups: int, dim: int) -> Tensor:
    batch, _, tokens, size = x.shape
    return x.repeat_interleave(groups, dim).reshape(batch, -1, tokens, size)


_REPEAT_MISTAKES = (
    Mistake("cycles", _CYCLES, lambda x, groups: x.repeat(1, groups, 1, 1)),
    Mistake("not merged", "the copies are right, but they have an axis of their own: (B, KV, "
        "groups, S, D). Merge it with the axis of the kv heads.",
        lambda x, groups: x[:, :, None].expand(-1, -1, groups, -1, -1)),
    Mistake("axis before KV, not merged", "the copies have an axis of their own, and it is before "
        "the kv heads: (B, groups, KV, S, D). Put it after KV, then merge the two.",
        lambda x, groups: x[:, None].expand(-1, groups, -1, -1, -1)),
    Mistake("axis after the tokens", "your new axis is after the tokens, so heads and tokens are "
        "merged. Put it between KV and S.",
        lambda x, groups: x[:, :, :, None].expand(-1, -1, -1, groups, -1).flatten(1, 2)),
    Mistake("expand", _EXPAND,
        lambda x, groups: x.expand(-1, x.shape[1] * groups, -1, -1)),
    Mistake("expand", _EXPAND,
        lambda x, groups:
            x[:, :, None].expand(-1, -1, groups, -1, -1).view(len(x), -1, *x.shape[2:])),
    *(Mistake("a fixed number of copies", _FIXED,
        lambda x, groups, number=number: repeat_kv(x, number)) for number in (2, 4, 7)),
    Mistake("multiplied", "you multiply the values by `groups`. Copy the heads instead.",
        lambda x, groups: x * groups),
    Mistake("a list", "you return a list of copies. Stack them along a new axis after KV, and "
        "merge the two.",
        lambda x, groups: [x] * groups),
    Mistake("one text only", "you return one text: its batch axis has the size 1. Keep B as it is.",
        lambda x, groups: repeat_kv(x, groups).reshape(1, -1, *x.shape[2:])),
    Mistake("tokens repeated, cut into heads", "the shape is right, but each *token* is repeated, "
        "and the result is then cut into heads. A head must stay in one piece.",
        lambda x, groups: _cut_into_heads(x, groups, dim=2)),
    Mistake("dimensions repeated, cut into heads", "the shape is right, but each *value* is "
        "repeated, and the result is then cut into heads. A head must stay in one piece.",
        lambda x, groups: _cut_into_heads(x, groups, dim=3)),
    Mistake("tokens repeated", _TOKENS, lambda x, groups: x.repeat_interleave(groups, dim=2)),
    Mistake("tokens repeated", "you repeat the whole text after itself. You need more heads, not a "
        "longer text.",
        lambda x, groups: x.repeat(1, 1, groups, 1)),
    Mistake("batch repeated", "you repeat along the first axis, the batch. Which axis of (B, KV, "
        "S, D) holds the heads?",
        lambda x, groups: x.repeat_interleave(groups, dim=0)),
    Mistake("batch repeated", "you repeat the texts of the batch. Which axis of (B, KV, S, D) "
        "holds the heads?",
        lambda x, groups: x.repeat(groups, 1, 1, 1)),
    Mistake("flat", "you return one long vector: without `dim`, `repeat_interleave` flattens its "
        "input.",
        lambda x, groups: x.repeat_interleave(groups)),
    Mistake("heads reversed", "each kv head is repeated consecutively, but the last one comes "
        "first. Query head 0 uses kv head 0.",
        lambda x, groups: repeat_kv(x.flip(1), groups)),
    Mistake("unchanged", "nothing is repeated: you return KV heads, not H.", lambda x, groups: x),
    Mistake("divided", "you divide by the number of copies. Each query head needs the whole key, "
        "not a part of it.",
        lambda x, groups: repeat_kv(x, groups) / groups),
)  # fmt: skip


# --- 06.4 ---


def _read_values(pattern: Tensor, v: Tensor) -> Tensor:
    return pattern @ repeat_kv(v, pattern.shape[1] // v.shape[1])


def _by_group(pattern: Tensor, kv_heads: int) -> Tensor:
    return pattern.reshape(len(pattern), kv_heads, -1, *pattern.shape[2:])  # (B, KV, groups, T, S)


def _axis_in_front(pattern: Tensor, v: Tensor) -> Tensor:
    """Match the position in a group with the kv head of that number (if both counts agree)."""
    return (_by_group(pattern, v.shape[1]) @ v[:, None]).flatten(1, 2)


def _order_lost(pattern: Tensor, v: Tensor) -> Tensor:
    z = _by_group(pattern, v.shape[1]) @ v[:, :, None]  # (B, KV, groups, T, D)
    return z.transpose(1, 2).flatten(1, 2)


_READ_MISTAKES = (
    Mistake("not grouped", "right if every query head has its own kv head, or all share one. "
        "Otherwise H and KV differ: split H into (KV, groups).",
        lambda p, v: p @ v),
    Mistake("not split", "every query head reads every kv head: v has a new axis, but the pattern "
        "does not. Split H into (KV, groups).",
        lambda p, v: p @ v[:, :, None]),
    Mistake("KV fixed", "you always split into two kv heads. Take KV from the shape of v.",
        lambda p, v: (_by_group(p, 2) @ v[:, :, None]).flatten(1, 2)),
    Mistake("KV fixed", "you always split into two kv heads. Take KV from the shape of v.",
        lambda p, v: torch.einsum("bkgts,bksd->bkgtd", _by_group(p, 2), v).flatten(1, 2)),
    Mistake("group and tokens merged", "you merge groups with T. Merge KV with groups: together "
        "they are the H heads.",
        lambda p, v: (_by_group(p, v.shape[1]) @ v[:, :, None]).flatten(2, 3)),
    Mistake("softmax again", "you apply softmax to the pattern. Its rows are attention weights "
        "already.",
        lambda p, v: _read_values(p.softmax(dim=-1), v)),
    Mistake("joined already", "the heads are joined already, (B, T, H·D). Return them one by one: "
        "(B, H, T, D).",
        lambda p, v: _read_values(p, v).transpose(1, 2).flatten(2)),
    Mistake("divided by KV", "you divide the number of the head by KV. How many query heads share "
        "one kv head?",
        lambda p, v: p @ v[:, [h // v.shape[1] for h in range(p.shape[1])]]),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Return the "
        "dtype of the input.",
        lambda p, v: _read_values(p.float(), v.float())),
    Mistake("cycles", "your query heads use k0, k1, k0, k1 in turn, in the order of `repeat`. "
        "Split H into (KV, groups), kv head first: the heads of a group are consecutive.",
        lambda p, v: p @ v.repeat(1, p.shape[1] // v.shape[1], 1, 1)),
    Mistake("not merged", "the values are right, but they have five axes: (B, KV, groups, T, D). "
        "Merge the two that make up H.",
        lambda p, v: _by_group(p, v.shape[1]) @ v[:, :, None]),
    Mistake("order lost", "each head is computed correctly and then put in the wrong position. "
        "`o_proj` expects the heads in the order of the queries.",
        _order_lost),
    Mistake("axis in front", "the new axis of v is before its kv heads, so the position within a "
        "group selects the kv head. If both counts agree, this raises no error. Put the axis after "
        "the kv heads.",
        _axis_in_front),
    Mistake("group added up", "you add up the heads of a group. They share keys and values, but "
        "each has its own query: the result has H heads, not KV.",
        lambda p, v: _by_group(p, v.shape[1]).sum(dim=2) @ v),
    Mistake("group averaged", "you average the heads of a group. They share keys and values, but "
        "each has its own query.",
        lambda p, v: _by_group(p, v.shape[1]).mean(dim=2) @ v),
    Mistake("first kv head only", "every head uses kv head 0. That is right only for MQA.",
        lambda p, v: p @ v[:, :1]),
    Mistake("values averaged", "you average over the kv heads, so all heads read the same mixture.",
        lambda p, v: p @ v.mean(dim=1, keepdim=True)),
    Mistake("pattern transposed", "you transpose the pattern, so keys attend to queries. Each row "
        "belongs to a query.",
        lambda p, v: _read_values(p.transpose(-2, -1), v)),
    Mistake("groups backwards", "the groups are right, but they use the kv heads in reverse order.",
        lambda p, v: _read_values(p, v.flip(1))),
)  # fmt: skip
