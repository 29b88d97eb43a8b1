"""The checks of notebook 01: each wrong idea is named, however it is written."""

import json
import struct
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch

from qwenkit.checks import checkpoint

# --- 1: a header ---


def _with_open(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length))


def _with_struct(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length].decode("utf-8"))


def _by_powers(path):
    data = path.read_bytes()
    length = sum(byte * 256**place for place, byte in enumerate(data[:8]))
    return dict(json.loads(data[8:][:length]))


def _big(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack(">Q", file.read(8))
        return json.loads(file.read(length))


def _text(path):
    data = path.read_bytes()
    return data[8 : 8 + struct.unpack("<Q", data[:8])[0]].decode()


def _without_note(path):
    header = _with_open(path)
    header.pop("__metadata__", None)
    return header


HEADER_RIGHT = {"open": _with_open, "struct": _with_struct, "powers": _by_powers}
HEADER_WRONG = {
    "big-endian": _big,
    "wrong place": lambda path: json.loads(path.read_bytes()[:2000]),
    "wrong place, to the end": lambda path: json.loads(path.read_bytes()[8:]),
    "still bytes": lambda path: _text(path).encode(),
    "still text": _text,
    "no metadata": _without_note,
    "names only": lambda path: [*_with_open(path)],
    "only the length": lambda path: struct.unpack("<Q", path.read_bytes()[:8])[0],
    "values": lambda path: {"__metadata__": {}},
    "error": lambda path: _with_open(path)["layer.7"],
}

# --- 2: bfloat16 ---


def _padded(data):
    """Two zero bytes below each pair."""
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    return np.hstack([np.zeros_like(pairs), pairs]).reshape(-1).view("<f4")


def _by_fields(data):
    bits = np.frombuffer(data, "<u2").astype(np.int64)
    sign, exponent, mantissa = bits >> 15, (bits >> 7) & 255, bits & 127
    value = (-1.0) ** sign * 2.0 ** (exponent - 127) * (1 + mantissa / 128)
    return np.where(exponent > 0, value, 0).astype(np.float32)


def _shifted(data, by=16, kind="<u2"):
    return np.left_shift(np.frombuffer(data, kind).astype(np.uint32), by)


DECODE_RIGHT = {
    "shift": lambda data: _shifted(data).view("f4"),
    "padded": _padded,
    "fields": _by_fields,
    "PyTorch": lambda data: torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float().numpy(),
}
DECODE_WRONG = {
    "float16": lambda data: np.frombuffer(data, np.float16).astype("f4"),
    "float16, as it is": lambda data: np.frombuffer(data, np.float16),
    "wrong byte order": lambda data: _shifted(data, kind=">u2").view(np.float32),
    "converted": lambda data: _shifted(data).astype("f4"),
    "converted, to nothing": _shifted,
    "converted, not shifted": lambda data: _shifted(data, by=0).astype("f4"),
    "not shifted": lambda data: _shifted(data, by=0).view(np.float32),
    "shifted by a byte": lambda data: _shifted(data, by=8).view(np.float32),
    "float64": lambda data: np.asarray(_padded(data), dtype=float),
    "one number for two": lambda data: np.frombuffer(data[: len(data) & ~3], np.float32),
    "shape": lambda data: _padded(data)[:1],
    "values": lambda data: _padded(data) + 1,
    "kind": lambda data: torch.from_numpy(_padded(data).copy()),
}

# --- 3: count ---


def _formula(c, *, layer_norms=2, last_norm=1, bias=1, o_bias=0, kv=None, matrices=3, heads=None):
    kv = c.num_key_value_heads if kv is None else kv
    dim = c.head_dim if heads is None else c.hidden_size // heads
    query, key = c.num_attention_heads * dim, kv * dim
    hidden = c.hidden_size
    attention = 2 * hidden * query + 2 * hidden * key + bias * (query + 2 * key) + o_bias * hidden
    layer = attention + matrices * hidden * c.intermediate_size + layer_norms * hidden
    tables = 1 if c.tie_word_embeddings else 2
    return tables * c.vocab_size * hidden + c.num_hidden_layers * layer + last_norm * hidden


COUNT_RIGHT = {
    "formula": _formula,
    "shapes": lambda c: sum(prod(shape) for shape in c.tensor_shapes().values()),
    "config": lambda c: c.num_parameters,
}
COUNT_WRONG = {
    "no last norm": lambda c: _formula(c, last_norm=0),
    "no layer norms": lambda c: _formula(c, layer_norms=0),
    "one layer norm": lambda c: _formula(c, layer_norms=1),
    "no norms": lambda c: _formula(c, layer_norms=0, last_norm=0),
    "no biases": lambda c: _formula(c, bias=0),
    "a bias on o": lambda c: _formula(c, o_bias=1),
    "tied head counted twice": lambda c: _formula(replace(c, tie_word_embeddings=False)),
    "untied head missing": lambda c: _formula(replace(c, tie_word_embeddings=True)),
    "KV is H": lambda c: _formula(c, kv=c.num_attention_heads),
    "D is C / H": lambda c: _formula(c, heads=c.num_attention_heads),
    "two MLP matrices": lambda c: _formula(c, matrices=2),
    "one layer": lambda c: _formula(replace(c, num_hidden_layers=1)),
    "no embedding": lambda c: _formula(c) - c.vocab_size * c.hidden_size,
    "values": lambda c: 7,
    "kind": lambda c: str(_formula(c)),
}

# --- every exercise alike ---

CHECKS = {
    "01.1": (checkpoint.read_header, HEADER_RIGHT, HEADER_WRONG),
    "01.2": (checkpoint.decode, DECODE_RIGHT, DECODE_WRONG),
    "01.3": (checkpoint.count, COUNT_RIGHT, COUNT_WRONG),
}
RIGHT = [(e, style) for e, (_, right, _) in CHECKS.items() for style in right]
WRONG = [(e, name) for e, (_, _, wrong) in CHECKS.items() for name in wrong]


@pytest.mark.parametrize(("exercise", "style"), RIGHT)
def test_right_in_any_style(exercise, style):
    check, right, _ = CHECKS[exercise]
    found = check(right[style])
    assert (found.outcome, found.mistake) == ("right", None), str(found)


@pytest.mark.parametrize(("exercise", "name"), WRONG)
def test_each_mistake_is_named(exercise, name):
    check, _, wrong = CHECKS[exercise]
    found = check(wrong[name])
    assert found.mistake == name.split(",")[0], str(found)
    assert str(found).startswith("Not yet: ")


@pytest.mark.parametrize("exercise", CHECKS)
def test_an_empty_stub_is_told_so_kindly(exercise):
    check = CHECKS[exercise][0]
    assert str(check(lambda given: None)).startswith("Still empty")
    assert "without brackets" in str(check({}))


def test_every_exercise_is_listed():
    assert list(checkpoint.EXERCISES) == list(CHECKS)
