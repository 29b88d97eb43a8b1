"""The checks of notebook 12, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import IGNORE, Batch, init_weights, next_token_loss

EXERCISES: dict[str, str] = {
    "12.1": "inputs and labels of a batch",
    "12.2": "only the answer counts",
    "12.3": "two halves, one step",
}


def make_batch(learner: Callable[..., Any]) -> Verdict:
    """Judge `make_batch(windows)`: (B, T + 1) ids -> inputs and labels, both (B, T)."""
    tens = torch.arange(10, 15)
    cases = [
        Case("two windows of five ids", (torch.stack([tens, tens + 10]),)),
        Case("one window of two ids", (torch.tensor([[3, 4]]),)),
        Case("a transposed tensor", (torch.arange(12).reshape(4, 3).T,)),
    ]
    return judge(
        "12.1", learner, lambda w: (w[:, :-1], w[:, 1:]), cases, _BATCH_MISTAKES,
        "under each input stands the token that follows it.",
    )  # fmt: skip


def answer_labels(learner: Callable[..., Any]) -> Verdict:
    """Judge `answer_labels(ids, prompt)`: (T + 1,) ids -> (T,) labels, IGNORE for the prompt."""
    cases = [
        Case("three tokens of prompt, three of answer", (torch.tensor([5, 6, 7, 1, 2, 3]), 3)),
        Case("a prompt of one token", (torch.tensor([5, 1, 2]), 1)),
        Case("an answer of one token", (torch.tensor([5, 6, 7, 8, 1]), 4)),
    ]
    return judge(
        "12.2", learner, _answer_labels, cases, _LABEL_MISTAKES,
        "the model is asked for the answer, from its first token on.",
    )  # fmt: skip


def accumulate(learner: Callable[..., Any]) -> Verdict:
    """Judge `accumulate(model, parts)`: leaves the gradient of one batch, returns its mean loss."""
    cases = [Case("8 and 32 labels that count", (8, 32)), Case("as many in both", (32, 32))]
    return judge(
        "12.3", _run(learner) if callable(learner) else learner, _run(_accumulate), cases,
        [Mistake(name, hint, _run(function)) for name, hint, function in _SUM_MISTAKES],
        "as one batch.", tolerance=1e-4,
    )  # fmt: skip


# --- 12.1 ---

_BATCH_MISTAKES = [
    Mistake(
        "repeats",
        "the labels are the inputs; the model would learn to repeat.",
        lambda w: (w[:, :-1], w[:, :-1]),
    ),
    Mistake(
        "backwards",
        "the wrong way round: it would learn what came before.",
        lambda w: (w[:, 1:], w[:, :-1]),
    ),
    Mistake(
        "rolled",
        "drop the last column; after a roll its label is the first token.",
        lambda w: (w, w.roll(-1, dims=1)),
    ),
    Mistake(
        "windows cut",
        "you cut off a window, not a token. The colon comes first.",
        lambda w: (w[:-1], w[1:]),
    ),
    Mistake(
        "inputs too long",
        "the labels are right; the inputs have one token too many.",
        lambda w: (w, w[:, 1:]),
    ),
    Mistake("labels alone", "return two tensors, inputs and labels.", lambda w: w[:, 1:]),
    Mistake("inputs alone", "return two tensors, inputs and labels.", lambda w: w[:, :-1]),
    Mistake(
        "two ahead",
        "under each input must stand the token that follows it, not the one after that.",
        lambda w: (w[:, :-2], w[:, 2:]),
    ),
]

# --- 12.2 ---


def _answer_labels(ids: Tensor, prompt: int) -> Tensor:
    labels = ids[1:].clone()
    labels[: prompt - 1] = IGNORE
    return labels


def _masked(stop: int, value: int = IGNORE, start: int = 1) -> Callable[[Tensor, int], Tensor]:
    """Return a wrong idea: ids from `start` on, masked up to the prompt's length plus `stop`."""

    def labels(ids: Tensor, prompt: int) -> Tensor:
        found = ids[start:].clone()
        found[: max(prompt + stop, 0)] = value
        return found

    return labels


def _ignores_the_answer(ids: Tensor, prompt: int) -> Tensor:
    labels = ids[1:].clone()
    labels[prompt - 1 :] = IGNORE
    return labels


_LABEL_MISTAKES = [
    Mistake(
        "first answer token lost",
        "off by one: the answer's first token, 1, must count too.",
        _masked(0),
    ),
    Mistake(
        "last prompt token counts",
        "off by one: the last token of the prompt counts as well.",
        _masked(-2),
    ),
    Mistake(
        "not moved",
        "move the labels by one as well: there is one label fewer than ids.",
        _masked(0, start=0),
    ),
    Mistake(
        "answer ignored", "this counts the prompt and ignores the answer.", _ignores_the_answer
    ),
    Mistake("nothing masked", "nothing is masked.", lambda ids, prompt: ids[1:]),
    Mistake(
        "masked with 0", "0 is a token like any other. Use qk.train.IGNORE.", _masked(-1, value=0)
    ),
    Mistake(
        "prompt dropped",
        "all places stay; those of the prompt get IGNORE.",
        lambda ids, prompt: ids[prompt:],
    ),
]

# --- 12.3 ---


def _toy(counts: tuple[int, ...]) -> tuple[QwenForCausalLM, list[Batch]]:
    """Return a model of a few weights, and parts of 32 labels of which so many count."""
    model = QwenForCausalLM(QwenConfig(16, 8, 16, 1, 4, 1, tie_word_embeddings=True))
    init_weights(model, seed=0)
    model.requires_grad_(True)
    ids = (torch.arange(36 * len(counts)) ** 2 % 13).reshape(len(counts), 4, 9)
    labels = ids[:, :, 1:].clone()
    for part, count in zip(labels, counts, strict=True):
        part[:, count // 4 :] = IGNORE
    return model, [Batch(i[:, :-1], its) for i, its in zip(ids, labels, strict=True)]


def _run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's function into one of the counts alone: its loss, and what it leaves."""

    def run(*counts: int) -> dict[str, Any] | None:
        model, parts = _toy(counts)
        loss = function(model, parts)
        gradient = model.model.norm.weight.grad
        if loss is None and gradient is None:
            return None
        return {"loss": None if loss is None else float(loss), "gradient": gradient}

    return run


def _summed(divide: Callable[[Sequence[Tensor]], float], clear: bool = False) -> Callable[..., Any]:
    """Return an accumulation that divides every part's sum by one number."""

    def accumulate(model: QwenForCausalLM, parts: list[Batch]) -> float:
        by, total = divide([part.labels for part in parts]), 0.0
        for part in parts:
            if clear:
                model.zero_grad()
            loss = next_token_loss(model(part.input_ids), part.labels, reduction="sum") / by
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    return accumulate


def _means(by: int, last: bool = False) -> Callable[..., Any]:
    """Return an accumulation of each part's mean."""

    def accumulate(model: QwenForCausalLM, parts: list[Batch]) -> float:
        total = 0.0
        for part in parts:
            loss = next_token_loss(model(part.input_ids), part.labels) / by
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.item() if last else total + loss.item()
        return total

    return accumulate


def _counted(labels: Sequence[Tensor]) -> float:
    return float(sum((one != IGNORE).sum() for one in labels))


def _no_gradient(model: QwenForCausalLM, parts: list[Batch]) -> float:
    with torch.no_grad():
        sums = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    return float(sum(sums)) / _counted([part.labels for part in parts])


def _last_loss(model: QwenForCausalLM, parts: list[Batch]) -> float:
    _accumulate(model, parts)
    with torch.no_grad():
        loss = next_token_loss(model(parts[-1].input_ids), parts[-1].labels, reduction="sum")
    return float(loss) / _counted([part.labels for part in parts])


_accumulate = _summed(_counted)
_MEANS = "the mean of the means: where a part counts few labels, each of them weighs too much."
_SUM_MISTAKES = [
    ("mean of means", _MEANS, _means(2)),
    ("mean of means", _MEANS, _means(2, last=True)),
    ("sum of means", "you added the two means; divide each sum by the count of both.", _means(1)),
    (
        "sum of means",
        "you added the two means; divide each sum by the count of both.",
        _means(1, last=True),
    ),
    (
        "sum",
        "that is the sum of all losses; divide by how many labels count.",
        _summed(lambda _: 1),
    ),
    (
        "ignored counted",
        "IGNORE labels do not count; divide by the others.",
        _summed(lambda labels: sum(one.numel() for one in labels)),
    ),
    (
        "zeroed in the loop",
        "only the last part's gradient is left; zero_grad belongs before the loop.",
        _summed(_counted, clear=True),
    ),
    (
        "no gradient",
        "the loss is right; no gradient is left. Call backward for each.",
        _no_gradient,
    ),
    (
        "loss of the last part",
        "the gradient is right; the returned loss is that of the last part, not the mean of all.",
        _last_loss,
    ),
]
