"""Exercise 12.3, the gradient of a batch in parts: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import IGNORE, Batch, init_weights, next_token_loss

Accumulate = Callable[[QwenForCausalLM, list[Batch]], Any]


def _toy(counts: tuple[int, ...]) -> tuple[QwenForCausalLM, list[Batch]]:
    """Return a model of a few weights, and parts of 32 labels; `counts` of them count."""
    model = QwenForCausalLM(QwenConfig(16, 8, 16, 1, 4, 1, tie_word_embeddings=True))
    init_weights(model, seed=0)
    model.requires_grad_(True)
    ids = (torch.arange(36 * len(counts)) ** 2 % 13).reshape(len(counts), 4, 9)
    labels = ids[:, :, 1:].clone()
    for part, count in zip(labels, counts, strict=True):
        part[:, count // 4 :] = IGNORE
    return model, [Batch(i[:, :-1], its) for i, its in zip(ids, labels, strict=True)]


def running(function: Accumulate) -> Callable[[tuple[int, ...], float], dict[str, Any] | None]:
    """Turn an answer into a function of the counts, and of the gradient left from before."""

    @wraps(function)
    def run(counts: tuple[int, ...], left: float) -> dict[str, Any] | None:
        model, parts = _toy(counts)
        weight = model.model.norm.weight
        old, weight.grad = weight.detach().clone(), torch.full_like(weight, left) if left else None
        loss = function(model, parts)
        if loss is ...:
            loss = None
        if loss is None and (weight.grad is None or bool((weight.grad == left).all())):
            return None
        stays = torch.equal(weight.detach(), old)
        return {"loss": loss, "gradient": weight.grad, "the weights are unchanged": stays}

    return run


def _counted(labels: Sequence[Tensor]) -> float:
    return float(sum((one != IGNORE).sum() for one in labels))


def _summed(
    divide: Callable[[Sequence[Tensor]], float],
    reduction: str = "sum",
    zero: str = "before",
    shift: int = 0,
) -> Accumulate:
    """Return an accumulation that divides every part's loss by one number.

    `zero`: the gradient is set to zero "before" the loop, before "each" part, or "never"; `shift`:
    the labels are moved so much more.
    """

    def accumulate(model: QwenForCausalLM, parts: list[Batch]) -> float:
        by, total = divide([part.labels for part in parts]), 0.0
        if zero == "before":
            model.zero_grad()
        for part in parts:
            if zero == "each":
                model.zero_grad()
            logits = model(part.input_ids)[:, : part.labels.shape[1] - shift]
            loss = next_token_loss(logits, part.labels[:, shift:], reduction=reduction) / by
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    return accumulate


right_sum = _summed(_counted)


def _returning(
    change: Callable[[float, QwenForCausalLM, list[Batch]], Any], accumulate: Accumulate = right_sum
) -> Accumulate:
    """Return an accumulation whose loss is changed, or after which something else is done."""
    return lambda model, parts: change(accumulate(model, parts), model, parts)


def _last_part(loss: float, model: QwenForCausalLM, parts: list[Batch]) -> float:
    """Return the part's share of the mean loss."""
    with torch.no_grad():
        total = next_token_loss(model(parts[-1].input_ids), parts[-1].labels, reduction="sum")
    return float(total) / _counted([part.labels for part in parts])


def _last_mean(loss: float, model: QwenForCausalLM, parts: list[Batch]) -> float:
    with torch.no_grad():
        return float(next_token_loss(model(parts[-1].input_ids), parts[-1].labels))


def _zeroed(loss: float, model: QwenForCausalLM, parts: list[Batch]) -> float:
    model.zero_grad()
    return loss


def _stepped(loss: float, model: QwenForCausalLM, parts: list[Batch]) -> float:
    with torch.no_grad():
        model.model.norm.weight.add_(1.0)
    return loss


def _no_gradient(model: QwenForCausalLM, parts: list[Batch]) -> float:
    with torch.no_grad():
        sums = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    return float(sum(sums)) / _counted([part.labels for part in parts])


_means = _summed(lambda labels: len(labels), reduction="mean")
_sum_of_means = _summed(lambda labels: 1, reduction="mean")
_sum = _summed(lambda labels: 1)
_MEANS = "the mean of the means: if few labels of a part count, each of them weighs too much."
_SUM_OF_MEANS = "you added the two means; divide each sum by the count of both."
_STEPPED = "you also changed the weights. Leave the gradient; the optimizer takes the step later."
_FLOAT = "the values are right; return the loss as a float, with item()."
_SUM_MISTAKES: tuple[tuple[str, str, Accumulate], ...] = (
    ("mean of means", _MEANS, _means),
    ("mean of means", _MEANS,
        _returning(lambda loss, model, parts: _last_mean(loss, model, parts) / 2, _means)),
    ("sum of means", _SUM_OF_MEANS, _sum_of_means),
    ("sum of means", _SUM_OF_MEANS, _returning(_last_mean, _sum_of_means)),
    ("sum", "that is the sum of all losses; divide by how many labels count.", _sum),
    ("divided after backward", "the loss is right, the gradient is too large: divide before "
        "backward.",
        _returning(lambda loss, model, parts: loss / _counted([p.labels for p in parts]), _sum)),
    ("loss not divided", "the gradient is right; the returned loss is the sum, not the mean.",
        _returning(lambda loss, model, parts: loss * _counted([p.labels for p in parts]))),
    ("ignored counted", "IGNORE labels do not count; divide by the others.",
        _summed(lambda labels: sum(one.numel() for one in labels))),
    ("divided by the texts", "you divide by the number of texts. Divide by how many labels count.",
        _summed(lambda labels: sum(len(one) for one in labels))),
    ("divided by the parts", "you divide the sums by the number of parts. Divide by how many "
        "labels count.",
        _summed(lambda labels: len(labels))),
    ("count of one part", "you divide by the count of the first part. Count the labels of all.",
        _summed(lambda labels: _counted(labels[:1]))),
    ("count of one part", "you divide by the count of the last part. Count the labels of all.",
        _summed(lambda labels: _counted(labels[-1:]))),
    ("shifted twice", "the labels of a part are shifted already; you shift them again.",
        _summed(lambda labels: _counted([one[:, 1:] for one in labels]), shift=1)),
    ("shifted twice", "the labels of a part are shifted already; you shift them again.",
        _summed(_counted, shift=1)),
    ("only the last part's gradient", "only the last part's gradient is left. Is zero_grad in the "
        "loop, or backward after it?",
        _summed(_counted, zero="each")),
    ("not zeroed", "the gradient left from the step before is still in it: zero_grad first.",
        _summed(_counted, zero="never")),
    ("zeroed after backward", "the loss is right, but you set the gradient to zero after backward. "
        "Do it before the loop.",
        _returning(_zeroed)),
    ("no gradient", "the loss is right, but there is no gradient. Call backward for each part.",
        _no_gradient),
    ("weights changed", _STEPPED, _returning(_stepped)),
    ("weights changed", _STEPPED,
        _returning(lambda *given: _zeroed(_stepped(*given), *given[1:]))),
    ("loss of the last part", "the gradient is right; the returned loss is that of the last part, "
        "not the mean of all.",
        _returning(_last_part)),
    ("loss of the last part", "the gradient is right; the returned loss is the last part's mean, "
        "not the mean of all.",
        _returning(_last_mean)),
    ("a tensor", _FLOAT, _returning(lambda loss, *_: torch.tensor(loss))),
    ("nothing returned", "the gradient is right, but the loss is not returned.",
        _returning(lambda *_: None)),
)  # fmt: skip
SUM_MISTAKES = [
    Mistake(name, hint, cache(running(function))) for name, hint, function in _SUM_MISTAKES
]
