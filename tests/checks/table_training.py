"""Answers to the exercises of notebook 12."""

import answers_training
import torch

from qwenkit.train import IGNORE


def _masked(ids, prompt, stop, value=IGNORE, start=1):
    labels = ids[start:].clone()
    labels[: max(prompt + stop, 0)] = value
    return labels


def _masked_part(ids, part):
    labels = ids[1:].clone()
    labels[part] = IGNORE
    return labels


RIGHT = {
    "loss": answers_training.LOSS_RIGHT,
    "adamw": answers_training.ADAMW_RIGHT,
    "answer_labels": [
        lambda ids, n: _masked(ids, n, -1),
        lambda ids, n: torch.cat([torch.full((max(n - 1, 0),), IGNORE), ids[max(n, 1) :]]),
        lambda ids, n: ids.index_fill(0, torch.arange(n), IGNORE)[1:],
        lambda ids, n: ids[1:].masked_fill(torch.arange(1, len(ids)) < n, IGNORE),
    ],
    "train": answers_training.LOOP_RIGHT,
}  # fmt: skip
WRONG = {
    "loss": answers_training.LOSS_WRONG,
    "adamw": answers_training.ADAMW_WRONG,
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
    "train": answers_training.LOOP_WRONG,
}  # fmt: skip
