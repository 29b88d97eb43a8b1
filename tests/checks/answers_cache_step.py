"""Answers to exercise 10.1, one step with a cache."""

import numpy as np
import torch
import torch.nn.functional as F


def _both(old, new, q=None):
    return torch.cat([old, new], dim=2)


def _read(q, keys, values):
    """Return one new token's z, without repeating a head."""
    grouped = q.unflatten(1, (keys.shape[1], -1)).squeeze(-2)  # (B, KV, H/KV, D)
    weights = (grouped @ keys.mT / q.shape[-1] ** 0.5).float().softmax(-1).to(q.dtype)
    return (weights @ values).flatten(1, 2)[:, :, None]


def _step(z=_read, keep=_both):
    """Return a step that computes z in its own way, or keeps something else."""
    return lambda q, k, v, keys, values: (
        z(q, _both(keys, k), _both(values, v)), keep(keys, k, q), keep(values, v, q),
    )  # fmt: skip


def _fused(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)


def _step_fused(*given):
    return list(_step(_fused)(*given))


def _step_in_loops(q, k, v, keys, values):
    keys, values = F.pad(keys, (0, 0, 0, 1)), F.pad(values, (0, 0, 0, 1))
    keys[:, :, -1:], values[:, :, -1:] = k, v
    z, groups = torch.empty_like(q), q.shape[1] // k.shape[1]
    for b, h in np.ndindex(*q.shape[:2]):
        scores = keys[b, h // groups].float() @ q[b, h, 0].float() / q.shape[-1] ** 0.5
        z[b, h, 0] = (scores.softmax(0) @ values[b, h // groups].float()).to(q.dtype)
    return z, keys, values


def _from(part):
    """Return a step that forgets some of the cached tokens."""
    return lambda q, k, v, *cache: _step()(q, k, v, *(x[:, :, part] for x in cache))


def _weighted(q, k, v, weights=lambda scores: scores.softmax(-1)):
    d = q.shape[-1]
    scores = q @ k.mT / d**0.5
    given = (scores, d) if weights.__code__.co_argcount == 2 else (scores,)
    return weights(*given).to(q.dtype) @ v


def _by_scores(weights):
    """Return a z that weights values by some function of the scores (and D), heads repeated."""
    return lambda q, *kv: _weighted(
        q, *(x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in kv), weights
    )


RIGHT = [_step(), _step_fused, _step_in_loops]  # fmt: skip
WRONG = [
    ("does not see itself", lambda q, k, v, keys, values:
        (_read(q, keys, values) if keys.shape[2] else 0 * q, _both(keys, k), _both(values, v))),
    ("does not see itself", _step(lambda q, k, v: _fused(q, k[:, :, :-1], v[:, :, :-1]))),
    ("cached tokens forgotten", _step(lambda q, k, v: _read(q, k[:, :, -1:], v[:, :, -1:]))),
    ("first key only", _step(lambda q, k, v: _fused(q, k, v, is_causal=True))),
    ("not kept", _step(keep=lambda old, new, q: old)),
    ("only the new one is kept", _step(keep=lambda old, new, q: new)),
    ("in front", _step(keep=lambda old, new, q: _both(new, old))),
    ("in front", lambda q, k, v, keys, values: _step_fused(q, keys, values, k, v)),
    ("oldest dropped", _from(slice(1, None))),
    ("newest overwritten", _from(slice(None, -1))),
    ("repeated in the cache", _step(keep=lambda old, new,
        q: _both(old, new).repeat_interleave(q.shape[1] // old.shape[1], dim=1))),
    ("kv heads cycled", _step(
        lambda q, *kv: _read(q, *(x.tile(1, q.shape[1] // x.shape[1], 1, 1) for x in kv)))),
    ("keys and values swapped", lambda *given: [_step_fused(*given)[i] for i in (0, 2, 1)]),
    ("keys instead of values", _step(lambda q, k, v: _read(q, k, k))),
    ("no scale", _step(lambda q, k, v: _fused(q, k, v, scale=1.0))),
    ("divided by D", _step(lambda q, k, v: _fused(q, k, v, scale=1 / q.shape[-1]))),
    ("multiplied by the square root",
        _step(lambda q, k, v: _fused(q, k, v, scale=q.shape[-1] ** 0.5))),
    ("square root of the length",
        _step(lambda q, k, v: _fused(q, k, v, scale=k.shape[2] ** -0.5))),
    ("values instead of keys", _step(lambda q, k, v: _read(q, v, v))),
    ("no softmax", _step(_by_scores(lambda scores: scores))),
    ("softmax over the queries", _step(_by_scores(lambda scores: scores.softmax(-2)))),
    ("softmax over the heads", _step(_by_scores(lambda scores: scores.softmax(1)))),
    ("scaled after softmax", _step(_by_scores(lambda scores, d:
        (scores * d**0.5).softmax(-1) / d**0.5))),
    ("heads not repeated", _step(lambda q, k, v: _weighted(q, k, v))),
    ("only keys appended", lambda *given: (*_step_fused(*given)[:2], given[4])),
    ("key and value mixed", lambda q, k, v, *cache: _step_fused(q, v, k, *cache)),
    ("z comes last", lambda *given: [_step_fused(*given)[i] for i in (1, 2, 0)]),
    ("kind", lambda *given: _step_fused(*given)[1:]),
    ("shape", lambda *given: (_step_fused(*given)[0].squeeze(2), *_step_fused(*given)[1:])),
    ("error", _step(keep=lambda old, new, q: torch.cat([old, new], dim=1))),
    ("kind", lambda *given: _step_fused(*given)[0]),
]  # fmt: skip
