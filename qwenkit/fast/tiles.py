"""A tile of a product: ROWS rows of a weight times WIDTH tokens, all sums in registers.

With one token each weight is used once, so memory sets the pace. With dozens of tokens, arithmetic
does: each weight that was read is used for all of them. A processor multiplies and adds registers
as fast as it loads them. So what is loaded must be used several times. A tile of ROWS × WIDTH sums
stays in registers, and each step of the loop over the columns loads ROWS weights and WIDTH values
for ROWS × WIDTH products (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
multiplication").

The values of one column must be neighbors then. So tokens are rearranged first, WIDTH of them in a
panel (`pack` in `fast.kernels`).

Where the processor has an instruction for it, bfloat16 is multiplied as it is, two neighboring
columns at a time; products and sums are float32.

numba has no word for this. So each function here makes the compiler's vectors itself. In Python it
does the same with NumPy.
"""

from itertools import product
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
    NAN,
    WIDE,
    ask,
    bfloat16s,
    counted,
    element,
    floats,
    fused,
    least,
    splat,
)

_HOST = llvmlite.binding.get_host_cpu_features()
PAIRS = bool(_HOST.get("avx512bf16"))  # whether pairs of bfloat16 are multiplied as they are
ROWS, WIDTH = (8, 2 * LANES) if WIDE else (4, LANES)  # with more, sums leave the registers
HALF = LANES  # tokens of a half tile; without wide registers it is a whole one


@no_type_check
def pack_tokens(given, size, first, last, panel, place, columns):
    """Write the first columns of LANES tokens into a panel.

    Args:
        given: (tokens × size) float32, one token after the other.
        size: of a token.
        first: token.
        last: the last token there is; it stands for those beyond.
        panel: (columns, WIDTH) float32, or (columns / 2, WIDTH, 2) bfloat16 as uint16.
        place: of the first token in the panel.
        columns: how many, a multiple of LANES, or of 2 LANES in pairs.
    """
    together = 2 if panel.dtype == np.uint16 else 1
    rows = given.reshape(-1, size)[np.minimum(np.arange(first, first + LANES), last), :columns]
    rows = bfloat16s(rows) if together == 2 else rows
    own = panel[: columns * WIDTH].reshape(-1, WIDTH, together)
    own[:, place : place + LANES] = rows.reshape(LANES, -1, together).transpose(1, 0, 2)


@no_type_check
def multiply_tile(weight, stride, panel, steps, begin, out, apart, soon, pace):
    """Write the products of ROWS rows of a weight with the tokens of a panel into out.

    Args:
        weight: begins with the first row: float32, or bfloat16 as uint16, taken in pairs.
        stride: how far the next row is.
        panel: of the same dtype: (columns, WIDTH), or (columns / 2, WIDTH, 2) of bfloat16.
        steps: columns, or pairs of them.
        begin: (ROWS) float32 to which the products are added, such as a bias.
        out: begins with the sums of the first token: float32, or bfloat16 as uint16.
        apart: how far those of the next token are.
        soon: what is read next, and is asked for meanwhile.
        pace: how many values of it in each step.
    """
    together = 2 if weight.dtype == np.uint16 else 1
    columns = steps * together
    rows = np.stack([floats(weight[r * stride :][:columns]) for r in range(ROWS)])
    tokens = floats(panel[: columns * WIDTH]).reshape(steps, WIDTH, together)
    sums = tokens.transpose(1, 0, 2).reshape(WIDTH, columns) @ rows.T + begin[:ROWS]
    for t, own in enumerate(sums if out.dtype == np.float32 else bfloat16s(sums)):
        place = out[t * apart : t * apart + ROWS]
        place[:] = own[: len(place)]  # of a half tile, the others may be beyond the end


@no_type_check
def multiply_half_tile(weight, stride, panel, steps, begin, out, apart, soon, pace):
    """Do the same for the first HALF of the tokens alone."""
    out = out[: (HALF - 1) * apart + ROWS]
    multiply_tile(weight, stride, panel, steps, begin, out, apart, soon, pace)


# --- the same as the compiler's vectors ---


class _BFloat(ir.Type):  # type: ignore[misc]
    """The compiler's name for bfloat16."""

    @no_type_check
    def _to_string(self):
        return "bfloat"

    @no_type_check
    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_TWICE = ir.VectorType(_BFloat(), 2 * LANES)


@no_type_check
def _sum(builder, total, w, x):
    """Return total + w x for each lane, where w and x are a float32 or a pair of bfloat16."""
    if w.type == FLOATS:
        return fused(builder, total, w, x)
    kind = ir.FunctionType(FLOATS, [FLOATS, _TWICE, _TWICE])
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [total, *(builder.bitcast(one, _TWICE) for one in (x, w))])


@no_type_check
def _transposed(builder, rows):
    """Return vectors in which the lanes of the same number are neighbors."""
    # All lanes, one after the other, have an index: bits of the row, then bits of the lane. To
    # interleave both halves of the lanes moves the first bit to the end.
    half, parts = len(rows) // 2, (range(LANES // 2), range(LANES // 2, LANES))
    orders = [ir.Constant(INTS, [i + n for i in part for n in (0, LANES)]) for part in parts]
    for _ in range(len(rows).bit_length() - 1):
        both = zip(rows[:half], rows[half:], strict=True)
        rows = [builder.shuffle_vector(a, b, order) for a, b in both for order in orders]
    return rows


@no_type_check
def _store_by_token(builder, rows, out, apart):
    """Store vectors, a lane for each token, so that the sums of a token are neighbors."""
    stored = out.type.pointee
    for place, both in enumerate(_transposed(builder, rows)):
        if stored != ir.FloatType():
            half = builder.lshr(_rounded(builder, both), ir.Constant(INTS, [16] * LANES))
            both = builder.trunc(half, ir.VectorType(stored, LANES))
        for start in range(0, LANES, ROWS):
            own = ir.Constant(ir.VectorType(INT, ROWS), list(range(start, start + ROWS)))
            some = builder.shuffle_vector(both, both, own)
            token = builder.mul(apart, apart.type((place * LANES + start) // ROWS))
            where = builder.bitcast(builder.gep(out, [token]), some.type.as_pointer())
            builder.store(some, where, align=2)


@no_type_check
def _rounded(builder, numbers):
    """Round float32 to bfloat16; return the bits, of which the lower sixteen are anything."""
    bits = builder.bitcast(numbers, INTS)
    odd = builder.lshr(bits, ir.Constant(INTS, [16] * LANES))
    odd = builder.and_(odd, ir.Constant(INTS, [1] * LANES))
    bits = builder.add(builder.add(bits, odd), ir.Constant(INTS, [0x7FFF] * LANES))
    nan = builder.fcmp_unordered("uno", numbers, numbers)
    return builder.select(nan, ir.Constant(INTS, [NAN << 16] * LANES), bits)


@no_type_check
def _pairs(builder, pointer):
    """Read 2 LANES float32 and round them; return integers, each a pair of bfloat16."""
    both = [
        builder.load(builder.bitcast(where, FLOATS.as_pointer()), align=4)
        for where in (pointer, builder.gep(pointer, [ir.IntType(64)(LANES)]))
    ]
    half, upper = ir.Constant(INTS, [16] * LANES), ir.Constant(INTS, [-1 << 16] * LANES)
    rounded = []
    for start in range(2):
        every = ir.Constant(INTS, list(range(start, 2 * LANES, 2)))
        rounded.append(_rounded(builder, builder.shuffle_vector(*both, every)))
    return builder.or_(builder.lshr(rounded[0], half), builder.and_(rounded[1], upper))


@intrinsic
@no_type_check
def _pack_tokens(typing, given, size, first, last, panel, place, columns):
    together = 2 if panel.dtype == types.uint16 else 1

    def generate(context, builder, signature, arguments):
        kinds, (_, size, first, last, _, place, columns) = signature.args, arguments
        number = size.type
        start, out = (element(context, builder, kinds[n], arguments[n], number(0)) for n in (0, 4))
        tokens = []
        for n in range(LANES):
            token = least(builder, builder.add(first, number(n)), last)
            tokens.append(builder.gep(start, [builder.mul(token, size)]))

        def some(i, _):
            """Write LANES columns, or pairs of them."""
            places = [builder.gep(token, [i]) for token in tokens]
            if together == 2:
                rows = [_pairs(builder, where) for where in places]
            else:
                places = [builder.bitcast(where, FLOATS.as_pointer()) for where in places]
                rows = [builder.load(where, align=4) for where in places]
            for n, row in enumerate(_transposed(builder, rows)):
                # of the columns before, of those here, and the tokens before
                at = builder.add(builder.mul(i, number(WIDTH)), number(n * WIDTH * together))
                at = builder.add(at, builder.mul(place, number(together)))
                where = builder.bitcast(builder.gep(out, [at]), row.type.as_pointer())
                builder.store(row, where, align=4)
            return []

        counted(builder, columns, LANES * together, [], some)
        return context.get_dummy_value()

    index = types.int64
    return types.void(given, index, index, index, panel, index, index), generate


@no_type_check
def _multiplying(vectors):
    """Return the intrinsic for so many vectors of LANES tokens of a panel."""

    def multiply(typing, weight, stride, panel, steps, begin, out, apart, soon, pace):
        index = types.int64
        single = INT if weight.dtype == types.uint16 else ir.FloatType()

        def generate(context, builder, signature, given):
            kinds, (_, stride, _, steps, _, _, apart, soon, pace) = signature.args, given

            def place(which, start, kind=None):
                pointer = element(context, builder, kinds[which], given[which], start)
                return builder.bitcast(pointer, kind.as_pointer()) if kind else pointer

            number = steps.type
            rows = [place(0, builder.mul(stride, number(r)), single) for r in range(ROWS)]
            tokens = place(2, number(0), ir.VectorType(single, LANES))
            begun = [splat(builder, builder.load(place(4, number(r)))) for r in range(ROWS)]

            def columns(step, sums):
                ask(context, builder, kinds[7], soon, builder.mul(step, pace))
                first = builder.mul(step, number(WIDTH // LANES))
                places = [builder.add(first, number(v)) for v in range(vectors)]
                values = [builder.load(builder.gep(tokens, [at]), align=4) for at in places]
                weights = [builder.load(builder.gep(row, [step]), align=2) for row in rows]
                pairs = product([splat(builder, weight) for weight in weights], values)
                return [
                    _sum(builder, total, *pair) for total, pair in zip(sums, pairs, strict=True)
                ]

            start = [one for one in begun for _ in range(vectors)]
            sums = counted(builder, steps, 1, start, columns)
            for v in range(vectors):
                token = builder.mul(apart, number(v * LANES))
                _store_by_token(builder, sums[v::vectors], place(5, token), apart)
            return context.get_dummy_value()

        given = weight, index, panel, index, begin, out, index, soon, index
        return types.void(*given), generate

    return intrinsic(multiply)


_tile = _multiplying(WIDTH // LANES)
_half_tile = _multiplying(HALF // LANES)


@overload(pack_tokens)
@no_type_check
def _compiled_pack(given, size, first, last, panel, place, columns):
    return lambda given, size, first, last, panel, place, columns: _pack_tokens(
        given, size, first, last, panel, place, columns
    )


@overload(multiply_tile)
@no_type_check
def _compiled_tile(weight, stride, panel, steps, begin, out, apart, soon, pace):
    return lambda weight, stride, panel, steps, begin, out, apart, soon, pace: _tile(
        weight, stride, panel, steps, begin, out, apart, soon, pace
    )


@overload(multiply_half_tile)
@no_type_check
def _compiled_half_tile(weight, stride, panel, steps, begin, out, apart, soon, pace):
    return lambda weight, stride, panel, steps, begin, out, apart, soon, pace: _half_tile(
        weight, stride, panel, steps, begin, out, apart, soon, pace
    )
