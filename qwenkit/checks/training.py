"""The checks of notebook 12, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import IGNORE, Batch, init_weights, next_token_loss

EXERCISES: dict[str, str] = {
    "12.1": "inputs and labels of a batch",
    "12.2": "only the answer counts",
    "12.3": "two halves, one step",
}


def make_batch(learner: Callable[..., Any]) -> Verdict:
    """Check `make_batch(windows)`: (B, T + 1) ids -> inputs and labels, both (B, T)."""
    tens = torch.arange(10, 15)
    cases = [
        Case("two windows of five ids", (torch.stack([tens, tens + 10]),)),
        Case("one window of two ids", (torch.tensor([[3, 4]]),)),
        Case("a transposed tensor", (torch.arange(12).reshape(4, 3).T,)),
    ]
    praise = "the label of each input is the token that follows it."
    return judge("12.1", learner, _shifted(1), cases, _BATCH_MISTAKES, praise)


def answer_labels(learner: Callable[..., Any]) -> Verdict:
    """Check `answer_labels(ids, prompt)`: (T + 1,) ids -> (T,) labels, IGNORE for the prompt."""
    cases = [
        Case("three tokens of prompt, three of answer", (torch.tensor([5, 6, 7, 1, 2, 3]), 3)),
        Case("a prompt of one token", (torch.tensor([5, 1, 2]), 1)),
        Case("an answer of one token", (torch.tensor([5, 6, 7, 8, 1]), 4)),
    ]
    praise = "only the answer counts in the loss, from its first token on."
    return judge("12.2", learner, _masked(-1), cases, _LABEL_MISTAKES, praise)


def accumulate(learner: Callable[..., Any]) -> Verdict:
    """Check `accumulate(model, parts)`: leaves the gradient of one batch, returns its mean loss."""
    cases = [Case("8 and 32 labels that count", (8, 32)), Case("as many in both", (32, 32))]
    known = [Mistake(name, hint, _run(function)) for name, hint, function in _SUM_MISTAKES]
    learner = _run(learner) if callable(learner) else learner
    praise = "the gradient is that of one large batch."
    return judge("12.3", learner, _run(_accumulate), cases, known, praise, tolerance=1e-4)


# --- 12.1 ---


def _shifted(by: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda w: (w[:, :-by], w[:, by:])


_BOTH = "return two tensors, inputs and labels."
_BATCH_MISTAKES = (
    Mistake("repeats", "the labels are the inputs; the model would learn to repeat.",
        lambda w: (w[:, :-1], w[:, :-1])),
    Mistake("backwards", "inputs and labels are swapped: the model would learn what came before.",
        lambda w: (w[:, 1:], w[:, :-1])),
    Mistake("rolled", "drop the last column; after a roll its label is the first token.",
        lambda w: (w, w.roll(-1, dims=1))),
    Mistake("windows cut", "you cut off a window, not a token. The colon comes first.",
        lambda w: (w[:-1], w[1:])),
    Mistake("inputs too long", "the labels are right; the inputs have one token too many.",
        lambda w: (w, w[:, 1:])),
    Mistake("labels alone", _BOTH, lambda w: w[:, 1:]),
    Mistake("inputs alone", _BOTH, lambda w: w[:, :-1]),
    Mistake("two ahead", "the label of each input is the token that follows it, not the one after "
        "that.",
        _shifted(2)),
)  # fmt: skip

# --- 12.2 ---


def _masked(stop: int, value: int = IGNORE, start: int = 1) -> Callable[[Tensor, int], Tensor]:
    """Return the ids from `start` on, masked up to the prompt's length plus `stop`."""

    def labels(ids: Tensor, prompt: int) -> Tensor:
        found = ids[start:].clone()
        found[: max(prompt + stop, 0)] = value
        return found

    return labels


def _answer_ignored(ids: Tensor, prompt: int) -> Tensor:
    labels = ids[1:].clone()
    labels[prompt - 1 :] = IGNORE
    return labels


_LABEL_MISTAKES = (
    Mistake("first answer token lost", "off by one: the answer's first token, 1, must count too.",
        _masked(0)),
    Mistake("last prompt token counts", "off by one: the last token of the prompt counts as well.",
        _masked(-2)),
    Mistake("not shifted", "shift the labels by one as well: there is one label fewer than ids.",
        _masked(0, start=0)),
    Mistake("answer ignored", "this counts the prompt and ignores the answer.", _answer_ignored),
    Mistake("nothing masked", "nothing is masked.", lambda ids, prompt: ids[1:]),
    Mistake("masked with 0", "0 is an ordinary token. Use qk.train.IGNORE.", _masked(-1, value=0)),
    Mistake("prompt dropped", "keep all positions; those of the prompt get IGNORE.",
        lambda ids, prompt: ids[prompt:]),
)  # fmt: skip

# --- 12.3 ---


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


def _run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's function into a function of the counts: its loss and its gradient."""

    @wraps(function)
    def run(*counts: int) -> dict[str, Any] | None:
        model, parts = _toy(counts)
        loss = function(model, parts)
        gradient = model.model.norm.weight.grad
        nothing = loss is None or loss is ...
        if nothing and gradient is None:
            return None
        return {"loss": None if nothing else float(loss), "gradient": gradient}

    return run


def _summed(
    divide: Callable[[Sequence[Tensor]], float],
    reduction: str = "sum",
    clear: bool = False,
    last: bool = False,
) -> Callable[..., Any]:
    """Return an accumulation that divides every part's loss by one number.

    `clear`: the gradient is set to zero before every part; `last`: the loss is that of the last.
    """

    def accumulate(model: QwenForCausalLM, parts: list[Batch]) -> float:
        by, total = divide([part.labels for part in parts]), 0.0
        for part in parts:
            if clear:
                model.zero_grad()
            logits = model(part.input_ids)
            loss = next_token_loss(logits, part.labels, reduction=reduction) / by
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.item() if last else total + loss.item()
        return total

    return accumulate


def _means(by: int, last: bool = False) -> Callable[..., Any]:
    return _summed(lambda _: by, reduction="mean", last=last)


def _counted(labels: Sequence[Tensor]) -> float:
    return float(sum((one != IGNORE).sum() for one in labels))


def _no_gradient(model: QwenForCausalLM, parts: list[Batch]) -> float:
    with torch.no_grad():
        sums = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    return float(sum(sums)) / _counted([part.labels for part in parts])


_accumulate = _summed(_counted)
_MEANS = "the mean of the means: if few labels of a part count, each of them weighs too much."
_SUM_OF_MEANS = "you added the two means; divide each sum by the count of both."
_SUM_MISTAKES = (
    ("mean of means", _MEANS, _means(2)),
    ("mean of means", _MEANS, _means(2, last=True)),
    ("sum of means", _SUM_OF_MEANS, _means(1)),
    ("sum of means", _SUM_OF_MEANS, _means(1, last=True)),
    ("sum", "that is the sum of all losses; divide by how many labels count.",
        _summed(lambda _: 1)),
    ("ignored counted", "IGNORE labels do not count; divide by the others.",
        _summed(lambda labels: sum(one.numel() for one in labels))),
    ("zeroed in the loop", "only the last part's gradient is left; zero_grad belongs before the "
        "loop.",
        _summed(_counted, clear=True)),
    ("no gradient", "the loss is right, but there is no gradient. Call backward for each part.",
        _no_gradient),
    ("loss of the last part", "the gradient is right; the returned loss is that of the last part, "
        "not the mean of all.",
        _summed(_counted, last=True)),
)  # fmt: skip
