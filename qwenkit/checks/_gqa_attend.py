"""The mistakes of exercise 06.2, grouped attention in which no kv head is repeated."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._attention_scores import NO_OFFSET, ZERO_BEFORE_SOFTMAX
from qwenkit.checks._judge import Mistake
from qwenkit.model import eager_attention, repeat_kv

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
_NEVER = float("-inf")


def _picked(
    order: Callable[[int, int, int], int], keys: bool = True, values: bool = True
) -> Attend:
    """Return attention whose query head h uses kv head `order(h, H, KV)`."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, kv_heads = q.shape[1], k.shape[1]
        found = [order(h, heads, kv_heads) for h in range(heads)]
        right = [h * kv_heads // heads for h in range(heads)]
        return eager_attention(q, k[:, found if keys else right], v[:, found if values else right])

    return attend


def _by_steps(
    scale: Callable[[int], float] = math.sqrt,
    ahead: Callable[[int, int], int] = lambda queries, keys: keys - queries,
    fill: float = _NEVER,
    axis: int = -1,
    masked: bool = True,
    late: bool = False,
) -> Attend:
    """Return grouped attention, (B, KV, H/KV, T, S) scores, that is wrong in one step."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = grouped(q, k.shape[1]) @ k[:, :, None].transpose(-2, -1) / scale(q.shape[-1])
        seen = torch.ones_like(scores, dtype=torch.bool).tril(ahead(q.shape[2], k.shape[2]))
        if masked and not late:
            scores = scores.masked_fill(~seen, fill)
        weights = scores.softmax(dim=axis)
        return ((weights * seen if late else weights) @ v[:, :, None]).flatten(1, 2)

    return attend


def grouped(q: Tensor, kv_heads: int) -> Tensor:
    return q.reshape(len(q), kv_heads, -1, *q.shape[2:])  # (B, KV, H/KV, T, D)


def _weights(scores: Tensor) -> Tensor:
    seen = torch.ones_like(scores, dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
    return scores.masked_fill(~seen, _NEVER).softmax(dim=-1)


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _weights(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])) @ v


def _axis_in_front(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Match the position in a group with the kv head of that number (if both counts agree)."""
    return _plain(grouped(q, k.shape[1]), k[:, None], v[:, None]).flatten(1, 2)


def _stacked_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Put the heads of a group below one another, and mask them as one long text."""
    rows = q.reshape(len(q), k.shape[1], -1, q.shape[-1])  # (B, KV, H/KV · T, D)
    return _plain(rows, k, v).reshape(q.shape)


def _stacked_square(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = q.reshape(len(q), k.shape[1], -1, q.shape[-1])
    scores = rows @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    seen = torch.ones_like(scores, dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    return (scores.masked_fill(~seen, _NEVER).softmax(dim=-1) @ v).reshape(q.shape)


def _order_lost(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    z = grouped(eager_attention(q, k, v), k.shape[1])
    return z.transpose(1, 2).flatten(1, 2)


def _two_groups(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _plain(grouped(q, 2), k[:, :, None], v[:, :, None]).flatten(1, 2)


def _two_groups_by_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    split = torch.unflatten(q, 1, (2, -1))
    weights = _weights(torch.einsum("bkgtd,bksd->bkgts", split, k) / math.sqrt(q.shape[-1]))
    return torch.einsum("bkgts,bksd->bkgtd", weights, v).flatten(1, 2)


_STACKED = (
    "the heads of a group are below one another, so the mask takes them for one long text. Each "
    "head starts at the first token again: give the group an axis of its own before you mask."
)
_CYCLES = (
    "your query heads use k0, k1, k0, k1 in turn. Split H into (KV, groups), kv head first: the "
    "heads of a group are consecutive."
)
_NOT_SPLIT = (
    "every query head meets every kv head: k and v have a new axis, but q does not. Split H of q "
    "into (KV, groups)."
)
_SPLIT = "you always split into two kv heads. Take KV from the shape of k."
GROUP_MISTAKES = (
    Mistake("not grouped", "right if every query head has its own kv head, or all share one. "
        "Otherwise H and KV differ: split H of q into (KV, groups).",
        _plain),
    Mistake("not split", _NOT_SPLIT,
        lambda q, k, v: _plain(q, k[:, :, None], v[:, :, None])),
    Mistake("not split", _NOT_SPLIT,
        lambda q, k, v: _plain(q, k[:, :, None], v[:, :, None]).flatten(1, 2)),
    Mistake("KV fixed", _SPLIT, _two_groups),
    Mistake("KV fixed", _SPLIT, _two_groups_by_letters),
    Mistake("cycles", _CYCLES, _picked(lambda h, heads, kv: h % kv)),
    Mistake("keys in another order", "the values are right, but query heads meet the wrong keys. "
        "Group queries once, and use the same groups for keys and values.",
        _picked(lambda h, heads, kv: h % kv, values=False)),
    Mistake("values in another order", "the scores are right, but they meet the values of other kv "
        "heads. Keep the groups until the values are added up.",
        _picked(lambda h, heads, kv: h % kv, keys=False)),
    Mistake("divided by KV", "you divide the number of the head by KV. How many query heads share "
        "one kv head?",
        _picked(lambda h, heads, kv: h // kv)),
    Mistake("groups backwards", "the groups are right, but they use the kv heads in reverse order.",
        _picked(lambda h, heads, kv: kv - 1 - h * kv // heads)),
    Mistake("first kv head only", "every head uses kv head 0. That is right only for MQA.",
        _picked(lambda h, heads, kv: 0)),
    Mistake("axis in front", "the new axis of k and v is before their kv heads, so the position "
        "within a group selects the kv head. If both counts agree, this raises no error. Put the "
        "axis after the kv heads.",
        _axis_in_front),
    Mistake("not merged", "the values are right, but they have five axes: (B, KV, groups, T, D). "
        "Merge the two that make up H.",
        lambda q, k, v: grouped(eager_attention(q, k, v), k.shape[1])),
    Mistake("group and tokens merged", "you merge groups with T. Merge KV with groups: together "
        "they are the H heads.",
        lambda q, k, v: grouped(eager_attention(q, k, v), k.shape[1]).flatten(2, 3)),
    Mistake("order lost", "each head is computed correctly and then put in the wrong position. "
        "`o_proj` expects the heads in the order of the queries.",
        _order_lost),
    Mistake("group added up", "you add up the heads of a group. They share keys and values, but "
        "each has its own query: the result has H heads, not KV.",
        lambda q, k, v: grouped(eager_attention(q, k, v), k.shape[1]).sum(dim=2)),
    Mistake("group averaged", "you average the heads of a group. They share keys and values, but "
        "each has its own query: the result has H heads, not KV.",
        lambda q, k, v: grouped(eager_attention(q, k, v), k.shape[1]).mean(dim=2)),
    Mistake("queries averaged", "you average the queries of a group before they meet the keys. "
        "Each query head keeps its own query.",
        lambda q, k, v: eager_attention(grouped(q, k.shape[1]).mean(dim=2), k, v)),
    Mistake("rows stacked", _STACKED, _stacked_rows),
    Mistake("rows stacked", _STACKED, _stacked_square),
    Mistake("no mask", "the future is not masked. The mask is the same for all heads and groups.",
        _by_steps(masked=False)),
    Mistake("no offset", NO_OFFSET, _by_steps(ahead=lambda queries, keys: 0)),
    Mistake("sees the next token", "each token sees one token too many. Which keys may the last of "
        "the earlier positions see?",
        _by_steps(ahead=lambda queries, keys: keys - queries + 1)),
    Mistake("not itself", "each token stops one position before itself.",
        _by_steps(ahead=lambda queries, keys: keys - queries - 1)),
    Mistake("mask after softmax", "your weights sum to less than 1: the future is set to 0 after "
        "softmax.",
        _by_steps(late=True)),
    Mistake("zero before softmax", ZERO_BEFORE_SOFTMAX, _by_steps(fill=0.0)),
    Mistake("over queries", "your softmax runs along the queries. Each query distributes its "
        "attention over the keys: the last axis.",
        _by_steps(axis=-2)),
    Mistake("over the group", "your softmax runs along the heads of a group. Now there are five "
        "axes: the keys are the last one.",
        _by_steps(axis=2)),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _by_steps(scale=lambda size: 1)),
    Mistake("divided by D", "you divide by D itself. The scores grow with its square root.",
        _by_steps(scale=lambda size: size)),
    Mistake("keys instead of values", "you add up keys. What is passed on is the value.",
        lambda q, k, v: eager_attention(q, k, k)),
    Mistake("joined already", "the heads are joined already, (B, T, H·D). Return them one by one: "
        "(B, H, T, D).",
        lambda q, k, v: eager_attention(q, k, v).transpose(1, 2).flatten(2)),
    Mistake("no values", "these are the attention weights. The last step is missing: add up the "
        "values with them.",
        lambda q, k, v: _weights(q @ repeat_kv(k, q.shape[1] // k.shape[1]).transpose(-2, -1)
            / math.sqrt(q.shape[-1]))),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Return the "
        "dtype of the input.",
        lambda q, k, v: eager_attention(q.float(), k.float(), v.float())),
)  # fmt: skip
