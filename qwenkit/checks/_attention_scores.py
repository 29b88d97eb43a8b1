"""The mistakes of exercises 05.1 and 05.2: attention scores, and the weights made of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Mistake

FIXED_SIZES = (4, 16, 32, 64, 128)  # of a head: the toy's, and those of published models
_NEVER = float("-inf")


# --- 05.1 ---


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    return dot_products(q, k) / math.sqrt(q.shape[-1])


def dot_products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)  # (B, H, T, S)


def _divided_by(by: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, k: dot_products(q, k) / by(q, k)


def scaled_for(size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return scores that are divided as for heads of one size."""
    return lambda q, k: dot_products(q, k) / math.sqrt(size)


FIXED_D = (
    "you divide by a fixed number, the square root of the D of one model or example. Take D from "
    "the last axis of q."
)
HEAD_COUNT = (
    "you divide by the square root of the number of heads. In (B, H, T, D), axis 1 is H; D is "
    "the last axis."
)
SCORE_MISTAKES = (
    Mistake("no scale", "the products are right, but the division is missing. What happens to "
        "their spread when D grows?",
        dot_products),
    Mistake("divided by D", "you divide by D itself, so all scores are close to 0 and attention "
        "spreads evenly. How did the spread grow when D went from 4 to 16?",
        _divided_by(lambda q, k: q.shape[-1])),
    Mistake("multiplied", "you multiply by the square root of D: the spread grows even faster.",
        lambda q, k: dot_products(q, k) * math.sqrt(q.shape[-1])),
    Mistake("divided by the number of keys", "you divide by the square root of the number of keys, "
        "so a score would change with the length of the text. How many terms does a dot product "
        "add up?",
        _divided_by(lambda q, k: math.sqrt(k.shape[-2]))),
    Mistake("divided by all heads", "you divide by the square root of H·D. Each head computes its "
        "own dot products: how long are the vectors it multiplies?",
        _divided_by(lambda q, k: math.sqrt(q.shape[1] * q.shape[-1]))),
    Mistake("divided by the number of queries", "you divide by the square root of the number of "
        "queries. How many terms does a dot product add up? Take D from the last axis of q.",
        _divided_by(lambda q, k: math.sqrt(q.shape[2]))),
    Mistake("divided by the number of heads", HEAD_COUNT,
        _divided_by(lambda q, k: math.sqrt(q.shape[1]))),
    Mistake("divided by the batch size", "you divide by the square root of the batch size. D is "
        "the last axis of q.",
        _divided_by(lambda q, k: math.sqrt(len(q)))),
    *(Mistake("a fixed D", FIXED_D, scaled_for(size))
        for size in FIXED_SIZES),
    Mistake("query and key swapped", "your rows are keys and your columns are queries. Row t "
        "should hold the scores of query t.",
        lambda q, k: scaled_scores(k, q)),
    Mistake("dimensions, not tokens", "you sum over the tokens, so each dimension meets every "
        "other dimension. Which of the two must be transposed?",
        lambda q, k: q.transpose(-2, -1) @ k / math.sqrt(q.shape[-1])),
    Mistake("not transposed", "you multiply q by k as it is: one of the two must be transposed. "
        "Swap the last two axes of k.",
        lambda q, k: q @ k / math.sqrt(q.shape[-1])),
    Mistake("all axes reversed", "`T` reverses all four axes. Swap only the last two axes of k.",
        lambda q, k: q @ k.permute(3, 2, 1, 0) / math.sqrt(q.shape[-1])),
    Mistake("heads and tokens swapped", "you swap the heads and the tokens of k. Swap its last two "
        "axes: S and D.",
        lambda q, k: q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])),
    Mistake("reshaped", "the shape is right, but `reshape` and `view` do not transpose: they read "
        "the same values in the same order. Each column must be one key.",
        lambda q, k:
            q @ k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2]) / math.sqrt(q.shape[-1])),
    Mistake("each with itself", "you compare each query only with the key of its own token. Every "
        "query should meet every key: the result is a matrix.",
        lambda q, k: (q * k).sum(dim=-1) / math.sqrt(q.shape[-1])),
    Mistake("cosine", "you divide each vector by its length, so only directions count (cosine "
        "similarity). In attention a longer key counts more: divide by the square root of D only.",
        lambda q, k: dot_products(F.normalize(q, dim=-1), F.normalize(k, dim=-1))),
    Mistake("masked already", "the scores are right, but the future is masked already. The mask "
        "is the next step; here every query meets every key.",
        lambda q, k: masked_scores(scaled_scores(q, k))),
    Mistake("first text only", "you return the first text alone. Keep the batch axis: (B, H, T, "
        "S).",
        lambda q, k: scaled_scores(q, k)[0]),
    Mistake("float32 comes back", "the scores are right, but they come back in float32. Return the "
        "dtype of the input.",
        lambda q, k: scaled_scores(q.float(), k.float())),
    Mistake("softmax already", "these are attention weights, not scores. Softmax comes later, "
        "after the mask.",
        lambda q, k: scaled_scores(q, k).softmax(dim=-1)),
)  # fmt: skip


# --- 05.2 ---


def masked_scores(scores: Tensor, diagonal: int = 0, fill: float = _NEVER) -> Tensor:
    """Fill everything above a diagonal; 0: the future."""
    return scores.masked_fill(~_lower(scores, diagonal), fill)


def _lower(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(diagonal)


def causal_weights(scores: Tensor) -> Tensor:
    return masked_scores(scores).softmax(dim=-1)


def _first_attends_to_itself(scores: Tensor) -> Tensor:
    weights = masked_scores(scores, -1).softmax(dim=-1).nan_to_num()
    weights[..., 0, 0] = 1
    return weights


def _by_hand(powers: Tensor) -> Tensor:
    return powers / powers.sum(dim=-1, keepdim=True)


ZERO_BEFORE_SOFTMAX = (
    "a masked score of 0 is an ordinary score: e to the power of 0 is 1, so the future still gets "
    "attention. Which score gives a weight of exactly 0?"
)
_NOT_ITSELF = (
    "your tokens do not attend to themselves, so the first one has nothing to attend to. Is the "
    "diagonal part of the future?"
)
NOT_LOW_ENOUGH = (
    "your fill value is not below every score: where the scores are lower still, the future wins. "
    "Which number is below every other?"
)
NOT_A_NUMBER = (
    "every weight is not a number (NaN). A common cause is a mask multiplied by minus infinity: 0 "
    "times infinity is NaN. Use `masked_fill`."
)
NOT_DIVIDED = "your rows do not sum to 1. Divide the exponentials of each row by their sum."
DIVIDED_AGAIN = (
    "right for small scores. If a score of the future is far larger than the others, all the past "
    "rounds to 0, and 0 / 0 is not a number. Mask before softmax."
)
TOO_LARGE = (
    "right for small scores. For large ones, e to the power of a score is infinite, or 0 at every "
    "position of a row. Subtract the largest score of each row first, as `softmax` does, or use "
    "`softmax`."
)
PATTERN_MISTAKES = (
    Mistake("no mask", "your rows are right for a model without a causal mask. Here token 0 must "
        "not attend to the tokens after it.",
        lambda scores: scores.softmax(dim=-1)),
    Mistake("sees the next token", "each token sees one token too many: the next one, which it "
        "should predict. How many weights of row 0 may be above 0?",
        lambda scores: masked_scores(scores, 1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, lambda scores: masked_scores(scores, -1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, _first_attends_to_itself),
    Mistake("not itself", _NOT_ITSELF,
        lambda scores: masked_scores(scores, -1).softmax(dim=-1).nan_to_num()),
    Mistake("the future only", "you masked the past and left the future. `masked_fill` fills where "
        "the mask is True: what does True mean in yours?",
        lambda scores: scores.masked_fill(_lower(scores), _NEVER).softmax(dim=-1)),
    Mistake("the future only", "your triangle is the upper one: each token attends to itself and "
        "to later tokens. Row 0 is the first token; what may it attend to?",
        lambda scores: scores.masked_fill(~_lower(scores).transpose(-2, -1), _NEVER).softmax(-1)),
    Mistake("zero before softmax", ZERO_BEFORE_SOFTMAX,
        lambda scores: masked_scores(scores, fill=0.0).softmax(dim=-1)),
    Mistake("boolean mask added", "you add the mask to the scores. Adding 0 or 1 shifts a score; "
        "it does not forbid anything.",
        lambda scores: (scores + _lower(scores)).softmax(dim=-1)),
    Mistake("mask after softmax", "your rows sum to less than 1: the future is set to 0 after it "
        "has taken part in softmax. Which of the two steps must come first?",
        lambda scores: scores.softmax(dim=-1).tril()),
    Mistake("over queries", "your columns sum to 1. Each query distributes its attention over the "
        "keys: along which axis are the keys?",
        lambda scores: masked_scores(scores).softmax(dim=-2)),
    Mistake("over heads", "your softmax runs along the axis of the heads, so they compete with one "
        "another. In each head, every row must sum to 1.",
        lambda scores: masked_scores(scores).softmax(dim=1)),
    Mistake("over everything", "each matrix sums to 1 as a whole. Each row should sum to 1.",
        lambda scores: masked_scores(scores).flatten(-2).softmax(dim=-1).view(scores.shape)),
    Mistake("no softmax", "the mask is right, but these are still scores. What turns them into "
        "attention weights?",
        masked_scores),
    *(Mistake("not low enough", NOT_LOW_ENOUGH,
        lambda scores, fill=fill: masked_scores(scores, fill=fill).softmax(dim=-1))
        for fill in (-1.0, -10.0, -100.0, -1e3, -1e4)),
    Mistake("divided again", DIVIDED_AGAIN, lambda scores: _by_hand(scores.softmax(-1).tril())),
    Mistake("weights of minus infinity", "the future has weight minus infinity. Put minus infinity "
        "into the scores, before softmax: it turns it into a weight of 0.",
        lambda scores: masked_scores(scores.softmax(dim=-1))),
    Mistake("plus infinity", "you fill with plus infinity: the future is then more attractive than "
        "anything. Which sign forbids?",
        lambda scores: masked_scores(scores, fill=-_NEVER).softmax(dim=-1)),
    Mistake("not a number", NOT_A_NUMBER, lambda scores: torch.full_like(scores, math.nan)),
    Mistake("not a number", NOT_A_NUMBER, lambda scores: torch.full(scores.shape, math.nan)),
    Mistake("softmax twice", "you apply softmax twice, so the weights are nearly even. Once is "
        "enough.",
        lambda scores: causal_weights(scores).softmax(dim=-1)),
    Mistake("scaled again", "you divide the scores once more. They are divided already.",
        lambda scores: causal_weights(scores / math.sqrt(scores.shape[-1]))),
    Mistake("log-softmax", "these are the logarithms of the weights. Use softmax itself.",
        lambda scores: masked_scores(scores).log_softmax(dim=-1)),
    Mistake("not divided by the sum", NOT_DIVIDED, lambda scores: masked_scores(scores).exp()),
    Mistake("not divided by the sum", NOT_DIVIDED, lambda scores: scores.exp() * _lower(scores)),
    Mistake("over texts", "your softmax runs along the batch, so the texts compete with one "
        "another. In each head, every row must sum to 1.",
        lambda scores: masked_scores(scores).softmax(dim=0)),
    Mistake("too large to exponentiate", TOO_LARGE,
        lambda scores: _by_hand(masked_scores(scores).exp())),
    Mistake("too large to exponentiate", TOO_LARGE,
        lambda scores: _by_hand(scores.exp() * _lower(scores))),
    Mistake("float32 comes back", "the weights are right, but they come back in float32. "
        "Multiplying them by bfloat16 values raises an error: return the dtype of the input.",
        lambda scores: masked_scores(scores).softmax(dim=-1, dtype=torch.float32)),
)  # fmt: skip
