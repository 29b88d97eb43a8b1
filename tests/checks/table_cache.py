"""Answers to the exercises of notebook 10."""

import itertools
from itertools import takewhile

import numpy as np
import torch
import torch.nn.functional as F

from qwenkit.model import attention_mask
from qwenkit.model.mask import positions

KINDS = {2: "bfloat16", 4: "float32"}


def _both(old, new, q=None):
    return torch.cat([old, new], dim=2)


# right, no matter how it is written
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


def _room_by_the_config(c, free, batch, size):
    return free // batch // c.kv_bytes_per_token(KINDS[size])


def _kept_in_a_loop(old, new):
    count = 0
    while count < len(old) and count < len(new) - 1 and old[count] == new[count]:
        count += 1
    return count


def _head(old, new):
    pairs = zip(old, new, strict=False)
    return [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _prefix(old, new):
    return len(_head(old, new))


def _capped_prefix(old, new):
    return _prefix(old, new[:-1])


def _offsets_in_loops(real, new):
    where, allowed = [], []
    for row in real.tolist():
        slots = range(len(row) - new, len(row))
        where.append([sum(row[:slot]) for slot in slots])
        allowed.append([[s <= slot and row[s] for s in range(len(row))] for slot in slots])
    return torch.tensor(where), torch.tensor(allowed)


def _offsets_by_padding(real, new):
    slots = torch.arange(real.shape[1])
    queries = slots[-new:]
    padding = (~real).sum(1, keepdim=True)
    causal = slots[None] <= queries[:, None]
    return queries - padding, causal[None] & (slots >= padding)[:, None]


RIGHT = {
    "step": [_step(), _step_fused, _step_in_loops],
    "room": [
        lambda c, free, n, size: next(tokens for tokens in range(100_000)
            if (tokens + 1) * n * c.num_hidden_layers * _kv(c) * size > free),
        _room_by_the_config,
        lambda c, free, n, size: free // (n * c.num_hidden_layers * _kv(c) * size),
    ],
    "kept": [
        _kept_in_a_loop, _capped_prefix,
        lambda old, new: max(n for n in range(len(new)) if n <= len(old) and old[:n] == new[:n]),
    ],
    "offsets": [
        lambda real, new: (positions(new, real.shape[1] - new, real),
            attention_mask(new, real.shape[1] - new, real=real)[:, 0]),
        _offsets_in_loops, _offsets_by_padding,
        lambda real, new: (real.sum(1, keepdim=True) - new + torch.arange(new), _mask(real, new)),
    ],
}  # fmt: skip


# wrong, and named
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


def _room_of(count, down=lambda free, each: free // each):
    """Return the room for tokens of which each layer keeps `count(config)` values."""
    return lambda c, free, n, size: down(free, n * c.num_hidden_layers * count(c) * size)


def _kv(c):
    return 2 * c.num_key_value_heads * c.head_dim


def _substring(old, new):
    return max(
        n for n in range(len(old) + 1) for i in range(len(old) - n + 1)
        for j in range(len(new) - n + 1) if old[i : i + n] == new[j : j + n]
    )  # fmt: skip


def _head_of_equal(old, new):
    pairs = zip(old, new, strict=True)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], list(pairs))))


def _equal(old, new):
    return [a == b for a, b in zip(old, new, strict=False)].count(True)


def _slots(real, new):
    return torch.arange(real.shape[1])[None, -new:].repeat(len(real), 1)


def _mask(real, new):
    return _offsets_by_padding(real, new)[1]


def _other(where=lambda *given: _offsets_by_padding(*given)[0], mask=_mask):
    """Return the offsets with other positions, or with another mask."""
    return lambda real, new: (where(real, new), mask(real, new))


def _causal(real, new):
    slots = torch.arange(real.shape[1])
    return (slots <= slots[-new:, None]).repeat(len(real), 1, 1)


WRONG = {
    "step": [
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
    ],
    "room": [
        ("query heads", _room_of(lambda c: 2 * c.num_attention_heads * c.head_dim)),
        ("hidden size", _room_of(lambda c: 2 * c.hidden_size)),
        ("C / H",
            _room_of(lambda c: 2 * c.num_key_value_heads * c.hidden_size // c.num_attention_heads)),
        ("keys or values alone", _room_of(lambda c: c.num_key_value_heads * c.head_dim)),
        ("queries too", _room_of(lambda c: _kv(c) + c.num_attention_heads * c.head_dim)),
        ("one layer", lambda c, free, batch, size: free // (batch * _kv(c) * size)),
        ("values, not bytes", lambda c, free, n, size: _room_of(_kv)(c, free, n, 1)),
        ("one text", lambda c, free, batch, size: _room_by_the_config(c, free, 1, size)),
        ("all texts together", lambda c, free, n, size: n * _room_by_the_config(c, free, n, size)),
        ("a fraction of a token", _room_of(_kv, lambda free, each: free / each)),
        ("rounded up", _room_of(_kv, lambda free, each: (free + each - 1) // each)),
        ("rounded up", _room_of(_kv, lambda free, each: int(free / each + 0.5))),
        ("bytes", lambda c, free, n, size: n * c.kv_bytes_per_token(KINDS[size])),
        ("brackets missing", lambda c, free, n, size:
            free // n * 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * size),
        ("brackets missing", lambda c, free, n, size:
            free / n * size * c.num_hidden_layers * _kv(c)),
        ("KV heads forgotten", _room_of(lambda c: 2 * c.head_dim)),
        ("head_dim forgotten", _room_of(lambda c: 2 * c.num_key_value_heads)),
        ("counted twice", _room_of(lambda c: 2 * _kv(c))),
        ("bits", _room_of(lambda c: 8 * _kv(c))),
        ("fixed sizes", lambda c, free, n, size: free // (n * 2 * 24 * 2 * 64 * size)),
        ("fixed 2 bytes", lambda c, free, n, size: _room_of(_kv)(c, free, n, 2)),
        ("at least one", lambda *given: max(_room_of(_kv)(*given), 1)),
        ("the remainder", _room_of(_kv, lambda free, each: free % each)),
        ("upside down", _room_of(_kv, lambda free, each: each // free)),
        ("upside down", _room_of(_kv, lambda free, each: each / free)),
        ("kind", lambda *given: torch.tensor(_room_of(_kv)(*given))),
        ("kind", lambda *given: str(_room_of(_kv)(*given))),
        ("error", lambda c, free, n, size: free // (n * c.layers * _kv(c) * size)),
        ("values", _room_of(lambda c: _kv(c) + 1)),
    ],
    "kept": [
        ("nothing left to feed", _prefix),
        ("continues after the difference", lambda old, new: _equal(old, new[:-1])),
        ("continues after the difference", _equal),
        ("at any position", _substring),
        ("at any position", lambda old, new: min(_substring(old, new), len(new) - 1)),
        ("at any position", lambda old, new: len(set(old).intersection(new))),
        ("from the end", lambda old, new: _prefix(list(reversed(old)), list(reversed(new)))),
        ("one too many", lambda old, new: min(len(new), _capped_prefix(old, new) + 1)),
        ("one too few", lambda old, new: max(_prefix(old, new), 1) - 1),
        ("what is dropped", lambda old, new: len(old[_capped_prefix(old, new) :])),
        ("what is fed", lambda old, new: len(new[_capped_prefix(old, new) :])),
        ("all or nothing", lambda old, new: len(old) * (old == new[: len(old)] and old != new)),
        ("the tokens themselves", lambda old, new: _head(old, new[:-1])),
        ("past the end", lambda old, new:
            next(i for i in itertools.count() if old[i] != new[i])),
        ("past the end", lambda old, new:
            next((i for i in range(len(old)) if old[i] != new[i]), len(old))),
        ("past the end", lambda old, new:
            next((i for i in range(len(new)) if old[i] != new[i]), len(new))),
        ("past the end", lambda old, new:
            next((i for i in range(len(new) - 1) if old[i] != new[i]), len(new) - 1)),
        ("no return at the end", lambda old, new:
            next((i for i, pair in enumerate(zip(old, new, strict=False)) if len({*pair}) > 1),
                None)),
        ("lists of one length only", lambda old, new: _head_of_equal(old, new)),
        ("lists of one length only", lambda old, new: min(_head_of_equal(old, new), len(new) - 1)),
        ("the old text shortened", lambda old, new: _prefix(old[:-1], new)),
        ("the old text shortened", lambda old, new: _prefix(old[:-1], new[:-1])),
        ("not compared", lambda old, new: min(len(old), len(new))),
        ("not compared", lambda old, new: min(len(old), len(new) - 1)),
        ("not compared", lambda old, new: len(new) - 1),
        ("not compared", lambda old, new: len(old)),
        ("nothing kept", lambda old, new: 0),
        ("values", lambda old, new: len(new) // 2),
        ("kind", lambda old, new: torch.tensor(_capped_prefix(old, new))),
    ],
    "offsets": [
        ("padding ignored", lambda real, new: (_slots(real, new), _causal(real, new))),
        ("padding counted", _other(_slots)),
        ("positions from 0", _other(lambda real, new: torch.arange(new).repeat(len(real), 1))),
        ("counted from 1", _other(lambda real, new: real.long().cumsum(1)[:, -new:])),
        ("all positions", _other(lambda real, new: torch.cumsum(real, 1) - 1)),
        ("mask without offset", _other(mask=lambda r, new: r[:, None].tile(1, new, 1).tril())),
        ("padding visible", _other(mask=_causal)),
        ("sees the future", _other(mask=lambda real, new: torch.stack([real] * new, dim=1))),
        ("not itself", _other(mask=lambda r, new: _mask(r, new).tril(r.shape[1] - new - 1))),
        ("inverted", _other(mask=lambda real, new: _mask(real, new).logical_not())),
        ("columns compared with positions", _other(mask=lambda real, new: real[:, None]
            & (torch.arange(real.shape[1]) <= _offsets_by_padding(real, new)[0][:, :, None]))),
        ("columns compared with positions", _other(mask=lambda real, new:
            torch.arange(real.shape[1]) <= _offsets_by_padding(real, new)[0][:, :, None])),
        ("only later tokens", _other(mask=lambda real, new:
            real[:, None] & (torch.arange(real.shape[1]) >= _slots(real, new)[..., None]))),
        ("padding instead of tokens",
            _other(mask=lambda real, new: _causal(real, new) & ~real[:, None])),
        ("the first text's padding", lambda real, new:
            _offsets_by_padding(real[:1].expand(len(real), -1), new)),
        ("the first text's padding", _other(mask=lambda real, new: _causal(real, new) & real[0])),
        ("positions of the first columns",
            _other(lambda real, new: torch.cumsum(real, 1)[:, :new] - 1)),
        ("scores instead of True", _other(mask=lambda real, new:
            torch.where(_mask(real, new), 0.0, float("-inf")))),
        ("0 and 1", _other(mask=lambda real, new: _mask(real, new).int().long())),
        ("0 and 1", _other(mask=lambda real, new: 1.0 * _mask(real, new))),
        ("positions as floats",
            _other(lambda real, new: (real.float().cumsum(1) - 1)[:, -new:])),
        ("mask first", lambda real, new: _offsets_by_padding(real, new)[::-1]),
        ("a mask with heads", _other(mask=lambda real, new: _mask(real, new).unsqueeze(1))),
        ("kind", lambda real, new: _mask(real, new)),
        ("shape", _other(mask=lambda real, new: _mask(real, new)[0])),
        ("error", _other(mask=lambda real, new: _causal(real, new) & real[:, :new])),
    ],
}  # fmt: skip
