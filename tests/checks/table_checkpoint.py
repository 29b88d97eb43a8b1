"""Answers to the exercises of notebook 01."""

import json
import struct
from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
import torch


# read_tensors(path)
def _whole(path, *, base="rest", note=False, shaped=True, cover=True, wide=np.float32, bf16=None):
    """Read as the notebook's solution does, or with one thing changed."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : length + 8].decode())
    rest = content[{"rest": 8 + length, "header": 8, "file": 0}[base] :]
    found, last = {}, 0
    for name in sorted(header, key=lambda n: header[n].get("data_offsets", [-1])):
        if name == "__metadata__" and not note:
            continue
        kind, shape = header[name]["dtype"], header[name]["shape"]
        begin, end = header[name]["data_offsets"]
        if cover and (begin != last or (end - begin) != prod(shape) * (4 if kind == "F32" else 2)):
            raise ValueError(f"bad offsets: {name}")
        data, last = rest[begin:end], end
        if kind == "BF16":
            values = (bf16 or _padded)(data)
        else:
            values = np.frombuffer(data, {"F16": "f2", "F32": "f4"}[kind])
            values = values.astype(wide or values.dtype)
        found[name] = values.reshape(shape) if shaped else values
    if cover and base == "rest" and last != len(rest):
        raise ValueError("bad size")
    return found


def _with_torch(path):
    """Read with PyTorch; look at the layout first."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = {n: e for n, e in json.loads(data[8:start]).items() if n != "__metadata__"}
    kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    spans = sorted(tuple(e["data_offsets"]) for e in header.values())
    if spans[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(spans)):
        raise ValueError("hole")
    if spans[-1][1] != len(data) - start:
        raise ValueError("length")
    found = {}
    for name, e in header.items():
        a, b = e["data_offsets"]
        kind = kinds[e["dtype"]]
        if (b - a) != prod(e["shape"]) * kind.itemsize:
            raise ValueError("size")
        raw = bytearray(data[start + a : start + b])
        values = torch.frombuffer(raw, dtype=kind) if raw else torch.zeros(0)
        found[name] = values.float().reshape(e["shape"]).numpy()
    return found


def _with_bytes_used(path):
    """Read, and count for each byte how many tensors have it."""
    found = _whole(path, cover=False)  # a wrong shape: NumPy raises ValueError
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    used = np.zeros(len(content) - 8 - length, int)
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            if end > len(used):
                raise ValueError(name)
            used[begin:end] += 1
    if (used != 1).any():
        raise ValueError("used")
    return found


def _covering(check):
    """Read without a check, then refuse what `check(offsets, size)` does not accept."""

    def read(path):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        found = _whole(path, cover=False)
        if not check([e["data_offsets"] for e in header.values()], len(content) - 8 - length):
            raise ValueError("refused")
        return found

    return read


def _in_header_order(offsets, size):
    position = 0
    for begin, end in offsets:
        if begin != position:
            return False
        position = end
    return position == size


def _header_of(path):
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _as_two(data):
    return np.frombuffer(data, "<f2").astype("f4")


def _swapped(path, name, values):
    """Return the values of an F16 tensor as if they were bfloat16."""
    if _header_of(path)[name]["dtype"] != "F16":
        return values
    return _padded(values.astype("f2").tobytes()).reshape(values.shape)


def _first(path):
    for name, values in _whole(path).items():
        return {name: values}


def _one_kind(path):
    """Read everything as bfloat16."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    rest, found = content[8 + length :], {}
    for name, e in header.items():
        a, b = e["data_offsets"]
        found[name] = _padded(rest[a:b]).reshape(e["shape"])
    if not _in_header_order(sorted(e["data_offsets"] for e in header.values()), len(rest)):
        raise ValueError("refused")
    return found


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
    "decode": [
        lambda data: _shifted(data).view("f4"), _padded, _by_fields,
        lambda data: torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float().numpy(),
    ],
    "tensors": [_whole, _with_torch, _with_bytes_used],
    "count": [
        _formula, lambda c: np.int64(_formula(c)),
    ],
}  # fmt: skip
WRONG = {
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
    "tensors": [
        ("offsets from the start of the file", lambda path: _whole(path, base="file")),
        ("offsets from the header", lambda path: _whole(path, base="header")),
        ("the note read as a tensor", lambda path: _whole(path, note=True)),
        ("the note read as a tensor",
            lambda path: {n: e["shape"] for n, e in _header_of(path).items()} and _whole(path)),
        ("not reshaped", lambda path: _whole(path, shaped=False)),
        ("float16 kept", lambda path: _whole(path, wide=None)),
        ("bfloat16 read as float16", lambda path: _whole(path, bf16=_as_two)),
        ("all read as bfloat16", _one_kind),
        ("not decoded", lambda path: _whole(path, bf16=lambda data: np.frombuffer(data, "<u2"))),
        ("gaps not noticed", lambda path: _whole(path, cover=False)),
        ("gaps not noticed", _covering(lambda found, size: max(e for _, e in found) <= size)),
        ("only the total checked", _covering(lambda found, size: max(found)[1] == size)),
        ("only the total checked",
            _covering(lambda found, size: sum(b - a for a, b in found) == size)),
        ("whole files refused", _covering(lambda found, size: sum(map(sum, found)) == size)),
        ("the order of the header", _covering(_in_header_order)),
        ("the header", _header_of),
        ("the header",
            lambda path: {n: e for n, e in _header_of(path).items() if n != "__metadata__"}),
        ("names only", lambda path: [*_whole(path)]),
        ("one tensor", _first),
        ("only the arrays", lambda path: [*_whole(path).values()]),
        ("no return", lambda path: print(len(_whole(path)))),
        ("float16 read as bfloat16", lambda path: {n: _swapped(path, n, x)
            for n, x in _whole(path).items()}),
        ("error: not JSON", lambda path: json.loads(path.read_bytes()[8:100])),
        ("error: a name", lambda path: load(path)),  # noqa: F821
        ("values", lambda path: {n: x + 1 for n, x in _whole(path).items()}),
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
