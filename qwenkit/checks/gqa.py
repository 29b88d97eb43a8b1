"""The checks of notebook 06, GQA: repetition, attention without it, the attention of a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._gqa_attend import GROUP_MISTAKES
from qwenkit.checks._gqa_layer import LAYER_MISTAKES, layer_case, right_layer
from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import eager_attention, repeat_kv

EXERCISES = {
    "06.1": "repeat by a view",
    "06.2": "attention without repeating",
    "06.3": "the attention of a layer, with a cache",
}


def repeat(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, groups)`, (B, KV, S, D) to (B, H, S, D): exercise 06.1."""
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
    return judge("06.1", learner, repeat_kv, cases, _REPEAT_MISTAKES, praise, forbidden=forbidden)


def attend_grouped(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v)`, grouped attention (B, H, T, D): exercise 06.2."""

    def case(label: str, *sizes: int) -> Case:
        batch, heads, kv_heads, queries, keys = sizes
        k, v = (normal(batch, kv_heads, keys, 4, seed=seed) for seed in (1, 2))
        return Case(label, (normal(batch, heads, queries, 4), k, v))

    q, k, v = case("", 2, 4, 2, 3, 5).arguments
    cases = [
        case("four heads, two kv heads", 1, 4, 2, 3, 3),
        case("two texts, six heads, two kv heads", 2, 6, 2, 3, 3),
        case("six heads, three kv heads, two new tokens after three", 1, 6, 3, 2, 5),
        case("one new token after five", 1, 4, 2, 1, 6),
        case("a kv head for each query head", 1, 3, 3, 3, 3),
        case("one kv head for all", 1, 4, 1, 3, 3),
        not_contiguous(q, k, v),
        in_bfloat16(q / 2, k, v),
    ]
    praise = "every query head meets the keys and values of its group, and nothing was copied."
    copies = ("repeat_interleave", "repeat_kv", "repeat")
    forbidden = (*copies, "eager_attention", "fused_attention", "scaled_dot_product_attention")
    return judge("06.2", learner, eager_attention, cases, GROUP_MISTAKES, praise, LOOSE, forbidden)


def attention_layer(learner: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Verdict:
    """Check `learner(x, weights, cos, sin, keys, values)`: exercise 06.3."""
    small = (16, 4, 2, 4)  # C, H, KV, D
    cases = [
        layer_case("a text of four tokens, nothing cached", small, 4, 0),
        layer_case("one new token after five", small, 1, 5),
        layer_case("two texts, three new tokens after four", small, 3, 4, batch=2),
        layer_case("six heads, two kv heads, D is not C / H", (20, 6, 2, 8), 3, 2),
        layer_case("a kv head for each query head", (12, 3, 3, 4), 3, 1),
        layer_case("one kv head for all", (16, 4, 1, 4), 2, 3),
        layer_case("bfloat16", small, 3, 2, dtype=torch.bfloat16),
    ]
    praise = "this is the whole attention of a Qwen layer, and it works with a cache."
    forbidden = ("Attention", "eager_attention", "fused_attention", "scaled_dot_product_attention")
    return judge("06.3", learner, right_layer, cases, LAYER_MISTAKES, praise, LOOSE, forbidden)


# --- 06.1 ---

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
