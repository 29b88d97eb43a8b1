"""Attention of some query heads: their scores with keys, and the weighted sums of values.

Query heads that share their keys and values (GQA) are taken together, QUERIES of them: each key is
read once and multiplied by all. A head's vector has 32 to 128 numbers, two to eight registers. To
add up the numbers of one register takes longer than to multiply two. So the products of QUERIES
heads with KEYS keys stay in as many registers, which are then added up together: in each step
halves of two registers become one.

numba has no word for this. So each function here makes the compiler's vectors itself. In Python it
does the same with NumPy. Vectors are a multiple of TOGETHER long.
"""

from typing import no_type_check

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
    LN_2,
    LOG2_E,
    TAYLOR,
    WIDE,
    ZEROS,
    counted,
    element,
    floats,
    fused,
    least,
    splat,
    upcast,
)

QUERIES = KEYS = 4 if WIDE else 2  # with more, sums leave the registers
_SUMS = 2  # vectors of a head that are added up at once
TOGETHER = _SUMS * LANES
LEAST = -87  # below, e^x has no exponent of a float32


@no_type_check
def score_keys(q, last, keys, count, dim, scale, scores, width, place, tops):
    """Write scale × q · k of QUERIES heads with the keys of a page into scores.

    Args:
        q: one head's vector after the other: float32.
        last: the last head; where there are fewer than QUERIES, it stands for the others.
        keys: one vector after the other: float32, or bfloat16 as uint16.
        count: how many of them, at least 1.
        dim: of each vector.
        scale: float32.
        scores: (QUERIES × width) float32, a row for each head; up to KEYS - 1 scores beyond the
            last key become that of the last key.
        width: of a row.
        place: of the first key in each row.
        tops: (QUERIES × KEYS) float32, the largest scores so far. A head's largest is among its
            KEYS; a score that is not a number is left out.
    """
    padded = np.minimum(np.arange(-(-count // KEYS) * KEYS), count - 1)
    own = floats(keys[: count * dim]).reshape(count, dim)[padded]
    heads = q.reshape(-1, dim)[np.minimum(np.arange(QUERIES), last)]
    found = (heads @ own.T * scale).astype(np.float32)
    scores.reshape(QUERIES, width)[:, place : place + len(padded)] = found
    np.fmax(tops, np.fmax.reduce(found.reshape(QUERIES, -1, KEYS), 1).ravel(), out=tops)


@no_type_check
def exp_less(scores, top):
    """Replace each score by e^(score - top), and return the sum of all.

    Args:
        scores: float32, a multiple of LANES of them.
        top: the largest of them: no power is above 1. Those below e^-87 become that.
    """
    scores[:] = np.exp(np.maximum(scores - top, np.float32(LEAST)))
    return scores.sum()


@no_type_check
def add_weighted(weights, width, place, values, count, dim, z):
    """Add the weighted sums of a page's values to the vectors of QUERIES heads.

    Args:
        weights: (QUERIES × width) float32, a row for each head.
        width: of a row.
        place: of the first value's weight in each row.
        values: one vector after the other: float32, or bfloat16 as uint16.
        count: how many of them, at least 1.
        dim: of each vector.
        z: (QUERIES × dim) float32.
    """
    own = weights.reshape(QUERIES, width)[:, place : place + count]
    z += (own @ floats(values[: count * dim]).reshape(count, dim)).ravel()


# --- the same as the compiler's vectors ---


@no_type_check
def _read(builder, pointer):
    """Read LANES numbers as float32."""
    vector = ir.VectorType(pointer.type.pointee, LANES)
    return upcast(builder, builder.load(builder.bitcast(pointer, vector.as_pointer()), align=2))


@no_type_check
def _totals(builder, vectors):
    """Add up the lanes of each vector of a power of two; return a vector of their sums."""
    run, size = LANES, LANES  # lanes of a sum, and of a vector
    while run > 1:
        single = len(vectors) == 1
        pairs = [(*vectors, *vectors)] if single else zip(vectors[::2], vectors[1::2], strict=True)
        size, run = size // 2 if single else size, run // 2
        firsts = [at + i for at in range(0, 2 * size, 2 * run) for i in range(run)]
        sides = ([at + further for at in firsts] for further in (0, run))
        first, second = (ir.Constant(ir.VectorType(INT, size), side) for side in sides)
        vectors = [
            builder.fadd(builder.shuffle_vector(a, b, first), builder.shuffle_vector(a, b, second))
            for a, b in pairs
        ]
    return vectors[0]


@intrinsic
@no_type_check
def _score_keys(typing, q, last, keys, count, dim, scale, scores, width, place, tops):
    def generate(context, builder, signature, given):
        kinds, (_, last, _, count, dim, scale, _, width, place, _) = signature.args, given
        number = count.type
        query, key, out = (
            element(context, builder, kinds[n], given[n], number(0)) for n in (0, 2, 6)
        )
        few = ir.VectorType(ir.FloatType(), QUERIES * KEYS)
        top = element(context, builder, kinds[9], given[9], number(0))
        top = builder.bitcast(top, few.as_pointer())

        heads = [
            builder.gep(query, [builder.mul(least(builder, number(n), last), dim)])
            for n in range(QUERIES)
        ]
        final = builder.sub(count, number(1))

        def some_keys(s, before):
            places = (least(builder, builder.add(s, number(n)), final) for n in range(KEYS))
            own = [builder.gep(key, [builder.mul(one, dim)]) for one in places]

            def columns(i, sums):
                a, b = (
                    [_read(builder, builder.gep(x, [i])) for x in each] for each in (heads, own)
                )
                pairs = ((one, other) for one in a for other in b)
                return [
                    fused(builder, total, *pair) for total, pair in zip(sums, pairs, strict=True)
                ]

            sums = counted(builder, dim, LANES, [ZEROS] * (QUERIES * KEYS), columns)
            found = builder.fmul(_totals(builder, sums), splat(builder, scale, QUERIES * KEYS))
            for n in range(QUERIES):
                part = ir.Constant(ir.VectorType(INT, KEYS), list(range(n * KEYS, (n + 1) * KEYS)))
                row = builder.add(builder.mul(number(n), width), builder.add(place, s))
                where = builder.gep(out, [row])
                part = builder.shuffle_vector(found, found, part)
                builder.store(part, builder.bitcast(where, part.type.as_pointer()), align=4)
            larger = builder.fcmp_ordered(">", found, before[0])
            return [builder.select(larger, found, before[0])]

        highest = counted(builder, count, KEYS, [builder.load(top, align=4)], some_keys)
        builder.store(highest[0], top, align=4)
        return context.get_dummy_value()

    n = types.int64
    return types.void(q, n, keys, n, n, types.float32, scores, n, n, tops), generate


@no_type_check
def _exp(builder, x):
    """Return e^x of each lane, as `exp` of `fast.kernels` does, for x at most 0."""

    def same(number):
        return ir.Constant(FLOATS, [float(number)] * LANES)

    def whole(number):
        return ir.Constant(INTS, [number] * LANES)

    x = builder.select(builder.fcmp_ordered("<", x, same(LEAST)), same(LEAST), x)
    kind = ir.FunctionType(FLOATS, [FLOATS])
    floor = cgutils.get_or_insert_function(builder.module, kind, f"llvm.floor.v{LANES}f32")
    n = builder.call(floor, [fused(builder, same(0.5), x, same(LOG2_E))])
    for step in LN_2:
        x = fused(builder, x, n, same(-step))
    power = same(TAYLOR[0])
    for term in TAYLOR[1:]:
        power = fused(builder, same(term), power, x)
    bits = builder.add(builder.fptosi(n, INTS), whole(127))
    return builder.fmul(power, builder.bitcast(builder.shl(bits, whole(23)), FLOATS))


@intrinsic
@no_type_check
def _exp_less(typing, scores, top):
    def generate(context, builder, signature, given):
        array = context.make_array(signature.args[0])(context, builder, given[0])
        count = builder.extract_value(array.shape, 0)
        tops = splat(builder, given[1])

        def some(i, totals):
            where = builder.bitcast(builder.gep(array.data, [i]), FLOATS.as_pointer())
            own = _exp(builder, builder.fsub(builder.load(where, align=4), tops))
            builder.store(own, where, align=4)
            return [builder.fadd(totals[0], own)]

        totals = counted(builder, count, LANES, [ZEROS], some)
        return builder.extract_element(_totals(builder, totals), INT(0))

    return types.float32(scores, types.float32), generate


@intrinsic
@no_type_check
def _add_weighted(typing, weights, width, place, values, count, dim, z):
    def generate(context, builder, signature, given):
        kinds, (_, width, place, _, count, dim, _) = signature.args, given
        number = count.type
        weight = element(context, builder, kinds[0], given[0], place)
        value, out = (element(context, builder, kinds[n], given[n], number(0)) for n in (3, 6))
        rows = [builder.gep(weight, [builder.mul(number(n), width)]) for n in range(QUERIES)]
        heads = [builder.gep(out, [builder.mul(number(n), dim)]) for n in range(QUERIES)]

        def columns(i, _):
            at = [builder.add(i, number(v * LANES)) for v in range(_SUMS)]

            def key(s, sums):
                start = builder.gep(value, [builder.mul(s, dim)])
                own = [_read(builder, builder.gep(start, [place])) for place in at]
                each = [splat(builder, builder.load(builder.gep(row, [s]))) for row in rows]
                pairs = ((one, other) for one in each for other in own)
                return [
                    fused(builder, total, *pair) for total, pair in zip(sums, pairs, strict=True)
                ]

            places = [builder.gep(head, [place]) for head in heads for place in at]
            places = [builder.bitcast(one, FLOATS.as_pointer()) for one in places]
            before = [builder.load(one, align=4) for one in places]
            for one, total in zip(places, counted(builder, count, 1, before, key), strict=True):
                builder.store(total, one, align=4)
            return []

        counted(builder, dim, TOGETHER, [], columns)
        return context.get_dummy_value()

    n = types.int64
    return types.void(weights, n, n, values, n, n, z), generate


@overload(score_keys)
@no_type_check
def _compiled_score_keys(q, last, keys, count, dim, scale, scores, width, place, tops):
    return lambda q, last, keys, count, dim, scale, scores, width, place, tops: _score_keys(
        q, last, keys, count, dim, scale, scores, width, place, tops
    )


@overload(exp_less)
@no_type_check
def _compiled_exp_less(scores, top):
    return lambda scores, top: _exp_less(scores, top)


@overload(add_weighted)
@no_type_check
def _compiled_add_weighted(weights, width, place, values, count, dim, z):
    return lambda weights, width, place, values, count, dim, z: _add_weighted(
        weights, width, place, values, count, dim, z
    )
