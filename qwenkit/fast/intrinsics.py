"""What kernels ask of the processor and NumPy has no word for.

Atomic reads and writes come in one order that all threads agree on: what a thread wrote before its
atomic write, another one reads after it has read what was written. Each function here is a few
instructions in compiled code. In Python it does the same, as long as one thread runs.
"""

import ctypes
import math
import sys
import time
from typing import no_type_check

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, overload, type_callable
from numba.np.arrayobj import populate_array

_ORDER = "seq_cst"
_ALIGN = 8  # bytes of an int64
LANES = 16  # numbers that a processor adds up at once
LINE = 64  # bytes of a cache line
NAN = 0x7FC0  # not a number, in the sixteen bits of bfloat16
WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
"""Whether a register holds LANES numbers, and there are 32."""

HAS_CLOCKS = sys.platform == "linux"  # whose `clock_gettime` and numbers are meant

TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, -1, -1))  # of e^x
LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum; the first has few bits


@no_type_check
def load(array, index):
    """Return array[index]."""
    return array[index]


@no_type_check
def store(array, index, value):
    """Write array[index] = value."""
    array[index] = value


@no_type_check
def publish(array, index, value):
    """Write array[index] = value: whoever reads it then reads all that was written before.

    Unlike `store`, it does not wait until the others could see it.
    """
    array[index] = value


@no_type_check
def fetch_add(array, index, amount):
    """Add to array[index], and return what it was: no two threads are told the same."""
    before = array[index]
    array[index] = before + amount
    return before


@no_type_check
def clock(number):
    """Return what one of the system's clocks shows, in nanoseconds; -1: there is none.

    Args:
        number: as of `time.clock_gettime_ns`.
    """
    try:
        return time.clock_gettime_ns(int(number))
    except (AttributeError, OSError):
        return -1


@no_type_check
def array_at(address, shape, like):
    """Return the array that lies at an address, with the dtype of another array."""
    size = math.prod(map(int, shape)) * like.itemsize
    held = (ctypes.c_byte * size).from_address(int(address))
    return np.frombuffer(held, like.dtype).reshape(shape)


@no_type_check
def borrowed(array):
    """Return the same array, whose references are not counted; it must not outlive the other.

    Threads that add to the same count for each row would wait for one another.
    """
    return array


@no_type_check
def on_stack():
    """Return (2, LANES) float32 that live as long as the function that asked for them.

    The compiler sees that no other array shares their memory, and keeps them in registers.
    """
    return np.empty((2, LANES), np.float32)


@no_type_check
def prefetch(array, index):
    """Ask memory for array[index], which will be read soon; it need not exist."""


@no_type_check
def floats(stored):
    """Return an array as float32, which it is, or bfloat16 as uint16: the upper half of one."""
    if stored.dtype != np.uint16:
        return stored
    return (stored.astype(np.uint32) << 16).view(np.float32)


@no_type_check
def bfloat16s(numbers):
    """Round float32 to the nearest bfloat16, as uint16; ties to even."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    near = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    return np.where(np.isnan(numbers), NAN, near).astype(np.uint16)


# --- the same as the compiler's vectors ---


@no_type_check
def element(context, builder, kind, array, index):
    """Return the compiler's pointer to array[index]."""
    return cgutils.get_item_pointer(
        context, builder, kind, context.make_array(kind)(context, builder, array), [index]
    )


INT = ir.IntType(32)
INTS = ir.VectorType(INT, LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
ZEROS = ir.Constant(FLOATS, [0.0] * LANES)


@no_type_check
def splat(builder, number, lanes=LANES):
    """Return the compiler's vector of so many times a number."""
    empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    one = builder.insert_element(empty, number, INT(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


@no_type_check
def least(builder, a, b):
    """Return the smaller of two integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


@no_type_check
def fused(builder, total, a, b):
    """Return total + a b for each lane, by one instruction where there is one."""
    more = builder.fmul(a, b, flags=["contract"])
    return builder.fadd(total, more, flags=["contract"])


@no_type_check
def upcast(builder, vector):
    """Return LANES numbers as float32; integers are the sixteen bits of bfloat16."""
    if vector.type == FLOATS:
        return vector
    upper = builder.shl(builder.zext(vector, INTS), ir.Constant(INTS, [16] * LANES))
    return builder.bitcast(upper, FLOATS)


@no_type_check
def counted(builder, until, by, start, body):
    """Loop from 0 in steps, at least once; return what `body` makes of some vectors at last."""
    before, index = builder.block, until.type
    loop, after = (builder.append_basic_block(name) for name in ("loop", "after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    count = builder.phi(index)
    old = [builder.phi(one.type) for one in start]
    new = body(count, old)
    following = builder.add(count, index(by))
    end = builder.block  # an inner loop has others
    count.add_incoming(index(0), before)
    count.add_incoming(following, end)
    for phi, first, last in zip(old, start, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    builder.cbranch(builder.icmp_signed("<", following, until), loop, after)
    builder.position_at_end(after)
    return new


@no_type_check
def ask(context, builder, kind, array, index):
    """Let array[index] be asked for."""
    byte = ir.IntType(8).as_pointer()
    place = element(context, builder, kind, array, index)
    shape = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
    call = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
    read, near, data = (INT(n) for n in (0, 3, 1))  # into the nearest cache
    builder.call(call, [builder.bitcast(place, byte), read, near, data])


@intrinsic
@no_type_check
def _load(typing, array, index):
    def generate(context, builder, signature, given):
        place = element(context, builder, signature.args[0], *given)
        return builder.load_atomic(place, _ORDER, _ALIGN)

    return types.int64(array, types.intp), generate


@no_type_check
def _storing(order):
    """Return the intrinsic that stores in an order."""

    def write(typing, array, index, value):
        def generate(context, builder, signature, given):
            place = element(context, builder, signature.args[0], *given[:2])
            builder.store_atomic(given[2], place, order, _ALIGN)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.int64), generate

    return intrinsic(write)


_store, _publish = _storing(_ORDER), _storing("release")


@intrinsic
@no_type_check
def _fetch_add(typing, array, index, amount):
    def generate(context, builder, signature, given):
        place = element(context, builder, signature.args[0], *given[:2])
        return builder.atomic_rmw("add", place, given[2], _ORDER)

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
@no_type_check
def _prefetch(typing, array, index):
    def generate(context, builder, signature, given):
        ask(context, builder, signature.args[0], *given)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
@no_type_check
def _clock(typing, number):
    def generate(context, builder, signature, given):
        long = ir.IntType(64)
        if not HAS_CLOCKS:
            return long(-1)
        place = cgutils.alloca_once(builder, ir.ArrayType(long, 2))  # seconds, nanoseconds
        kind = ir.FunctionType(INT, [INT, place.type])
        call = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        failed = builder.call(call, [builder.trunc(given[0], INT), place])
        both = builder.load(place)
        seconds, rest = (builder.extract_value(both, n) for n in range(2))
        passed = builder.add(builder.mul(seconds, long(10**9)), rest)
        return builder.select(builder.icmp_signed("==", failed, INT(0)), passed, long(-1))

    return types.int64(types.int64), generate


@overload(clock)
@no_type_check
def _compiled_clock(number):
    return lambda number: _clock(number)


@overload(load)
@no_type_check
def _compiled_load(array, index):
    return lambda array, index: _load(array, index)


@overload(store)
@no_type_check
def _compiled_store(array, index, value):
    return lambda array, index, value: _store(array, index, value)


@overload(publish)
@no_type_check
def _compiled_publish(array, index, value):
    return lambda array, index, value: _publish(array, index, value)


@overload(fetch_add)
@no_type_check
def _compiled_fetch_add(array, index, amount):
    return lambda array, index, amount: _fetch_add(array, index, amount)


@overload(prefetch)
@no_type_check
def _compiled_prefetch(array, index):
    return lambda array, index: _prefetch(array, index)


# --- arrays that own nothing ---

# Where references are not counted (see `_compiled` in `fast.kernels`), no function may return an
# array. So these are none to numba, but operations of its own.


@no_type_check
def _array(context, builder, kind, data, sizes):
    """Return an array of a memory, which is kept by somebody else."""
    index = types.intp
    width = context.get_constant(index, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [width]
    for size in sizes[:0:-1]:
        strides.insert(0, builder.mul(strides[0], size))
    array = context.make_array(kind)(context, builder)
    populate_array(array, data, sizes, strides, width, meminfo=None)
    return array._getvalue()


@type_callable(array_at)
@no_type_check
def _type_array_at(context):
    return lambda address, shape, like: types.Array(like.dtype, len(shape), "C")


@lower_builtin(array_at, types.Integer, types.BaseTuple, types.Array)
@no_type_check
def _lower_array_at(context, builder, signature, given):
    kind, shape = signature.return_type, signature.args[1]
    data = builder.inttoptr(given[0], context.get_data_type(kind.dtype).as_pointer())
    sizes = zip(cgutils.unpack_tuple(builder, given[1]), shape, strict=True)
    sizes = [context.cast(builder, size, own, types.intp) for size, own in sizes]
    return _array(context, builder, kind, data, sizes)


@type_callable(borrowed)
@no_type_check
def _type_borrowed(context):
    return lambda array: types.Array(array.dtype, array.ndim, "C")


@lower_builtin(borrowed, types.Array)
@no_type_check
def _lower_borrowed(context, builder, signature, given):
    array = context.make_array(signature.args[0])(context, builder, given[0])
    sizes = cgutils.unpack_tuple(builder, array.shape)
    return _array(context, builder, signature.return_type, array.data, sizes)


@type_callable(on_stack)
@no_type_check
def _type_on_stack(context):
    return lambda: types.Array(types.float32, 2, "C")


@lower_builtin(on_stack)
@no_type_check
def _lower_on_stack(context, builder, signature, given):
    place = cgutils.alloca_once(builder, ir.ArrayType(ir.FloatType(), 2 * LANES), name="sums")
    place.align = LINE  # a register's worth that lies in two cache lines takes twice as long
    data = builder.bitcast(place, ir.FloatType().as_pointer())
    sizes = [context.get_constant(types.intp, size) for size in (2, LANES)]
    return _array(context, builder, signature.return_type, data, sizes)
