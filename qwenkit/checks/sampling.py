"""The checks of notebook 11, sampling: temperature, one draw, top-p, an answer from a list."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Verdict, judge
from qwenkit.checks._samples import normal
from qwenkit.checks._sampling_choose import CASES, CHOOSE_MISTAKES, choosing, chosen
from qwenkit.checks._sampling_draw import DRAW_MISTAKES, right_draw
from qwenkit.checks._sampling_temperature import TEMPERATURE_MISTAKES, right_temperature
from qwenkit.checks._sampling_top_p import TOP_P_MISTAKES, any_of_equals
from qwenkit.generate.sampling import keep_top_p

EXERCISES = {
    "11.1": "softmax with a temperature",
    "11.2": "draw with a running sum",
    "11.3": "top-p",
    "11.4": "an answer from a list",
}
_NEVER = float("-inf")
_READY_MADE = ("softmax", "log_softmax", "logsumexp", "softmin", "logcumsumexp", "Categorical")
_ROUGH = 5e-4  # the rounding of logits in the thousands; no mistake is that small
_FIVE = torch.tensor([3.0, 2, 1, 0, 0]) * math.log(2)  # 8, 4, 2, 1 and 1 sixteenths


def temperature(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, temperature)`, probabilities (..., V): exercise 11.1."""
    rows = normal(2, 6)
    cases = [
        Case("five logits, temperature 0.5", (_FIVE, 0.5)),
        Case("temperature 2", (_FIVE, 2.0)),
        Case("temperature 1", (normal(7), 1.0)),
        Case("a low temperature", (normal(7, seed=1), 0.05)),
        Case("two rows", (rows, 0.7)),
        Case("as many rows as tokens", (normal(4, 4, seed=2), 1.5)),
        Case("logits in the thousands", (1000 + 30 * normal(6, seed=3), 0.5)),
        Case("logits in the thousands, temperature 1", (1000 + 3 * normal(6, seed=8), 1.0)),
        Case("logits far below zero", (normal(6, seed=4) - 5000, 2.0)),
        Case("one token is ruled out", (torch.tensor([1.0, _NEVER, 2.0]), 0.5)),
        Case("two rows far apart", (rows + torch.tensor([[0.0], [900.0]]), 0.5)),
    ]
    praise = "every row sums to 1, at any temperature and no matter how large the logits are."
    return judge(
        "11.1", learner, right_temperature, cases, TEMPERATURE_MISTAKES, praise, _ROUGH, _READY_MADE
    )


def draw(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(probs, numbers)`, the token of each row, (B) int64: exercise 11.2."""

    def case(label: str, rows: list[list[float]], numbers: list[float]) -> Case:
        return Case(label, (torch.tensor(rows), torch.tensor(numbers)))

    quarters, scattered = [0.5, 0.25, 0.25], [0.1, 0.2, 0.55, 0.15]
    cases = [
        case("one row: 0.6 is in the second of three intervals", [quarters], [0.6]),
        case("two rows, a number each", [quarters, [0.25, 0.5, 0.25]], [0.9, 0.3]),
        case("the most likely token comes third", [scattered] * 4, [0.05, 0.17, 0.7, 0.86]),
        case("as many rows as tokens", [[0.2, 0.3, 0.5], quarters, quarters], [0.25, 0.1, 0.8]),
        case("exactly on a border", [quarters, quarters], [0.5, 0.75]),
        case("0, and the first token is impossible", [[0.0, 0.25, 0.75], quarters], [0.0, 0.3]),
        case("a token in the middle is impossible", [[0.5, 0.0, 0.5]], [0.5]),
        case(
            "the sum ends below 1, and the last token is impossible",
            [[0.5, 0.3, 0.1999, 0.0], [0.2, 0.35, 0.25, 0.2]],
            [0.99995, 0.3],
        ),
        case("the sum ends below 1 by rounding", [[0.5, 0.3, 0.1999], quarters], [0.99995, 0.2]),
    ]
    praise = "one number from 0 to 1 per row, one running sum, and each row draws independently."
    return judge("11.2", learner, right_draw, cases, DRAW_MISTAKES, praise)


def top_p(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, p)`, logits with -inf for dropped tokens: exercise 11.3."""
    cases = [
        Case("five logits in order, p = 0.8", (_FIVE, 0.8)),
        Case("the same out of order", (_FIVE[[3, 1, 4, 0, 2]], 0.8)),
        Case("p below the largest probability", (_FIVE[[3, 1, 4, 0, 2]], 0.3)),
        Case("p = 0.7", (_FIVE[[2, 0, 1, 4, 3]], 0.7)),
        Case("twelve logits", (3 * normal(12, seed=5), 0.9)),
        Case("all logits below zero", (2 * normal(9, seed=6) - 20, 0.6)),
        Case("some are ruled out already", (torch.tensor([0.5, _NEVER, 2, _NEVER, 1.0]), 0.8)),
        Case("large logits", (100 * normal(6, seed=7), 0.95)),
        Case("p = 1", (_FIVE[[3, 1, 4, 0, 2]], 1.0)),
        Case("p = 1, and two tokens very unlikely", (torch.tensor([-20.0, 0, -25, 0]), 1.0)),
        Case("four equal logits, p = 0.5", (torch.zeros(4), 0.5)),
        Case("eight equal logits, p = 0.5", (torch.ones(8), 0.5)),
    ]
    keep = any_of_equals(learner) if callable(learner) else learner
    praise = "the smallest set that reaches p, each logit at its own position, and never empty."
    return judge("11.3", keep, any_of_equals(keep_top_p), cases, TOP_P_MISTAKES, praise)


def choose(learner: Callable[..., Any]) -> Verdict:
    """Check `choose(score, pieces, allowed, end, numbers)`, a text and its probability: 11.4."""
    run = chosen(learner) if callable(learner) else learner
    praise = "every answer is an allowed one, and its probability is exact."
    return judge("11.4", run, chosen(choosing()), CASES, CHOOSE_MISTAKES, praise, 1e-4)
