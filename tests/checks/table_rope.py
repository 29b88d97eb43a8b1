"""Answers to the exercises of notebook 04."""

import math

import torch

import qwenkit.model
from qwenkit import QwenConfig
from qwenkit.model import RotaryEmbedding, inverse_frequencies


# frequencies(head_dim, theta)
def _logarithm(d, theta):
    pair = torch.arange(d // 2, dtype=torch.float32)
    return torch.exp(-math.log(theta) * 2 * pair / d)


def _powers(exponent, base=None):
    """Return frequencies by a list comprehension; `exponent(i, d)` of pair i."""
    return lambda d, theta: torch.tensor([(base or theta) ** exponent(i, d) for i in range(d // 2)])


# tables(positions, frequencies, dtype)
def _of(angles):
    """Return tables of `angles(positions, frequencies, dtype)`."""
    return lambda p, s, t: tuple(f(angles(p, s, t)).to(t) for f in (torch.cos, torch.sin))


_outer = _of(lambda p, s, t: torch.outer(p.float(), s).repeat(1, 2))


def _loop(positions, speeds, dtype):
    angles = [[float(p) * float(s) for s in (*speeds, *speeds)] for p in positions]
    cos, sin = ([[f(angle) for angle in row] for row in angles] for f in (math.cos, math.sin))
    return torch.tensor(cos).to(dtype), torch.tensor(sin).to(dtype)


def _tables_of_the_package(positions, speeds, dtype):
    config = QwenConfig(10, 8, 4, 1, 1, 1, rope_theta=10_000.0)
    assert torch.equal(speeds, inverse_frequencies(config))
    return tuple(table[0] for table in RotaryEmbedding(config)(positions[None], dtype))


# rotate(x, cos, sin)
def _apart(x, cos, sin):
    """Compute the two lines of the rotation, each half by itself."""
    (a, b), (c, _), (s, _) = (one.chunk(2, dim=-1) for one in (x, cos[:, None], sin[:, None]))
    return torch.cat([a * c - b * s, b * c + a * s], dim=-1)


def _rolled(x, cos, sin):
    half = x.shape[-1] // 2
    sign = torch.tensor([-1] * half + [1] * half)
    return x * cos.unsqueeze(1) + x.roll(half, dims=-1) * sign * sin.unsqueeze(1)


def _complex(x, cos, sin):
    a, b = x.float().chunk(2, dim=-1)
    angle = torch.complex(cos.float(), sin.float())[:, None, :, : a.shape[-1]]
    rotated = torch.complex(a.contiguous(), b.contiguous()) * angle
    return torch.cat([rotated.real, rotated.imag], dim=-1).to(x.dtype)


def _gptj(x, cos, sin):
    cos, sin = cos[:, None, :, : x.shape[-1] // 2], sin[:, None, :, : x.shape[-1] // 2]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def _mixed(other, dim=-1, table=lambda cos: cos[:, None]):
    """Return x · cos + other · sin; `other(a, b)` of the halves of x."""

    def rotate(x, cos, sin):
        a, b = torch.chunk(x, 2, dim=dim)
        return x * table(cos) + torch.cat(other(a, b), dim=dim) * table(sin)

    return rotate


def _sin_alone(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1) * sin[:, None]


def _in_sequence(x, cos, sin):
    half = x.shape[-1] // 2
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    out = x.clone()
    out[..., :half] = out[..., :half] * c - out[..., half:] * s
    out[..., half:] = out[..., half:] * c + out[..., :half] * s
    return out


# rotate_new(q, k, past, frequencies)
def _rotated(x, places, speeds):
    cos, sin = _outer(torch.as_tensor(places), speeds, x.dtype)
    return _apart(x, cos[None], sin[None])


def _new(x, past):
    return torch.arange(past, past + x.shape[2])


def _to(places, of_k=None):
    """Return a rotation of q and k to `places(x, past)`, or k to other places."""
    return lambda q, k, n, s: (
        _rotated(q, places(q, n), s), _rotated(k, (of_k or places)(k, n), s),
    )  # fmt: skip


def _sliced(q, k, past, speeds):
    """Compute the tables of the whole text, and take the new rows."""
    cos, sin = _outer(torch.arange(past + q.shape[-2]), speeds, q.dtype)
    return tuple(_rolled(x, cos[None, past:], sin[None, past:]) for x in (q, k))


def _token_by_token(q, k, past, speeds):
    return tuple(
        torch.cat([_rotated(x[:, :, [t]], [past + t], speeds) for t in range(x.shape[2])], dim=2)
        for x in (q, k)
    )


def _shifted(shift):
    return _to(lambda x, past: [past + shift(past, x.shape[2]) + t for t in range(x.shape[2])])


RIGHT = {
    "frequencies": [
        lambda d, theta: 1.0 / theta ** (torch.arange(0, d, 2).float() / d), _logarithm,
        _powers(lambda i, d: -2 * i / d),
        lambda d, theta: inverse_frequencies(QwenConfig(10, d, 4, 1, 1, 1, rope_theta=theta)),
    ],
    "tables": [
        _outer, _loop, _tables_of_the_package,
        _of(lambda p, s, t: torch.hstack([torch.einsum("t,i->ti", p.to(torch.float32), s)] * 2)),
    ],
    "rotate": [_apart, _rolled, _complex],
    "rotate_new": [_to(_new), _sliced, _token_by_token],
}  # fmt: skip
WRONG = {
    "frequencies": [
        ("exponent i/D", lambda d, theta: 1 / theta ** (torch.arange(d // 2).float() / d)),
        ("one for each dimension", lambda d, theta: theta ** -(torch.arange(d) / d)),
        ("not inverse", lambda d, theta: theta ** (torch.arange(0, d, 2).float() / d)),
        ("theta fixed", _powers(lambda i, d: -2 * i / d, base=1e4)),
        ("exponent 2i/(D/2)", _powers(lambda i, d: -4 * i / d)),
        ("ends at 1/theta", lambda d, theta: torch.logspace(0, -1, d // 2, base=theta)),
        ("ends at 1/theta", lambda d, theta: theta ** -torch.linspace(0, 1, d // 2)),
        ("pairs from 1", _powers(lambda i, d: -2 * (i + 1) / d)),
        ("each twice", lambda d, theta: _logarithm(d, theta).repeat(2)),
        ("turns, not radians", lambda d, theta: 2 * math.pi * _logarithm(d, theta)),
        ("linear", lambda d, theta: 1.0 / (theta * (torch.arange(0, d, 2) / d))),
        ("exponents", lambda d, theta: torch.arange(0, d, 2) / d),
        ("kind", lambda d, theta: _logarithm(d, theta).tolist()),
        ("dtype", lambda d, theta: _logarithm(d, theta).double()),
    ],
    "tables": [
        ("degrees", lambda p, s, t: _outer(torch.deg2rad(p.float()), s, t)),
        ("interleaved", _of(lambda p, s, t: torch.outer(p.float(), s.repeat_interleave(2)))),
        ("swapped", lambda p, s, t: (_outer(p, s, t)[1], _outer(p, s, t)[0])),
        ("half as wide", _of(lambda p, s, t: torch.outer(p.float(), s))),
        ("from 1", lambda p, s, t: _outer(p + 1.0, s, t)),
        ("positions not used", lambda p, s, t: _outer(torch.arange(p.numel()), s, t)),
        ("rounded angles", _of(lambda p, s, t: (p.to(t)[:, None] * s.to(t)[None]).repeat(1, 2))),
        ("rounded angles", _of(lambda p, s, t: (p.to(t)[:, None] * s).repeat(1, 2))),
        ("not cast", lambda p, s, t: _outer(p, s, torch.float32)),
        ("shape", lambda p, s, t: tuple(one.T for one in _outer(p, s, t))),
        ("one tensor", lambda p, s, t: torch.stack(_outer(p, s, t))),
        ("divided", lambda p, s, t: _outer(p, 1 / s, t)),
        ("cos only", lambda p, s, t: (_outer(p, s, t)[0], _outer(p, s, t)[0])),
        ("angles", lambda p, s, t: (torch.outer(p.float(), s).repeat(1, 2).to(t),) * 2),
        ("rounded angles", _of(lambda p, s, t: torch.outer(p.float(), s).to(t).repeat(1, 2))),
        ("error: the shapes", _of(lambda p, s, t: p * s)),
    ],
    "rotate": [
        ("interleaved", _gptj),
        ("interleaved", lambda x, cos, sin: x * cos[:, None] + sin[:, None]
            * torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)),
        ("other direction", _mixed(lambda a, b: (b, -a))),
        ("no minus", _mixed(lambda a, b: (b, a))),
        ("halves not swapped", _mixed(lambda a, b: (-a, b))),
        ("swapped", lambda x, cos, sin: _apart(x, sin, cos)),
        ("one after the other", _in_sequence),
        ("angle by head", _mixed(lambda a, b: (-b, a), table=lambda cos: cos.unsqueeze(2))),
        ("no axis for the heads", _mixed(lambda a, b: (-b, a), table=lambda cos: cos)),
        ("over the tokens", _mixed(lambda a, b: (-b, a), dim=2)),
        ("changes its input", lambda x, cos, sin: x.copy_(_apart(x, cos, sin))),
        ("dtype", lambda x, cos, sin: _apart(x.float(), cos.float(), sin.float())),
        ("only cos", lambda x, cos, sin: x * cos[:, None]),
        ("only sin", _sin_alone),
        ("forbidden", lambda x, cos, sin: qwenkit.model.apply_rope(x, cos, sin)),
    ],
    "rotate_new": [
        ("past forgotten", _shifted(lambda past, new: -past)),
        ("one too far", _shifted(lambda past, new: 1)),
        ("one too near", _shifted(lambda past, new: -1)),
        ("past includes the new ones", _shifted(lambda past, new: -new)),
        ("all at one position", _to(lambda x, past: [past] * x.shape[2])),
        ("k from 0", _to(_new, lambda k, past: _new(k, 0))),
        ("k not rotated", lambda q, k, n, s: (_rotated(q, _new(q, n), s), k)),
        ("k rotated backwards", _to(_new, lambda k, past: -_new(k, past))),
        ("rounded angles", _to(lambda x, past: _new(x, past).to(x.dtype))),
        ("not cast", lambda q, k, *given: _to(_new)(q.float(), k.float(), *given)),
        ("only q", lambda q, k, n, s: _rotated(q, _new(q, n), s)),
        ("only k", lambda q, k, n, s: _rotated(k, _new(k, n), s)),
        ("q from 0", _to(lambda q, past: _new(q, 0), _new)),
        ("q not rotated", lambda q, k, n, s: (q, _rotated(k, _new(k, n), s))),
        ("neither rotated", lambda q, k, n, s: (q, k)),
        ("swapped", lambda q, k, n, s: _to(_new)(q, k, n, s)[::-1]),
    ],
}  # fmt: skip
