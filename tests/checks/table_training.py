"""Answers to the exercises of notebook 12."""

import torch

from qwenkit.train import IGNORE, next_token_loss


def _masked(ids, prompt, stop, value=IGNORE, start=1):
    labels = ids[start:].clone()
    labels[: max(prompt + stop, 0)] = value
    return labels


def _accumulation(by=None, reduction="sum", zero=False, answer=True, backward=True):
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


def _one_backward(model, parts):
    losses = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    mean = sum(losses) / sum((part.labels != IGNORE).sum() for part in parts)
    mean.backward()
    return float(mean.detach())


RIGHT = {
    "make_batch": [
        lambda w: (w[:, :-1], w[:, 1:]),
        lambda w: (w.narrow(1, 0, w.shape[1] - 1), w.narrow(1, 1, w.shape[1] - 1)),
        lambda w: [w[..., :-1].contiguous(), w[..., 1:].contiguous()],
    ],
    "answer_labels": [
        lambda ids, n: _masked(ids, n, -1),
        lambda ids, n: torch.cat([torch.full((n - 1,), IGNORE), ids[n:]]),
        lambda ids, n: ids[1:].masked_fill(torch.arange(1, len(ids)) < n, IGNORE),
    ],
    "accumulate": [
        _accumulation(), _one_backward,
        lambda model, parts: torch.tensor(_accumulation()(model, parts)),
    ],
}  # fmt: skip
WRONG = {
    "make_batch": [
        ("repeats", lambda w: (w[:, :-1], w[:, :-1].clone())),
        ("backwards", lambda w: (w[:, 1:], w[:, :-1])),
        ("rolled", lambda w: (w, torch.cat([w[:, 1:], w[:, :1]], dim=1))),
        ("windows cut", lambda w: (w[:-1], w[1:])),
        ("inputs too long", lambda w: (w, w[:, 1:])),
        ("labels alone", lambda w: w[:, 1:]),
        ("inputs alone", lambda w: w[:, :-1]),
        ("two ahead", lambda w: (w[:, :-2], w[:, 2:])),
        ("values", lambda w: (w[:, :-1], w[:, 1:] + 1)),
    ],
    "answer_labels": [
        ("first answer token lost", lambda ids, n: _masked(ids, n, 0)),
        ("last prompt token counts", lambda ids, n: _masked(ids, n, -2)),
        ("not shifted", lambda ids, n: _masked(ids, n, 0, start=0)),
        ("answer ignored", lambda ids, n: torch.cat([ids[1:n], torch.full_like(ids[n:], IGNORE)])),
        ("nothing masked", lambda ids, n: ids[1:]),
        ("masked with 0", lambda ids, n: _masked(ids, n, -1, value=0)),
        ("prompt dropped", lambda ids, n: ids[n:]),
        ("changes its input", lambda ids, n: ids[1:].index_fill_(0, torch.arange(n - 1), IGNORE)),
        ("shape", lambda ids, n: ids[2:]),
    ],
    "accumulate": [
        ("mean of means", _accumulation(by=2, reduction="mean")),
        ("mean of means", _accumulation(by=2, reduction="mean", answer=False)),
        ("sum of means", _accumulation(by=1, reduction="mean")),
        ("sum of means", _accumulation(by=1, reduction="mean", answer=False)),
        ("sum", _accumulation(by=1)),
        ("ignored counted", _accumulation(by=64)),
        ("zeroed in the loop", _accumulation(zero=True)),
        ("no gradient", _accumulation(backward=False)),
        ("loss of the last part", _accumulation(answer=False)),
        ("values", _accumulation(by=7)),
        ("error", lambda model, parts: model(parts)),
    ],
}  # fmt: skip
