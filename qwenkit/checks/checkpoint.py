"""The checks of notebook 01, checkpoint: a header, bfloat16 by its bits, a count of parameters."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._samples import HALF_B
from qwenkit.config import QwenConfig

EXERCISES = {
    "01.1": "read a header",
    "01.2": "decode bfloat16",
    "01.3": "count any size",
}
_GIVEN = ("num_parameters", "tensor_shapes")  # 01.3: by your own formula
Array = np.ndarray[Any, np.dtype[Any]]


def read_header(learner: Callable[..., dict[str, Any]]) -> Verdict:
    """Check `learner(path)`: the header of a safetensors file, with its `__metadata__`."""
    praise = "eight bytes, then JSON. You can look into any safetensors file."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases = [
            Case("a file of two tensors", (_file(folder, 2, note=True),)),
            Case("a file of eighty tensors", (_file(folder, 80, note=True),)),
            Case("a file without __metadata__", (_file(folder, 3, note=False),)),
            Case("a header of 70,000 bytes", (_file(folder, 4, note=True, long=70_000),)),
        ]
        known = [replace(one, function=_grouped_errors(one.function)) for one in _HEADER_MISTAKES]
        return judge("01.1", _grouped_errors(learner), _read_header, cases, known, praise)


def decode(learner: Callable[..., Array]) -> Verdict:
    """Check `learner(data)`: the float32 array of little-endian bfloat16 bytes."""
    cases = [
        Case("1, -2.5, 0.15625 and 384", (_bytes(1.0, -2.5, 0.15625, 384.0),)),
        Case("one number", (_bytes(-3.0),)),
        Case("very large and very small numbers", (_bytes(2.0**100, -(2.0**-120), 0.0),)),
        Case("a thousand numbers", (_bytes(*np.linspace(-2, 2, 1000)),)),
    ]
    praise = "bfloat16 is the upper half of a float32, so no bit is lost."
    return judge("01.2", _owned(learner), _decode, cases, _DECODE_MISTAKES, praise, tolerance=0.0)


def count(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config)`: how many parameters a model of this config has."""
    sizes = (100, 24, 40, 3, 4, 2, 8)
    cases = [
        Case("a tied model", (QwenConfig(*sizes, tie_word_embeddings=True),)),
        Case("an untied model", (QwenConfig(*sizes, tie_word_embeddings=False),)),
        Case("as many kv heads as heads", (QwenConfig(90, 32, 48, 2, 4, 4),)),
        Case("the 0.5B", (HALF_B,)),
    ]
    praise = "exact, tied and untied."
    return judge("01.3", learner, _count, cases, _COUNT_MISTAKES, praise, 0.0, _GIVEN)


# --- 01.1 ---


def _file(folder: str, tensors: int, note: bool, long: int = 0) -> Path:
    """Write a safetensors file of small tensors; the format pads the header with spaces."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt" + "." * long}} if note else {}
    for number in range(tensors):
        offsets = [4 * number, 4 * number + 4]
        header[f"layer.{number}"] = {"dtype": "BF16", "shape": [2], "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(folder, f"{tensors}.safetensors")
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(4)) * tensors)
    return path


def _grouped_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make one error of all ways to fail on a huge length."""
    if not callable(function):
        return function

    @wraps(function)
    def grouped(path: Path) -> Any:
        try:
            return function(path)
        except (MemoryError, OverflowError):
            raise MemoryError from None

    return grouped


def _read_header(path: Path) -> Any:
    return json.loads(_header_bytes(path))


def _header_bytes(path: Path, order: Any = "little", skip: int = 8) -> bytes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), order)
        file.seek(skip)
        return file.read(length)


_HEADER_MISTAKES = (
    Mistake("big-endian", "the length is huge. Its bytes are little-endian: the least significant "
        "byte comes first.",
        lambda path: json.loads(_header_bytes(path, order="big"))),
    Mistake("wrong offset", "this is not JSON. The JSON starts after eight bytes and is N bytes "
        "long.",
        lambda path: json.loads(_header_bytes(path, skip=0))),
    Mistake("wrong offset", "you parse the JSON and all that follows it in the file. The JSON is N "
        "bytes long: read only these.",
        lambda path: json.loads(path.read_bytes()[8:])),
    Mistake("length too short", "it works for short headers only: the length has eight bytes, and "
        "you use two of them.",
        lambda path: json.loads(path.read_bytes()[8:][: len(_header_bytes(path)) % 65_536])),
    Mistake("length too short", "it works for very short headers only: the length has eight bytes, "
        "and you use one of them.",
        lambda path: json.loads(path.read_bytes()[8:][: len(_header_bytes(path)) % 256])),
    Mistake("only metadata", "these are only the metadata. Return the whole dictionary.",
        lambda path: _read_header(path).get("__metadata__")),
    Mistake("still bytes", "these are the bytes of the header. json.loads turns them into a "
        "dictionary.",
        _header_bytes),
    Mistake("still text", "parse the text: json.loads.", lambda path: _header_bytes(path).decode()),
    Mistake("no metadata", "leave __metadata__ in. It is part of the header.",
        lambda path: {n: e for n, e in _read_header(path).items() if n != "__metadata__"}),
    Mistake("names only", "these are only the names. Return the whole dictionary, dtypes and "
        "offsets included.",
        lambda path: list(_read_header(path))),
    Mistake("only the length", "that is the length of the header. It says how much to read next: "
        "how do you continue?",
        lambda path: len(_header_bytes(path))),
)  # fmt: skip


# --- 01.2 ---


def _bytes(*numbers: float) -> bytes:
    """Return numbers as little-endian bfloat16: the lower half of each float32 is cut off."""
    halves = np.array(numbers, dtype=np.float32).view(np.uint32) >> 16
    return halves.astype("<u2").tobytes()


def _halves(data: bytes, kind: str = "<u2") -> Array:
    return np.frombuffer(data, kind).astype(np.uint32)


def _owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy an array that a function returns: a view of bytes is read-only, and PyTorch warns."""
    if not callable(function):
        return function

    @wraps(function)
    def owned(data: bytes) -> Any:
        found = function(data)
        return found.copy() if isinstance(found, np.ndarray) else found

    return owned


def _decode(data: bytes) -> Array:
    return (_halves(data) << 16).view(np.float32)


_CONVERTED = "these are the integers, converted. Use view, not astype."
_UNSHIFTED = "shift to the upper half first: << 16, then view."
_HALF = "that is float16, with five bits of exponent. Shift the integers instead."
_DECODE_MISTAKES = (
    Mistake("float16", _HALF, lambda data: np.frombuffer(data, "<f2").astype(np.float32)),
    Mistake("float16", _HALF, lambda data: np.frombuffer(data, "<f2").copy()),
    Mistake("wrong byte order", "the bytes are in the wrong order: '<u2', not '>u2'.",
        lambda data: (_halves(data, ">u2") << 16).view(np.float32)),
    Mistake("converted", _CONVERTED, lambda data: (_halves(data) << 16).astype(np.float32)),
    Mistake("converted", _CONVERTED, lambda data: _halves(data).astype(np.float32)),
    Mistake("not shifted", _UNSHIFTED, lambda data: _halves(data).view(np.float32)),
    Mistake("shifted by a byte", "you shift by eight bits. A float32 has four bytes, a bfloat16 "
        "two: how many bits are missing?",
        lambda data: (_halves(data) << 8).view(np.float32)),
    Mistake("float64", "the values are right, but the dtype is not float32.",
        lambda data: _decode(data).astype(np.float64)),
    Mistake("zero", "right, but not for zero. Its exponent bits are all 0, and then no 1 comes "
        "before the mantissa.",
        lambda data: np.where(_decode(data) == 0, np.float32(2.0**-127), _decode(data))),
    Mistake("sign lost", "the sign is lost: every value is positive. The first of the sixteen bits "
        "is the sign.",
        lambda data: abs(_decode(data))),
    Mistake("still integers", "the bits are in the right position, but these are still integers. "
        "Read the same bits as float32: view.",
        lambda data: _halves(data) << 16),
    Mistake("four bytes at a time", "two bytes are one number, but you read four bytes at a time. "
        "How wide are the integers that you read first?",
        lambda data: np.frombuffer(data[: len(data) // 4 * 4], "<f4").copy()),
)  # fmt: skip


# --- 01.3 ---


def _count(config: QwenConfig) -> int:
    return config.num_parameters


def _off(term: Callable[[QwenConfig], int]) -> Callable[[QwenConfig], int]:
    """Return the count that is off by a term: too large if it is positive, else too small."""
    return lambda config: config.num_parameters + term(config)


def _bias(c: QwenConfig) -> int:
    return (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim


def _query(c: QwenConfig) -> int:
    return c.num_attention_heads * c.head_dim


def _key(c: QwenConfig) -> int:
    return c.num_key_value_heads * c.head_dim


def _embedding(c: QwenConfig) -> int:
    return c.vocab_size * c.hidden_size


def _mlp(c: QwenConfig) -> int:
    return c.hidden_size * c.intermediate_size


_COUNT_MISTAKES = (
    Mistake("no o", "the matrix o of attention is missing: four matrices, not three.",
        _off(lambda c: -c.num_hidden_layers * _query(c) * c.hidden_size)),
    Mistake("k and v once", "k and v are two matrices of the same size, each with a bias. You "
        "count one.",
        _off(lambda c: -c.num_hidden_layers * _key(c) * (c.hidden_size + 1))),
    Mistake("k and v once", "k and v are two matrices of the same size. You count one.",
        _off(lambda c: -c.num_hidden_layers * _key(c) * c.hidden_size)),
    Mistake("a bias in the MLP", "you count biases in the MLP. Only q, k and v have them.",
        _off(lambda c: c.num_hidden_layers * (2 * c.intermediate_size + c.hidden_size))),
    Mistake("no last norm", "the norm after the last layer is missing.",
        _off(lambda c: -c.hidden_size)),
    Mistake("no layer norms", "the two norms of each layer are missing.",
        _off(lambda c: -2 * c.num_hidden_layers * c.hidden_size)),
    Mistake("one layer norm", "each layer has two norms, one before attention and one before the "
        "MLP.",
        _off(lambda c: -c.num_hidden_layers * c.hidden_size)),
    Mistake("no norms", "all norms are missing.",
        _off(lambda c: -(2 * c.num_hidden_layers + 1) * c.hidden_size)),
    Mistake("no biases", "the biases of q, k and v are missing.",
        _off(lambda c: -c.num_hidden_layers * _bias(c))),
    Mistake("a bias on o", "o does not have a bias, but you count one. Only q, k and v have them.",
        _off(lambda c: c.num_hidden_layers * c.hidden_size)),
    Mistake("tied head counted twice", "a tied head is the embedding; you count it twice.",
        _off(lambda c: _embedding(c) * c.tie_word_embeddings)),
    Mistake("untied head missing", "an untied head has a matrix of its own.",
        _off(lambda c: -_embedding(c) * (not c.tie_word_embeddings))),
    Mistake("KV is H", "k and v have KV heads, not H.",
        lambda c: replace(c, num_key_value_heads=c.num_attention_heads).num_parameters),
    Mistake("D is C / H", "D is not always C / H. Use c.head_dim.",
        lambda c: replace(c, head_dim=c.hidden_size // c.num_attention_heads).num_parameters),
    Mistake("two MLP matrices", "the MLP has three matrices: gate, up and down.",
        _off(lambda c: -c.num_hidden_layers * _mlp(c))),
    Mistake("one layer", "you count one layer. Which terms occur once in each layer?",
        lambda c: replace(c, num_hidden_layers=1).num_parameters),
    Mistake("no embedding", "the embedding is missing: one row per token of the vocabulary.",
        _off(lambda c: -_embedding(c))),
)  # fmt: skip
