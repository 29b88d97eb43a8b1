"""Exercise 10.1, one step with a cache: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.model import eager_attention, repeat_kv

Step = tuple[Tensor, Tensor, Tensor]


def _after(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=2)  # (B, KV, S + 1, D)


def right_step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
    """Return z of the new token, and the keys and values with its own."""
    return _with_z(eager_attention)(q, k, v, keys, values)


def _with_z(z: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Step]:
    """Return a step that keeps the right tokens, and computes z in its own way."""

    def step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
        keys, values = _after(keys, k), _after(values, v)
        return z(q, keys, values), keys, values

    return step


def _with_cache(cache: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Step]:
    """Return a step that computes z correctly, and returns another cache."""
    return lambda *given: (right_step(*given)[0], *cache(*given))


def _seen(part: slice) -> Callable[..., Step]:
    """Return a step whose token attends to a part of the tokens."""
    return _with_z(lambda q, k, v: eager_attention(q, k[:, :, part], v[:, :, part]))


def _weighing(weights: Callable[[Tensor], Tensor]) -> Callable[..., Step]:
    """Return a step whose values get `weights(scores)`, of scores (B, H, 1, S + 1)."""

    def z(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = (repeat_kv(x, q.shape[1] // x.shape[1]) for x in (k, v))
        scores = q @ keys.transpose(-2, -1) / q.shape[-1] ** 0.5
        return weights(scores.float()).to(q.dtype) @ values

    return _with_z(z)


def _scaled(times: Callable[[Tensor, Tensor], float]) -> Callable[..., Step]:
    """Return a step whose scores are `times(q, keys)` too large."""
    return _with_z(lambda q, k, v: eager_attention(q * times(q, k), k, v))


def _unrepeated(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Step:
    keys, values = _after(keys, k), _after(values, v)
    scores = q @ keys.transpose(-2, -1) / q.shape[-1] ** 0.5  # raises where H is not KV
    return scores.softmax(dim=-1) @ values, keys, values


def _repeated(q: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return repeat_kv(_after(old, new), q.shape[1] // old.shape[1])


def _cycled(q: Tensor, x: Tensor) -> Tensor:
    return x.repeat(1, q.shape[1] // x.shape[1], 1, 1)


STEP_MISTAKES = (
    Mistake("does not see itself", "your new token attends only to the cached tokens. It may "
        "attend to itself too: which comes first, writing to the cache or reading from it?",
        _seen(slice(None, -1))),
    Mistake("cached tokens forgotten", "your new token attends only to itself. The cached keys and "
        "values are what the cache is for.",
        _seen(slice(-1, None))),
    Mistake("first key only", "your new token attends only to the first cached key: your triangle "
        "starts at the left. At which position is a single new token, and what may it not see?",
        _seen(slice(1))),
    Mistake("not kept", "this step is right, but the next one will be wrong: you return the cache "
        "unchanged. What must the next token find in it?",
        _with_cache(lambda q, k, v, keys, values: (keys, values))),
    Mistake("only the new one is kept", "you return only the new key and value, so the next token "
        "loses all earlier ones.",
        _with_cache(lambda q, k, v, keys, values: (k, v))),
    Mistake("in front", "your new row comes before the old ones. This step does not notice, since "
        "the order of the rows does not change a sum; a mask or trimming the cache would. Where "
        "does the newest token belong?",
        _with_cache(lambda q, k, v, keys, values: (_after(k, keys), _after(v, values)))),
    Mistake("oldest dropped", "your cache keeps its length: the newest token pushes out the "
        "oldest. It should grow by one.",
        lambda q, k, v, keys, values: right_step(q, k, v, keys[:, :, 1:], values[:, :, 1:])),
    Mistake("newest overwritten", "your new row replaces the last old one. It belongs after it.",
        lambda q, k, v, keys, values: right_step(q, k, v, keys[:, :, :-1], values[:, :, :-1])),
    Mistake("repeated in the cache", "z is right, but you keep several copies of every kv head: "
        "all that sharing saves is lost. Repeat after you store.",
        _with_cache(
            lambda q, k, v, keys, values: (_repeated(q, keys, k), _repeated(q, values, v)))),
    Mistake("kv heads cycled", "you repeat the kv heads in turn: 0, 1, 0, 1, ... Consecutive query "
        "heads share one kv head: see notebook 06.",
        _with_z(lambda q, k, v: eager_attention(q, _cycled(q, k), _cycled(q, v)))),
    Mistake("keys and values swapped", "you return the values in place of the keys. The order is "
        "z, keys, values.",
        _with_cache(lambda q, k, v, keys, values: (_after(values, v), _after(keys, k)))),
    Mistake("keys instead of values", "you add up keys. A key decides how much attention a token "
        "gets; what is passed on is the value.",
        _with_z(lambda q, k, v: eager_attention(q, k, k))),
    Mistake("values instead of keys", "your scores compare the query with values. A query is "
        "compared with keys.",
        _with_z(lambda q, k, v: eager_attention(q, v, v))),
    Mistake("only keys appended", "you append the new key, but return the old values. The next "
        "token needs both.",
        _with_cache(lambda q, k, v, keys, values: (_after(keys, k), values))),
    Mistake("key and value mixed", "you append the new key to the values, and the new value to the "
        "keys.",
        lambda q, k, v, keys, values: right_step(q, v, k, keys, values)),
    Mistake("z comes last", "the order is z, keys, values: z comes first.",
        lambda *given: (*right_step(*given)[1:], right_step(*given)[0])),
    Mistake("heads not repeated", "right if every query head has its own kv head. With fewer kv "
        "heads the shapes do not fit: repeat each of them before you attend.",
        _unrepeated),
    Mistake("no softmax", "you add up values by their scores. What turns scores into weights that "
        "sum to 1?",
        _weighing(lambda scores: scores)),
    Mistake("softmax over the queries", "there is only one query, so a softmax over queries makes "
        "every weight 1. The weights must sum to 1 over the keys, the last dimension.",
        _weighing(lambda scores: scores.softmax(dim=2))),
    Mistake("softmax over the heads", "your softmax runs over the heads. The weights must sum to 1 "
        "over the keys, the last dimension.",
        _weighing(lambda scores: scores.softmax(dim=1))),
    Mistake("scaled after softmax", "you divide the weights by the square root of D. Divide the "
        "scores, before softmax.",
        lambda q, *given: (right_step(q * q.shape[-1] ** 0.5, *given)[0] / q.shape[-1] ** 0.5,
            *right_step(q, *given)[1:])),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _scaled(lambda q, keys: q.shape[-1] ** 0.5)),
    Mistake("divided by D", "the scores are divided by D. Divide them by its square root.",
        _scaled(lambda q, keys: q.shape[-1] ** -0.5)),
    Mistake("multiplied by the square root", "the scores are multiplied by the square root of D. "
        "They must be divided by it.",
        _scaled(lambda q, keys: q.shape[-1])),
    Mistake("square root of the length", "you divide by the square root of the number of tokens. "
        "Use D, the size of a head.",
        _scaled(lambda q, keys: (q.shape[-1] / keys.shape[-2]) ** 0.5)),
)  # fmt: skip
