"""The checks of notebook 14, seeing inside: contributions, a score, mean ablation, a search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwenkit.checks._inside_circuit import KNOWN as CIRCUIT_KNOWN
from qwenkit.checks._inside_circuit import measured, search
from qwenkit.checks._inside_heads import (
    ABLATION_MISTAKES,
    SCORE_MISTAKES,
    mean_ablated,
    right_score,
)
from qwenkit.checks._inside_logits import CONTRIBUTION_MISTAKES, right_contributions
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._samples import normal, not_contiguous
from qwenkit.model import causal_mask

EXERCISES = {
    "14.1": "what each part adds to a logit",
    "14.2": "the induction score",
    "14.3": "mean ablation",
    "14.4": "find a circuit, with a control",
}


def contributions(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(parts, weight, eps, row)`, what each part adds to a logit, (P): 14.1."""
    parts, weight, row = normal(4, 6), 1 + normal(6, seed=1) / 2, normal(6, seed=2)
    cases = [
        Case("two parts of three values", (normal(2, 3), weight[:3], 1e-6, row[:3])),
        Case("four parts of six values", (parts, weight, 1e-6, row)),
        Case("a large eps", (parts, weight, 1.0, row)),
        Case("one part alone", (parts[:1], weight, 1e-6, row)),
        Case("as many parts as values", (normal(6, 6), weight, 1e-6, row)),
        Case("large parts", (1e3 * parts, weight, 1e-6, row)),
        Case("not contiguous", (normal(6, 4).T, weight, 1e-6, row)),
    ]
    praise = "one divisor for all, that of the whole stream: so the parts sum to the logit."
    return judge("14.1", learner, right_contributions, cases, CONTRIBUTION_MISTAKES, praise, LOOSE)


def induction_score(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(pattern, n)`, each head's mean attention to the token after, (H): 14.2."""
    several = _weights(2, 3, 10, 10)
    cases = [
        Case("one text, two heads, three tokens twice", (_weights(1, 2, 6, 6), 3)),
        Case("two texts, three heads", (several, 5)),
        Case("one head", (_weights(2, 1, 8, 8, seed=1), 4)),
        Case("two tokens twice", (_weights(1, 4, 4, 4), 2)),
        Case("weights to later tokens, too", (normal(2, 3, 8, 8).softmax(dim=-1), 4)),
        Case("as many texts as heads", (_weights(3, 3, 6, 6), 3)),
        Case("not contiguous", (*not_contiguous(several).arguments, 5)),
        Case("bfloat16", (_weights(1, 2, 6, 6, seed=2).bfloat16(), 3)),
    ]
    praise = "one number per head, from the second half only: heads can now be found, not guessed."
    return judge("14.2", learner, right_score, cases, SCORE_MISTAKES, praise, LOOSE)


def mean_ablation(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, head)`, z with one head's output replaced by its mean: 14.3."""
    z = normal(2, 3, 5, 4)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), 1)),
        Case("two texts, three heads", (z, 2)),
        Case("head 0", (z, 0)),
        Case("a single token in each of two texts", (normal(2, 3, 1, 4), 1)),
        Case("one head", (normal(2, 1, 5, 4), 0)),
        Case("equal numbers of heads, tokens and dimensions", (normal(2, 4, 4, 4), 2)),
        Case("far from zero", (z + 100, 1)),
        Case("not contiguous", (*not_contiguous(z).arguments, 1)),
        Case("bfloat16", (z.bfloat16(), 1)),
    ]
    praise = "the head keeps its average output, and what it says about this text is gone."
    return judge("14.3", learner, mean_ablated, cases, ABLATION_MISTAKES, praise, LOOSE)


def circuit(learner: Callable[..., Any]) -> Verdict:
    """Check `find_circuit(model, clean, corrupted, metric, number)`: four values: 14.4."""
    cases = [
        Case("two layers of four heads, two wanted", (2, 4, 7, 2)),
        Case("two layers of six heads, three wanted", (2, 6, 7, 3)),
        Case("one layer of eight heads, three wanted", (1, 8, 6, 3)),
    ]
    learner = measured(learner) if callable(learner) else learner
    praise = "found by a search, needed in the clean run, and checked by a control."
    forbidden = ("patch_heads", "ablate_heads")
    right = measured(search())
    return judge("14.4", learner, right, cases, CIRCUIT_KNOWN, praise, LOOSE, forbidden)


def _weights(*shape: int, seed: int = 0) -> Tensor:
    """Return causal attention weights (B, H, T, T)."""
    scores = normal(*shape, seed=seed)
    return scores.masked_fill(~causal_mask(shape[-1]), float("-inf")).softmax(dim=-1)
