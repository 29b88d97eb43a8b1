"""The checks of notebook 12, training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._training_adamw import ADAMW_MISTAKES
from qwenkit.checks._training_adamw import CASES as ADAMW_CASES
from qwenkit.checks._training_adamw import adamw as right_adamw
from qwenkit.checks._training_loop import CASES as LOOP_CASES
from qwenkit.checks._training_loop import LOOP_MISTAKES, by_torch, trained
from qwenkit.checks._training_loss import CASES as LOSS_CASES
from qwenkit.checks._training_loss import LOSS_MISTAKES, right_loss, with_gradient
from qwenkit.train import IGNORE

EXERCISES: dict[str, str] = {
    "12.1": "the loss of a batch",
    "12.2": "a step of AdamW",
    "12.3": "only the answer counts",
    "12.4": "the whole training loop",
}
_LOSSES = ("cross_entropy", "nll_loss", "next_token_loss", "CrossEntropyLoss", "NLLLoss")
_OPTIMIZERS = ("optim", "AdamW", "Adam", "make_optimizer", "Trainer")


def loss(learner: Callable[..., Any]) -> Verdict:
    """Check `my_loss(logits, labels)`: (B, T, V) and (B, T) -> the mean loss, with its gradient."""
    run = with_gradient(learner) if callable(learner) else learner
    right = with_gradient(right_loss)
    praise = "the loss and its gradient are right, for scores of any size."
    return judge(
        "12.1", run, right, LOSS_CASES, LOSS_MISTAKES, praise, tolerance=1e-4, forbidden=_LOSSES
    )


def adamw(learner: Callable[..., Any]) -> Verdict:
    """Check `adamw(weight, gradient, m, v, step, rate, decay)`: a new weight, m and v."""
    praise = "that is the step of PyTorch's AdamW."
    return judge(
        "12.2", learner, right_adamw(), ADAMW_CASES, ADAMW_MISTAKES, praise, forbidden=_OPTIMIZERS
    )


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
    return judge("12.3", learner, _masked(-1), cases, _LABEL_MISTAKES, praise)


def train(learner: Callable[..., Any]) -> Verdict:
    """Check `train(model, batches, rates, clip, decay)`: the losses, and the trained weights."""
    run = trained(learner) if callable(learner) else learner
    praise = "after every step the weights are those that PyTorch's AdamW gives."
    return judge(
        "12.4", run, trained(by_torch), LOOP_CASES, LOOP_MISTAKES, praise,
        tolerance=1e-4, forbidden=_OPTIMIZERS,
    )  # fmt: skip


# --- 12.3 ---


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
