"""Answers to the exercises of notebook 08."""

import functools
from itertools import islice

import torch


def _run(x, layers):
    return functools.reduce(lambda x, layer: layer(x), layers, x)


# decoder_layer(x, norm1, attention, norm2, mlp): n1, attend and n2 in the tables
def _by_a_loop(x, norm1, attention, norm2, mlp):
    for norm, part in ((norm1, attention), (norm2, mlp)):
        x = torch.add(x, part(norm(x)))
    return x


def _from_a_copy(x, norm1, attention, norm2, mlp):
    stream = x.clone()
    stream += attention(norm1(stream))
    stream += mlp(norm2(stream))
    return stream


def _steps(first, second=None):
    """Return a layer of two steps, alike or not; each gets the stream, a norm and a part."""
    return lambda x, n1, attend, n2, mlp: (second or first)(first(x, n1, attend), n2, mlp)


def _pre(x, norm, part):
    return x + part(norm(x))


def _replaced(x, norm, part):
    return part(norm(x))


def _stream_normed(x, norm, part):
    return (y := norm(x)) + part(y)


def _raw(x, norm, part):
    return x + part(x)


# lens(streams, norm, head)
def _by_index(streams, norm, head):
    return head(norm(streams.select(dim=1, index=streams.shape[1] - 1)))


# skip(x, layers, number)
def _continues(x, layers, number):
    for place, layer in enumerate(layers):
        x = x if place == number else layer(x)
    return x


def _pops_from_a_copy(x, layers, number):
    rest = list(layers)
    rest.pop(number)
    return _run(x, rest)


RIGHT = {
    "decoder_layer": [
        lambda x, norm1, attention, norm2, mlp: (y := x + attention(norm1(x))) + mlp(norm2(y)),
        _by_a_loop, _from_a_copy,
    ],
    "lens": [
        lambda s, norm, head: torch.stack([head(norm(one[-1])) for one in s]),
        lambda s, norm, head: head(norm(s))[:, -1, :], _by_index,
    ],
    "skip": [
        lambda x, layers, n: _run(_run(x, layers[:n]), layers[n + 1 :]), _continues,
        _pops_from_a_copy,
    ],
}  # fmt: skip
WRONG = {
    "decoder_layer": [
        ("no addition", lambda x, *parts: _run(x, parts)),
        ("no addition around attention", _steps(_replaced, _pre)),
        ("no addition around the MLP", _steps(_pre, _replaced)),
        ("attention lost", lambda x, n1, attend, n2, mlp: mlp(n2(x + attend(n1(x)))) + x),
        ("parallel", lambda x, n1, attend, n2, mlp: attend(n1(x)) + mlp(n2(x)) + x),
        ("post-norm", _steps(lambda x, norm, part: norm(x + part(x)))),
        ("norm on the results", _steps(lambda x, norm, part: x + norm(part(x)))),
        ("added to the norm's copy", _steps(_stream_normed)),
        ("added to the norm's copy", _steps(_stream_normed, _pre)),
        ("added to the norm's copy", _steps(_pre, _stream_normed)),
        ("norms swapped", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n2, attend, n1, mlp)),
        ("one norm for both", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n1, attend, n1, mlp)),
        ("MLP first", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n2, mlp, n1, attend)),
        ("no norms", _steps(_raw)),
        ("no second norm", _steps(_pre, _raw)),
        ("stream added twice",
            lambda x, n1, attend, n2, mlp: x + (y := x + attend(n1(x))) + mlp(n2(y))),
        ("changes its input",
            lambda x, n1, attend, n2, mlp: x.add_(attend(n1(x))).add_(mlp(n2(x)))),
        ("values", lambda x, norm1, attention, *rest: _pre(x, norm1, attention)),
        ("kind", lambda x, *parts: (x, _by_a_loop(x, *parts))),
        ("dtype", lambda x, *parts: _by_a_loop(x, *parts).float()),
        ("shape", lambda x, *parts: _by_a_loop(x, *parts)[:, -1]),
    ],
    "lens": [
        ("no norm", lambda s, norm, head: torch.stack([head(one[-1]) for one in s])),
        ("first position", lambda s, norm, head: head(norm(s))[:, 0]),
        ("last stream only", lambda s, norm, head: head(norm(s))[-1, -1]),
        ("all positions of the last stream", lambda s, norm, head: head(norm(s))[-1]),
        ("all positions", lambda s, norm, head: torch.stack([head(norm(one)) for one in s])),
        ("what each layer added",
            lambda s, norm, head: head(norm(torch.cat([s[:1, -1], s[1:, -1] - s[:-1, -1]])))),
        ("summed again", lambda s, norm, head: head(norm(s[:, -1].cumsum(0)))),
        ("probabilities", lambda s, norm, head: torch.softmax(_by_index(s, norm, head), dim=1)),
        ("token ids", lambda s, norm, head: _by_index(s, norm, head).max(-1).indices),
        ("embedding left out", lambda s, norm, head: _by_index(s[1:], norm, head)),
        ("shape", lambda s, norm, head: norm(s[:, -1])),
        ("kind", lambda s, norm, head: list(_by_index(s, norm, head))),
        ("values", lambda s, norm, head: 2 * _by_index(s, norm, head)),
    ],
    "skip": [
        ("counted from 1",
            lambda x, layers, n: _run(x, [one for at, one in enumerate(layers) if at != n - 1])),
        ("counted from 1", lambda x, layers, n: _pops_from_a_copy(x, layers, n - 1)),
        ("stops there", lambda x, layers, n: _run(x, islice(layers, n))),
        ("starts there", lambda x, layers, n: _run(x, layers[n + 1 :])),
        ("that one only", lambda x, layers, n: _run(x, layers[n : n + 1])),
        ("nothing left out", lambda x, layers, n: _run(x, layers)),
        ("stream set to zero", lambda x, layers, n: _run(0 * _run(x, layers[:n]), layers[n + 1 :])),
        ("not passed on",
            lambda x, layers, n: [x, *(one(x) for at, one in enumerate(layers) if at != n)][-1]),
        ("every copy left out",
            lambda x, layers, n: _run(x, filter(lambda one: one is not layers[n], layers))),
        ("changes its input", lambda x, layers, n: layers.pop(n) and _run(x, layers)),
        ("values", lambda x, layers, n: x),
    ],
}  # fmt: skip
