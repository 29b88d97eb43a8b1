"""A decoder layer for one token, in plain loops: no tensor library, every number in the open.

It computes what `DecoderLayer` does, for a single new token behind a cache, and is compiled.
Between two of its products lie a few thousand additions and multiplications. Handed to a tensor
library one by one, some fifty calls a layer, they take a good part of the time: each call finds its
code and its tables pushed out of the processor's cache by the weights that went through.

Everything is added up in float32. x is the residual stream, a vector of C numbers.
"""

from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from qwenkit.model.few_rows import OPTIONS, as_float, compiled, parallel_loop

EXACT = {"fastmath": OPTIONS["fastmath"]}


class Product(NamedTuple):
    """A product's numbers: bfloat16 as uint16, and length 0 for what it has not."""

    weight: NDArray[Any]  # (O, I)
    scale: NDArray[Any]  # (O) of an int8 weight's rows
    bias: NDArray[Any]  # (O)


class Layer(NamedTuple):
    """A decoder layer's numbers, under the names of its modules."""

    input_layernorm: NDArray[Any]  # (C)
    q_proj: Product
    k_proj: Product
    v_proj: Product
    o_proj: Product
    post_attention_layernorm: NDArray[Any]  # (C)
    gate_proj: Product
    up_proj: Product
    down_proj: Product


@no_type_check
def as_stored(like, number):
    """Return a float32 as the cache stores it: as it is, or rounded to bfloat16's sixteen bits."""
    if like.dtype != np.uint16:
        return number
    return round_to_bfloat16(number)


@overload(as_stored, inline="always")
@no_type_check
def _as_stored(like, number):
    if like.dtype != numba.uint16:
        return lambda like, number: number
    return lambda like, number: round_to_bfloat16(number)


@numba.njit
@no_type_check
def round_to_bfloat16(number):
    """Round to the nearest number whose lower sixteen bits are zero, half to even."""
    bits = np.float32(number).view(np.uint32)
    if number != number:
        return np.uint16(0x7FC0)  # not a number
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@numba.njit(**EXACT)
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


@numba.njit(**EXACT)
@no_type_check
def product(x, part):
    """Return W x + b.

    Compiled code reads and writes past the end of an array without a word, so it is asked first.
    """
    outer, inner = part.weight.shape
    if inner != len(x):
        raise ValueError("a weight has not as many columns as its input has numbers")
    if len(part.bias) not in (0, outer) or len(part.scale) not in (0, outer):
        raise ValueError("a bias or scale has not as many numbers as its weight has rows")
    y = np.empty((1, outer), np.float32)
    parallel_loop(part.weight, x.reshape(1, -1), y)
    for i in range(len(part.scale)):
        y[0, i] *= as_float(part.scale[i])
    for i in range(len(part.bias)):
        y[0, i] += as_float(part.bias[i])
    return y[0]


@numba.njit(**EXACT)
@no_type_check
def rotate(heads, cos, sin):
    """Turn each pair (i, i + D/2) of every head by its angle, in place."""
    half = heads.shape[1] // 2
    for head in heads:
        for i in range(half):
            a, b = head[i], head[i + half]
            head[i] = a * cos[i] - b * sin[i]
            head[i + half] = b * cos[i + half] + a * sin[i + half]


@numba.njit(parallel=True, **EXACT)
@no_type_check
def attend(q, keys, values, length):
    """Return what each query head (H, D) reads from the first `length` tokens (KV, S, D)."""
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


@no_type_check
def decoder_layer(x, layer, keys, values, length, cos, sin, eps):
    """Add to x, in place, what the layer adds; write the token's key and value to the cache.

    Args:
        x: (C) float32.
        layer: its numbers.
        keys: (KV, S, D) of this layer, float32 or bfloat16 as uint16.
        values: likewise.
        length: tokens in the cache; the new one is written behind them.
        cos: (D) of the new token's position.
        sin: (D).
        eps: of the norms.
    """
    kv_heads, _, dim = keys.shape
    normed = rms_norm(x, layer.input_layernorm, eps)
    q = product(normed, layer.q_proj).reshape(-1, dim)  # (H, D)
    k = product(normed, layer.k_proj).reshape(-1, dim)  # (KV, D)
    v = product(normed, layer.v_proj).reshape(-1, dim)  # (KV, D)
    rotate(q, cos, sin)
    rotate(k, cos, sin)
    for head in range(kv_heads):
        for i in range(dim):
            keys[head, length, i] = as_stored(keys, k[head, i])
            values[head, length, i] = as_stored(values, v[head, i])
    z = attend(q, keys, values, length + 1)  # (H, D)
    x += product(z.reshape(-1), layer.o_proj)

    normed = rms_norm(x, layer.post_attention_layernorm, eps)
    act = product(normed, layer.gate_proj)  # (F)
    up = product(normed, layer.up_proj)  # (F)
    for i in range(len(act)):
        act[i] *= up[i] / (np.float32(1) + np.exp(-act[i]))  # SiLU(gate) × up
    x += product(act, layer.down_proj)


compiled_layer = compiled(decoder_layer, {})
