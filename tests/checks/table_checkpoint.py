"""Answers to the exercises of notebook 01."""

import json
import struct
from dataclasses import replace
from math import prod

import numpy as np
import torch


# a header
def _with_open(path, order="little"):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), order)
        return json.loads(file.read(length))


def _length(path):
    return struct.unpack("<Q", path.read_bytes()[:8])[0]


def _by_powers(path):
    data = path.read_bytes()
    length = sum(byte * 256**place for place, byte in enumerate(data[:8]))
    return dict(json.loads(data[8:][:length]))


def _text(path):
    return path.read_bytes()[8 : 8 + _length(path)].decode()


def _cut(path, size):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:size], "little")])


# bfloat16
def _padded(data):
    """Put two zero bytes below each pair."""
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    return np.hstack([np.zeros_like(pairs), pairs]).reshape(-1).view("<f4")


def _by_fields(data, zero=True):
    bits = np.frombuffer(data, "<u2").astype(np.int64)
    sign, exponent, mantissa = bits >> 15, (bits >> 7) & 255, bits & 127
    value = (-1.0) ** sign * 2.0 ** (exponent - 127) * (1 + mantissa / 128)
    return np.where((exponent > 0) | (not zero), value, 0).astype(np.float32)


def _shifted(data, by=16, kind="<u2"):
    return np.left_shift(np.frombuffer(data, kind).astype(np.uint32), by)


# count
def _formula(c, *, layer_norms=2, last_norm=1, bias=1, o_bias=0, kv=None, matrices=3, dim=None):
    hidden, dim = c.hidden_size, dim or c.head_dim
    query, key = c.num_attention_heads * dim, (kv or c.num_key_value_heads) * dim
    attention = 2 * hidden * query + 2 * hidden * key + bias * (query + 2 * key) + o_bias * hidden
    layer = attention + matrices * hidden * c.intermediate_size + layer_norms * hidden
    tables = 1 if c.tie_word_embeddings else 2
    return tables * c.vocab_size * hidden + c.num_hidden_layers * layer + last_norm * hidden


def _layers(c, of_one):
    return c.num_hidden_layers * of_one


def _query(c):
    return c.num_attention_heads * c.head_dim


def _key(c):
    return c.num_key_value_heads * c.head_dim


RIGHT = {
    "read_header": [_with_open, lambda path: json.loads(_text(path)), _by_powers],
    "decode": [
        lambda data: _shifted(data).view("f4"), _padded, _by_fields,
        lambda data: torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float().numpy(),
    ],
    "count": [
        _formula, lambda c: np.int64(_formula(c)),
    ],
}  # fmt: skip
WRONG = {
    "read_header": [
        ("big-endian", lambda path: _with_open(path, order="big")),
        ("wrong offset", lambda path: json.loads(path.read_bytes()[:2000])),
        ("wrong offset", lambda path: json.loads(path.read_bytes()[8:]), "all that follows"),
        ("still bytes", lambda path: _text(path).encode()),
        ("still text", _text),
        ("no metadata", lambda path: {n: x for n, x in _with_open(path).items() if n[0] != "_"}),
        ("names only", lambda path: [*_with_open(path)]),
        ("only the length", _length),
        ("values", lambda path: {"__metadata__": {}}),
        ("length too short", lambda path: _cut(path, 2)),
        ("length too short", lambda path: _cut(path, 1)),
        ("only metadata", lambda path: _with_open(path).get("__metadata__")),
        ("error: too few or too many bytes",
            lambda path: struct.unpack("<I", path.read_bytes()[:8]), "requires a buffer"),
        ("error: not UTF-8", lambda path: path.read_bytes()[:9].replace(b"{", b"\xff").decode()),
        ("error: bytes and text", lambda path: "" + path.read_bytes()),
        ("no return", lambda path: print(len(_with_open(path)))),
        ("error", lambda path: _with_open(path)["layer.7"]),
    ],
    "decode": [
        ("float16", lambda data: np.frombuffer(data, np.float16).astype("f4")),
        ("float16", lambda data: np.frombuffer(data, np.float16)),
        ("wrong byte order", lambda data: _shifted(data, kind=">u2").view(np.float32)),
        ("converted", lambda data: _shifted(data).astype("f4")),
        ("still integers", _shifted),
        ("zero", lambda data: _by_fields(data, zero=False)),
        ("sign lost", lambda data: np.abs(_padded(data))),
        ("converted", lambda data: _shifted(data, by=0).astype("f4")),
        ("not shifted", lambda data: _shifted(data, by=0).view(np.float32)),
        ("shifted by a byte", lambda data: _shifted(data, by=8).view(np.float32)),
        ("float64", lambda data: np.asarray(_padded(data), dtype=float)),
        ("four bytes at a time", lambda data: np.frombuffer(data[: len(data) & ~3], np.float32)),
        ("shape", lambda data: _padded(data)[:1]),
        ("values", lambda data: _padded(data) + 1),
        ("kind", lambda data: torch.from_numpy(_padded(data).copy())),
    ],
    "count": [
        ("no last norm", lambda c: _formula(c, last_norm=0)),
        ("no layer norms", lambda c: _formula(c, layer_norms=0)),
        ("one layer norm", lambda c: _formula(c, layer_norms=1)),
        ("no norms", lambda c: _formula(c, layer_norms=0, last_norm=0)),
        ("no biases", lambda c: _formula(c, bias=0)),
        ("a bias on o", lambda c: _formula(c, o_bias=1)),
        ("tied head counted twice", lambda c: _formula(replace(c, tie_word_embeddings=False))),
        ("untied head missing", lambda c: _formula(replace(c, tie_word_embeddings=True))),
        ("KV is H", lambda c: _formula(c, kv=c.num_attention_heads)),
        ("D is C / H", lambda c: _formula(c, dim=c.hidden_size // c.num_attention_heads)),
        ("two MLP matrices", lambda c: _formula(c, matrices=2)),
        ("one layer", lambda c: _formula(replace(c, num_hidden_layers=1))),
        ("no embedding", lambda c: _formula(c) - c.vocab_size * c.hidden_size),
        ("values", lambda c: 7),
        ("no o", lambda c: _formula(c) - _layers(c, c.hidden_size * _query(c))),
        ("k and v once", lambda c: _formula(c) - _layers(c, (c.hidden_size + 1) * _key(c))),
        ("k and v once", lambda c: _formula(c) - _layers(c, c.hidden_size * _key(c))),
        ("a bias in the MLP",
            lambda c: _formula(c) + _layers(c, 2 * c.intermediate_size + c.hidden_size)),
        ("forbidden", lambda c: c.num_parameters),
        ("forbidden", lambda c: sum(prod(shape) for shape in c.tensor_shapes().values())),
        ("kind: a float", lambda c: _formula(c) / 1),
        ("kind", lambda c: str(_formula(c))),
    ],
}  # fmt: skip
