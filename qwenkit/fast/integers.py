"""Products of integers: a group of 64 int8 or int4 weights with 64 int16 values of a token.

To make a float of each weight takes a processor longer than to multiply it. Integers need no such
step: one instruction multiplies 32 pairs of 16 bits and adds up neighbors, exactly. A group's sum
becomes float32 only then, times the scale of its weights and the step of its token (`prepare` in
`fast.kernels`). It stays in as many lanes as a register has, because to add up the lanes takes as
long as to multiply; that is done once per row.

numba has no word for this. So each function here makes the compiler's vectors itself. In Python it
does the same with NumPy.
"""

from typing import no_type_check

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from qwenkit.fast.intrinsics import (
    FLOATS,
    INT,
    INTS,
    LANES,
    LINE,
    element,
    floats,
    fused,
    splat,
    upcast,
)

GROUP = 64  # weights that share a scale
HALF = GROUP // 2

_WORD = ir.IntType(16)
_WORDS = ir.VectorType(_WORD, HALF)
_HOST = llvmlite.binding.get_host_cpu_features()


@no_type_check
def set_factors(factors, which, scale, at, steps, place, count):
    """Write scale × step of up to LANES groups into factors[which].

    Args:
        factors: (2, LANES) float32 of `on_stack`.
        which: of the two rows.
        scale: of weights, one after the other: float32, or bfloat16 as uint16.
        at: the first group's place there.
        steps: of the token, one after the other: float32.
        place: the first group's place there.
        count: how many groups.
    """
    factors[which, :count] = floats(scale[at : at + count]) * steps[place : place + count]


@no_type_check
def subtract_zeros(sums, factors, which, zero, at, totals, place, count):
    """Subtract factor × zero point × Σ q of up to LANES groups from sums[which].

    Args:
        sums: (2, LANES) float32 of `on_stack`.
        factors: as `set_factors` has written them.
        which: of the two rows.
        zero: of weights, one after the other: uint8.
        at: the first group's place there.
        totals: Σ q of the token, one after the other: float32.
        place: the first group's place there.
        count: how many groups.
    """
    zeros = zero[at : at + count].astype(np.float32)
    sums[which, :count] -= factors[which, :count] * zeros * totals[place : place + count]


@no_type_check
def add_group(sums, which, factor, weight, at, token, place):
    """Add factor × Σ w q of a group to the lanes of sums[which].

    The sum of integers is exact: it stays below 64 × 127 × 32,767 < 2³¹.

    Args:
        sums: (2, LANES) float32 of `on_stack`.
        which: of the two rows.
        factor: float32.
        weight: one after the other: int8, or uint8: 32 bytes whose lower four bits come first.
        at: the group's place there.
        token: int16, one after the other.
        place: the group's place there.
    """
    own = weight[at : at + GROUP]
    if weight.dtype == np.uint8:
        own = np.concatenate([own[:HALF] & 15, own[:HALF] >> 4])
    products = own.astype(np.int32) * token[place : place + GROUP].astype(np.int32)
    sums[which] += factor * products.reshape(-1, LANES).sum(0).astype(np.float32)


# --- the same as the compiler's vectors ---


@no_type_check
def _picked(builder, vector, indices):
    """Return some elements of a vector."""
    chosen = ir.Constant(ir.VectorType(INT, len(indices)), list(indices))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


@no_type_check
def _half(context, builder, kind, array, index):
    """Read HALF values of an array."""
    vector = ir.VectorType(context.get_value_type(kind.dtype), HALF)
    place = element(context, builder, kind, array, index)
    return builder.load(builder.bitcast(place, vector.as_pointer()), align=1)


@no_type_check
def _few(context, builder, kind, array, index, count):
    """Read LANES values of an array of which `count` need exist; the others are zeros."""
    single = context.get_value_type(kind.dtype)
    vector, bits = ir.VectorType(single, LANES), ir.VectorType(ir.IntType(1), LANES)
    counts = splat(builder, builder.trunc(count, INT))
    mask = builder.icmp_unsigned("<", ir.Constant(INTS, list(range(LANES))), counts)
    place = element(context, builder, kind, array, index)
    pointer = vector.as_pointer()
    function = ir.FunctionType(vector, [pointer, INT, bits, vector])
    short = f"v{LANES}" + ("f32" if single == ir.FloatType() else f"i{single.width}")
    read = cgutils.get_or_insert_function(builder.module, function, f"llvm.masked.load.{short}.p0")
    given = builder.bitcast(place, pointer), INT(1), mask, ir.Constant(vector, [0] * LANES)
    return builder.call(read, given)


@no_type_check
def _row(context, builder, kind, array, which):
    """Return the pointer to a row of what `on_stack` gave."""
    data = context.make_array(kind)(context, builder, array).data
    start = builder.mul(which, ir.Constant(which.type, LANES))
    return builder.bitcast(builder.gep(data, [start]), FLOATS.as_pointer())


@no_type_check
def _pairs(builder, a, b):
    """Multiply 32 pairs of int16, and add up neighbors: 16 int32."""
    if _HOST.get("avx512bw"):
        return _by_name(builder, "llvm.x86.avx512.pmaddw.d.512", INTS, a, b)
    if _HOST.get("avx2"):
        few = ir.VectorType(INT, LANES // 2)
        halves = (
            [_picked(builder, one, range(start, start + LANES)) for one in (a, b)]
            for start in (0, LANES)
        )
        low, high = (_by_name(builder, "llvm.x86.avx2.pmadd.wd", few, *half) for half in halves)
        return builder.shuffle_vector(low, high, ir.Constant(INTS, list(range(LANES))))
    products = (
        builder.mul(*(builder.sext(_picked(builder, one, every), INTS) for one in (a, b)))
        for every in (range(0, HALF, 2), range(1, HALF, 2))
    )
    return builder.add(*products)


@no_type_check
def _by_name(builder, name, kind, a, b):
    """Call an instruction of the processor."""
    function = ir.FunctionType(kind, [a.type, b.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [a, b])


@no_type_check
def _int8_words(context, builder, kind, weight, at):
    """Read 64 int8 as two times 32 int16."""
    for start in (at, builder.add(at, ir.Constant(at.type, HALF))):
        yield builder.sext(_half(context, builder, kind, weight, start), _WORDS)


@no_type_check
def _int4_words(context, builder, kind, weight, at):
    """Read 32 bytes as two times 32 int16: their lower and their upper four bits."""
    both = builder.zext(_half(context, builder, kind, weight, at), _WORDS)
    yield builder.and_(both, ir.Constant(_WORDS, [15] * HALF))
    yield builder.lshr(both, ir.Constant(_WORDS, [4] * HALF))


@intrinsic
@no_type_check
def _add_group(typing, sums, which, factor, weight, at, token, place):
    words = _int8_words if weight.dtype == types.int8 else _int4_words

    def generate(context, builder, signature, given):
        kinds, (sums, which, factor, weight, at, token, place) = signature.args, given
        further = builder.add(place, ir.Constant(place.type, HALF))
        values = [_half(context, builder, kinds[5], token, start) for start in (place, further)]
        weights = words(context, builder, kinds[3], weight, at)
        pairs = (_pairs(builder, *both) for both in zip(weights, values, strict=True))
        total = builder.sitofp(builder.add(*pairs), FLOATS)
        row = _row(context, builder, kinds[0], sums, which)
        before = builder.load(row, align=LINE)
        more = fused(builder, before, total, splat(builder, factor))
        builder.store(more, row, align=LINE)
        return context.get_dummy_value()

    given = sums, types.int64, types.float32, weight, types.int64, token, types.int64
    return types.void(*given), generate


@intrinsic
@no_type_check
def _set_factors(typing, factors, which, scale, at, steps, place, count):
    def generate(context, builder, signature, given):
        kinds, (factors, which, scale, at, steps, place, count) = signature.args, given
        own = upcast(builder, _few(context, builder, kinds[2], scale, at, count))
        own = builder.fmul(own, _few(context, builder, kinds[4], steps, place, count))
        builder.store(own, _row(context, builder, kinds[0], factors, which), align=LINE)
        return context.get_dummy_value()

    given = factors, types.int64, scale, types.int64, steps, types.int64, types.int64
    return types.void(*given), generate


@intrinsic
@no_type_check
def _subtract_zeros(typing, sums, factors, which, zero, at, totals, place, count):
    def generate(context, builder, signature, given):
        kinds, (sums, factors, which, zero, at, totals, place, count) = signature.args, given
        own = builder.load(_row(context, builder, kinds[1], factors, which), align=LINE)
        zeros = builder.uitofp(_few(context, builder, kinds[3], zero, at, count), FLOATS)
        total = _few(context, builder, kinds[5], totals, place, count)
        less = builder.fmul(builder.fmul(own, zeros), total, flags=["contract"])
        row = _row(context, builder, kinds[0], sums, which)
        rest = builder.fsub(builder.load(row, align=LINE), less, flags=["contract"])
        builder.store(rest, row, align=LINE)
        return context.get_dummy_value()

    index = types.int64
    given = sums, factors, index, zero, index, totals, index, index
    return types.void(*given), generate


@overload(add_group)
@no_type_check
def _compiled_add_group(sums, which, factor, weight, at, token, place):
    return lambda sums, which, factor, weight, at, token, place: _add_group(
        sums, which, factor, weight, at, token, place
    )


@overload(set_factors)
@no_type_check
def _compiled_set_factors(factors, which, scale, at, steps, place, count):
    return lambda factors, which, scale, at, steps, place, count: _set_factors(
        factors, which, scale, at, steps, place, count
    )


@overload(subtract_zeros)
@no_type_check
def _compiled_subtract_zeros(sums, factors, which, zero, at, totals, place, count):
    return lambda sums, factors, which, zero, at, totals, place, count: _subtract_zeros(
        sums, factors, which, zero, at, totals, place, count
    )
