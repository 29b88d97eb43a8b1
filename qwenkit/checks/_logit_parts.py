"""Exercise 08.3, a logit split into what each part adds: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

_Split = Callable[[Tensor, Tensor, float, Tensor], Tensor]


def logit_parts(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    """Return what each part (P, C) adds to the logit: (P)."""
    return _with(_root)(parts, weight, eps, row)


def _root(parts: Tensor, eps: float) -> Tensor:
    """Return the divisor of the last norm: of the sum of the parts."""
    return (parts.sum(dim=0).pow(2).mean() + eps).sqrt()


def _with(divisor: Callable[[Tensor, float], Tensor]) -> _Split:
    return lambda parts, weight, eps, row: parts / divisor(parts, eps) * weight @ row


_OF_PARTS = (
    "you divide each part by its own size. In the model the norm runs once, on the sum. What is "
    "the divisor there?"
)
_THE_SUM = (
    "that is the logit itself. Return a value per part; the values add up to what you returned."
)
LOGIT_MISTAKES = (
    Mistake("each part normalized", _OF_PARTS,
        _with(lambda parts, eps: (parts.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt())),
    Mistake("each part normalized", _OF_PARTS,
        _with(lambda parts, eps: parts.norm(dim=-1, keepdim=True))),
    Mistake("no divisor", "the divisor of the last norm is missing.",
        _with(lambda parts, eps: torch.ones(()))),
    Mistake("eps missing", "nearly: the divisor of the norm contains eps, and yours does not.",
        _with(lambda parts, eps: parts.sum(dim=0).pow(2).mean().sqrt())),
    Mistake("eps outside the root", "eps belongs inside the root, to the mean square.",
        _with(lambda parts, eps: parts.sum(dim=0).pow(2).mean().sqrt() + eps)),
    Mistake("length of the sum", "you divide by the length of the sum. The norm divides by the "
        "root of the *mean* square.",
        _with(lambda parts, eps: parts.sum(dim=0).norm())),
    Mistake("length of the sum", "you divide by the length of the sum. The norm divides by the "
        "root of the *mean* square.",
        _with(lambda parts, eps: (parts.sum(dim=0).pow(2).sum() + eps).sqrt())),
    Mistake("no root", "you divide by the mean square. The norm divides by its root.",
        _with(lambda parts, eps: parts.sum(dim=0).pow(2).mean() + eps)),
    Mistake("mean over all parts", "your divisor is the root of the mean square over all parts. "
        "The norm gets their sum: one vector.",
        _with(lambda parts, eps: (parts.pow(2).mean() + eps).sqrt())),
    Mistake("squares added", "your divisor adds up the squares of the parts. Add up the parts "
        "first: that is the stream.",
        _with(lambda parts, eps: (parts.pow(2).sum(dim=0).mean() + eps).sqrt())),
    Mistake("mean of the parts", "your divisor is that of the mean of the parts. The stream is "
        "their sum.",
        _with(lambda parts, eps: (parts.mean(dim=0).pow(2).mean() + eps).sqrt())),
    Mistake("the last part's divisor", "your divisor is that of the last part. The norm gets the "
        "sum of all.",
        _with(lambda parts, eps: (parts[-1].pow(2).mean() + eps).sqrt())),
    Mistake("running sums", "you use the stream after each part, with all before it. What does "
        "each part add alone?",
        lambda parts, weight, eps, row: parts.cumsum(dim=0) / _root(parts, eps) * weight @ row),
    Mistake("running divisors", "each part is divided by the size of the stream up to it. The last "
        "norm runs once, at the end.",
        _with(lambda parts, eps: (parts.cumsum(dim=0).pow(2).mean(-1, True) + eps).sqrt())),
    Mistake("running sums", "you use the stream after each part, with its own divisor. What does "
        "each part add alone, with the divisor of the whole?",
        lambda parts, weight, eps, row: _with(
            lambda sums, eps: (sums.pow(2).mean(-1, True) + eps).sqrt()
        )(parts.cumsum(dim=0), weight, eps, row)),
    Mistake("norm's weight missing", "the norm's weight is missing.",
        lambda parts, weight, eps, row: parts / _root(parts, eps) @ row),
    Mistake("row missing", "these are the normalized parts. A logit is a dot product: with what?",
        lambda parts, weight, eps, row: parts / _root(parts, eps) * weight),
    Mistake("products not added", "the dot product is not complete: the products with the row must "
        "be added up over the channels.",
        lambda parts, weight, eps, row: parts / _root(parts, eps) * weight * row),
    Mistake("added over the parts", "you add up over the parts. Add up over the channels: one "
        "value per part.",
        lambda parts, weight, eps, row: (parts / _root(parts, eps) * weight * row).sum(dim=0)),
    Mistake("the sum", _THE_SUM,
        lambda parts, weight, eps, row: logit_parts(parts, weight, eps, row).sum()),
    Mistake("proportions", "these are proportions of the logit. Return what each part adds.",
        lambda parts, weight, eps, row:
            logit_parts(parts, weight, eps, row) / logit_parts(parts, weight, eps, row).sum()),
    Mistake("absolute", "the signs are lost. A part can lower a logit.",
        lambda parts, weight, eps, row: logit_parts(parts, weight, eps, row).abs()),
)  # fmt: skip
