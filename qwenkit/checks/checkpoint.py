"""The checks of notebook 01, checkpoint: bfloat16 by its bits, whole files, a parameter count."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np

from qwenkit.checks._checkpoint_tensors import (
    TENSOR_MISTAKES,
    Array,
    read_tensors,
    refusals,
    tensor_cases,
)
from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._samples import HALF_B
from qwenkit.config import QwenConfig

EXERCISES = {
    "01.1": "decode bfloat16",
    "01.2": "a reader of whole files",
    "01.3": "count any size",
}
_GIVEN = ("num_parameters", "tensor_shapes")  # 01.3: by your own formula


def decode(learner: Callable[..., Array]) -> Verdict:
    """Check `learner(data)`: the float32 array of little-endian bfloat16 bytes."""
    cases = [
        Case("1, -2.5, 0.15625 and 384", (_bytes(1.0, -2.5, 0.15625, 384.0),)),
        Case("one number", (_bytes(-3.0),)),
        Case("very large and very small numbers", (_bytes(2.0**100, -(2.0**-120), 0.0),)),
        Case("a thousand numbers", (_bytes(*np.linspace(-2, 2, 1000)),)),
    ]
    praise = "bfloat16 is the upper half of a float32, so no bit is lost."
    return judge("01.1", _owned(learner), _decode, cases, _DECODE_MISTAKES, praise, tolerance=0.0)


def tensors(learner: Callable[..., dict[str, Array]]) -> Verdict:
    """Check `learner(path)`: name -> float32 array; a damaged file raises ValueError."""
    praise = "you can read the weights of any model, and you notice a damaged file."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases = tensor_cases(folder)
        known = [replace(one, function=refusals(one.function)) for one in TENSOR_MISTAKES]
        right = refusals(read_tensors)
        return judge("01.2", refusals(learner), right, cases, known, praise, tolerance=0.0)


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
