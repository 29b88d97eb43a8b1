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

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.config import QwenConfig

EXERCISES = {
    "01.1": "read a header",
    "01.2": "decode bfloat16",
    "01.3": "count any size",
}
Array = np.ndarray[Any, np.dtype[Any]]


def read_header(learner: Callable[..., dict[str, Any]]) -> Verdict:
    """Check `learner(path)`: the header of a safetensors file, with its `__metadata__`."""
    praise = "eight bytes, then JSON. You can look into any safetensors file."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases = [
            Case("a file of two tensors", (_file(folder, 2, note=True),)),
            Case("a file of eighty tensors", (_file(folder, 80, note=True),)),
            Case("a file without __metadata__", (_file(folder, 3, note=False),)),
        ]
        known = [replace(one, function=_tamed(one.function)) for one in HEADER_MISTAKES]
        return judge("01.1", _tamed(learner), _read_header, cases, known, praise)


def decode(learner: Callable[..., Array]) -> Verdict:
    """Check `learner(data)`: the float32 array of little-endian bfloat16 bytes."""
    cases = [
        Case("1, -2.5, 0.15625 and 384", (_bytes(1.0, -2.5, 0.15625, 384.0),)),
        Case("one number", (_bytes(-3.0),)),
        Case("very large and very small numbers", (_bytes(2.0**100, -(2.0**-120), 0.0),)),
        Case("a thousand numbers", (_bytes(*np.linspace(-2, 2, 1000)),)),
    ]
    praise = "the upper half of a float32, and not a bit is lost."
    return judge("01.2", _owned(learner), _decode, cases, DECODE_MISTAKES, praise, tolerance=0.0)


def count(learner: Callable[..., int]) -> Verdict:
    """Check `learner(config)`: how many parameters a model of this config has."""
    sizes = (100, 24, 40, 3, 4, 2, 8)
    cases = [
        Case("a tied model", (QwenConfig(*sizes, tie_word_embeddings=True),)),
        Case("an untied model", (QwenConfig(*sizes, tie_word_embeddings=False),)),
        Case("as many kv heads as heads", (QwenConfig(90, 32, 48, 2, 4, 4),)),
        Case("the 0.5B", (QwenConfig(151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True),)),
    ]
    praise = "exact, tied and untied."
    return judge("01.3", learner, _count, cases, COUNT_MISTAKES, praise, tolerance=0.0)


# --- 1: a header ---


def _file(folder: str, tensors: int, note: bool) -> Path:
    """Write a safetensors file of small tensors, its header padded with spaces as the format is."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if note else {}
    for place in range(tensors):
        offsets = [4 * place, 4 * place + 4]
        header[f"layer.{place}"] = {"dtype": "BF16", "shape": [2], "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(folder, f"{tensors}.safetensors")
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(4)) * tensors)
    return path


def _tamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let all ways to fail on bytes that are no JSON be one error, and on a huge length another."""
    if not callable(function):
        return function

    @wraps(function)
    def tamed(path: Path) -> Any:
        try:
            return function(path)
        except ValueError as error:
            raise ValueError(str(error)) from None
        except (MemoryError, OverflowError) as error:
            raise MemoryError(str(error)) from None

    return tamed


def _read_header(path: Path) -> Any:
    return json.loads(_header_bytes(path))


def _header_bytes(path: Path, order: Any = "little", skip: int = 8) -> bytes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), order)
        file.seek(skip)
        return file.read(length)


HEADER_MISTAKES = (
    Mistake(
        "big-endian",
        "the length is huge. Its bytes are little-endian, smallest part first.",
        lambda path: json.loads(_header_bytes(path, order="big")),
    ),
    Mistake(
        "wrong place",
        "this is not JSON. It starts after eight bytes and is N bytes long.",
        lambda path: json.loads(_header_bytes(path, skip=0)),
    ),
    Mistake(
        "still bytes",
        "these are the header's bytes. json.loads makes a dictionary of them.",
        _header_bytes,
    ),
    Mistake(
        "still text",
        "parse the text: json.loads.",
        lambda path: _header_bytes(path).decode(),
    ),
    Mistake(
        "no metadata",
        "leave __metadata__ in. It is part of the header.",
        lambda path: {n: e for n, e in _read_header(path).items() if n != "__metadata__"},
    ),
    Mistake(
        "names only",
        "these are the names alone. Return the whole dictionary, dtypes and offsets included.",
        lambda path: list(_read_header(path)),
    ),
    Mistake(
        "only the length",
        "that is the length of the header. It says how much to read next: how do you go on?",
        lambda path: len(_header_bytes(path)),
    ),
)


# --- 2: bfloat16 ---


def _bytes(*numbers: float) -> bytes:
    """Return numbers as little-endian bfloat16, the lower half of each float32 cut off."""
    halves = np.array(numbers, dtype=np.float32).view(np.uint32) >> 16
    return halves.astype("<u2").tobytes()


def _halves(data: bytes, kind: str = "<u2") -> Array:
    return np.frombuffer(data, kind).astype(np.uint32)


def _owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy an array that a function returns: a view of bytes cannot be written to, and warns."""
    if not callable(function):
        return function

    @wraps(function)
    def owned(data: bytes) -> Any:
        found = function(data)
        return found.copy() if isinstance(found, np.ndarray) else found

    return owned


def _decode(data: bytes) -> Array:
    return (_halves(data) << 16).view(np.float32)


CONVERTED = "these are whole numbers, converted. Use view, not astype."
UNSHIFTED = "shift to the upper half first: << 16, then view."
HALF = "that is float16: five bits of exponent. Shift whole numbers."
DECODE_MISTAKES = (
    Mistake("float16", HALF, lambda data: np.frombuffer(data, "<f2").astype(np.float32)),
    Mistake("float16", HALF, lambda data: np.frombuffer(data, "<f2").copy()),
    Mistake(
        "wrong byte order",
        "the bytes are in the wrong order: '<u2', not '>u2'.",
        lambda data: (_halves(data, ">u2") << 16).view(np.float32),
    ),
    Mistake("converted", CONVERTED, lambda data: (_halves(data) << 16).astype(np.float32)),
    Mistake("converted", CONVERTED, lambda data: _halves(data) << 16),
    Mistake("converted", CONVERTED, lambda data: _halves(data).astype(np.float32)),
    Mistake("not shifted", UNSHIFTED, lambda data: _halves(data).view(np.float32)),
    Mistake(
        "shifted by a byte",
        "you shift by eight bits. A float32 has four bytes, a bfloat16 two: how many bits are "
        "missing?",
        lambda data: (_halves(data) << 8).view(np.float32),
    ),
    Mistake(
        "float64",
        "the values are right, the dtype is not float32.",
        lambda data: _decode(data).astype(np.float64),
    ),
    Mistake(
        "one number for two",
        "two bytes are one number, and you made one of four. How wide is what you read first?",
        lambda data: np.frombuffer(data[: len(data) // 4 * 4], "<f4").copy(),
    ),
)


# --- 3: count ---


def _count(config: QwenConfig) -> int:
    return config.num_parameters


def _off(term: Callable[[QwenConfig], int]) -> Callable[[QwenConfig], int]:
    """Return the count that is off by a term: more where it is positive, less where negative."""
    return lambda config: config.num_parameters + term(config)


def _bias(c: QwenConfig) -> int:
    return (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim


def _embedding(c: QwenConfig) -> int:
    return c.vocab_size * c.hidden_size


def _mlp(c: QwenConfig) -> int:
    return c.hidden_size * c.intermediate_size


COUNT_MISTAKES = (
    Mistake(
        "no last norm",
        "the norm after the last layer is missing.",
        _off(lambda c: -c.hidden_size),
    ),
    Mistake(
        "no layer norms",
        "the two norms of each layer are missing.",
        _off(lambda c: -2 * c.num_hidden_layers * c.hidden_size),
    ),
    Mistake(
        "one layer norm",
        "each layer has two norms, one before attention and one before the MLP.",
        _off(lambda c: -c.num_hidden_layers * c.hidden_size),
    ),
    Mistake(
        "no norms",
        "all norms are missing.",
        _off(lambda c: -(2 * c.num_hidden_layers + 1) * c.hidden_size),
    ),
    Mistake(
        "no biases",
        "the biases of q, k and v are missing.",
        _off(lambda c: -c.num_hidden_layers * _bias(c)),
    ),
    Mistake(
        "a bias on o",
        "o has no bias, and you count one. Only q, k and v have them.",
        _off(lambda c: c.num_hidden_layers * c.hidden_size),
    ),
    Mistake(
        "tied head counted twice",
        "a tied head is the embedding; you count it twice.",
        _off(lambda c: _embedding(c) * c.tie_word_embeddings),
    ),
    Mistake(
        "untied head missing",
        "an untied head has a matrix of its own.",
        _off(lambda c: -_embedding(c) * (not c.tie_word_embeddings)),
    ),
    Mistake(
        "KV is H",
        "k and v have KV heads, not H.",
        lambda c: replace(c, num_key_value_heads=c.num_attention_heads).num_parameters,
    ),
    Mistake(
        "D is C / H",
        "D is not always C / H. Use c.head_dim.",
        lambda c: replace(c, head_dim=c.hidden_size // c.num_attention_heads).num_parameters,
    ),
    Mistake(
        "two MLP matrices",
        "the MLP has three matrices: gate, up and down.",
        _off(lambda c: -c.num_hidden_layers * _mlp(c)),
    ),
    Mistake(
        "one layer",
        "you count one layer. Which terms stand once in each of them?",
        lambda c: replace(c, num_hidden_layers=1).num_parameters,
    ),
    Mistake(
        "no embedding",
        "the embedding is missing: a row for each token of the vocabulary.",
        _off(lambda c: -_embedding(c)),
    ),
)
