"""The checks of notebook 12: each wrong idea is named, each right way passes."""

import pytest
import torch

from qwenkit import checks
from qwenkit.train import IGNORE, next_token_loss


def masked(ids, prompt, stop, value=IGNORE, start=1):
    labels = ids[start:].clone()
    labels[: max(prompt + stop, 0)] = value
    return labels


def _answer_hidden(ids, prompt):
    return torch.where(torch.arange(len(ids) - 1) >= prompt - 1, IGNORE, ids[1:])


def _in_place(ids, prompt):
    labels = ids[1:]
    labels[: prompt - 1] = IGNORE
    return labels


def accumulation(by=None, reduction="sum", zero=False, answer=True, backward=True):
    def accumulate(model, parts):
        model.zero_grad()
        total = 0.0
        for part in parts:
            if zero:
                model.zero_grad()
            loss = next_token_loss(model(part.input_ids), part.labels, reduction=reduction)
            loss = loss / (by or sum(int((p.labels != IGNORE).sum()) for p in parts))
            if backward:
                loss.backward()
            total = total + loss.item() if answer else loss.item()
        return total

    return accumulate


BATCH, LABELS, SUM = (
    checks.training.make_batch,
    checks.training.answer_labels,
    checks.training.accumulate,
)
WRONG = [
    (BATCH, "repeats", lambda w: (w[:, :-1], w[:, :-1].clone())),
    (BATCH, "backwards", lambda w: (w[:, 1:], w[:, :-1])),
    (BATCH, "rolled", lambda w: (w, torch.cat([w[:, 1:], w[:, :1]], dim=1))),
    (BATCH, "windows cut", lambda w: (w[:-1], w[1:])),
    (BATCH, "inputs too long", lambda w: (w, w[:, 1:])),
    (BATCH, "labels alone", lambda w: w[:, 1:]),
    (BATCH, "inputs alone", lambda w: w[:, :-1]),
    (BATCH, "two ahead", lambda w: (w[:, :-2], w[:, 2:])),
    (BATCH, "values", lambda w: (w[:, :-1], w[:, 1:] + 1)),
    (LABELS, "first answer token lost", lambda ids, n: masked(ids, n, 0)),
    (LABELS, "last prompt token counts", lambda ids, n: masked(ids, n, -2)),
    (LABELS, "not moved", lambda ids, n: masked(ids, n, 0, start=0)),
    (LABELS, "answer ignored", _answer_hidden),
    (LABELS, "nothing masked", lambda ids, n: ids[1:]),
    (LABELS, "masked with 0", lambda ids, n: masked(ids, n, -1, value=0)),
    (LABELS, "prompt dropped", lambda ids, n: ids[n:]),
    (LABELS, "changes its input", _in_place),
    (LABELS, "shape", lambda ids, n: ids[2:]),
    (SUM, "mean of means", accumulation(by=2, reduction="mean")),
    (SUM, "mean of means", accumulation(by=2, reduction="mean", answer=False)),
    (SUM, "sum of means", accumulation(by=1, reduction="mean")),
    (SUM, "sum of means", accumulation(by=1, reduction="mean", answer=False)),
    (SUM, "sum", accumulation(by=1)),
    (SUM, "ignored counted", accumulation(by=64)),
    (SUM, "zeroed in the loop", accumulation(zero=True)),
    (SUM, "no gradient", accumulation(backward=False)),
    (SUM, "loss of the last part", accumulation(answer=False)),
    (SUM, "values", accumulation(by=7)),
    (SUM, "error", lambda model, parts: model(parts)),
]


@pytest.mark.parametrize(
    ("check", "name", "function"), WRONG, ids=[f"{n}-{w[1]}" for n, w in enumerate(WRONG)]
)
def test_the_mistake_is_named(check, name, function):
    verdict = check(function)
    assert (verdict.mistake, verdict.outcome) == (name, "not yet"), str(verdict)


@pytest.mark.parametrize("check", [BATCH, LABELS, SUM])
def test_an_empty_stub_is_told_so(check):
    assert check(lambda *arguments: None).outcome == "empty"
    assert "without brackets" in str(check(3))


def _one_backward(model, parts):
    losses = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    mean = sum(losses) / sum((part.labels != IGNORE).sum() for part in parts)
    mean.backward()
    return float(mean.detach())


RIGHT = [
    (BATCH, lambda w: (w[:, :-1], w[:, 1:])),
    (BATCH, lambda w: (w.narrow(1, 0, w.shape[1] - 1), w.narrow(1, 1, w.shape[1] - 1))),
    (BATCH, lambda w: [w[..., :-1].contiguous(), w[..., 1:].contiguous()]),
    (LABELS, lambda ids, n: masked(ids, n, -1)),
    (LABELS, lambda ids, n: torch.cat([torch.full((n - 1,), IGNORE), ids[n:]])),
    (LABELS, lambda ids, n: ids[1:].masked_fill(torch.arange(1, len(ids)) < n, IGNORE)),
    (SUM, accumulation()),
    (SUM, _one_backward),
    (SUM, lambda model, parts: torch.tensor(accumulation()(model, parts))),
]


@pytest.mark.parametrize(("check", "function"), RIGHT)
def test_right_ways_pass(check, function):
    assert check(function).outcome == "right", str(check(function))
