"""The checks of notebook 05, attention: scores, weights, joined heads, new tokens after a cache."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qwenkit.checks._attention_heads import ATTEND_MISTAKES, JOIN_MISTAKES, joined_heads
from qwenkit.checks._attention_scores import (
    PATTERN_MISTAKES,
    SCORE_MISTAKES,
    causal_weights,
    scaled_scores,
)
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import eager_attention

EXERCISES = {
    "05.1": "scores",
    "05.2": "from scores to attention weights",
    "05.3": "join the heads",
    "05.4": "new tokens after cached ones",
}


def scores(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k)`, the scaled scores (B, H, T, S): exercise 05.1."""
    q, k = _pair(2, 3, 5, 8)
    cases = [
        Case("one text, two heads", _pair(1, 2, 3, 4)),
        Case("two texts, three heads", (q, k)),
        Case("two queries, six keys", (normal(1, 2, 2, 16), normal(1, 2, 6, 16, seed=1))),
        Case("a single token", _pair(1, 4, 1, 9)),
        Case("all four sizes equal", _pair(3, 3, 3, 3)),
        not_contiguous(q, k),
        in_bfloat16(q, k),
        Case("large values", (1e3 * q, 1e3 * k)),
    ]
    praise = "every query meets every key, and the spread does not grow with D."
    return judge("05.1", learner, scaled_scores, cases, SCORE_MISTAKES, praise, LOOSE)


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
    return judge("05.2", learner, causal_weights, cases, PATTERN_MISTAKES, praise, LOOSE)


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
    return judge("05.3", learner, joined_heads, cases, JOIN_MISTAKES, praise, LOOSE)


def attend(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(q, k, v)`, T new tokens over S of them: exercise 05.4."""

    def case(label: str, tokens: int, past: int, batch: int = 1, scale: float = 1) -> Case:
        q = scale * normal(batch, 2, tokens, 6)
        return Case(label, (q, *_pair(batch, 2, past + tokens, 6, seed=1)))

    q, k, v = case("", 3, 4, batch=2).arguments
    cases = [
        case("a whole text of four tokens", 4, 0),
        case("one new token after five", 1, 5),
        case("three new tokens after four", 3, 4),
        case("two texts", 2, 6, batch=2),
        case("a text of one token", 1, 0),
        not_contiguous(q, k, v),
        in_bfloat16(q / 2, k, v),
        case("large scores", 4, 0, batch=2, scale=-1000),  # token 0: far below zero
    ]
    praise = "new tokens see all cached tokens and no later one: this works with a cache."
    return judge("05.4", learner, eager_attention, cases, ATTEND_MISTAKES, praise, LOOSE)


def _pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
