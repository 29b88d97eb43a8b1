"""Answers to the exercises of notebook 12."""

import torch

from qwenkit.train import IGNORE, next_token_loss


def _masked(ids, prompt, stop, value=IGNORE, start=1):
    labels = ids[start:].clone()
    labels[: max(prompt + stop, 0)] = value
    return labels


def _masked_part(ids, part):
    labels = ids[1:].clone()
    labels[part] = IGNORE
    return labels


def _accumulation(by=None, reduction="sum", zero="before", answer="total", after=None, shift=0):
    def accumulate(model, parts):
        if zero == "before":
            model.zero_grad()
        total, count = 0.0, sum(int((p.labels != IGNORE).sum()) for p in parts)
        for part in parts:
            if zero == "each":
                model.zero_grad()
            logits = model(part.input_ids)[:, : 8 - shift]
            loss = next_token_loss(logits, part.labels[:, shift:], reduction=reduction)
            loss = loss / (by or count)
            loss.backward()
            if zero == "after":
                model.zero_grad()
            total += loss.item()
        if after:
            after(model)
        return {
            "total": total,
            "last": loss.item(),
            "tensor": torch.tensor(total),
            "sum": total * count,
            "mean": total / count,
            "none": None,
        }[answer]

    return accumulate


def _loss_only(model, parts):
    losses = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    return float(sum(losses).detach()) / sum((part.labels != IGNORE).sum() for part in parts).item()


def _one_backward(model, parts, last=False):
    model.zero_grad()
    losses = [next_token_loss(model(i), its, reduction="sum") for i, its in parts]
    count = sum((part.labels != IGNORE).sum() for part in parts)
    ((losses[-1] if last else sum(losses)) / count).backward()
    return float(sum(losses).detach() / count)


def _sgd(model):
    torch.optim.SGD(model.parameters(), lr=0.1).step()


RIGHT = {
    "make_batch": [
        lambda w: (w[:, :-1], w[:, 1:]),
        lambda w: (w.narrow(1, 0, w.shape[1] - 1), w.narrow(1, 1, w.shape[1] - 1)),
        lambda w: [w[..., :-1].contiguous(), w[..., 1:].contiguous()],
        lambda w: (w[:, :-1], w.roll(-1, dims=1)[:, :-1]),
    ],
    "answer_labels": [
        lambda ids, n: _masked(ids, n, -1),
        lambda ids, n: torch.cat([torch.full((max(n - 1, 0),), IGNORE), ids[max(n, 1) :]]),
        lambda ids, n: ids.index_fill(0, torch.arange(n), IGNORE)[1:],
        lambda ids, n: ids[1:].masked_fill(torch.arange(1, len(ids)) < n, IGNORE),
    ],
    "accumulate": [
        _accumulation(), _one_backward,
    ],
}  # fmt: skip
WRONG = {
    "make_batch": [
        ("repeats", lambda w: (w[:, :-1], w[:, :-1].clone())),
        ("backwards", lambda w: (w[:, 1:], w[:, :-1])),
        ("rolled", lambda w: (w, torch.cat([w[:, 1:], w[:, :1]], dim=1))),
        ("rolled", lambda w: (w, w.flatten().roll(-1).view_as(w))),
        ("rolled the wrong way", lambda w: (w, torch.cat([w[:, -1:], w[:, :-1]], dim=1))),
        ("rolled the wrong way", lambda w: (w[:, :-1], w.roll(1, 1)[:, :-1])),
        ("windows cut", lambda w: (w[:-1], w[1:])),
        ("windows cut", lambda w: (w[1:], w[:-1])),
        ("labels too long", lambda w: (w[:, :-1], w.clone())),
        ("labels too long", lambda w: (w[:, :-1], torch.cat([w[:, 1:], w[:, :1]], dim=1))),
        ("fixed length", lambda w: (w[:, 0:4], w[:, 1:5])),
        ("one window", lambda w: (w[0][:-1], w[0][1:])),
        ("one window", lambda w: (w[:1, :-1], w[:1, 1:])),
        ("flattened", lambda w: (w[:, :-1].reshape(-1), w[:, 1:].reshape(-1))),
        ("last token alone", lambda w: (w[:, :-1], w[:, -1])),
        ("last token alone", lambda w: (w[:, :-1], w[:, -1:])),
        ("stacked", lambda w: torch.stack((w[:, :-1], w[:, 1:]))),
        ("floats", lambda w: (w[:, :-1] * 1.0, w[:, 1:] * 1.0)),
        ("kind", lambda w: {"inputs": w[:, :-1], "labels": w[:, 1:]}),
        ("error", lambda w: (w[:, :-1], w[:, 1:].view(w.shape))),
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
        ("answer ignored", lambda ids, n: _masked_part(ids, slice(n - 1, None))),
        ("answer ignored", lambda ids, n: _masked_part(ids, slice(n, None))),
        ("inputs, not labels", lambda ids, n: _masked(ids, n, 0, start=0)[:-1]),
        ("inputs, not labels", lambda ids, n: _masked(ids[:-1], n, -1, start=0)),
        ("one label too many", lambda ids, n: _masked(torch.cat([ids, ids[:1]]), n, -1)),
        ("masked by value", lambda ids, n: torch.tensor(
            [IGNORE if one in ids[:n] else one for one in ids[1:].tolist()])),
        ("no prompt", lambda ids, n: _masked_part(ids, slice(n - 1))),
        ("only the last label", lambda ids, n: _masked_part(ids, slice(-1))),
        ("fixed length", lambda ids, n: _masked_part(ids, slice(2))),
        ("masked with -1", lambda ids, n: _masked(ids, n, -1, value=-1)),
        ("inputs too", lambda ids, n: (ids[:-1], _masked(ids, n, -1))),
        ("floats", lambda ids, n: 1.0 * _masked(ids, n, -1)),
        ("last prompt token counts", lambda ids, n: _masked_part(ids, slice(n - 2))),
        ("kind", lambda ids, n: _masked(ids, n, -1).tolist()),
        ("nothing masked", lambda ids, n: ids[1:]),
        ("masked with 0", lambda ids, n: _masked(ids, n, -1, value=0)),
        ("prompt dropped", lambda ids, n: ids[n:]),
        ("changes its input", lambda ids, n:
            ids[1:].index_fill_(0, torch.arange(max(n - 1, 0)), IGNORE)),
        ("shape", lambda ids, n: ids[2:]),
    ],
    "accumulate": [
        ("mean of means", _accumulation(by=2, reduction="mean")),
        ("mean of means", _accumulation(by=2, reduction="mean", answer="last")),
        ("sum of means", _accumulation(by=1, reduction="mean")),
        ("sum of means", _accumulation(by=1, reduction="mean", answer="last")),
        ("sum", _accumulation(by=1)),
        ("divided after backward", _accumulation(by=1, answer="mean")),
        ("loss not divided", _accumulation(answer="sum")),
        ("ignored counted", _accumulation(by=64)),
        ("divided by the texts", _accumulation(by=8)),
        ("divided by the parts", _accumulation(by=2)),
        ("count of one part", lambda model, parts: _accumulation(
            by=(parts[0].labels != IGNORE).sum().item())(model, parts)),
        ("count of one part", lambda model, parts: _accumulation(
            by=(parts[1].labels != IGNORE).sum().item())(model, parts)),
        ("shifted twice", _accumulation(shift=1)),
        ("shifted twice", lambda model, parts: _accumulation(shift=1,
            by=sum((part.labels[:, 1:] != IGNORE).sum().item() for part in parts))(model, parts)),
        ("only the last part's gradient", _accumulation(zero="each")),
        ("only the last part's gradient", lambda *given: _one_backward(*given, last=True)),
        ("not zeroed", _accumulation(zero="never")),
        ("zeroed after backward", _accumulation(zero="after")),
        ("no gradient", _loss_only),
        ("weights changed", _accumulation(after=_sgd)),
        ("weights changed", _accumulation(after=lambda model: (_sgd(model), model.zero_grad()))),
        ("loss of the last part", _accumulation(answer="last")),
        ("a tensor", _accumulation(answer="tensor")),
        ("nothing returned", _accumulation(answer="none")),
        ("values", _accumulation(by=7)),
        ("error", lambda model, parts: model(parts)),
    ],
}  # fmt: skip
