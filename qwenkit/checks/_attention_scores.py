"""The mistakes of exercise 05.1, attention weights, and what the other exercises share with it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

FIXED_SIZES = (4, 8, 16, 32, 64, 128)  # of a head: the toy's, and those of published models
_NEVER = float("-inf")


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    return dot_products(q, k) / math.sqrt(q.shape[-1])


def dot_products(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)  # (B, H, T, S)


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


def masked_scores(scores: Tensor, diagonal: int = 0, fill: float = _NEVER) -> Tensor:
    """Fill everything above a diagonal of the T × S scores."""
    seen = torch.ones_like(scores, dtype=torch.bool).tril(diagonal)
    return scores.masked_fill(~seen, fill)


def past_of(scores: Tensor) -> int:
    """Return how many keys come before the first query: S - T."""
    return scores.shape[-1] - scores.shape[-2]


def _lower(scores: Tensor, ahead: int = 0) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool).tril(past_of(scores) + ahead)


def _masked(scores: Tensor, ahead: int = 0, fill: float = _NEVER) -> Tensor:
    return masked_scores(scores, past_of(scores) + ahead, fill)


def causal_weights(scores: Tensor) -> Tensor:
    return _masked(scores).softmax(dim=-1)


def _first_attends_to_itself(scores: Tensor) -> Tensor:
    weights = _masked(scores, -1).softmax(dim=-1).nan_to_num()
    if past_of(scores) == 0:
        weights[..., 0, 0] = 1
    return weights


def _zero(scores: Tensor) -> int:
    return 0


def _future(scores: Tensor, diagonal: int) -> Tensor:
    """Return weights that are right for the keys from a diagonal on, and forbid the others."""
    seen = torch.ones_like(scores, dtype=torch.bool).triu(diagonal)
    return scores.masked_fill(~seen, _NEVER).softmax(dim=-1)


def _by_hand(powers: Tensor) -> Tensor:
    return powers / powers.sum(dim=-1, keepdim=True)


def _square_mask(size: Callable[[Tensor], int]) -> Callable[[Tensor], Tensor]:
    """Return weights with a square mask, which fits only if T = S."""

    def weights(scores: Tensor) -> Tensor:
        seen = torch.ones(size(scores), size(scores), dtype=torch.bool).tril()
        return scores.masked_fill(~seen, _NEVER).softmax(dim=-1)

    return weights


NO_OFFSET = (
    "right for a whole text. With earlier tokens, S is larger than T, and your first new token "
    "sees only key 0: the triangle starts at the left. At which position is query row 0?"
)
OFFSET_BACKWARDS = (
    "your triangle moves to the left when there are earlier tokens, so some rows have nothing to "
    "attend to. In which direction must it move?"
)
_SQUARE = (
    "your mask is square, and the scores are T × S: with earlier tokens there are more keys than "
    "queries. Which rows of the large triangle belong to the new tokens?"
)
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
WEIGHT_MISTAKES = (
    Mistake("no offset", NO_OFFSET, lambda scores: masked_scores(scores).softmax(dim=-1)),
    Mistake("offset backwards", OFFSET_BACKWARDS,
        lambda scores: masked_scores(scores, -past_of(scores)).softmax(dim=-1)),
    *(Mistake("square mask", _SQUARE, _square_mask(size))
        for size in (lambda x: x.shape[-1], lambda x: x.shape[-2])),
    Mistake("no mask", "your rows are right for a model without a causal mask. Here token 0 must "
        "not attend to the tokens after it.",
        lambda scores: scores.softmax(dim=-1)),
    Mistake("sees the next token", "each token sees one token too many: the next one, which it "
        "should predict. How many weights of row 0 may be above 0?",
        lambda scores: _masked(scores, 1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, lambda scores: _masked(scores, -1).softmax(dim=-1)),
    Mistake("not itself", _NOT_ITSELF, _first_attends_to_itself),
    Mistake("not itself", _NOT_ITSELF,
        lambda scores: _masked(scores, -1).softmax(dim=-1).nan_to_num()),
    Mistake("not itself", _NOT_ITSELF, lambda scores: masked_scores(scores, -1).softmax(dim=-1)),
    *(Mistake("the future only", "you masked the past and left the future. `masked_fill` fills "
        "where the mask is True: what does True mean in yours?",
        lambda scores, past=past: _future(scores, past(scores) + 1)) for past in (past_of, _zero)),
    *(Mistake("the future only", "your triangle is the upper one: each token attends to itself and "
        "to later tokens. Row 0 is the first token; what may it attend to?",
        lambda scores, past=past: _future(scores, past(scores))) for past in (past_of, _zero)),
    Mistake("zero before softmax", ZERO_BEFORE_SOFTMAX,
        lambda scores: _masked(scores, fill=0.0).softmax(dim=-1)),
    Mistake("boolean mask added", "you add the mask to the scores. Adding 0 or 1 shifts a score; "
        "it does not forbid anything.",
        lambda scores: (scores + _lower(scores)).softmax(dim=-1)),
    Mistake("mask after softmax", "your rows sum to less than 1: the future is set to 0 after it "
        "has taken part in softmax. Which of the two steps must come first?",
        lambda scores: scores.softmax(dim=-1) * _lower(scores)),
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
    *(Mistake("not low enough", NOT_LOW_ENOUGH,
        lambda scores, fill=fill: _masked(scores, fill=fill).softmax(dim=-1))
        for fill in (-1.0, -10.0, -100.0, -1e3, -1e4)),
    Mistake("divided again", DIVIDED_AGAIN,
        lambda scores: _by_hand(scores.softmax(-1) * _lower(scores))),
    Mistake("weights of minus infinity", "the future has weight minus infinity. Put minus infinity "
        "into the scores, before softmax: it turns it into a weight of 0.",
        lambda scores: _masked(scores.softmax(dim=-1))),
    Mistake("plus infinity", "you fill with plus infinity: the future is then more attractive than "
        "anything. Which sign forbids?",
        lambda scores: _masked(scores, fill=-_NEVER).softmax(dim=-1)),
    Mistake("not a number", NOT_A_NUMBER, lambda scores: torch.full_like(scores, math.nan)),
    Mistake("not a number", NOT_A_NUMBER, lambda scores: torch.full(scores.shape, math.nan)),
    Mistake("softmax twice", "you apply softmax twice, so the weights are nearly even. Once is "
        "enough.",
        lambda scores: causal_weights(scores).softmax(dim=-1)),
    Mistake("scaled again", "you divide the scores once more. They are divided already.",
        lambda scores: causal_weights(scores / math.sqrt(scores.shape[-1]))),
    Mistake("log-softmax", "these are the logarithms of the weights. Use softmax itself.",
        lambda scores: _masked(scores).log_softmax(dim=-1)),
    Mistake("not divided by the sum", NOT_DIVIDED, lambda scores: _masked(scores).exp()),
    Mistake("not divided by the sum", NOT_DIVIDED, lambda scores: scores.exp() * _lower(scores)),
    Mistake("over texts", "your softmax runs along the batch, so the texts compete with one "
        "another. In each head, every row must sum to 1.",
        lambda scores: _masked(scores).softmax(dim=0)),
    Mistake("too large to exponentiate", TOO_LARGE,
        lambda scores: _by_hand(_masked(scores).exp())),
    Mistake("too large to exponentiate", TOO_LARGE,
        lambda scores: _by_hand(scores.exp() * _lower(scores))),
    Mistake("float32 comes back", "the weights are right, but they come back in float32. "
        "Multiplying them by bfloat16 values raises an error: return the dtype of the input.",
        lambda scores: _masked(scores).softmax(dim=-1, dtype=torch.float32)),
)  # fmt: skip
