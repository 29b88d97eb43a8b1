"""The checks of notebook 04: wrong functions as readers write them, and the diagnosis expected."""

import math
import re

import pytest
import torch

from qwenkit import QwenConfig
from qwenkit.checks import rope
from qwenkit.model import RotaryEmbedding, inverse_frequencies

CHECKS = {
    "04.1": rope.frequencies,
    "04.2": rope.tables,
    "04.3": rope.rotate,
    "04.4": rope.turn_new,
}


def test_each_exercise_has_a_check():
    assert set(CHECKS) == set(rope.EXERCISES)


@pytest.mark.parametrize("exercise", CHECKS)
@pytest.mark.parametrize("stub", [lambda *given: None, lambda *given: ...], ids=["None", "dots"])
def test_an_empty_stub_is_told_so(exercise, stub):
    found = CHECKS[exercise](stub)
    assert (found.exercise, found.outcome) == (exercise, "empty")


def test_the_right_frequencies_are_those_of_the_package():
    def packages(head_dim, theta):
        sizes = {"hidden_size": head_dim, "num_attention_heads": 1, "num_key_value_heads": 1}
        config = QwenConfig(10, intermediate_size=4, num_hidden_layers=1, rope_theta=theta, **sizes)
        return inverse_frequencies(config)

    assert rope.frequencies(packages).outcome == "right"


def test_the_right_tables_are_those_of_the_package():
    config = QwenConfig(10, 8, 4, 1, 1, 1, rope_theta=10_000.0)

    def packages(positions, speeds, dtype):
        assert torch.equal(speeds, inverse_frequencies(config))
        return tuple(table[0] for table in RotaryEmbedding(config)(positions[None], dtype))

    assert rope.tables(packages).outcome == "right"


# --- 04.1: frequencies(head_dim, theta) ---


def _logarithm(d, theta):
    pair = torch.arange(d // 2, dtype=torch.float32)
    return torch.exp(-math.log(theta) * 2 * pair / d)


RIGHT_FREQUENCIES = {
    "power": lambda d, theta: 1.0 / theta ** (torch.arange(0, d, 2).float() / d),
    "logarithm": _logarithm,
    "loop": lambda d, theta: torch.tensor([theta ** (-2 * i / d) for i in range(d // 2)]),
}


@pytest.mark.parametrize("style", RIGHT_FREQUENCIES)
def test_right_frequencies(style):
    assert rope.frequencies(RIGHT_FREQUENCIES[style]).outcome == "right"


def _pairs(d):
    return range(d // 2)


WRONG_FREQUENCIES = {
    "half-way": (
        lambda d, theta: 1 / theta ** (torch.arange(d // 2).float() / d), "exponent i/D",
    ),
    "every dimension": (
        lambda d, theta: torch.tensor([theta ** -(i / d) for i in range(d)]),
        "one for each dimension",
    ),
    "growing": (lambda d, theta: theta ** (torch.arange(0, d, 2).float() / d), "not inverse"),
    "a constant": (
        lambda d, theta: torch.tensor([1e4 ** (-2 * i / d) for i in _pairs(d)]), "theta fixed",
    ),
    "2i over half": (
        lambda d, theta: torch.tensor([theta ** (-4 * i / d) for i in _pairs(d)]),
        "exponent 2i/(D/2)",
    ),
    "logspace": (
        lambda d, theta: torch.logspace(0, -1, d // 2, base=theta), "ends at 1/theta",
    ),
    "i over half - 1": (
        lambda d, theta: theta ** -(torch.arange(d // 2) / torch.tensor(d // 2 - 1)),
        "ends at 1/theta",
    ),
    "from 1": (
        lambda d, theta: torch.tensor([theta ** (-2 * (i + 1) / d) for i in _pairs(d)]),
        "pairs from 1",
    ),
    "twice": (lambda d, theta: _logarithm(d, theta).repeat(2), "shape"),
    "full turns": (lambda d, theta: 2 * math.pi * _logarithm(d, theta), "values"),
    "a list": (lambda d, theta: _logarithm(d, theta).tolist(), "kind"),
    "float64": (lambda d, theta: _logarithm(d, theta).double(), "dtype"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FREQUENCIES)
def test_wrong_frequencies_are_diagnosed(name):
    function, mistake = WRONG_FREQUENCIES[name]
    assert rope.frequencies(function).mistake == mistake


# --- 04.2: tables(positions, frequencies, dtype) ---


def _outer(positions, speeds, dtype):
    angles = torch.outer(positions.float(), speeds).repeat(1, 2)
    return torch.cos(angles).to(dtype), torch.sin(angles).to(dtype)


def _einsum(positions, speeds, dtype):
    angles = torch.einsum("t,i->ti", positions.to(torch.float32), speeds)
    cos, sin = angles.cos(), angles.sin()
    return torch.hstack([cos, cos]).to(dtype), torch.hstack([sin, sin]).to(dtype)


def _loop(positions, speeds, dtype):
    rows = [[float(p) * float(s) for s in (*speeds, *speeds)] for p in positions]
    return tuple(
        torch.tensor([[one(angle) for angle in row] for row in rows]).to(dtype)
        for one in (math.cos, math.sin)
    )


@pytest.mark.parametrize("function", [_outer, _einsum, _loop])
def test_right_tables(function):
    assert rope.tables(function).outcome == "right"


def _degrees(p, s, dtype):
    return _outer(torch.deg2rad(p.float()), s, dtype)


def _side_by_side(p, s, dtype):
    angles = torch.outer(p.float(), s)
    angles = torch.stack([angles, angles], dim=-1).flatten(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _narrow(p, s, dtype):
    return torch.outer(p.float(), s).cos().to(dtype), torch.outer(p.float(), s).sin().to(dtype)


def _all_in_dtype(p, s, dtype):
    angles = (p.to(dtype)[:, None] * s.to(dtype)[None]).repeat(1, 2)
    return angles.cos(), angles.sin()


def _positions_in_dtype(p, s, dtype):
    angles = (p.to(dtype)[:, None] * s).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


WRONG_TABLES = {
    "degrees": (_degrees, "degrees"),
    "side by side": (_side_by_side, "interleaved"),
    "sin, cos": (lambda p, s, t: (_outer(p, s, t)[1], _outer(p, s, t)[0]), "swapped"),
    "narrow": (_narrow, "half as wide"),
    "from 1": (lambda p, s, t: _outer(p + 1.0, s, t), "from 1"),
    "rows": (lambda p, s, t: _outer(torch.arange(p.numel()), s, t), "positions not used"),
    "all in bfloat16": (_all_in_dtype, "rounded angles"),
    "positions in bfloat16": (_positions_in_dtype, "rounded angles"),
    "no cast": (lambda p, s, t: _outer(p, s, torch.float32), "not cast"),
    "columns": (lambda p, s, t: tuple(one.T for one in _outer(p, s, t)), "shape"),
    "one table": (lambda p, s, t: torch.stack(_outer(p, s, t)), "kind"),
    "wavelengths": (lambda p, s, t: _outer(p, 1 / s, t), "values"),
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_wrong_tables_are_diagnosed(name):
    function, mistake = WRONG_TABLES[name]
    assert rope.tables(function).mistake == mistake


# --- 04.3: rotate(x, cos, sin) ---


def _apart(x, cos, sin):
    """The two lines of the rotation, each half for itself."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    return torch.cat([a * c - b * s, b * c + a * s], dim=-1)


def _rolled(x, cos, sin):
    half = x.shape[-1] // 2
    sign = torch.ones(x.shape[-1], dtype=x.dtype)
    sign[:half] = -1
    return x * cos.unsqueeze(1) + x.roll(half, dims=-1) * sign * sin.unsqueeze(1)


def _complex(x, cos, sin):
    a, b = x.float().chunk(2, dim=-1)
    angle = torch.complex(cos.float(), sin.float())[:, None, :, : a.shape[-1]]
    turned = torch.complex(a.contiguous(), b.contiguous()) * angle
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


@pytest.mark.parametrize("function", [_apart, _rolled, _complex])
def test_right_rotations(function):
    assert rope.rotate(function).outcome == "right"


def _gptj(x, cos, sin):
    cos, sin = cos[:, None, :, : x.shape[-1] // 2], sin[:, None, :, : x.shape[-1] // 2]
    out = torch.empty(x.shape, dtype=x.dtype)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


def _gptj_half(x, cos, sin):
    out = torch.empty(x.shape, dtype=x.dtype)
    out[..., 0::2], out[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    return x * cos[:, None] + out * sin[:, None]


def _half(first, second):
    def function(x, cos, sin):
        a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * cos[:, None] + torch.cat([first(a, b), second(a, b)], dim=-1) * sin[:, None]

    return function


def _in_sequence(x, cos, sin):
    half = x.shape[-1] // 2
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    out = x.clone()
    out[..., :half] = out[..., :half] * c - out[..., half:] * s
    out[..., half:] = out[..., half:] * c + out[..., :half] * s
    return out


def _by_head(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(2) + torch.cat([-b, a], dim=-1) * sin.unsqueeze(2)


def _no_axis(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def _tokens(x, cos, sin):
    a, b = torch.chunk(x, 2, dim=2)
    return x * cos[:, None] + torch.cat([-b, a], dim=2) * sin[:, None]


def _overwrites(x, cos, sin):
    x.copy_(_apart(x, cos, sin))
    return x


WRONG_ROTATIONS = {
    "GPT-J": (_gptj, "interleaved"),
    "GPT-J's half": (_gptj_half, "interleaved"),
    "b, -a": (_half(lambda a, b: b, lambda a, b: -a), "other direction"),
    "b, a": (_half(lambda a, b: b, lambda a, b: a), "no minus"),
    "-a, b": (_half(lambda a, b: -a, lambda a, b: b), "halves not exchanged"),
    "swapped": (lambda x, cos, sin: _apart(x, sin, cos), "swapped"),
    "in sequence": (_in_sequence, "one after the other"),
    "by head": (_by_head, "angle by head"),
    "no axis": (_no_axis, "no axis for the heads"),
    "tokens": (_tokens, "over the tokens"),
    "overwrites": (_overwrites, "changes its input"),
    "float32": (lambda x, cos, sin: _apart(x.float(), cos.float(), sin.float()), "dtype"),
    "cos alone": (lambda x, cos, sin: x * cos[:, None], "values"),
}


@pytest.mark.parametrize("name", WRONG_ROTATIONS)
def test_wrong_rotations_are_diagnosed(name):
    function, mistake = WRONG_ROTATIONS[name]
    assert rope.rotate(function).mistake == mistake


# --- 04.4: turn_new(q, k, past, frequencies) ---


def _turned(x, places, speeds):
    cos, sin = _outer(torch.as_tensor(places), speeds, x.dtype)
    return _apart(x, cos[None], sin[None])


def _new(x, past):
    return torch.arange(past, past + x.shape[2])


def _sliced(q, k, past, speeds):
    """Tables of the whole text, of which the new rows are cut off."""
    cos, sin = _outer(torch.arange(past + q.shape[-2]), speeds, q.dtype)
    return tuple(_rolled(x, cos[None, past:], sin[None, past:]) for x in (q, k))


def _token_by_token(q, k, past, speeds):
    def turn(x):
        each = [_turned(x[:, :, [t]], [past + t], speeds) for t in range(x.shape[2])]
        return torch.cat(each, dim=2)

    return turn(q), turn(k)


RIGHT_BEHIND = {
    "range": lambda q, k, n, s: (_turned(q, _new(q, n), s), _turned(k, _new(k, n), s)),
    "sliced": _sliced,
    "token by token": _token_by_token,
}


@pytest.mark.parametrize("style", RIGHT_BEHIND)
def test_right_behind_a_cache(style):
    assert rope.turn_new(RIGHT_BEHIND[style]).outcome == "right"


def _shifted(shift):
    def function(q, k, past, speeds):
        places = [past + shift(past, q.shape[2]) + t for t in range(q.shape[2])]
        return _turned(q, places, speeds), _turned(k, places, speeds)

    return function


def _one_place(q, k, past, speeds):
    return tuple(_turned(x, [past] * x.shape[2], speeds) for x in (q, k))


def _promoted(q, k, past, speeds):
    cos, sin = _outer(_new(q, past), speeds, torch.float32)
    return tuple(_rolled(x.float(), cos[None], sin[None]) for x in (q, k))


def _bfloat16_places(q, k, past, speeds):
    return tuple(_turned(x, _new(x, past).to(x.dtype), speeds) for x in (q, k))


WRONG_BEHIND = {
    "from 0": (_shifted(lambda past, new: -past), "past forgotten"),
    "+ 1": (_shifted(lambda past, new: 1), "one too far"),
    "- 1": (_shifted(lambda past, new: -1), "one too near"),
    "counted back": (_shifted(lambda past, new: -new), "past holds the new ones"),
    "one place": (_one_place, "all at one place"),
    "k from 0": (
        lambda q, k, n, s: (_turned(q, _new(q, n), s), _turned(k, _new(k, 0), s)), "k from 0",
    ),
    "k as it was": (lambda q, k, n, s: (_turned(q, _new(q, n), s), k), "k not turned"),
    "k back": (
        lambda q, k, n, s: (_turned(q, _new(q, n), s), _turned(k, -_new(k, n), s)),
        "k turned back",
    ),
    "bfloat16": (_bfloat16_places, "rounded angles"),
    "float32": (_promoted, "not cast"),
    "q alone": (lambda q, k, n, s: _turned(q, _new(q, n), s), "kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_BEHIND)
def test_wrong_places_behind_a_cache_are_diagnosed(name):
    function, mistake = WRONG_BEHIND[name]
    assert rope.turn_new(function).mistake == mistake


# --- hints ---

MISTAKES = (
    *rope.FREQUENCY_MISTAKES, *rope.TABLE_MISTAKES, *rope.ROTATION_MISTAKES, *rope.CACHE_MISTAKES,
)  # fmt: skip


def test_hints_are_sentences_and_hold_no_code():
    for mistake in MISTAKES:
        assert mistake.hint.endswith((".", "?"))
        assert not re.search(r"torch|arange|\[|\*\*|dim=", mistake.hint), mistake.name


def test_every_named_mistake_is_in_a_table_above():
    tables = (WRONG_FREQUENCIES, WRONG_TABLES, WRONG_ROTATIONS, WRONG_BEHIND)
    expected = {mistake for table in tables for _, mistake in table.values()}
    assert {mistake.name for mistake in MISTAKES} <= expected
