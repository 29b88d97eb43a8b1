"""Exercise 14.1, what parts add to a logit: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake


def right_contributions(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    """Return what each part adds to the logit of a head's row, (P)."""
    return _divided(lambda parts, eps: _rms(parts.sum(dim=0), eps))(parts, weight, eps, row)


def _divided(divisor: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """Return contributions after a division by `divisor(parts, eps)`."""
    return lambda parts, weight, eps, row: parts / divisor(parts, eps) * weight @ row


def _rms(stream: Tensor, eps: float) -> Tensor:
    return (stream.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


def _proportions(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    found = right_contributions(parts, weight, eps, row)
    return found / found.sum()


CONTRIBUTION_MISTAKES = (
    Mistake("each part normed", "you norm each part by its own size, so a tiny part counts as much "
        "as a large one. The model norms only once: what?",
        _divided(_rms)),
    Mistake("no norm", "the parts meet the head's row without the last norm between them. Their "
        "sum is then not the logit.",
        lambda parts, weight, eps, row: parts @ row),
    Mistake("weight alone", "the norm's weight is there, but its division is not.",
        lambda parts, weight, eps, row: parts * weight @ row),
    Mistake("no weight", "you divide, but forget the norm's weight: one value per channel.",
        lambda parts, weight, eps, row:
            right_contributions(parts, torch.ones_like(weight), eps, row)),
    Mistake("no eps", "eps is missing under the root. If the stream is small, it counts.",
        lambda parts, weight, eps, row: right_contributions(parts, weight, 0.0, row)),
    Mistake("mean of the parts", "you norm by the mean of the parts. The stream is their sum.",
        _divided(lambda parts, eps: _rms(parts.mean(dim=0), eps))),
    Mistake("length, not root mean square", "you divide by the stream's length, the root of the "
        "sum of squares. The norm takes their mean.",
        _divided(lambda parts, eps: (parts.sum(dim=0).pow(2).sum() + eps).sqrt())),
    Mistake("standard deviation", "you divide by the standard deviation, which subtracts the mean "
        "first. RMSNorm divides by the root mean square.",
        _divided(lambda parts, eps: (parts.sum(dim=0).var() + eps).sqrt())),
    Mistake("standard deviation", "you divide by the standard deviation, which subtracts the mean "
        "first. RMSNorm divides by the root mean square.",
        _divided(lambda parts, eps: parts.sum(dim=0).std() + 0 * eps)),
    Mistake("standard deviation", "you divide by the standard deviation, which subtracts the mean "
        "first. RMSNorm divides by the root mean square.",
        _divided(lambda parts, eps: (parts.sum(dim=0).var(correction=0) + eps).sqrt())),
    Mistake("eps outside the root", "you add eps after the root. It belongs under it.",
        _divided(lambda parts, eps: _rms(parts.sum(dim=0), 0.0) + eps)),
    Mistake("mean over all parts", "you divide by the root mean square of all parts' values. The "
        "norm sees their sum, the stream.",
        _divided(lambda parts, eps: (parts.pow(2).mean() + eps).sqrt())),
    Mistake("summed over the channels", "you add up each part's values. The stream is the sum of "
        "the parts: which axis counts them?",
        _divided(lambda parts, eps: _rms(parts.sum(dim=-1), eps))),
    Mistake("largest value", "you divide by the stream's largest value. The norm divides by the "
        "root mean square.",
        _divided(lambda parts, eps: parts.sum(dim=0).abs().max() + 0 * eps)),
    Mistake("multiplied", "you multiply by the root mean square. The norm divides by it.",
        _divided(lambda parts, eps: 1 / _rms(parts.sum(dim=0), eps))),
    Mistake("weight twice", "the norm's weight is in it twice.",
        lambda parts, weight, eps, row: right_contributions(parts, weight**2, eps, row)),
    Mistake("divided by the weight", "the norm multiplies by its weight.",
        lambda parts, weight, eps, row: right_contributions(parts, 1 / weight, eps, row)),
    Mistake("equal shares", "you divide the logit equally among the parts. How much does each "
        "one's own vector add?",
        lambda parts, weight, eps, row:
            right_contributions(parts, weight, eps, row).mean().expand(len(parts))),
    Mistake("no row", "these are the normed parts, (P, C). Their product with the head's row is "
        "the logit.",
        lambda parts, weight, eps, row: parts / _rms(parts.sum(dim=0), eps) * weight),
    Mistake("not summed", "you multiply each channel by the row. Add up over the channels, too.",
        lambda parts, weight, eps, row: parts / _rms(parts.sum(dim=0), eps) * weight * row),
    Mistake("absolute values", "you lost the signs. A part may also lower a logit.",
        lambda parts, weight, eps, row: right_contributions(parts, weight, eps, row).abs()),
    Mistake("softmax", "a softmax makes positive proportions of amounts. Return the amounts.",
        lambda parts, weight, eps, row:
            right_contributions(parts, weight, eps, row).softmax(dim=0)),
    Mistake("no root", "you divide by the mean square and not by its root.",
        _divided(lambda parts, eps: _rms(parts.sum(dim=0), eps).pow(2))),
    Mistake("the logit alone", "this is the logit, all parts together. How much of it does each "
        "part add?",
        lambda parts, weight, eps, row: right_contributions(parts, weight, eps, row).sum()),
    Mistake("proportions", "you divide by the total. A part may add 12 and another subtract 5: "
        "keep the amounts, so that they sum to the logit.",
        _proportions),
)  # fmt: skip
