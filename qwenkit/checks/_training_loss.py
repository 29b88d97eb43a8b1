"""Exercise 12.1, the loss of a batch: the right answer, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal
from qwenkit.train import IGNORE

Loss = Callable[[Tensor, Tensor], Any]

_LABELS = torch.tensor([[1, 4, 0, 3], [2, 2, 6, 5]])
_FEW = torch.tensor([[IGNORE, IGNORE, IGNORE, 3], [2, 2, 6, 5]])
_RULED_OUT = torch.tensor([[[-math.inf, 1.0, 2.0], [0.0, 1.0, 2.0]]])
CASES = [
    Case("one position, three tokens", (torch.tensor([[[0.0, 1, 0]]]), torch.tensor([[1]]))),
    Case("two texts of four positions", (2 * normal(2, 4, 7), _LABELS)),
    Case("as many positions as tokens", (normal(3, 4, 4, seed=1), torch.arange(12).view(3, 4) % 4)),
    Case("some labels are ignored", (2 * normal(2, 4, 7, seed=2), _FEW)),
    Case("one label counts", (normal(1, 3, 5, seed=3), torch.tensor([[IGNORE, 2, IGNORE]]))),
    Case("scores in the hundreds", (300 * normal(2, 4, 7, seed=4), _LABELS)),
    Case("bfloat16", (4 * normal(2, 4, 7, seed=5).bfloat16(), _LABELS)),
    Case("a token is ruled out", (torch.tensor([[[-math.inf, 1.0, 2.0]]]), torch.tensor([[2]]))),
    Case("ruled out where the label is ignored", (_RULED_OUT, torch.tensor([[IGNORE, 2]]))),
]


def with_gradient(function: Loss) -> Loss:
    """Turn a loss into a function that returns the loss and its gradient."""

    @wraps(function)
    def run(logits: Tensor, labels: Tensor) -> Any:
        logits = logits.requires_grad_()
        loss = function(logits, labels)
        if loss is None or loss is ...:
            return loss
        if isinstance(loss, Tensor) and loss.requires_grad and loss.dim() == 0:
            loss.backward()  # type: ignore[no-untyped-call]
        gradient = logits.grad if logits.grad is not None else "no gradient"
        return (loss.detach() if isinstance(loss, Tensor) else loss), gradient

    return run


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1)


def _by_powers(logits: Tensor) -> Tensor:
    powers = logits.float().exp()
    return (powers / powers.sum(dim=-1, keepdim=True)).log()


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    return losses[counts].mean()


def _mean_of_means(losses: Tensor, counts: Tensor) -> Tensor:
    return torch.stack(
        [one[which].mean() for one, which in zip(losses, counts, strict=True)]
    ).mean()


def _loss(
    log_probs: Callable[[Tensor], Tensor] = _log_softmax,
    over: Callable[[Tensor, Tensor], Any] = _mean,
    change: Callable[[Tensor], Tensor] = lambda chosen: -chosen,
    labels_of: Callable[[Tensor], Tensor] = lambda labels: labels,
) -> Loss:
    """Return a loss; each argument is a step of it that can go wrong."""

    def loss(logits: Tensor, labels: Tensor) -> Any:
        labels = labels_of(labels)
        counts = labels != IGNORE
        index = labels.clamp(min=0)[..., None]
        chosen = log_probs(logits)[:, : labels.shape[1]].gather(-1, index)[..., 0]  # (B, T)
        return over(change(chosen), counts)

    return loss


right_loss = _loss()


def _last_token(labels: Tensor) -> Tensor:
    return torch.where(labels == IGNORE, 6, labels)


_IDEAS: tuple[tuple[str, str, Loss], ...] = (
    ("ignored labels count as zeros", "you set the loss of ignored labels to 0, and still divide "
        "by all positions. By how many must you divide?",
        _loss(over=lambda losses, counts: losses.where(counts, 0.0).mean())),
    ("ignored labels count", "positions with the label IGNORE count, as if their label were token "
        "0. Which positions belong in the mean?",
        _loss(over=lambda losses, counts: losses.mean())),
    ("ignored labels count", "positions with the label IGNORE count: a negative index counts from "
        "the end of the vocabulary. Which positions belong in the mean?",
        _loss(over=lambda losses, counts: losses.mean(), labels_of=_last_token)),
    ("zero times infinity", "you multiply the loss of ignored labels by 0. Where it is infinite "
        "that gives NaN. Select those that count instead.",
        _loss(over=lambda losses, counts: (losses * counts).sum() / counts.sum())),
    ("sum", "that is the sum over the labels that count. The loss is their mean.",
        _loss(over=lambda losses, counts: losses[counts].sum())),
    ("divided by the texts", "you divide by the number of texts. Divide by how many labels count.",
        _loss(over=lambda losses, counts: losses[counts].sum() / len(losses))),
    ("mean of means", "you take the mean of each text first. A text of which few labels count then "
        "weighs too much.",
        _loss(over=_mean_of_means)),
    ("too large to exponentiate", "right for small scores. e to the power of several hundred is "
        "infinite. What may you subtract from all scores of a position?",
        _loss(_by_powers)),
    ("too large to exponentiate", "right for small scores. A probability may round to 0, and its "
        "logarithm is then infinite. Compute the logarithm of the sum instead of the quotient.",
        _loss(lambda logits: logits.float().softmax(dim=-1).log())),
    ("a small number added", "you add a small number to the probability before the logarithm. That "
        "caps the loss where the model is sure and wrong. Compute the logarithm of the sum.",
        _loss(lambda logits: (logits.float().softmax(dim=-1) + 1e-8).log())),
    ("not upcast", "right in float32. In bfloat16, small differences of scores are lost: convert "
        "to float32 first.",
        _loss(lambda logits: logits.log_softmax(dim=-1))),
    ("sign", "the sign is wrong: a loss falls when the right token gets more.",
        _loss(change=lambda chosen: chosen)),
    ("probability", "that is 1 − p, not minus the logarithm of p.",
        _loss(change=lambda chosen: 1 - chosen.exp())),
    ("probability", "that is minus the probability. Which function of it is the loss?",
        _loss(change=lambda chosen: -chosen.exp())),
    ("bits", "that is in bits: the logarithm to base 2. The loss here is in nats.",
        _loss(change=lambda chosen: -chosen / math.log(2))),
    ("perplexity", "that is e to the power of the loss, the perplexity.",
        _loss(over=lambda losses, counts: losses[counts].mean().exp())),
    ("scores alone", "you take the right token's score, without comparing it with the others. What "
        "is the sum over the vocabulary for?",
        _loss(lambda logits: logits.float())),
    ("softmax twice", "you apply softmax, and then a function that applies it again.",
        _loss(lambda logits: logits.float().softmax(dim=-1).log_softmax(dim=-1))),
    ("wrong dimension", "your softmax runs over the positions. The tokens to choose from are along "
        "the last dimension.",
        _loss(lambda logits: logits.float().log_softmax(dim=1))),
    ("wrong dimension", "your softmax runs over the texts. The tokens to choose from are along the "
        "last dimension.",
        _loss(lambda logits: logits.float().log_softmax(dim=0))),
    ("not reduced", "these are the losses of all positions. Return their mean, one number.",
        _loss(over=lambda losses, counts: losses)),
    ("not reduced", "these are the losses of the positions that count. Return their mean.",
        _loss(over=lambda losses, counts: losses[counts])),
    ("first text only", "only the first text counts. Take all of them.",
        _loss(over=lambda losses, counts: losses[0][counts[0]].mean())),
    ("last position only", "only the last position counts. Take all of them.",
        _loss(over=lambda losses, counts: losses[:, -1][counts[:, -1]].mean())),
    ("shifted again", "you shift the labels. They are shifted already: a label belongs to the "
        "logits at its own position.",
        _loss(labels_of=lambda labels: labels[:, 1:])),
    ("no gradient", "the value is right, but no gradient flows back: keep it a tensor, without "
        "detach or item.",
        lambda logits, labels: right_loss(logits, labels).detach()),
    ("a float", "the value is right, but a float has no gradient: return the tensor.",
        lambda logits, labels: right_loss(logits, labels).item()),
)  # fmt: skip
LOSS_MISTAKES = [Mistake(name, hint, with_gradient(function)) for name, hint, function in _IDEAS]
