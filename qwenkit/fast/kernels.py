"""Compiled kernels: a weight times a few vectors, and a whole decoder layer for one new token.

To decode a token, each weight is read once and used once. The processor could multiply far more
than it gets, so memory sets the pace, and the kernels are about asking for memory well:

- Weights are read where the model holds them, as they are stored: four bytes, two, one or a half.
  They become float32 on arrival, and everything is added up in float32.
- Four rows of a weight are read at once, each a quarter of the weight further on. Hardware fetches
  ahead of code that walks through memory in order; four such walks keep four times the requests
  under way. Four rows that follow one another would be one walk.
- All cores share the rows.
- Between two products of a layer lie a few thousand additions and multiplications. Handed to a
  tensor library one by one, some fifty calls per layer, they take a good part of the time. Here
  they are plain loops.

Numba compiles a function at its first call, once per dtype, and keeps the result on disk. Each
kernel's Python function remains as `kernel.py_func`: slow, and the same numbers. All of them stand
in one file because numba compiles again when the file of a function changes, not when another does.
"""

import contextlib
import time
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from numba.core import event
from numba.extending import overload
from numpy.typing import NDArray

from qwenkit import progress
from qwenkit.progress import stage

WALKS = 4  # rows of a weight that are read at once
USUAL = 32  # bytes of an int4 group of 64
LOW_BITS = np.int32(15)  # four of a byte
SOON = 10.0  # seconds between kernels that are compiled in a row

# A sum may be added up in another order, several terms at once; nothing else is given up.
_OPTIONS = {"fastmath": {"reassoc", "contract", "nsz"}}


@no_type_check
def _compiled(**options):
    """Compile at the first call, and keep the result on disk if a folder there can be written."""

    def decorate(function):
        try:
            return numba.njit(cache=True, **_OPTIONS, **options)(function)
        except RuntimeError:  # no such folder: compiled again in each process
            return numba.njit(**_OPTIONS, **options)(function)

    return decorate


class _Announced(event.Listener):  # type: ignore[misc]
    """Says that kernels are being compiled, which takes some seconds once per dtype."""

    def __init__(self) -> None:
        self._open: list[Any] = []  # a kernel compiles those that it calls
        self._begun = self._said = -SOON

    def on_start(self, happening: Any) -> None:
        """Open a stage for the outermost kernel; one said moments ago holds for the next, too."""
        now = time.monotonic()
        self._begun = self._begun if self._open else now
        silent = self._open or now < self._said + SOON
        words = "Compiling the kernels, once per dtype on this machine"
        self._open.append(contextlib.nullcontext() if silent else stage(words))
        self._open[-1].__enter__()

    def on_end(self, happening: Any) -> None:
        """Close it."""
        self._open.pop().__exit__(None, None, None)
        now = time.monotonic()
        if not self._open and now >= self._begun + progress.DELAY:
            self._said = now


event.register("numba:compile", _Announced())


class Projection(NamedTuple):
    """The memory of a linear layer, bfloat16 as uint16."""

    weight: NDArray[Any]  # (out_features, in_features)
    bias: NDArray[Any]  # (out_features), or of length 0


class Int8Projection(NamedTuple):
    """The memory of an int8 linear layer."""

    weight: NDArray[Any]  # (out_features, in_features) int8
    scale: NDArray[Any]  # (out_features, groups)
    bias: NDArray[Any]  # (out_features), or of length 0


class Int4Projection(NamedTuple):
    """The memory of an int4 linear layer."""

    weight: NDArray[Any]  # (out_features, in_features / 2) uint8
    scale: NDArray[Any]  # (out_features, groups)
    zero: NDArray[Any]  # (out_features, groups) uint8
    bias: NDArray[Any]  # (out_features), or of length 0


AnyProjection = Projection | Int8Projection | Int4Projection


class Layer(NamedTuple):
    """The memory of a decoder layer, under the names of its modules."""

    input_layernorm: NDArray[Any]  # (C)
    q_proj: AnyProjection
    k_proj: AnyProjection
    v_proj: AnyProjection
    o_proj: AnyProjection
    post_attention_layernorm: NDArray[Any]  # (C)
    gate_proj: AnyProjection
    up_proj: AnyProjection
    down_proj: AnyProjection


@no_type_check
def as_float(stored):
    """Return a stored number as float32: it is one, or a bfloat16's sixteen bits.

    bfloat16 is the upper half of a float32: sixteen zeros after it make it one.
    """
    if stored.dtype != np.uint16:
        return np.float32(stored)
    return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


@overload(as_float, inline="always")
@no_type_check
def _as_float(stored):
    """Tell numba the same, for the dtype that it compiles for."""
    if stored != numba.uint16:
        return lambda stored: np.float32(stored)
    return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


@no_type_check
def as_stored(like, number):
    """Return a float32 as the cache stores it: unchanged, or rounded to bfloat16's sixteen bits."""
    return number if like.dtype != np.uint16 else round_to_bfloat16(number)


@overload(as_stored, inline="always")
@no_type_check
def _as_stored(like, number):
    if like.dtype != numba.uint16:
        return lambda like, number: number
    return lambda like, number: round_to_bfloat16(number)


@numba.njit
@no_type_check
def round_to_bfloat16(number):
    """Round to the nearest number whose lower sixteen bits are zero, ties to even."""
    bits = np.float32(number).view(np.uint32)
    if number != number:
        return np.uint16(0x7FC0)  # not a number
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@_compiled(parallel=True)
@no_type_check
def skinny_matmul(weight, x, y):
    """Write x weightᵀ into y, for a few tokens; with one token it is known as GEMV.

    Args:
        weight: (out_features, in_features) float32, or bfloat16 as uint16.
        x: (tokens, in_features) float32.
        y: (tokens, out_features) float32.
    """
    out_features, in_features = weight.shape
    quarter = out_features // WALKS
    for row in numba.prange(quarter):
        for n in range(len(x)):
            a = b = c = d = np.float32(0)
            for i in range(in_features):
                a += as_float(weight[row, i]) * x[n, i]
                b += as_float(weight[row + quarter, i]) * x[n, i]
                c += as_float(weight[row + 2 * quarter, i]) * x[n, i]
                d += as_float(weight[row + 3 * quarter, i]) * x[n, i]
            y[n, row], y[n, row + quarter] = a, b
            y[n, row + 2 * quarter], y[n, row + 3 * quarter] = c, d
    for row in range(WALKS * quarter, out_features):  # the rest, where 4 does not divide
        for n in range(len(x)):
            a = np.float32(0)
            for i in range(in_features):
                a += as_float(weight[row, i]) * x[n, i]
            y[n, row] = a


@_compiled(parallel=True)
@no_type_check
def int8_matmul(weight, scale, x, y):
    """Write x Wᵀ into y, for a few tokens, where W = weight × scale: one scale per group of a row.

    Args:
        weight: (out_features, in_features) int8.
        scale: (out_features, groups) float32, or bfloat16 as uint16.
        x: (tokens, in_features) float32.
        y: (tokens, out_features) float32.
    """
    (out_features, groups), width = scale.shape, weight.shape[1] // scale.shape[1]
    quarter = out_features // WALKS
    for row in numba.prange(quarter):
        for n in range(len(x)):
            a = b = c = d = np.float32(0)
            for g in range(groups):
                e = f = h = j = np.float32(0)
                for i in range(g * width, (g + 1) * width):
                    e += np.float32(weight[row, i]) * x[n, i]
                    f += np.float32(weight[row + quarter, i]) * x[n, i]
                    h += np.float32(weight[row + 2 * quarter, i]) * x[n, i]
                    j += np.float32(weight[row + 3 * quarter, i]) * x[n, i]
                a += as_float(scale[row, g]) * e
                b += as_float(scale[row + quarter, g]) * f
                c += as_float(scale[row + 2 * quarter, g]) * h
                d += as_float(scale[row + 3 * quarter, g]) * j
            y[n, row], y[n, row + quarter] = a, b
            y[n, row + 2 * quarter], y[n, row + 3 * quarter] = c, d
    for row in range(WALKS * quarter, out_features):  # the rest, where 4 does not divide
        for n in range(len(x)):
            a = np.float32(0)
            for g in range(groups):
                e = np.float32(0)
                for i in range(g * width, (g + 1) * width):
                    e += np.float32(weight[row, i]) * x[n, i]
                a += as_float(scale[row, g]) * e
            y[n, row] = a


@_compiled(parallel=True)
@no_type_check
def int4_matmul(packed, scale, zero, x, y):
    """Write x Wᵀ into y, for a few tokens, where W = (q - zero) × scale.

    Of a group, only Σ q x is a sum over the weights: Σ (q - zero) x = Σ q x - zero Σ x. And a byte
    is low + 16 high, so that low a + high b = low (a - b/16) + byte b/16: with x prepared for that,
    once for all rows, the upper four bits need not be shifted down.

    Args:
        packed: (out_features, in_features / 2) uint8; byte i of a group holds its values i and
            i + group / 2.
        scale: (out_features, groups) float32, or bfloat16 as uint16.
        zero: (out_features, groups) uint8.
        x: (tokens, in_features) float32.
        y: (tokens, out_features) float32.
    """
    (out_features, groups), half = scale.shape, packed.shape[1] // scale.shape[1]
    low, high, sums = in_halves(x, groups, half)
    quarter = out_features // WALKS if half == USUAL else 0
    for row in numba.prange(quarter):
        for n in range(len(x)):
            a = b = c = d = np.float32(0)
            for g in range(groups):
                start = g * USUAL
                e = f = h = j = np.float32(0)
                for i in range(USUAL):  # a length that the compiler knows: it unrolls the loop
                    # 32 bits, as many as a float has, so that eight are converted at once
                    w = np.int32(packed[row, start + i])
                    e += np.float32(w & LOW_BITS) * low[n, g, i] + np.float32(w) * high[n, g, i]
                    w = np.int32(packed[row + quarter, start + i])
                    f += np.float32(w & LOW_BITS) * low[n, g, i] + np.float32(w) * high[n, g, i]
                    w = np.int32(packed[row + 2 * quarter, start + i])
                    h += np.float32(w & LOW_BITS) * low[n, g, i] + np.float32(w) * high[n, g, i]
                    w = np.int32(packed[row + 3 * quarter, start + i])
                    j += np.float32(w & LOW_BITS) * low[n, g, i] + np.float32(w) * high[n, g, i]
                total = sums[n, g]
                a += as_float(scale[row, g]) * (e - np.float32(zero[row, g]) * total)
                b += as_float(scale[row + quarter, g]) * (
                    f - np.float32(zero[row + quarter, g]) * total
                )
                c += as_float(scale[row + 2 * quarter, g]) * (
                    h - np.float32(zero[row + 2 * quarter, g]) * total
                )
                d += as_float(scale[row + 3 * quarter, g]) * (
                    j - np.float32(zero[row + 3 * quarter, g]) * total
                )
            y[n, row], y[n, row + quarter] = a, b
            y[n, row + 2 * quarter], y[n, row + 3 * quarter] = c, d
    for row in numba.prange(WALKS * quarter, out_features):  # the rest, and groups of other sizes
        for n in range(len(x)):
            a = np.float32(0)
            for g in range(groups):
                e = np.float32(0)
                for i in range(half):
                    w = np.int32(packed[row, g * half + i])
                    e += np.float32(w & LOW_BITS) * low[n, g, i] + np.float32(w) * high[n, g, i]
                a += as_float(scale[row, g]) * (e - np.float32(zero[row, g]) * sums[n, g])
            y[n, row] = a


@_compiled()
@no_type_check
def in_halves(x, groups, half):
    """Return x as `int4_matmul` multiplies it: two factors per byte, and the sum of each group."""
    low = np.empty((len(x), groups, half), np.float32)
    high, sums = np.empty_like(low), np.zeros((len(x), groups), np.float32)
    for n in range(len(x)):
        for g in range(groups):
            start = 2 * g * half
            for i in range(half):
                first, second = x[n, start + i], x[n, start + half + i]
                sums[n, g] += first + second
                high[n, g, i] = second / np.float32(16)
                low[n, g, i] = first - high[n, g, i]
    return low, high, sums


@_compiled()
@no_type_check
def rms_norm(x, weight, eps):
    """Return x / sqrt(mean(x²) + eps) × weight."""
    squares = np.float32(0)
    for i in range(len(x)):
        squares += x[i] * x[i]
    scale = np.float32(1) / np.sqrt(squares / np.float32(len(x)) + np.float32(eps))
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = x[i] * scale * as_float(weight[i])
    return out


@no_type_check
def project(x, part):
    """Return W x + b."""
    kinds = {Int8Projection: project_int8, Int4Projection: project_int4}
    return kinds.get(type(part), project_floats)(x, part)


@overload(project, inline="always")
@no_type_check
def _project(x, part):
    if part.instance_class is Int8Projection:
        return lambda x, part: project_int8(x, part)
    if part.instance_class is Int4Projection:
        return lambda x, part: project_int4(x, part)
    return lambda x, part: project_floats(x, part)


@_compiled()
@no_type_check
def project_floats(x, part):
    """Return W x + b of a `Projection`.

    Compiled code reads and writes past the end of an array without an error, so it asks first.
    """
    if part.weight.shape[1] != len(x):
        raise ValueError("a weight's in_features differ from the length of its input")
    y = np.empty((1, len(part.weight)), np.float32)
    skinny_matmul(part.weight, x.reshape(1, -1), y)
    return with_bias(y[0], part.bias)


@_compiled()
@no_type_check
def project_int8(x, part):
    """Return W x + b of an `Int8Projection`."""
    out_features, groups = part.scale.shape
    if part.weight.shape[1] != len(x) or groups == 0 or len(x) % groups:
        raise ValueError("a weight's in_features differ from the length of its input")
    if len(part.weight) != out_features:
        raise ValueError("the shape of a scale differs from its weight's")
    y = np.empty((1, out_features), np.float32)
    int8_matmul(part.weight, part.scale, x.reshape(1, -1), y)
    return with_bias(y[0], part.bias)


@_compiled()
@no_type_check
def project_int4(x, part):
    """Return W x + b of an `Int4Projection`."""
    out_features, groups = part.scale.shape
    width = part.weight.shape[1]
    if 2 * width != len(x) or groups == 0 or width % groups:
        raise ValueError("a weight's in_features differ from the length of its input")
    if len(part.weight) != out_features or part.zero.shape != part.scale.shape:
        raise ValueError("the shape of a scale or zero differs from its weight's")
    y = np.empty((1, out_features), np.float32)
    int4_matmul(part.weight, part.scale, part.zero, x.reshape(1, -1), y)
    return with_bias(y[0], part.bias)


@_compiled()
@no_type_check
def with_bias(y, bias):
    """Add a bias to y, in place, if it is not of length 0."""
    if len(bias) not in (0, len(y)):
        raise ValueError("the length of a bias differs from its weight's out_features")
    for i in range(len(bias)):
        y[i] += as_float(bias[i])
    return y


@_compiled()
@no_type_check
def rotate(heads, cos, sin):
    """Rotate each pair (i, i + D/2) of every head by its angle, in place."""
    half = heads.shape[1] // 2
    for head in heads:
        for i in range(half):
            a, b = head[i], head[i + half]
            head[i] = a * cos[i] - b * sin[i]
            head[i + half] = b * cos[i + half] + a * sin[i + half]


@_compiled(parallel=True)
@no_type_check
def attend(q, keys, values, length):
    """Return each query head's (H, D) weighted sum of the first `length` values."""
    heads, dim = q.shape
    groups = heads // len(keys)
    z = np.zeros_like(q)
    for h in numba.prange(heads):
        scores = np.empty(length, np.float32)
        for s in range(length):
            score = np.float32(0)
            for i in range(dim):
                score += q[h, i] * as_float(keys[h // groups, s, i])
            scores[s] = score / np.sqrt(np.float32(dim))
        top, total = scores.max(), np.float32(0)
        for s in range(length):
            weight = np.exp(scores[s] - top)
            total += weight
            for i in range(dim):
                z[h, i] += weight * as_float(values[h // groups, s, i])
        for i in range(dim):
            z[h, i] /= total
    return z


@_compiled()
@no_type_check
def decoder_layer(x, layer, keys, values, length, cos, sin, eps):
    """Add to x, in place, what a layer adds; write the token's key and value to the cache.

    Args:
        x: (C) float32, the residual stream.
        layer: its memory, a `Layer`.
        keys: (KV, S, D) of this layer, float32, or bfloat16 as uint16.
        values: the same.
        length: tokens in the cache; the new one is written after them.
        cos: (D) of the new token's position.
        sin: (D).
        eps: of the first and the second norm.
    """
    kv_heads, _, dim = keys.shape
    normed = rms_norm(x, layer.input_layernorm, eps[0])
    q = project(normed, layer.q_proj).reshape(-1, dim)  # (H, D)
    k = project(normed, layer.k_proj).reshape(-1, dim)  # (KV, D)
    v = project(normed, layer.v_proj).reshape(-1, dim)  # (KV, D)
    rotate(q, cos, sin)
    rotate(k, cos, sin)
    for head in range(kv_heads):
        for i in range(dim):
            keys[head, length, i] = as_stored(keys, k[head, i])
            values[head, length, i] = as_stored(values, v[head, i])
    z = attend(q, keys, values, length + 1)  # (H, D)
    x += project(z.reshape(-1), layer.o_proj)

    normed = rms_norm(x, layer.post_attention_layernorm, eps[1])
    act = project(normed, layer.gate_proj)  # (F)
    up = project(normed, layer.up_proj)  # (F)
    for i in range(len(act)):
        act[i] *= up[i] / (np.float32(1) + np.exp(-act[i]))  # SiLU(gate) × up
    x += project(act, layer.down_proj)
