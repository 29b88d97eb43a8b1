"""Attention of one query: its scores with the keys of a page, and the weighted sum of the values.

A head's vector has 32 to 128 numbers, two to eight registers. A loop over so few of them that the
compiler makes, for any number of them, takes longer to begin and to end than to multiply. And a sum
that goes through memory for each key waits for memory each time. So the loops here count registers,
and their sums stay in them.

numba has no word for this. So each function here makes the compiler's vectors itself. In Python it
does the same with NumPy. Vectors are a multiple of LANES long, or of TOGETHER for `add_weighted`.
"""

from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from qwenkit.fast.intrinsics import (
    FLOATS,
    LANES,
    ZEROS,
    counted,
    element,
    floats,
    fused,
    splat,
    upcast,
)

_SUMS = 2  # vectors that are added up at once, of each of two keys
TOGETHER = _SUMS * LANES


@no_type_check
def dot(q, keys, at, dim):
    """Return the sum of q[i] × keys[at + i] for i < dim.

    Args:
        q: float32.
        keys: one vector after the other: float32, or bfloat16 as uint16.
        at: where the vector begins.
        dim: a multiple of LANES.
    """
    return np.float32(q[:dim] @ floats(keys[at : at + dim]))


@no_type_check
def add_weighted(weights, count, values, dim, z):
    """Add the sum of weights[s] × values[s dim + i] for s < count to each z[i].

    Args:
        weights: float32.
        count: how many of them count, at least 1.
        values: one vector after the other: float32, or bfloat16 as uint16.
        dim: of each of them, a multiple of TOGETHER.
        z: (dim) float32.
    """
    z += weights[:count] @ floats(values[: count * dim]).reshape(count, dim)


# --- the same as the compiler's vectors ---


@no_type_check
def _read(builder, pointer):
    """Read LANES numbers as float32."""
    vector = ir.VectorType(pointer.type.pointee, LANES)
    return upcast(builder, builder.load(builder.bitcast(pointer, vector.as_pointer()), align=2))


@intrinsic
@no_type_check
def _dot(typing, q, keys, at, dim):
    def generate(context, builder, signature, given):
        kinds, (q, keys, at, dim) = signature.args, given
        a = element(context, builder, kinds[0], q, at.type(0))
        b = element(context, builder, kinds[1], keys, at)

        def body(i, sums):
            return [fused(builder, sums[0], *(_read(builder, builder.gep(x, [i])) for x in (a, b)))]

        total = counted(builder, dim, LANES, [ZEROS], body)[0]
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), FLOATS])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zero = ir.Constant(ir.FloatType(), 0.0)
        return builder.call(function, [zero, total], fastmath=["reassoc"])

    index = types.int64
    return types.float32(q, keys, index, index), generate


@intrinsic
@no_type_check
def _add_weighted(typing, weights, count, values, dim, z):
    def generate(context, builder, signature, given):
        kinds, (_, count, _, dim, _) = signature.args, given
        index = count.type
        weight, value, out = (
            element(context, builder, kinds[n], given[n], index(0)) for n in (0, 2, 4)
        )
        last = builder.sub(count, index(1))

        def columns(i, _):
            """Add up some registers of each vector, of two keys at once."""

            def keys(s, sums):
                new = []
                for n in range(2):  # a second key that is not there counts zero times
                    key = builder.add(s, index(n))
                    there = builder.icmp_signed("<=", key, last)
                    key = builder.select(there, key, last)
                    one = builder.load(builder.gep(weight, [key]))
                    one = builder.select(there, one, ir.Constant(ir.FloatType(), 0.0))
                    start = builder.add(builder.mul(key, dim), i)
                    for v in range(_SUMS):
                        where = builder.gep(value, [builder.add(start, index(v * LANES))])
                        total, own = sums[n * _SUMS + v], _read(builder, where)
                        new.append(fused(builder, total, splat(builder, one), own))
                return new

            sums = counted(builder, count, 2, [ZEROS] * (2 * _SUMS), keys)
            for v in range(_SUMS):
                where = builder.gep(out, [builder.add(i, index(v * LANES))])
                where = builder.bitcast(where, FLOATS.as_pointer())
                total = builder.fadd(sums[v], sums[_SUMS + v])
                total = builder.fadd(builder.load(where, align=4), total)
                builder.store(total, where, align=4)
            return []

        counted(builder, dim, TOGETHER, [], columns)
        return context.get_dummy_value()

    index = types.int64
    return types.void(weights, index, values, index, z), generate


@overload(dot)
@no_type_check
def _compiled_dot(q, keys, at, dim):
    return lambda q, keys, at, dim: _dot(q, keys, at, dim)


@overload(add_weighted)
@no_type_check
def _compiled_add_weighted(weights, count, values, dim, z):
    return lambda weights, count, values, dim, z: _add_weighted(weights, count, values, dim, z)
