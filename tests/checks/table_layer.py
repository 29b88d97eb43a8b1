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


def _returns_at_once(x, layers, number):
    for place, layer in enumerate(layers):
        if place != number:
            x = layer(x)
        return x


def _returns_after_one(x, layers, number):
    for place, layer in enumerate(layers):
        if place != number:
            return layer(x)


def _removes(x, layers, number):
    rest = list(layers)
    rest.remove(layers[number])
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
        ("no first norm", _steps(_raw, _pre)),
        ("no MLP", lambda x, norm1, attention, *rest: _pre(x, norm1, attention)),
        ("no attention", lambda x, n1, attend, n2, mlp: x + mlp(n2(x))),
        ("only one addition", lambda x, n1, attend, n2, mlp: x + mlp(n2(attend(n1(x))))),
        ("MLP reads attention alone",
            lambda x, n1, attend, n2, mlp: x + (a := attend(n1(x))) + mlp(n2(a))),
        ("MLP first", lambda x, n1, attend, n2, mlp: _by_a_loop(x, n1, mlp, n2, attend)),
        ("norm at the end", lambda x, n1, attend, n2, mlp: n2(_by_a_loop(x, n1, attend, n2, mlp))),
        ("norm at the end", lambda x, n1, attend, n2, mlp: n2(_raw(_pre(x, n1, attend), n2, mlp))),
        ("values", lambda x, *parts: 2 * _by_a_loop(x, *parts)),
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
        ("no head", lambda s, norm, head: norm(s[:, -1])),
        ("a list", lambda s, norm, head: [head(norm(one[-1])) for one in s]),
        ("axis kept", lambda s, norm, head: head(norm(s[:, -1:]))),
        ("token before the last", lambda s, norm, head: head(norm(s[:, -2]))),
        ("last layer left out", lambda s, norm, head: head(norm(s[:-1, -1]))),
        ("averaged over tokens", lambda s, norm, head: head(norm(s.mean(1)))),
        ("averaged over tokens", lambda s, norm, head: head(norm(s)).mean(1)),
        ("first stream only", lambda s, norm, head: head(norm(s[0]))),
        ("first stream only", lambda s, norm, head: head(norm(s[0, -1]))),
        ("probabilities", lambda s, norm, head: _by_index(s, norm, head).log_softmax(-1)),
        ("error", lambda s, norm, head: norm(head(s[:, -1]))),
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
        ("return inside the loop", _returns_at_once),
        ("return inside the loop", _returns_after_one),
        ("result not kept", lambda x, layers, n: x),
        ("first copy left out", _removes),
        ("counted from 1", lambda x, layers, n: _run(x, layers[: n - 1] + layers[n:])),
        ("counted from 1", lambda x, layers, n:
            _run(x, [one for at, one in enumerate(layers, 1) if at != n])),
        ("one too late", lambda x, layers, n: _run(x, layers[: n + 1] + layers[n + 2 :])),
        ("two left out", lambda x, layers, n: _run(x, layers[:n] + layers[n + 2 :])),
        ("added once more", lambda x, layers, n:
            _run(x, [lambda x, f=f: x + f(x) for at, f in enumerate(layers) if at != n])),
        ("layers in reverse", lambda x, layers, n: _run(x, (layers[:n] + layers[n + 1 :])[::-1])),
        ("kind", lambda x, layers, n: [one(x) for at, one in enumerate(layers) if at != n]),
    ],
}  # fmt: skip
