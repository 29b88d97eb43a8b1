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


# to_half_split(tensors, head_dim)
def _converted(rows, wanted=("q_proj", "k_proj")):
    """Return a conversion: `rows(tensor, head_dim)` of each tensor whose name has a wanted part."""

    def convert(tensors, head_dim):
        result = {}
        for name, one in tensors.items():
            result[name] = rows(one, head_dim) if any(w in name for w in wanted) else one.clone()
        return result

    return convert


def _by_index(rows, d):
    order = [*range(0, d, 2), *range(1, d, 2)]
    return rows[[head * d + i for head in range(len(rows) // d) for i in order]]


def _by_loop(rows, d):
    result = torch.empty_like(rows)
    for row in range(len(rows)):
        head, i = divmod(row, d)
        result[head * d + i // 2 + (i % 2) * (d // 2)] = rows[row]
    return result


def _chunks(rows, d):
    heads = rows.reshape(len(rows) // d, d, -1)
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(rows.shape)


def _inverse(rows, d):
    heads = rows.reshape(-1, d, *rows.shape[1:])
    return torch.stack(heads.chunk(2, dim=1), dim=2).reshape(rows.shape)


def _evens(rows, d):
    return torch.cat((rows[::2], rows[1::2]), dim=0)


def _in_place(tensors, head_dim):
    for name in tensors:
        if "q_proj" in name or "k_proj" in name:
            tensors[name] = _by_index(tensors[name], head_dim)
    return tensors


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
    "to_half_split": [_converted(_by_index), _converted(_by_loop), _converted(_chunks)],
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
    "to_half_split": [
        ("biases forgotten", _converted(_chunks, ("q_proj.weight", "k_proj.weight"))),
        ("biases forgotten",
            _converted(lambda rows, d: _by_loop(rows, d) if rows.dim() == 2 else rows)),
        ("other direction", _converted(_inverse)),
        ("other direction", _converted(_inverse, ("q_proj.weight", "k_proj.weight"))),
        ("over all heads", _converted(_evens)),
        ("first head only",
            _converted(lambda rows, d: torch.cat([_by_index(rows[:d], d), rows[d:]]))),
        ("odd rows first", _converted(lambda rows, d:
            rows[[h * d + i for h in range(len(rows) // d)
                for i in (*range(1, d, 2), *range(0, d, 2))]])),
        ("columns", _converted(lambda rows, d:
            _chunks(rows, d) if rows.dim() == 1 else torch.cat([rows[:, ::2], rows[:, 1::2]], 1))),
        ("columns", _converted(lambda rows, d:
            _by_index(rows, d) if rows.dim() == 1 else _by_index(rows.T, d).T)),
        ("only q", _converted(_by_loop, ("q_proj",))),
        ("only k", _converted(_by_loop, ("k_proj",))),
        ("v too", _converted(_by_index, ("q_proj", "k_proj", "v_proj"))),
        ("v too", _converted(_by_index, ("proj",))),
        ("names too loosely compared", _converted(_by_index, ("q", "k"))),
        ("unchanged", lambda tensors, head_dim: {**tensors}),
        ("others missing", lambda tensors, head_dim: {
            name: _by_index(one, head_dim) for name, one in tensors.items()
            if name.split(".")[-2] in ("q_proj", "k_proj")}),
        ("changes its input", _in_place),
        ("values", _converted(lambda rows, d: rows.flip(0))),
        ("error", _converted(lambda rows, d:
            rows.view(-1, d // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape))),
        ("kind", lambda tensors, head_dim: [*_converted(_by_index)(tensors, head_dim).values()]),
        ("dtype", lambda tensors, head_dim: _converted(_by_index)(
            {name: one.float() for name, one in tensors.items()}, head_dim)),
    ],
}  # fmt: skip
