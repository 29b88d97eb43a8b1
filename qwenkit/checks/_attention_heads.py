"""The mistakes of exercises 05.2 and 05.3: attention for all heads, and the heads joined."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from qwenkit.checks._attention_scores import (
    DIVIDED_AGAIN,
    FIXED_D,
    FIXED_SIZES,
    HEAD_COUNT,
    NOT_LOW_ENOUGH,
    TOO_LARGE,
    ZERO_BEFORE_SOFTMAX,
    dot_products,
    masked_scores,
    scaled_for,
    scaled_scores,
)
from qwenkit.checks._judge import Mistake
from qwenkit.model import eager_attention

# --- 05.3 ---


def joined_heads(z: Tensor, weight: Tensor) -> Tensor:
    return _joined(z) @ weight.T


def _joined(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)  # (B, T, H·D)


_NOT_JOINED = (
    "the last axis is D, but `weight` has H·D columns. Join the heads of each token first, into "
    "(B, T, H·D); then multiply by the transposed weight."
)
JOIN_MISTAKES = (
    Mistake("heads not moved", "the shape is right, but the values belong to other tokens: "
        "`reshape` reads in order, and all tokens of head 0 come first. Which axes must be swapped "
        "before?",
        lambda z, weight: z.reshape(z.shape[0], z.shape[2], -1) @ weight.T),
    Mistake("heads not joined", _NOT_JOINED, lambda z, weight: z @ weight.T),
    Mistake("heads not joined", _NOT_JOINED, lambda z, weight: z.flatten(1, 2) @ weight.T),
    Mistake("view", "`view` cannot merge axes that are not next to each other in memory, and after "
        "a transpose they are not. `reshape` and `flatten` copy where they must.",
        lambda z, weight: z.transpose(1, 2).view(len(z), z.shape[2], -1) @ weight.T),
    *(Mistake("C taken for H·D", "right where C is H·D. That does not hold for every model: the "
        "joined heads have H·D values, one per column of `weight`.",
        lambda z, weight, tokens=tokens:
            z.transpose(1, 2).reshape(len(z), tokens or z.shape[2], len(weight)) @ weight.T)
        for tokens in (None, -1)),
    Mistake("wrong axes swapped", "you swap the last two axes, T and D. Tokens must come before "
        "heads, and the D values of a head must stay together: swap H and T.",
        lambda z, weight: z.transpose(2, 3).reshape(len(z), z.shape[2], -1) @ weight.T),
    Mistake("batch and heads swapped", "you swap the batch and the heads. Axis 0 is B here: swap H "
        "and T.",
        lambda z, weight: z.transpose(0, 1).reshape(len(z), z.shape[2], -1) @ weight.T),
    Mistake("one head only", "only the first head is in your result. Each head has its own D "
        "columns of `weight`.",
        lambda z, weight: z[:, 0] @ weight[:, : z.shape[-1]].T),
    Mistake("one head only", "only the last head is in your result. Do you add up the heads, or "
        "does each one replace the one before?",
        lambda z, weight: z[:, -1] @ weight[:, -z.shape[-1] :].T),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Return the "
        "dtype of the input.",
        lambda z, weight: joined_heads(z.float(), weight.float())),
    Mistake("heads interleaved", "each token has all its values, but in the wrong order: the first "
        "of every head, then the second of every head. A head is D consecutive values.",
        lambda z, weight: z.permute(0, 2, 3, 1).flatten(2) @ weight.T),
    Mistake("weight not transposed", "a stored weight has one row per output: multiply by its "
        "transpose. If the weight is square, this mistake raises no error.",
        lambda z, weight: _joined(z) @ weight),
    Mistake("not projected", "the heads are concatenated, but nothing mixes them yet. Where does "
        "`weight` come in?",
        lambda z, weight: _joined(z)),
    Mistake("heads reversed", "your last head comes first. `weight` was trained with head 0 first.",
        lambda z, weight: _joined(z.flip(1)) @ weight.T),
    Mistake("heads added", "you add the heads up before you project. Each head has its own columns "
        "in `weight`: concatenate the heads.",
        lambda z, weight: z.sum(dim=1) @ weight[:, : z.shape[-1]].T),
    Mistake("every head the same columns", "you give every head the first D columns of `weight`, "
        "or the average of all columns. Head h has the D columns from h·D on.",
        lambda z, weight: z.mean(dim=1).repeat(1, 1, z.shape[1]) @ weight.T),
    Mistake("tokens last", "your result is (B, C, T). The residual stream has one row per token: "
        "(B, T, C).",
        lambda z, weight: weight @ z.transpose(2, 3).flatten(1, 2)),
)  # fmt: skip


# --- 05.2 ---


def _with_scores(
    scores: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return attention with other scores, and the right mask."""
    return lambda q, k, v: masked_scores(scores(q, k), _past(q, k)).softmax(dim=-1) @ v


def _seen_up_to(ahead: Callable[[int, int], int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return attention whose mask ends `ahead(T, S)` positions right of the main diagonal."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return masked_scores(scaled_scores(q, k), ahead(q.shape[2], k.shape[2])).softmax(dim=-1) @ v

    return attend


def _always(number: int) -> Callable[[int, int], int]:
    return lambda new, total: number


def _rows_divided(powers: Tensor) -> Tensor:
    return powers / powers.sum(dim=-1, keepdim=True)


def _past(q: Tensor, k: Tensor) -> int:
    return k.shape[2] - q.shape[2]


ATTEND_MISTAKES = (
    Mistake("no offset", "right without a cache. With one, your first new token sees only the "
        "first cached token: the triangle starts at the left. At which position is query row 0?",
        _seen_up_to(lambda new, total: 0)),
    Mistake("offset backwards", "your triangle moves to the left when there are cached tokens, so "
        "some rows have nothing to attend to. In which direction must it move?",
        _seen_up_to(lambda new, total: new - total)),
    Mistake("sees the next token", "each token sees one token too many. The last new token hides "
        "it, since nothing comes after it: look at the row before.",
        _seen_up_to(lambda new, total: total - new + 1)),
    Mistake("not itself", "each token stops one position before itself. Draw it for one new token "
        "after five: which of the six may it attend to?",
        _seen_up_to(lambda new, total: total - new - 1)),
    Mistake("no offset", "right for a whole text and for one new token. Several new tokens after "
        "cached ones need a mask, too, and the triangle must start further right.",
        lambda q, k, v: _seen_up_to(lambda new, total: 0 if new > 1 else total)(q, k, v)),
    Mistake("offset by the new tokens", "you move the triangle by the number of new tokens. Move "
        "it by the number of cached ones, S - T.",
        _seen_up_to(lambda new, total: new)),
    *(Mistake("a fixed offset", "you always move the triangle by the same number. Compute the "
        "number of cached tokens from the shapes of q and k.",
        _seen_up_to(_always(number))) for number in (1, 2, 3, 4, 5)),
    Mistake("no mask", "right for one new token, which may attend to everything. With several, the "
        "first one sees the last one.",
        lambda q, k, v: scaled_scores(q, k).softmax(dim=-1) @ v),
    Mistake("cached tokens forgotten", "your queries attend to the new tokens only. The old ones "
        "are what the cache is for.",
        lambda q, k, v: eager_attention(q, k[:, :, _past(q, k) :], v[:, :, _past(q, k) :])),
    Mistake("mask after softmax", "your weights sum to less than 1: the future is set to 0 after "
        "softmax.",
        lambda q, k, v: scaled_scores(q, k).softmax(dim=-1).tril(_past(q, k)) @ v),
    Mistake("zero before softmax", ZERO_BEFORE_SOFTMAX,
        lambda q, k, v: masked_scores(scaled_scores(q, k), _past(q, k), 0.0).softmax(dim=-1) @ v),
    Mistake("over queries", "your softmax runs along the queries. A single new token would then "
        "give every key a weight of 1.",
        lambda q, k, v: masked_scores(scaled_scores(q, k), _past(q, k)).softmax(dim=-2) @ v),
    Mistake("over heads", "your softmax runs along the heads. Each query distributes its "
        "attention over the keys.",
        lambda q, k, v:
            masked_scores(scaled_scores(q, k), _past(q, k)).softmax(dim=1) @ v),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _with_scores(dot_products)),
    *(Mistake("a fixed D", FIXED_D,
        _with_scores(scaled_for(size)))
        for size in FIXED_SIZES),
    Mistake("divided by the number of heads", HEAD_COUNT,
        _with_scores(lambda q, k: dot_products(q, k) / math.sqrt(q.shape[1]))),
    Mistake("divided by the number of keys", "you divide by the square root of the number of keys. "
        "D is the last axis of q.",
        _with_scores(lambda q, k: dot_products(q, k) / math.sqrt(k.shape[2]))),
    Mistake("divided by D", "you divide by D itself. The scores grow with its square root.",
        _with_scores(lambda q, k: dot_products(q, k) / q.shape[-1])),
    Mistake("query and key swapped", "your rows are keys and your columns are queries. Row t "
        "should hold the scores of query t.",
        lambda q, k, v: masked_scores(scaled_scores(k, q), _past(q, k)).softmax(dim=-1) @ v),
    Mistake("divided again", DIVIDED_AGAIN,
        lambda q, k, v: _rows_divided(scaled_scores(q, k).softmax(-1).tril(_past(q, k))) @ v),
    Mistake("too large to exponentiate", TOO_LARGE,
        lambda q, k, v: _rows_divided(scaled_scores(q, k).exp().tril(_past(q, k))) @ v),
    *(Mistake("not low enough", NOT_LOW_ENOUGH, lambda q, k, v, fill=fill:
        masked_scores(scaled_scores(q, k), _past(q, k), fill).softmax(-1) @ v)
        for fill in (-1.0, -10.0, -100.0, -1e3)),
    Mistake("no softmax", "you multiply the scores by the values. What turns scores into weights?",
        lambda q, k, v: scaled_scores(q, k).tril(_past(q, k)) @ v),
    Mistake("no softmax", "you multiply the masked scores by the values, minus infinity too. What "
        "turns scores into weights?",
        lambda q, k, v: masked_scores(scaled_scores(q, k), _past(q, k)) @ v),
    Mistake("no values", "these are the attention weights. The last step is missing: add up the "
        "values with them.",
        lambda q, k, v: masked_scores(scaled_scores(q, k), _past(q, k)).softmax(dim=-1)),
    Mistake("last token only", "you return the last token alone. Each of the T new tokens has a "
        "row.",
        lambda q, k, v: eager_attention(q[:, :, -1:], k, v)),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Return the "
        "dtype of the input.",
        lambda q, k, v: eager_attention(q.float(), k.float(), v.float())),
    Mistake("keys instead of values", "you add up keys. A key decides how much attention a token "
        "gets; what is passed on is the value.",
        lambda q, k, v: eager_attention(q, k, k)),
)  # fmt: skip
