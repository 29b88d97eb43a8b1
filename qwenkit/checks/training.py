"""The checks of notebook 12, training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._training_sum import SUM_MISTAKES, right_sum, running
from qwenkit.train import IGNORE

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
        Case("the answer repeats tokens of the prompt", (torch.tensor([5, 6, 7, 6, 5, 3]), 3)),
        Case("no prompt", (torch.tensor([1, 2, 3, 4, 5]), 0)),
    ]
    praise = "only the answer counts in the loss, from its first token on."
    return judge("12.2", learner, _masked(-1), cases, _LABEL_MISTAKES, praise)


def accumulate(learner: Callable[..., Any]) -> Verdict:
    """Check `accumulate(model, parts)`: leaves the gradient of one batch, returns its mean loss."""
    cases = [
        Case("8 and 32 labels that count", ((8, 32), 0.0)),
        Case("as many in both", ((32, 32), 0.0)),
        Case("a gradient is left from the step before", ((16, 32), 1.0)),
    ]
    run = running(learner) if callable(learner) else learner
    praise = "the gradient is that of one large batch."
    return judge("12.3", run, running(right_sum), cases, SUM_MISTAKES, praise, tolerance=1e-4)


# --- 12.1 ---


def _shifted(by: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda w: (w[:, :-by], w[:, by:])


_BOTH = "return two tensors, inputs and labels."
_WRONG_WAY = "you move the tokens to the right: the label would be the token before. Move left."
_BATCH_MISTAKES = (
    Mistake("repeats", "the labels are the inputs; the model would learn to repeat.",
        lambda w: (w[:, :-1], w[:, :-1])),
    Mistake("backwards", "inputs and labels are swapped: the model would learn what came before.",
        lambda w: (w[:, 1:], w[:, :-1])),
    Mistake("rolled", "drop the last column; after a roll its label is the first token.",
        lambda w: (w, w.roll(-1, dims=1))),
    Mistake("rolled", "drop the last column; after a roll its label is from the next window.",
        lambda w: (w, w.roll(-1))),
    Mistake("rolled the wrong way", _WRONG_WAY, lambda w: (w, w.roll(1, dims=1))),
    Mistake("rolled the wrong way", _WRONG_WAY, lambda w: (w[:, :-1], w.roll(1, dims=1)[:, :-1])),
    Mistake("windows cut", "you cut off a window, not a token. The colon comes first.",
        lambda w: (w[:-1], w[1:])),
    Mistake("windows cut", "you cut off a window, not a token, and the first tensor must hold the "
        "inputs. The colon comes first.",
        lambda w: (w[1:], w[:-1])),
    Mistake("labels too long", "the inputs are right; the labels are not moved: drop the first "
        "column.",
        lambda w: (w[:, :-1], w)),
    Mistake("labels too long", "the inputs are right; the last label is the first token, by the "
        "roll. Drop it.",
        lambda w: (w[:, :-1], w.roll(-1, dims=1))),
    Mistake("fixed length", "you cut at a fixed length. Windows have any length: count from the "
        "end.",
        lambda w: (w[:, :4], w[:, 1:5])),
    Mistake("one window", "you return one window. Keep all of them, (B, T).",
        lambda w: (w[0, :-1], w[0, 1:])),
    Mistake("one window", "you return one window. Keep all of them, (B, T).",
        lambda w: (w[:1, :-1], w[:1, 1:])),
    Mistake("flattened", "the tokens are right, but in one row. Keep the shape (B, T).",
        lambda w: (w[:, :-1].flatten(), w[:, 1:].flatten())),
    Mistake("last token alone", "the label of every position counts, not only that of the last: "
        "labels are (B, T), too.",
        lambda w: (w[:, :-1], w[:, -1])),
    Mistake("last token alone", "the label of every position counts, not only that of the last: "
        "labels are (B, T), too.",
        lambda w: (w[:, :-1], w[:, -1:])),
    Mistake("stacked", "you return one tensor. Return two: inputs, labels.",
        lambda w: torch.stack([w[:, :-1], w[:, 1:]])),
    Mistake("floats", "ids are integers; an embedding accepts no floats.",
        lambda w: (w[:, :-1].float(), w[:, 1:].float())),
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


def _masked_up_to(stop: Callable[[int], int]) -> Callable[[Tensor, int], Tensor]:
    """Return the labels, masked by a slice that a negative stop counts from the end."""

    def labels(ids: Tensor, prompt: int) -> Tensor:
        found = ids[1:].clone()
        found[: stop(prompt)] = IGNORE
        return found

    return labels


def _inputs_masked(stop: int) -> Callable[[Tensor, int], Tensor]:
    return lambda ids, prompt: _masked(stop, start=0)(ids[:-1], prompt)


def _answer_ignored(stop: int) -> Callable[[Tensor, int], Tensor]:
    def labels(ids: Tensor, prompt: int) -> Tensor:
        found = ids[1:].clone()
        found[prompt + stop :] = IGNORE
        return found

    return labels


_NOT_MOVED = "these are the inputs. The label of a position is the token after it: move, then mask."
_LABEL_MISTAKES = (
    Mistake("first answer token lost", "off by one: the answer's first token, 1, must count too.",
        _masked(0)),
    Mistake("last prompt token counts", "off by one: the last token of the prompt counts as well.",
        _masked(-2)),
    Mistake("not shifted", "shift the labels by one as well: there is one label fewer than ids.",
        _masked(0, start=0)),
    Mistake("inputs, not labels", _NOT_MOVED, _inputs_masked(0)),
    Mistake("inputs, not labels", _NOT_MOVED, _inputs_masked(-1)),
    Mistake("one label too many", "a roll brings the first token to the end. There is one label "
        "fewer than ids: cut, do not roll.",
        lambda ids, prompt: _masked(-1, start=0)(ids.roll(-1), prompt)),
    Mistake("masked by value", "you mask every token that occurs in the prompt, in the answer, "
        "too. Mask by position.",
        lambda ids, prompt:
            ids[1:].masked_fill(torch.isin(ids[1:], ids[:prompt]), IGNORE)),
    Mistake("no prompt", "right with a prompt. Without one, prompt - 1 is −1, and a slice up to −1 "
        "is everything but the last label.",
        _masked_up_to(lambda prompt: prompt - 1)),
    Mistake("only the last label", "you mask everything but the last label. Mask the prompt.",
        _masked_up_to(lambda prompt: -1)),
    Mistake("fixed length", "you mask two labels, whatever the prompt's length is.",
        _masked_up_to(lambda prompt: 2)),
    Mistake("inputs too", "return the labels alone, without the inputs.",
        lambda ids, prompt: (ids[:-1], _masked(-1)(ids, prompt))),
    Mistake("floats", "labels are ids, so integers.",
        lambda ids, prompt: _masked(-1)(ids, prompt).float()),
    Mistake("answer ignored", "this counts the prompt, and ignores the answer.",
        _answer_ignored(-1)),
    Mistake("answer ignored", "this counts the prompt and ignores the answer.", _answer_ignored(0)),
    Mistake("nothing masked", "nothing is masked.", lambda ids, prompt: ids[1:]),
    Mistake("masked with 0", "0 is an ordinary token. Use qk.train.IGNORE.", _masked(-1, value=0)),
    Mistake("masked with -1", "the loss ignores qk.train.IGNORE, not −1.", _masked(-1, value=-1)),
    Mistake("prompt dropped", "keep all positions; those of the prompt get IGNORE.",
        lambda ids, prompt: ids[prompt:]),
)  # fmt: skip
