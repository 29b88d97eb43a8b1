"""The checks of notebook 05, attention: scores, weights, joined heads, new tokens after a cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import eager_attention

EXERCISES = {
    "05.1": "scores",
    "05.2": "from scores to attention weights",
    "05.3": "join the heads",
    "05.4": "new tokens after cached ones",
}
_NEVER = float("-inf")


def scores(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k)`, the scaled scores (B, H, T, S): exercise 05.1."""
    q, k = _pair(2, 3, 5, 8)
    cases = [
        Case("one text, two heads", _pair(1, 2, 3, 4)),
        Case("two texts, three heads", (q, k)),
        Case("two queries, six keys", (normal(1, 2, 2, 16), normal(1, 2, 6, 16, seed=1))),
        Case("a single token", _pair(1, 4, 1, 9)),
        Case("as many tokens as dimensions", _pair(1, 2, 4, 4)),
        not_contiguous(q, k),
        in_bfloat16(q, k),
        Case("large values", (1e3 * q, 1e3 * k)),
    ]
    praise = "every query meets every key, and the spread does not grow with D."
    return judge("05.1", learner, _scores, cases, _SCORE_MISTAKES, praise, LOOSE)


def pattern(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(scores)`, causal attention weights (B, H, T, T): exercise 05.2."""
    plain = normal(1, 2, 4, 4)
    cases = [
        Case("one text, two heads, four tokens", (plain,)),
        Case("two texts, three heads", (normal(2, 3, 5, 5),)),
        Case("as many heads as tokens", (normal(1, 3, 3, 3),)),
        Case("a single token", (normal(1, 2, 1, 1),)),
        Case("not contiguous", (plain.transpose(-2, -1),)),
        in_bfloat16(normal(1, 2, 5, 5)),
        Case("large scores", (100 * plain,)),
        Case("all scores far below zero", (plain - 20_000,)),
    ]
    praise = "the future has weight 0, and every row sums to 1, no matter how large the scores are."
    return judge("05.2", learner, _pattern, cases, _PATTERN_MISTAKES, praise, LOOSE)


def join(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, weight)`, joined heads through o_proj, (B, T, C): exercise 05.3."""
    z, weight = normal(2, 3, 5, 4), normal(12, 12, seed=1)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), normal(8, 8, seed=1))),
        Case("two texts, three heads", (z, weight)),
        Case("C is not H·D", (z, normal(7, 12, seed=1))),
        Case("a single token", (normal(1, 3, 1, 4), weight)),
        Case("one head", (normal(1, 1, 5, 4), normal(4, 4, seed=1))),
        Case("equal numbers of heads, tokens and dimensions", (normal(1, 4, 4, 4), normal(16, 16))),
        Case("not contiguous", (*not_contiguous(z).arguments, weight)),
        in_bfloat16(z, weight),
    ]
    praise = "each token's heads are concatenated in order, and o_proj mixes them."
    return judge("05.3", learner, _join, cases, _JOIN_MISTAKES, praise, LOOSE)


def attend(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v)`, T new tokens over S of them: exercise 05.4."""

    def case(label: str, tokens: int, past: int, batch: int = 1, scale: float = 1) -> Case:
        q = scale * normal(batch, 2, tokens, 4)
        return Case(label, (q, *_pair(batch, 2, past + tokens, 4, seed=1)))

    q, k, v = case("", 3, 4, batch=2).arguments
    cases = [
        case("a whole text of four tokens", 4, 0),
        case("one new token after five", 1, 5),
        case("three new tokens after four", 3, 4),
        case("two texts", 2, 6, batch=2),
        case("a text of one token", 1, 0),
        not_contiguous(q, k, v),
        in_bfloat16(q / 2, k, v),
        case("large scores", 3, 4, scale=100),
    ]
    praise = "new tokens see all cached tokens and no later one: this works with a cache."
    return judge("05.4", learner, _attend, cases, _ATTEND_MISTAKES, praise, LOOSE)


def _pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)


# --- 05.1 ---


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return _products(q, k) / math.sqrt(q.shape[-1])


def _products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)  # (B, H, T, S)


def _divided(by: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, k: _products(q, k) / by(q, k)


_SCORE_MISTAKES = (
    Mistake("no scale", "the products are right, but the division is missing. What happens to "
        "their spread when D grows?",
        _products),
    Mistake("divided by D", "you divide by D itself, so all scores are close to 0 and attention "
        "spreads evenly. How did the spread grow when D went from 4 to 16?",
        _divided(lambda q, k: q.shape[-1])),
    Mistake("multiplied", "you multiply by the square root of D: the spread grows even faster.",
        lambda q, k: _products(q, k) * math.sqrt(q.shape[-1])),
    Mistake("divided by the number of keys", "you divide by the square root of the number of keys, "
        "so a score would change with the length of the text. How many terms does a dot product "
        "add up?",
        _divided(lambda q, k: math.sqrt(k.shape[-2]))),
    Mistake("divided by all heads", "you divide by the square root of H·D. Each head computes its "
        "own dot products: how long are the vectors it multiplies?",
        _divided(lambda q, k: math.sqrt(q.shape[1] * q.shape[-1]))),
    Mistake("query and key swapped", "your rows are keys and your columns are queries. Row t "
        "should hold the scores of query t.",
        lambda q, k: _scores(k, q)),
    Mistake("dimensions, not tokens", "you sum over the tokens, so each dimension meets every "
        "other dimension. Which of the two must be transposed?",
        lambda q, k: q.transpose(-2, -1) @ k / math.sqrt(q.shape[-1])),
    Mistake("reshaped", "the shape is right, but `reshape` and `view` do not transpose: they read "
        "the same values in the same order. Each column must be one key.",
        lambda q, k:
            q @ k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2]) / math.sqrt(q.shape[-1])),
    Mistake("each with itself", "you compare each query only with the key of its own token. Every "
        "query should meet every key: the result is a matrix.",
        lambda q, k: (q * k).sum(dim=-1) / math.sqrt(q.shape[-1])),
    Mistake("cosine", "you divide each vector by its length, so only directions count (cosine "
        "similarity). In attention a longer key counts more: divide by the square root of D only.",
        lambda q, k: _products(F.normalize(q, dim=-1), F.normalize(k, dim=-1))),
    Mistake("softmax already", "these are attention weights, not scores. Softmax comes later, "
        "after the mask.",
        lambda q, k: _scores(q, k).softmax(dim=-1)),
)  # fmt: skip


# --- 05.2 ---


def _masked(scores: Tensor, diagonal: int = 0, fill: float = _NEVER) -> Tensor:
    """Fill everything above a diagonal; 0: the future."""
    return scores.masked_fill(~_lower(scores, diagonal), fill)


def _lower(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(diagonal)


def _pattern(scores: Tensor) -> Tensor:
    return _masked(scores).softmax(dim=-1)


def _first_attends_to_itself(scores: Tensor) -> Tensor:
    weights = _masked(scores, -1).softmax(dim=-1).nan_to_num()
    weights[..., 0, 0] = 1
    return weights


def _by_hand(powers: Tensor) -> Tensor:
    return powers / powers.sum(dim=-1, keepdim=True)


_ZERO = (
    "a masked score of 0 is an ordinary score: e to the power of 0 is 1, so the future still gets "
    "attention. Which score gives a weight of exactly 0?"
)
_NOT_ITSELF = (
    "your tokens do not attend to themselves, so the first one has nothing to attend to. Is the "
    "diagonal part of the future?"
)
_TOO_LARGE = (
    "right for small scores. For large ones, e to the power of a score is infinite, or 0 at every "
    "position of a row. Subtract the largest score of each row first, as `softmax` does, or use "
    "`softmax`."
)
_PATTERN_MISTAKES = (
    Mistake("no mask", "your rows are right for a model without a causal mask. Here token 0 must "
        "not attend to the tokens after it.",
        lambda scores: scores.softmax(dim=-1)),
    Mistake("sees the next token", "each token sees one token too many: the next one, which it "
        "should predict. How many weights of row 0 may be above 0?",
        lambda scores: _masked(scores, 1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, lambda scores: _masked(scores, -1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, _first_attends_to_itself),
    Mistake("not itself", _NOT_ITSELF, lambda scores: _masked(scores, -1).softmax(-1).nan_to_num()),
    Mistake("the future only", "you masked the past and left the future. `masked_fill` fills where "
        "the mask is True: what does True mean in yours?",
        lambda scores: scores.masked_fill(_lower(scores), _NEVER).softmax(dim=-1)),
    Mistake("the future only", "your triangle is the upper one: each token attends to itself and "
        "to later tokens. Row 0 is the first token; what may it attend to?",
        lambda scores: scores.masked_fill(~_lower(scores).transpose(-2, -1), _NEVER).softmax(-1)),
    Mistake("zero before softmax", _ZERO, lambda scores: _masked(scores, fill=0.0).softmax(dim=-1)),
    Mistake("boolean mask added", "you add the mask to the scores. Adding 0 or 1 shifts a score; "
        "it does not forbid anything.",
        lambda scores: (scores + _lower(scores)).softmax(dim=-1)),
    Mistake("mask after softmax", "your rows sum to less than 1: the future is set to 0 after it "
        "has taken part in softmax. Which of the two steps must come first?",
        lambda scores: scores.softmax(dim=-1).tril()),
    Mistake("over queries", "your columns sum to 1. Each query distributes its attention over the "
        "keys: along which axis are the keys?",
        lambda scores: _masked(scores).softmax(dim=-2)),
    Mistake("over heads", "your softmax runs along the axis of the heads, so they compete with one "
        "another. In each head, every row must sum to 1.",
        lambda scores: _masked(scores).softmax(dim=1)),
    Mistake("over everything", "each matrix sums to 1 as a whole. Each row should sum to 1.",
        lambda scores: _masked(scores).flatten(-2).softmax(dim=-1).view(scores.shape)),
    Mistake("no softmax", "the mask is right, but these are still scores. What turns them into "
        "attention weights?",
        _masked),
    Mistake("not low enough", "right, except where all scores are far below zero: there your fill "
        "value is larger than the scores, and the future wins. Which number is below every other?",
        lambda scores: _masked(scores, fill=-1e4).softmax(dim=-1)),
    Mistake("too large to exponentiate", _TOO_LARGE,
        lambda scores: _by_hand(_masked(scores).exp())),
    Mistake("too large to exponentiate", _TOO_LARGE,
        lambda scores: _by_hand(scores.exp() * _lower(scores))),
    Mistake("float32 comes back", "the weights are right, but they come back in float32. "
        "Multiplying them by bfloat16 values raises an error: return the dtype of the input.",
        lambda scores: _masked(scores).softmax(dim=-1, dtype=torch.float32)),
)  # fmt: skip


# --- 05.3 ---


def _join(z: Tensor, weight: Tensor) -> Tensor:
    return _joined(z) @ weight.T


def _joined(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)  # (B, T, H·D)


_JOIN_MISTAKES = (
    Mistake("heads not moved", "the shape is right, but the values belong to other tokens: "
        "`reshape` reads in order, and all tokens of head 0 come first. Which axes must be swapped "
        "before?",
        lambda z, weight: z.reshape(z.shape[0], z.shape[2], -1) @ weight.T),
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


# --- 05.4 ---


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return eager_attention(q, k, v)


def _seen_up_to(ahead: Callable[[int, int], int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return attention whose mask ends `ahead(T, S)` positions right of the main diagonal."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _masked(_scores(q, k), ahead(q.shape[2], k.shape[2])).softmax(dim=-1) @ v

    return attend


def _past(q: Tensor, k: Tensor) -> int:
    return k.shape[2] - q.shape[2]


_ATTEND_MISTAKES = (
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
    Mistake("no mask", "right for one new token, which may attend to everything. With several, the "
        "first one sees the last one.",
        lambda q, k, v: _scores(q, k).softmax(dim=-1) @ v),
    Mistake("cached tokens forgotten", "your queries attend to the new tokens only. The old ones "
        "are what the cache is for.",
        lambda q, k, v: _attend(q, k[:, :, _past(q, k) :], v[:, :, _past(q, k) :])),
    Mistake("mask after softmax", "your weights sum to less than 1: the future is set to 0 after "
        "softmax.",
        lambda q, k, v: _scores(q, k).softmax(dim=-1).tril(_past(q, k)) @ v),
    Mistake("zero before softmax", _ZERO,
        lambda q, k, v: _masked(_scores(q, k), _past(q, k), 0.0).softmax(dim=-1) @ v),
    Mistake("over queries", "your softmax runs along the queries. A single new token would then "
        "give every key a weight of 1.",
        lambda q, k, v: _masked(_scores(q, k), _past(q, k)).softmax(dim=-2) @ v),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        lambda q, k, v: _masked(_products(q, k), _past(q, k)).softmax(dim=-1) @ v),
    Mistake("keys instead of values", "you add up keys. A key decides how much attention a token "
        "gets; what is passed on is the value.",
        lambda q, k, v: _attend(q, k, k)),
)  # fmt: skip
