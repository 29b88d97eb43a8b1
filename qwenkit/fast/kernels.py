"""Compiled kernels: a weight times some vectors, and all layers for a new token of each text.

To decode a token, each weight is read once and used once. The processor could multiply far more
than it gets, so memory sets the pace, and the kernels are about asking for memory well:

- Weights are read where the model holds them, as they are stored: four bytes, two, one or a half.
  They become float32 on arrival, and everything is added up in float32. Only int8 and int4 in
  groups of 64, or with a scale per row, meet tokens of 16-bit integers, because to make floats of
  them took longer than memory needs (`fast.integers`).
- Two rows of a weight are read at once, the second half the weight further on. Hardware fetches
  ahead of code that walks through memory in order; two such walks keep twice the requests under
  way. What lies two kilobytes ahead on each walk is asked for, too: while a processor converts
  numbers, it looks less far ahead by itself. On the machine where this was tried, that and whole
  registers of 512 bits lifted two threads from 22 to 27 GB/s.
- Weights lie in large pages, where the system has them (`qwenkit.large_pages`).
- All cores share the rows (`share`).
- Between two products of a layer lie a few thousand additions and multiplications. Handed to a
  tensor library one by one, some fifty calls per layer, they take a good part of the time. Here
  they are plain loops.

Numba compiles a function at its first call, once per dtype, and keeps the result on disk. Each
kernel's Python function remains as `kernel.py_func`: slow, and the same numbers. All of them stand
in one file because numba compiles again when the file of a function changes, not when another does;
`intrinsics.py`, `integers.py`, `tiles.py` and `vectors.py` hold what they are made of, and hardly
change.
"""

import contextlib
import time
from typing import Any, NamedTuple, no_type_check

import llvmlite.binding
import numba
import numpy as np
from numba.core import event
from numba.extending import overload
from numpy.typing import NDArray

from qwenkit import progress
from qwenkit.fast.integers import GROUP, add_group, set_factors, subtract_zeros
from qwenkit.fast.intrinsics import (
    LANES,
    LINE,
    LN_2,
    LOG2_E,
    NAN,
    TAYLOR,
    array_at,
    borrowed,
    clock,
    fetch_add,
    load,
    on_stack,
    prefetch,
    publish,
    store,
)
from qwenkit.fast.tiles import (
    HALF,
    PAIRS,
    ROWS,
    WIDTH,
    multiply_half_tile,
    multiply_tile,
    pack_tokens,
)
from qwenkit.fast.vectors import KEYS, QUERIES, TOGETHER, add_weighted, exp_less, score_keys
from qwenkit.progress import stage

AHEAD = 2048  # bytes, how far ahead memory is asked for
BLOCK = 128  # values between two such requests
LARGEST = np.float32(32767)  # of an int16
WITHOUT_SIGN = np.int32(0x7FFFFFFF)
INFINITE = np.int32(0x7F800000)  # the bits of infinity
SMALLEST = np.float32(1e-30)  # a step, whose inverse is still a float32
CHUNK = 1 << 17  # bytes of a weight that a thread takes at a time: some microseconds
MOST = 256  # chunks of a weight
FEW = 8  # tokens; more are multiplied in tiles
PRODUCTS = 1 << 18  # multiplications that a chunk of tiles has at least: some microseconds
AT_ONCE = 8  # chunks that a thread takes, where there are LEFT_FOR_ALL times as many
LEFT_FOR_ALL = 2
STEADY = 1  # the system's clock that only goes on
MOMENT = 50_000_000  # nanoseconds for which steps go on by themselves
SOON = 10.0  # seconds between kernels that are compiled in a row

# LLVM leaves the upper half of 512-bit registers alone, as earlier processors slowed down for them.
_host = llvmlite.binding.get_host_cpu_features()
if _host.get("avx512f") and numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None:
    numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
    numba.config.CPU_FEATURES = f"{_host.flatten()},-prefer-256-bit"

# A sum may be added up in another order, several terms at once; nothing else is given up.
# Without the interpreter's lock, several threads compute at once. To divide by zero gives infinity,
# as in NumPy: a loop that could raise an error is not computed many numbers at a time.
_OPTIONS = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "nogil": True,
    "error_model": "numpy",
}


@no_type_check
def _compiled(allocates=False):
    """Compile at the first call, and keep the result on disk if a folder there can be written.

    Args:
        allocates: whether the function makes arrays. Only then references to arrays are counted:
            for all arrays of a job that takes half a microsecond at each call.
    """
    options = _OPTIONS | {"_nrt": allocates}

    def decorate(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no such folder: compiled again in each process
            return numba.njit(**options)(function)

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


PART = np.dtype(
    [
        (name, np.int64)
        for name in (
            "weight",  # the address of (out_features, in_features) values, two int4 in a byte
            "scale",  # of (out_features, groups) values, or 0
            "zero",  # of (out_features, groups) uint8, or 0
            "bias",  # of (out_features) values, or 0
            "out_features",
            "in_features",
            "groups",
        )
    ]
)
"""The memory of a linear layer: where it lies and how large it is."""

LAYER = np.dtype(
    [
        ("input_layernorm", np.int64),
        ("eps_before_attention", np.float32),
        ("q_proj", PART),
        ("k_proj", PART),
        ("v_proj", PART),
        ("o_proj", PART),
        ("post_attention_layernorm", np.int64),
        ("eps_before_mlp", np.float32),
        ("gate_proj", PART),
        ("up_proj", PART),
        ("down_proj", PART),
    ]
)
"""The memory of a decoder layer, under the names of its modules."""

END = np.dtype([("norm", np.int64), ("eps", np.float32), ("head", PART), ("table", PART)])
"""The memory of what follows the layers, and of the embedding, whose rows begin the next step."""


class Kinds(NamedTuple):
    """Empty arrays whose dtypes are those of the memory; kernels are compiled for them."""

    weight: NDArray[Any]  # float32, bfloat16 as uint16, int8, or uint8: int4
    vector: NDArray[Any]  # of a scale, a bias, a norm and the cache: float32, or bfloat16 as uint16
    many: NDArray[Any]  # in which tiles are multiplied: float32, or bfloat16 as uint16


def kinds_of(weight: Any, vector: Any, given: Any) -> Kinds:
    """Return the dtypes for NumPy's of a weight and of its vectors.

    Args:
        weight: as above.
        vector: as above.
        given: of the tokens, as they are stored: tiles of bfloat16 would round others.
    """
    pairs = PAIRS and given == np.uint16 and np.uint16 in (weight, vector)
    many = np.uint16 if pairs else np.float32
    return Kinds(np.empty(0, weight), np.empty(0, vector), np.empty(0, many))


class Product(NamedTuple):
    """A job: one linear layer for a few tokens."""

    kinds: Kinds
    part: NDArray[Any]  # (1) PART
    given: NDArray[Any]  # (tokens, in_features) float32
    x: NDArray[Any]  # (`room_for(tokens)`, in_features + groups) float32, as `prepare` writes it
    y: NDArray[Any]  # (tokens, out_features) float32, or bfloat16 as uint16


class Scratch(NamedTuple):
    """What new tokens, one of each of N texts, write on their way through all layers.

    All layers use the same row of each array, which then stays in the processor's cache. But a
    thread that was off its core wakes late, and reads and writes a row once more. While there is
    one, each layer takes a row that no other has used (`row_of`), and the late thread finds and
    writes the numbers that stand there already.
    """

    done: NDArray[Any]  # (stages, columns) int64, whether each chunk of a stage is done
    rows: NDArray[Any]  # (L) int64, which row of what follows each layer uses
    x: NDArray[Any]  # (N, C) float32, the residual stream before a layer; the first one is given
    middle: NDArray[Any]  # (N, C) the residual stream between attention and MLP
    normed: NDArray[Any]  # (2, L, N, C + groups) what q, k and v, or gate and up, multiply
    q: NDArray[Any]  # (L, N, H × D) before RoPE
    k: NDArray[Any]  # (L, N, KV × D) before RoPE
    q_rot: NDArray[Any]  # (L, N, H, D)
    k_rot: NDArray[Any]  # (L, N, KV, D)
    v: NDArray[Any]  # (L, N, KV × D)
    z: NDArray[Any]  # (L, N, H × D) what attention mixes
    mixed: NDArray[Any]  # (L, N, H × D + groups) z as o_proj multiplies it
    from_attention: NDArray[Any]  # (L, N, C)
    gate: NDArray[Any]  # (L, N, F)
    up: NDArray[Any]  # (L, N, F)
    act: NDArray[Any]  # (L, N, F) SiLU(gate) × up
    hidden: NDArray[Any]  # (L, N, F + groups) act as down_proj multiplies it
    from_mlp: NDArray[Any]  # (L, N, C)
    last: NDArray[Any]  # (N, C + groups) what the head multiplies


def room_for(tokens: int) -> int:
    """Return for how many tokens there must be room where so many are prepared: whole panels."""
    return tokens if tokens <= FEW else -(-tokens // WIDTH) * WIDTH


def scratch(
    tokens: int,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    dim: int,
    neurons: int,
    groups: int,
) -> Scratch:
    """Make one for N texts and L layers.

    The other sizes are C, H, KV, D, F, and the most groups of a row.
    """

    def rows(*shape: int) -> NDArray[np.float32]:
        return np.empty((layers, tokens, *shape), np.float32)

    return Scratch(
        done=np.empty((layers * STAGES + 1, max(3 * MOST, tokens * heads)), np.int64),
        rows=np.zeros(layers, np.int64),
        x=np.empty((tokens, hidden), np.float32), middle=np.empty((tokens, hidden), np.float32),
        normed=np.empty((2, layers, tokens, hidden + groups), np.float32),
        q=rows(heads * dim), k=rows(kv_heads * dim),
        q_rot=rows(heads, dim), k_rot=rows(kv_heads, dim),
        v=rows(kv_heads * dim), z=rows(heads * dim),
        mixed=rows(heads * dim + groups), from_attention=rows(hidden),
        gate=rows(neurons), up=rows(neurons), act=rows(neurons), hidden=rows(neurons + groups),
        from_mlp=rows(hidden), last=np.empty((tokens, hidden + groups), np.float32),
    )  # fmt: skip


class Ahead(NamedTuple):
    """What steps need to go on by themselves: each text is fed the token of its largest logit.

    Nothing but time is lost where the caller feeds another one.
    """

    of_table: Kinds
    table: NDArray[Any]  # (1) PART, the embedding
    num_tokens: int  # ids from here on are no tokens
    stops: NDArray[Any]  # int64, the tokens after which some text ends, and all steps
    tokens: NDArray[Any]  # (K, N) int64, what follows each step; empty: one step, nothing chosen
    most: NDArray[Any]  # (1) int64, steps at most: a job that ends earlier tells others of its loop
    others: NDArray[Any]  # (T, 2) int64, the clock of each other thread, and what it showed


class Step(NamedTuple):
    """A job: one new token of each of N texts through all layers, and the head, up to K times.

    Several new tokens of a text are as many texts in the same pages, each one longer: all keys are
    there before one is attended to.
    """

    kinds: Kinds
    layers: NDArray[Any]  # (L) LAYER
    cache: NDArray[Any]  # (L, 2) addresses of keys and values, pages of S tokens each
    shape: tuple[int, int, int, int]  # (pages, KV, S, D) of the keys of a layer, and of its values
    pages: NDArray[Any]  # (N, P) int64, where each text is: its slot t is t % S of page t // S
    starts: NDArray[Any]  # (N) int64, the slot of each text's first token; before it is padding
    lengths: NDArray[Any]  # (N) int64, slots before the new token's; each step adds one
    cos: NDArray[Any]  # (N, K, D) of the new tokens' positions
    sin: NDArray[Any]  # (N, K, D)
    scratch: Scratch
    end: NDArray[Any]  # (1) END
    of_head: Kinds
    asked: NDArray[Any]  # (M) int64, of which of them logits are asked for
    logits: NDArray[Any]  # (K, M, V) float32, or bfloat16 as uint16
    ahead: Ahead


@_compiled()
@no_type_check
def lent(kinds):
    """Return the same dtypes, whose references are not counted (see `borrowed`)."""
    return Kinds(borrowed(kinds.weight), borrowed(kinds.vector), borrowed(kinds.many))


@_compiled()
@no_type_check
def lent_scratch(own):
    """Return the same arrays, whose references are not counted."""
    return Scratch(
        borrowed(own.done), borrowed(own.rows), borrowed(own.x), borrowed(own.middle),
        borrowed(own.normed),
        borrowed(own.q), borrowed(own.k), borrowed(own.q_rot), borrowed(own.k_rot),
        borrowed(own.v), borrowed(own.z), borrowed(own.mixed), borrowed(own.from_attention),
        borrowed(own.gate), borrowed(own.up), borrowed(own.act), borrowed(own.hidden),
        borrowed(own.from_mlp), borrowed(own.last),
    )  # fmt: skip


@_compiled()
@no_type_check
def lent_ahead(ahead):
    """Return the same, whose references are not counted."""
    return Ahead(
        lent(ahead.of_table), borrowed(ahead.table), ahead.num_tokens, borrowed(ahead.stops),
        borrowed(ahead.tokens), borrowed(ahead.most), borrowed(ahead.others),
    )  # fmt: skip


@_compiled()
@no_type_check
def lent_step(job):
    """Return the same step; to count all its references at each call takes half a microsecond."""
    return Step(
        lent(job.kinds), borrowed(job.layers), borrowed(job.cache), job.shape, borrowed(job.pages),
        borrowed(job.starts), borrowed(job.lengths), borrowed(job.cos), borrowed(job.sin),
        lent_scratch(job.scratch), borrowed(job.end), lent(job.of_head), borrowed(job.asked),
        borrowed(job.logits), lent_ahead(job.ahead),
    )  # fmt: skip


# --- the board on which threads agree ---

APART = 8  # int64 of a cache line, so that no place shares one
OPEN, INSIDE, REGIONS = 0, APART, 2 * APART  # the places
TICKETS = 3 * APART  # one per region, then the stage that each thread may be at
BITS = 32  # of a ticket count chunks; those above are the stage
CHUNKS = (1 << BITS) - 1
NOWHERE = 1 << BITS  # instead of a stage: beyond all of them
LOOKS = (
    20_000  # at what another thread will write, some microseconds, before something else is done
)


def board(regions: int) -> NDArray[np.int64]:
    """Make one for a job that so many threads share."""
    made = np.zeros(TICKETS + 2 * APART * regions, np.int64)
    made[OPEN], made[REGIONS] = 1, regions
    made[TICKETS : TICKETS + APART * regions : APART] = CHUNKS >> 1  # more than any stage has
    made[TICKETS + APART * regions :: APART] = NOWHERE
    return made


# --- numbers as they are stored ---


@no_type_check
def as_float(stored):
    """Return a stored number as float32: it is one, or an int8, or a bfloat16's sixteen bits.

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


@_compiled()
@no_type_check
def round_to_bfloat16(number):
    """Round to the nearest number whose lower sixteen bits are zero, ties to even."""
    bits = np.float32(number).view(np.uint32)
    if number != number:
        return np.uint16(NAN)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


# --- a product ---


@_compiled()
@no_type_check
def half_of(part):
    """Return how many rows the first half of a weight has; the second may have one less."""
    return (part.out_features + 1) // 2


@_compiled()
@no_type_check
def span_of(part, tokens):
    """Return over how many rows chunks are counted: a half's for few tokens, else all."""
    return half_of(part) if tokens <= FEW else part.out_features


@_compiled()
@no_type_check
def chunk_height(kinds, part, tokens):
    """Return how many rows a chunk has: of each half for few tokens, else whole tiles."""
    least = -(-span_of(part, tokens) // MOST)
    if tokens <= FEW:
        row = part.in_features * kinds.weight.itemsize  # bytes; of int4 it is half of that
        return max(1, CHUNK // (2 * row), least)
    return ROWS * -(-max(PRODUCTS // (tokens * part.in_features), least) // ROWS)


@_compiled()
@no_type_check
def chunks_of(kinds, part, tokens):
    """Return how many chunks a weight is cut into."""
    return -(-span_of(part, tokens) // chunk_height(kinds, part, tokens))


@_compiled()
@no_type_check
def multiply(kinds, part, tokens, x, y, first, end):
    """Write some chunks of x Wᵀ + b into y.

    Args:
        kinds: the dtypes.
        part: the linear layer.
        tokens: how many.
        x: (`room_for(tokens)`, in_features + groups) float32, as `prepare` writes it.
        y: (tokens or more, out_features or more) float32, or bfloat16 as uint16.
        first: chunk.
        end: chunk after the last one; if it is not beyond the first, nothing is written.
    """
    if first >= end:
        return
    height = chunk_height(kinds, part, tokens)
    last = min(end * height, span_of(part, tokens))
    if tokens <= FEW:
        given = borrowed(x)[:tokens]
        rows(kinds.weight, kinds.vector, part, given, borrowed(y), first * height, last)
    else:
        by_tiles(kinds, part, tokens, borrowed(x), borrowed(y), first * height, last)


@_compiled(allocates=True)
@no_type_check
def by_tiles(kinds, part, tokens, x, y, first, last):
    """Write the products of many tokens with some rows of a weight.

    Args:
        kinds: the dtypes.
        part: the linear layer.
        tokens: how many.
        x: panels, as `pack` writes them.
        y: (tokens or more, out_features or more); fastest with whole tiles of tokens.
        first: row.
        last: row after the last one.
    """
    size, outputs, wide = part.in_features, part.out_features, y.shape[1]
    pairs = kinds.many.itemsize == 2
    width = size + size % 2 if pairs else size
    as_it_is = kinds.weight.itemsize == kinds.many.itemsize and width == size
    weight = array_at(part.weight, (outputs * size,), kinds.many)  # read only if it is
    bias = array_at(part.bias, (outputs,), kinds.vector)
    panels, flat = x.reshape(-1).view(kinds.many.dtype), borrowed(y).reshape(-1)
    own, sums = np.empty(ROWS * width, kinds.many.dtype), np.empty(WIDTH * ROWS, y.dtype)
    begin = on_stack()[0]
    begin[:ROWS] = 0
    steps = width // 2 if pairs else width
    stored = ROWS * (size // 2 if part.zero else size)  # values of a tile's rows
    memory = array_at(part.weight, (outputs * stored // ROWS,), kinds.weight)
    pace = -(-stored // steps)
    for row in range(first, last, ROWS):
        soon = memory[(row // ROWS + 1) * stored :]
        count = min(ROWS, outputs - row)
        source, stride = weight[row * size :], size
        if not as_it_is or count < ROWS:
            source, stride = own, width
            for r in range(ROWS):
                place = row + min(r, count - 1)
                unpack(kinds.weight, kinds.vector, part, place, own[r * width : (r + 1) * width])
        for r in range(count if part.bias else 0):
            begin[r] = as_float(bias[row + r])
        for start in range(0, tokens, WIDTH):
            panel, here = panels[start * width :], min(WIDTH, tokens - start)
            tile = WIDTH if here > HALF else HALF
            is_whole = start + tile <= len(y) and count == ROWS  # beyond `tokens` nobody reads
            out, apart = (flat[start * wide + row :], wide) if is_whole else (sums, ROWS)
            if tile == WIDTH:
                multiply_tile(source, stride, panel, steps, begin, out, apart, soon, pace)
            else:
                multiply_half_tile(source, stride, panel, steps, begin, out, apart, soon, pace)
            for t in range(0 if is_whole else here):
                for r in range(count):
                    y[start + t, row + r] = sums[t * ROWS + r]


@_compiled()
@no_type_check
def unpack_as_stored(weight_kind, vector_kind, part, row, out):
    """Write a row of a weight of float32 or bfloat16."""
    size = part.in_features
    weight = array_at(part.weight, (part.out_features, size), weight_kind)
    for i in range(size):
        out[i] = as_stored(out, as_float(weight[row, i]))


@_compiled()
@no_type_check
def unpack_int8(weight_kind, vector_kind, part, row, out):
    """Write weight × scale of a row of an int8 weight."""
    size, groups = part.in_features, part.groups
    weight = array_at(part.weight, (part.out_features, size), weight_kind)
    scale = array_at(part.scale, (part.out_features, groups), vector_kind)
    per_group = size // groups
    for g in range(groups):
        step = as_float(scale[row, g])
        for i in range(np.uint64(g * per_group), np.uint64((g + 1) * per_group)):
            out[i] = as_stored(out, np.float32(weight[row, i]) * step)


@_compiled()
@no_type_check
def unpack_int4(weight_kind, vector_kind, part, row, out):
    """Write (weight - zero point) × scale of a row of an int4 weight."""
    groups, width = part.groups, part.in_features // 2
    packed = array_at(part.weight, (part.out_features, width), weight_kind)
    scale = array_at(part.scale, (part.out_features, groups), vector_kind)
    zero = array_at(part.zero, (part.out_features, groups), weight_kind)
    per_group = width // groups  # bytes
    for g in range(groups):
        step, start = as_float(scale[row, g]), g * per_group
        nothing = np.float32(zero[row, g])
        low, high = out[2 * start :], out[2 * start + per_group :]
        for i in range(per_group):
            both = packed[row, start + i]
            low[i] = as_stored(out, (np.float32(both & 15) - nothing) * step)
            high[i] = as_stored(out, (np.float32(both >> 4) - nothing) * step)


@no_type_check
def unpack(weight_kind, vector_kind, part, row, out):
    """Write a row of a weight as tiles are multiplied; a last column that lacks a partner is 0.

    Args:
        weight_kind: of what dtype the weight is.
        vector_kind: of what dtype the scales are.
        part: the linear layer.
        row: which.
        out: (in_features, or one more) float32, or bfloat16 as uint16.
    """
    kinds = {np.dtype(np.int8): unpack_int8, np.dtype(np.uint8): unpack_int4}
    out[-1] = 0
    kinds.get(weight_kind.dtype, unpack_as_stored)(weight_kind, vector_kind, part, row, out)


@overload(unpack, inline="always")
@no_type_check
def _unpack(weight_kind, vector_kind, part, row, out):
    kinds = {numba.int8: unpack_int8, numba.uint8: unpack_int4}
    own = kinds.get(weight_kind.dtype, unpack_as_stored)

    def write(weight_kind, vector_kind, part, row, out):
        out[-1] = 0
        own(weight_kind, vector_kind, part, row, out)

    return write


@_compiled()
@no_type_check
def pack(many, size, given, out):
    """Write tokens as `by_tiles` reads them, a panel of WIDTH after another.

    Args:
        many: of what dtype they become.
        size: in_features.
        given: (tokens, in_features or more) float32.
        out: (room_for(tokens) or more, in_features + groups) float32, whose memory is written.
    """
    (tokens, wide), pairs = given.shape, many.itemsize == 2
    width = size + size % 2 if pairs else size
    panels = out.reshape(-1).view(many.dtype)
    at_once = 2 * LANES if pairs else LANES
    columns, flat = size // at_once * at_once, borrowed(given).reshape(-1)
    for start in range(0, tokens, WIDTH):
        panel = borrowed(panels[start * width : (start + WIDTH) * width])
        for first in range(start, start + WIDTH if columns else start, LANES):
            pack_tokens(flat, wide, first, tokens - 1, panel, first - start, columns)
        for t in range(WIDTH if columns < size else 0):
            token = given[min(start + t, tokens - 1)]
            for i in range(columns, size):
                panel[place_in_panel(pairs, i, t)] = as_stored(panel, token[i])
            if size < width:
                panel[place_in_panel(pairs, size, t)] = 0


@_compiled()
@no_type_check
def place_in_panel(pairs, i, t):
    """Return where a token's value of a column stands."""
    return (i // 2 * WIDTH + t) * 2 + i % 2 if pairs else i * WIDTH + t


@_compiled()
@no_type_check
def rows_as_stored(weight_kind, vector_kind, part, x, y, first, last):
    """Write the products with some rows of each half of a weight of float32 or bfloat16."""
    half, size = half_of(part), part.in_features
    weight = array_at(part.weight, (part.out_features, size), weight_kind)
    memory = array_at(part.weight, (part.out_features * size,), weight_kind)
    bias = array_at(part.bias, (part.out_features,), vector_kind)
    ahead, step = AHEAD // weight.itemsize, LINE // weight.itemsize
    for row in range(first, last):
        other = row + half if row + half < part.out_features else row
        for n in range(len(x)):
            a = b = np.float32(0)
            for start in range(0, size, BLOCK):
                stop = min(start + BLOCK, size)
                for i in range(start + ahead, stop + ahead, step):
                    prefetch(memory, row * size + i)
                    prefetch(memory, other * size + i)
                # Unsigned, so that no index could count from the end, and many are read at once.
                for i in range(np.uint64(start), np.uint64(stop)):
                    a += as_float(weight[row, i]) * x[n, i]
                    b += as_float(weight[other, i]) * x[n, i]
            if part.bias:
                a += as_float(bias[row])
                b += as_float(bias[other])
            y[n, row], y[n, other] = as_stored(y, a), as_stored(y, b)


@_compiled()
@no_type_check
def groups_of_token(part):
    """Return of how many groups of integers a token is made; 0: it stays as it is.

    It is, where GROUP integer weights of a row share a scale, or all of a row that GROUP divides.
    """
    groups = part.in_features // GROUP
    share = part.groups == groups or (part.groups == 1 and part.zero == 0)
    return groups if share and part.scale != 0 and part.in_features == groups * GROUP else 0


@_compiled()
@no_type_check
def rows_in_groups(weight_kind, vector_kind, part, x, y, first, last):
    """Write the products with some rows of each half of an int8 or int4 weight, GROUP by GROUP.

    For int4, of a group only Σ w q is a sum over the weights: Σ (w - zero) q = Σ w q - zero Σ q,
    and Σ q is added up once for all rows.
    """
    half, size, groups = half_of(part), part.in_features, groups_of_token(part)
    width, of_group = (size // 2, GROUP // 2) if part.zero else (size, GROUP)  # bytes
    weight = array_at(part.weight, (part.out_features * width,), weight_kind)
    scale = array_at(part.scale, (part.out_features * part.groups,), vector_kind)
    zero = array_at(part.zero, (part.out_features * groups,), weight_kind)
    bias = array_at(part.bias, (part.out_features,), vector_kind)
    sums, factors, by_row = on_stack(), on_stack(), part.groups != groups
    for row in range(first, last):
        other = row + half if row + half < part.out_features else row
        for n in range(len(x)):
            q, steps, totals = x[n].view(np.int16), x[n, size // 2 :], x[n, size // 2 + groups :]
            for i in range(LANES):
                sums[0, i] = sums[1, i] = 0
            for start in range(0, groups, LANES):
                count = min(LANES, groups - start)
                one, two = row * groups + start, other * groups + start
                first_factors, second_factors = factors[0], factors[1]
                if by_row:  # the row's own scale comes last
                    first_factors = second_factors = steps[start:]
                else:
                    set_factors(factors, 0, scale, one, steps, start, count)
                    set_factors(factors, 1, scale, two, steps, start, count)
                if part.zero:
                    subtract_zeros(sums, factors, 0, zero, one, totals, start, count)
                    subtract_zeros(sums, factors, 1, zero, two, totals, start, count)
                one, two = row * width + start * of_group, other * width + start * of_group
                for g in range(count):
                    prefetch(weight, one + AHEAD)
                    prefetch(weight, two + AHEAD)
                    place = (start + g) * GROUP
                    add_group(sums, 0, first_factors[g], weight, one, q, place)
                    add_group(sums, 1, second_factors[g], weight, two, q, place)
                    one, two = one + of_group, two + of_group
            a = b = np.float32(0)
            for i in range(LANES):
                a += sums[0, i]
                b += sums[1, i]
            if by_row:
                a *= as_float(scale[row])
                b *= as_float(scale[other])
            if part.bias:
                a += as_float(bias[row])
                b += as_float(bias[other])
            y[n, row], y[n, other] = as_stored(y, a), as_stored(y, b)


@_compiled()
@no_type_check
def rows_of_int8(weight_kind, vector_kind, part, x, y, first, last):
    """Write the products with some rows of each half of an int8 weight, whatever its groups are."""
    if groups_of_token(part):
        rows_in_groups(weight_kind, vector_kind, part, x, y, first, last)
        return
    half, size, groups = half_of(part), part.in_features, part.groups
    weight = array_at(part.weight, (part.out_features, size), weight_kind)
    scale = array_at(part.scale, (part.out_features, groups), vector_kind)
    bias = array_at(part.bias, (part.out_features,), vector_kind)
    per_group = size // groups
    for row in range(first, last):
        other = row + half if row + half < part.out_features else row
        for n in range(len(x)):
            a = b = np.float32(0)
            for g in range(groups):
                start, e, f = g * per_group, np.float32(0), np.float32(0)
                for i in range(np.uint64(start), np.uint64(start + per_group)):
                    e += np.float32(weight[row, i]) * x[n, i]
                    f += np.float32(weight[other, i]) * x[n, i]
                a += as_float(scale[row, g]) * e
                b += as_float(scale[other, g]) * f
            if part.bias:
                a += as_float(bias[row])
                b += as_float(bias[other])
            y[n, row], y[n, other] = as_stored(y, a), as_stored(y, b)


@_compiled()
@no_type_check
def rows_of_int4(weight_kind, vector_kind, part, x, y, first, last):
    """Write the products with some rows of each half of an int4 weight, whatever its groups are."""
    if groups_of_token(part):
        rows_in_groups(weight_kind, vector_kind, part, x, y, first, last)
        return
    half, groups, width = half_of(part), part.groups, part.in_features // 2
    per_group = width // groups  # bytes
    packed = array_at(part.weight, (part.out_features, width), weight_kind)
    scale = array_at(part.scale, (part.out_features, groups), vector_kind)
    zero = array_at(part.zero, (part.out_features, groups), weight_kind)
    bias = array_at(part.bias, (part.out_features,), vector_kind)
    for row in range(first, last):
        other = row + half if row + half < part.out_features else row
        for n in range(len(x)):
            a = b = np.float32(0)
            for g in range(groups):
                start, e, f = g * per_group, np.float32(0), np.float32(0)
                u, v = np.float32(zero[row, g]), np.float32(zero[other, g])
                for i in range(per_group):
                    one, two = packed[row, start + i], packed[other, start + i]
                    low, high = x[n, 2 * start + i], x[n, 2 * start + per_group + i]
                    e += (np.float32(one & 15) - u) * low + (np.float32(one >> 4) - u) * high
                    f += (np.float32(two & 15) - v) * low + (np.float32(two >> 4) - v) * high
                a += as_float(scale[row, g]) * e
                b += as_float(scale[other, g]) * f
            if part.bias:
                a += as_float(bias[row])
                b += as_float(bias[other])
            y[n, row], y[n, other] = as_stored(y, a), as_stored(y, b)


@no_type_check
def rows(weight_kind, vector_kind, part, x, y, first, last):
    """Write the products with the rows from `first` to before `last` of each half of a weight.

    Args:
        weight_kind: of what dtype the weight is.
        vector_kind: of what dtype the scales and the bias are.
        part: the linear layer.
        x: (tokens, in_features + groups) float32, as `prepare` writes it.
        y: (tokens, out_features).
        first: row of the first half.
        last: row of the first half, at most `half_of(part)`.
    """
    kinds = {np.dtype(np.int8): rows_of_int8, np.dtype(np.uint8): rows_of_int4}
    own = kinds.get(weight_kind.dtype, rows_as_stored)
    own(weight_kind, vector_kind, part, x, y, first, last)


@overload(rows, inline="always")
@no_type_check
def _rows(weight_kind, vector_kind, part, x, y, first, last):
    kinds = {numba.int8: rows_of_int8, numba.uint8: rows_of_int4}
    own = kinds.get(weight_kind.dtype, rows_as_stored)
    return lambda weight_kind, vector_kind, part, x, y, first, last: own(
        weight_kind, vector_kind, part, x, y, first, last
    )


@_compiled()
@no_type_check
def prepare(kinds, part, given, out):
    """Write tokens as `multiply` reads them: few as they are or as integers, many in panels.

    Args:
        kinds: the dtypes.
        part: the linear layer.
        given: (tokens, in_features or more) float32; layers may have fewer neurons than another.
        out: (room_for(tokens) or more, in_features + groups) float32.
    """
    if len(given) > FEW:
        pack(kinds.many, part.in_features, given, out)
    else:
        for n in range(len(given)):
            prepare_one(part, given[n], out[n])


@_compiled()
@no_type_check
def prepare_one(part, x, out):
    """Write a token as the rows of a weight meet it.

    Where the weights are integers (see `groups_of_token`), GROUP of its values share a step:
    x ≈ q × step with integers q of 16 bits. They take the first half of `out`; the steps follow,
    and Σ q of each group. Rounding moves a value by half a step at most, a 65,534th of the group's
    largest value. bfloat16 moves that one by up to a 512th.

    Args:
        part: the linear layer.
        x: (in_features or more) float32.
        out: (in_features + groups or more) float32.
    """
    size, groups = part.in_features, groups_of_token(part)
    if groups == 0:
        for i in range(size):
            out[i] = x[i]
        return
    q, steps, totals = out.view(np.int16), out[size // 2 :], out[size // 2 + groups :]
    bits = x.view(np.int32)
    for g in range(groups):
        # Without their sign bits, floats are in the order of their bits read as integers. Infinity
        # and NaN come last, and make the step one of them.
        largest = np.int32(0)
        for i in range(g * GROUP, (g + 1) * GROUP):
            largest = np.int32(max(largest, bits[i] & WITHOUT_SIGN))
        step = np.int32(largest).view(np.float32) / LARGEST
        per_step = np.float32(1) / step if SMALLEST < step < np.inf else np.float32(0)
        total = np.int32(0)
        for i in range(g * GROUP, (g + 1) * GROUP):
            own = np.int32(np.rint(x[i] * per_step)) if per_step else np.int32(0)
            q[i] = own
            total += own
        steps[g], totals[g] = step, np.float32(total)


# --- the rest of a layer ---


@_compiled()
@no_type_check
def exp(x):
    """Return e to the power of x, in float32, by operations that a processor does many at once.

    e^x is 2^n 2^f, where n is an integer and f lies between -1/2 and 1/2. The first factor is an
    exponent in a float's bits, the second a polynomial: the Taylor series of e^(f ln 2), whose next
    term is below 1e-7.
    """
    x = min(max(x, np.float32(-87)), np.float32(88))  # beyond, the exponent has no bits for n
    t = x * LOG2_E
    n = np.floor(t + np.float32(0.5))
    # n ln 2 in two steps: the first is exact, as its factor has few bits
    f = (x - n * LN_2[0]) - n * LN_2[1]
    power = np.float32(0)
    for term in TAYLOR:
        power = power * f + term
    return power * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@_compiled()
@no_type_check
def rms_norm(x, weight, eps, out):
    """Write x / sqrt(mean(x²) + eps) × weight into out."""
    squares = np.float32(0)
    for i in range(len(x)):
        squares += x[i] * x[i]
    scale = np.float32(1) / np.sqrt(squares / np.float32(len(x)) + np.float32(eps))
    for i in range(len(x)):
        out[i] = x[i] * scale * as_float(weight[i])


@_compiled()
@no_type_check
def rotate(heads, cos, sin, out):
    """Write every head, each of its pairs (i, i + D/2) rotated by an angle, into out.

    Args:
        heads: (heads, D).
        cos: (D).
        sin: (D).
        out: (heads, D).
    """
    half = heads.shape[1] // 2
    for h in range(len(heads)):
        for i in range(half):
            a, b = heads[h, i], heads[h, i + half]
            out[h, i] = a * cos[i] - b * sin[i]
            out[h, i + half] = b * cos[i + half] + a * sin[i + half]


@_compiled()
@no_type_check
def width_of(count):
    """Return how long a row of so many scores is: whole registers."""
    return -(-(count + KEYS) // LANES) * LANES


@_compiled()
@no_type_check
def size_to_attend(count, dim):
    """Return how many float32 `attend` works in, for so many keys."""
    return QUERIES * (width_of(count) + KEYS + dim + 1)


@_compiled()
@no_type_check
def attend(q, keys, values, head, pages, first, length, own, z):
    """Write the weighted sums of a text's values into z, for query heads that share the keys.

    Args:
        q: (heads × D) at most QUERIES of them.
        keys: (pages, KV, S, D) float32, or bfloat16 as uint16.
        values: the same.
        head: of the keys and values.
        pages: (P) the text's pages, in order.
        first: slot that counts.
        length: slots up to the last that counts.
        own: (`size_to_attend(length - first, D)` or more) float32 to work in.
        z: (heads × D).
    """
    room, dim = keys.shape[2:]
    count, heads, begin = length - first, len(q) // dim, first // room * room
    width = width_of(count)
    scores, own = own[: QUERIES * width], own[QUERIES * width :]
    tops, own = own[: QUERIES * KEYS], own[QUERIES * KEYS :]
    mixed, totals = own[: QUERIES * dim], own[QUERIES * dim :]
    mixed[:] = 0
    scale, in_registers = np.float32(1) / np.sqrt(np.float32(dim)), dim % TOGETHER == 0
    tops[:] = -np.inf
    for start in range(begin, length, room):
        page = borrowed(keys[pages[start // room], head])  # (S, D)
        skipped, end = max(first - start, 0), min(room, length - start)
        here, place = end - skipped, start + skipped - first
        if in_registers:
            own = page[skipped:].reshape(-1)
            score_keys(q, heads - 1, own, here, dim, scale, scores, width, place, tops)
            continue
        for n in range(heads):
            for s in range(here):
                score = np.float32(0)
                for i in range(dim):
                    score += q[n * dim + i] * as_float(page[skipped + s, i])
                scores[n * width + place + s] = score * scale
                tops[n * KEYS] = max(tops[n * KEYS], score * scale)
    for n in range(heads):
        top = np.float32(-np.inf)
        for one in tops[n * KEYS : (n + 1) * KEYS]:
            top = max(top, one)
        weights = scores[n * width : (n + 1) * width]
        weights[count:] = -np.inf  # e^x of what is not there is 1e-38
        totals[n] = exp_less(weights, top)
    for start in range(begin, length, room):
        page = borrowed(values[pages[start // room], head])  # (S, D)
        skipped, end = max(first - start, 0), min(room, length - start)
        here, place = end - skipped, start + skipped - first
        if in_registers:
            add_weighted(scores, width, place, page[skipped:].reshape(-1), here, dim, mixed)
            continue
        for n in range(heads):
            for s in range(here):
                weight = scores[n * width + place + s]
                for i in range(dim):
                    mixed[n * dim + i] += weight * as_float(page[skipped + s, i])
    for n in range(heads):
        part = np.float32(1) / totals[n]
        for i in range(n * dim, (n + 1) * dim):
            z[i] = mixed[i] * part


@_compiled()
@no_type_check
def silu_times(gate, up, first, last, act):
    """Write SiLU(gate) × up into act, from one neuron to another."""
    for i in range(np.uint64(first), np.uint64(last)):  # unsigned, as in `rows_as_stored`
        act[i] = up[i] * gate[i] / (np.float32(1) + exp(-gate[i]))


@_compiled()
@no_type_check
def add(one, other, out):
    """Write the sum of two vectors into out."""
    for i in range(len(out)):
        out[i] = one[i] + other[i]


# --- a token of each text through all layers ---

QKV, ATTENTION, OUTPUT, GATE_UP, DOWN, STAGES = range(6)  # of a layer
PRODUCTS_OF = (3, 0, 1, 2, 1)


@_compiled()
@no_type_check
def stages_of(job):
    """Return how many stages a step has."""
    return len(job.layers) * STAGES + 1


@_compiled()
@no_type_check
def parts_of(heads, kv_heads):
    """Return into how many parts the query heads that share keys and values are cut."""
    return -(-heads // kv_heads // QUERIES)


@_compiled(allocates=True)
@no_type_check
def attend_some(q, keys, values, pages, starts, lengths, z, first, end):
    """Attend for some chunks: each is a text, and query heads of it that share keys.

    Args:
        q: (N, H, D).
        keys: (pages, KV, S, D).
        values: the same.
        pages: (N, P) of each text.
        starts: (N) the slot of each text's first token.
        lengths: (N) slots before the new token's.
        z: (N, H × D).
        first: chunk.
        end: chunk after the last one.
    """
    (heads, dim), kv_heads = q.shape[1:], keys.shape[1]
    group, parts, longest = heads // kv_heads, parts_of(heads, kv_heads), 0
    for n in range(first // (kv_heads * parts), (end - 1) // (kv_heads * parts) + 1):
        longest = max(longest, lengths[n] + 1 - starts[n])
    memory = np.empty(size_to_attend(longest, dim), np.float32)
    for chunk in range(first, end):
        n, part = chunk // (kv_heads * parts), chunk % parts
        head = chunk // parts % kv_heads
        start = (head * group + part * QUERIES) * dim
        stop = min(start + QUERIES * dim, (head + 1) * group * dim)
        own, mixed = q[n].reshape(-1)[start:stop], z[n, start:stop]
        attend(own, keys, values, head, pages[n], starts[n], lengths[n] + 1, memory, mixed)


@_compiled()
@no_type_check
def work_on_step(job, stage, first, end):
    """Compute some chunks of a stage of a layer, or of the head, which is a step's last stage."""
    step, stage = stage // stages_of(job), stage % stages_of(job)
    kinds, own, index, tokens = job.kinds, job.scratch, stage // STAGES, len(job.cos)
    if index == len(job.layers):
        asked = len(job.asked)
        multiply(job.of_head, job.end[0].head, asked, own.last, job.logits[step], first, end)
        return
    layer, kind, row = job.layers[index], stage % STAGES, own.rows[index]
    if kind == ATTENTION:
        keys = array_at(job.cache[index, 0], job.shape, kinds.vector)
        values = array_at(job.cache[index, 1], job.shape, kinds.vector)
        q, texts = own.q_rot[row], (job.pages, job.starts, job.lengths)
        attend_some(q, keys, values, *texts, own.z[row], first, end)
        return
    before = 0  # chunks of earlier products; gate and up take the same ones
    for n in range(PRODUCTS_OF[kind]):  # one call for all: it is compiled once for each that stands
        part, x, y = layer.down_proj, own.hidden[row], own.from_mlp[row]
        if kind == QKV:
            part, x, y = layer.q_proj, own.normed[0, row], own.q[row]
            if n == 1:
                part, y = layer.k_proj, own.k[row]
            if n == 2:
                part, y = layer.v_proj, own.v[row]
        elif kind == OUTPUT:
            part, x, y = layer.o_proj, own.mixed[row], own.from_attention[row]
        elif kind == GATE_UP:
            part, x, y = layer.gate_proj, own.normed[1, row], own.gate[row]
            if n == 1:
                part, y = layer.up_proj, own.up[row]
        chunks = chunks_of(kinds, part, tokens)
        multiply(kinds, part, tokens, x, y, max(first - before, 0), min(end - before, chunks))
        before += chunks if kind == QKV else 0
    if kind == GATE_UP:
        gate, up = own.gate[row], own.up[row]
        half, span = half_of(layer.gate_proj), span_of(layer.gate_proj, tokens)
        height = chunk_height(kinds, layer.gate_proj, tokens)
        start, stop, last = first * height, min(end * height, span), gate.shape[1]
        for n in range(tokens):
            act = own.act[row, n]
            silu_times(gate[n], up[n], start, stop, act)
            if span == half:
                silu_times(gate[n], up[n], half + start, min(half + stop, last), act)


@_compiled()
@no_type_check
def row_of(board, rows, index, stage):
    """Choose the row of `Scratch` for a layer, and return it.

    It is that of the layer before, unless a thread may still be at work on an earlier layer, before
    the given stage.
    """
    rows[index], regions = rows[max(index - 1, 0)], board[REGIONS]
    for thread in range(1, regions):
        if load(board, TICKETS + APART * (regions + thread)) < stage:
            rows[index] = index
    return rows[index]


@_compiled()
@no_type_check
def lead_step(board, counts, done, job):
    """Compute a step, and those that go on by themselves; return how many.

    Keys and values of all tokens that were fed stand in the cache then.
    """
    job = lent_step(job)
    begun, steps = clock(STEADY), 0
    while True:
        go_through_layers(board, counts, done, job, steps)
        steps += 1
        if len(job.ahead.tokens) == 0 or not may_go_on(board, job, steps, begun):
            if steps < load(job.ahead.most, 0):
                store(job.ahead.most, 0, steps)
            return steps
        feed(job, job.ahead.tokens[steps - 1])


@_compiled()
@no_type_check
def lead_alone(board, counts, done, job, steps):
    """Do what `lead_step` does if the board is open; write how many steps it has computed."""
    fetch_add(board, INSIDE, 1)
    if load(board, OPEN) == 1:
        publish(steps, 0, lead_step(board, counts, done, job))
    fetch_add(board, INSIDE, -1)


@_compiled()
@no_type_check
def wait_for(number, nanoseconds):
    """Wait so long, unless the first of some int64 is more than 0 earlier."""
    end = clock(STEADY) + nanoseconds
    while load(number, 0) <= 0 and clock(STEADY) < end:
        pass


@_compiled()
@no_type_check
def may_go_on(board, job, steps, begun):
    """Choose each text's next token, and tell whether another step is to be computed.

    None is: after a stop; where logits are not finite; where the caller would wait too long; where
    another thread has computed anything (see `ClosedLoop`); and while one that helps may still be
    at work on this step.
    """
    ahead, tokens, going = job.ahead, job.ahead.tokens[steps - 1], True
    for n in range(len(tokens)):
        tokens[n] = index_of_largest(job.logits[steps - 1, n], ahead.num_tokens)
        going = going and tokens[n] >= 0
        for stop in ahead.stops:
            going = going and tokens[n] != stop
    going = going and steps < load(ahead.most, 0)
    going = going and (clock(STEADY) - begun) * (steps + 1) <= MOMENT * steps
    for n in range(len(ahead.others)):
        going = going and clock(ahead.others[n, 0]) == ahead.others[n, 1]
    regions, looks = board[REGIONS], 0
    for thread in range(1, regions if going else 1):
        while load(board, TICKETS + APART * (regions + thread)) != NOWHERE and looks < LOOKS:
            looks += 1
    return going and looks < LOOKS


@_compiled()
@no_type_check
def index_of_largest(logits, count):
    """Return which of the first `count` logits is the largest, the first of them if several are.

    Returns:
        Its index; -1: not all logits are finite.
    """
    top, place = -INFINITE, 0
    for start in range(0, len(logits), BLOCK):
        stop, lowest, own = min(start + BLOCK, len(logits)), INFINITE, -INFINITE
        for i in range(np.uint64(start), np.uint64(stop)):
            order = order_of(logits[i])
            lowest, own = np.int32(min(lowest, order)), np.int32(max(own, order))
        if lowest <= -INFINITE or own >= INFINITE:
            return -1
        if own > top and stop > count:  # not all of them are tokens
            own = -INFINITE
            for i in range(start, max(count, start)):
                own = np.int32(max(own, order_of(logits[i])))
        if own > top:
            top, place = own, start
    while order_of(logits[place]) != top:
        place += 1
    return place


@_compiled()
@no_type_check
def order_of(stored):
    """Return an integer for a number as it is stored: of two, the larger has the larger one.

    Both zeros have 0. Infinity has INFINITE; NaN has more, or less than the negative of it.
    """
    bits = np.float32(as_float(stored)).view(np.int32)
    sign = np.int32(bits >> np.int32(31))  # -1 of negative numbers, whose other bits are inverted
    return np.int32((bits ^ (sign & WITHOUT_SIGN)) - sign)


@_compiled(allocates=True)
@no_type_check
def feed(job, tokens):
    """Begin another step: each text's next token, as its row of the embedding."""
    ahead, x = job.ahead, job.scratch.x
    row = np.empty(x.shape[1], ahead.of_table.vector.dtype)  # rounded as the model's dtype is
    for n in range(len(tokens)):
        unpack(ahead.of_table.weight, ahead.of_table.vector, ahead.table[0], tokens[n], row)
        for i in range(len(row)):
            x[n, i] = as_float(row[i])
        job.lengths[n] += 1


@_compiled(allocates=True)
@no_type_check
def go_through_layers(board, counts, done, job, step):
    """Compute all layers: what lies between the stages here, the stages with whoever helps.

    The tokens' keys and values stand in the cache then. No other thread writes there.
    """
    kinds, own, begin = job.kinds, job.scratch, step * stages_of(job)
    (tokens, _, dim), size, room = job.cos.shape, own.x.shape[1], job.shape[2]
    x, middle, normed = own.x, own.middle, np.empty((tokens, size), np.float32)
    for index in range(len(job.layers)):
        layer, first = job.layers[index], begin + index * STAGES
        row = row_of(board, own.rows, index, first)
        weight = array_at(layer.input_layernorm, (size,), kinds.vector)
        for n in range(tokens):
            rms_norm(x[n], weight, layer.eps_before_attention, normed[n])
        prepare(kinds, layer.q_proj, normed, own.normed[0, row])
        chunks = chunks_of(kinds, layer.q_proj, tokens) + chunks_of(kinds, layer.k_proj, tokens)
        chunks += chunks_of(kinds, layer.v_proj, tokens)
        share(board, counts, done, job, first + QKV, chunks)

        keys = array_at(job.cache[index, 0], job.shape, kinds.vector)
        values = array_at(job.cache[index, 1], job.shape, kinds.vector)
        for n in range(tokens):
            q, k, v = own.q_rot[row, n], own.k_rot[row, n], own.v[row, n]
            cos, sin = job.cos[n, step], job.sin[n, step]
            rotate(own.q[row, n].reshape(-1, dim), cos, sin, q)
            rotate(own.k[row, n].reshape(-1, dim), cos, sin, k)
            page, place = job.pages[n, job.lengths[n] // room], job.lengths[n] % room
            for head in range(len(k)):
                for i in range(dim):
                    keys[page, head, place, i] = as_stored(keys, k[head, i])
                    values[page, head, place, i] = as_stored(values, v[head * dim + i])
        heads, kv_heads = own.q_rot.shape[2], own.k_rot.shape[2]
        chunks = tokens * kv_heads * parts_of(heads, kv_heads)
        share(board, counts, done, job, first + ATTENTION, chunks)
        prepare(kinds, layer.o_proj, own.z[row, :tokens], own.mixed[row])
        share(board, counts, done, job, first + OUTPUT, chunks_of(kinds, layer.o_proj, tokens))
        for n in range(tokens):
            add(x[n], own.from_attention[row, n], middle[n])

        weight = array_at(layer.post_attention_layernorm, (size,), kinds.vector)
        for n in range(tokens):
            rms_norm(middle[n], weight, layer.eps_before_mlp, normed[n])
        prepare(kinds, layer.gate_proj, normed, own.normed[1, row])
        chunks = chunks_of(kinds, layer.gate_proj, tokens)
        share(board, counts, done, job, first + GATE_UP, chunks)
        prepare(kinds, layer.down_proj, own.act[row, :tokens], own.hidden[row])
        share(board, counts, done, job, first + DOWN, chunks_of(kinds, layer.down_proj, tokens))
        for n in range(tokens):
            add(middle[n], own.from_mlp[row, n], x[n])
    end, asked = job.end[0], len(job.asked)
    weight = array_at(end.norm, (size,), kinds.vector)
    for n in range(asked):
        rms_norm(x[job.asked[n]], weight, end.eps, normed[n])
    prepare(job.of_head, end.head, normed[:asked], own.last)
    last = begin + stages_of(job) - 1
    share(board, counts, done, job, last, chunks_of(job.of_head, end.head, asked))


# --- threads that share a stage ---


@no_type_check
def lent_job(job):
    """Return the same job, whose references are not counted."""
    return job


@overload(lent_job, inline="always")
@no_type_check
def _lent_job(job):
    if job.instance_class is Step:
        return lambda job: lent_step(job)
    return lambda job: Product(
        lent(job.kinds), borrowed(job.part), borrowed(job.given), borrowed(job.x), borrowed(job.y)
    )


@no_type_check
def work(job, stage, first, end):
    """Compute some chunks of a job's stage."""
    if isinstance(job, Step):
        work_on_step(job, stage, first, end)
    else:
        work_on_product(job, first, end)


@overload(work)
@no_type_check
def _work(job, stage, first, end):
    if job.instance_class is Step:
        return lambda job, stage, first, end: work_on_step(job, stage, first, end)
    return lambda job, stage, first, end: work_on_product(job, first, end)


@_compiled()
@no_type_check
def work_on_product(job, first, end):
    """Compute some chunks of a product."""
    multiply(job.kinds, job.part[0], len(job.given), job.x, job.y, first, end)


@_compiled()
@no_type_check
def lead_product(board, counts, done, job):
    """Compute one product with whoever helps."""
    job = lent_job(job)
    prepare(job.kinds, job.part[0], job.given, job.x)
    share(board, counts, done, job, 0, chunks_of(job.kinds, job.part[0], len(job.given)))
    return 1


@_compiled()
@no_type_check
def take(board, counts, me):
    """Return a stage, and the first and last + 1 of its chunks that are nobody else's from now on.

    A stage of -1: none is left. Each thread walks through a region of its own, so that memory is
    read in order. When that is done, it takes what is left of the others'. Each call of `work`
    costs some time of its own. So several chunks are taken at once, and one by one only at the end,
    where the threads should finish together.
    """
    regions = board[REGIONS]
    at = TICKETS + APART * (regions + me)
    for further in range(regions):
        region = (me + further) % regions
        place = TICKETS + APART * region
        ticket = load(board, place)
        chunks = counts[(ticket >> BITS) % len(counts)]
        left = size_of(region, regions, chunks) - (ticket & CHUNKS)
        if left > 0:
            amount = max(1, min(AT_ONCE, left // LEFT_FOR_ALL))
            store(board, at, ticket >> BITS)  # before the ticket: `row_of` must not miss it
            ticket = fetch_add(board, place, amount)
            stage, chunk = ticket >> BITS, ticket & CHUNKS
            chunks = counts[stage % len(counts)]
            size, start = size_of(region, regions, chunks), region * chunks // regions
            if chunk < size:
                return stage, start + chunk, start + min(chunk + amount, size)
    if load(board, at) != NOWHERE:
        store(board, at, NOWHERE)
    return -1, 0, 0


@_compiled()
@no_type_check
def size_of(region, regions, chunks):
    """Return how many of a stage's chunks lie in a region."""
    return (region + 1) * chunks // regions - region * chunks // regions


@_compiled()
@no_type_check
def share(board, counts, done, job, stage, chunks):
    """Compute all chunks of a stage, with whoever helps.

    When no chunk is left to take, this thread does not wait for the others: one that is not done
    after a moment, because the system gave its thread's core to somebody else, is computed again.
    The numbers are the same.

    Args:
        board: (TICKETS + APART × regions) int64.
        counts: (stages) int64, the chunks of each.
        done: (stages, columns) int64, whether each chunk is.
        job: a `Product` or a `Step`.
        stage: which.
        chunks: how many it has.
    """
    flags = done[stage % len(done)]  # each step uses the same
    flags[:chunks] = 0
    counts[stage % len(done)] = chunks
    for region in range(board[REGIONS]):
        store(board, TICKETS + APART * region, stage << BITS)
    taken, first, end = take(board, counts, 0)
    while taken >= 0:
        work(job, stage, first, end)
        flags[first:end] = 1
        taken, first, end = take(board, counts, 0)
    for chunk in range(chunks):
        looks = 0
        while load(flags, chunk) == 0 and looks < LOOKS:
            looks += 1
        if looks == LOOKS:
            work(job, stage, chunk, chunk + 1)


@_compiled()
@no_type_check
def follow(board, counts, done, job, me):
    """Help with a job until there has been nothing to do for a moment; tell whether it goes on."""
    fetch_add(board, INSIDE, 1)
    job, looks = lent_job(job), 0
    while looks < LOOKS and load(board, OPEN) == 1:
        looks += 1
        stage, first, end = take(board, counts, me)
        if stage >= 0:
            work(job, stage, first, end)
            for chunk in range(first, end):
                publish(done[stage % len(done)], chunk, 1)
            looks = 0
    fetch_add(board, INSIDE, -1)
    return load(board, OPEN) == 1


@_compiled()
@no_type_check
def close(board):
    """End a job; return how many threads are, a moment later, still at a chunk of it."""
    store(board, OPEN, 0)
    looks = 0
    while load(board, INSIDE) > 0 and looks < LOOKS:
        looks += 1
    return load(board, INSIDE)


def product_of(
    weight: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> Product:
    """Return the job that writes x Wᵀ into y, all float32; the weight must outlive it."""
    part = np.zeros(1, PART).view(np.recarray)
    part[0] = (weight.ctypes.data, 0, 0, 0, *weight.shape, 1)
    kinds = kinds_of(np.float32, np.float32, np.float32)
    return Product(kinds, part, x, np.empty((len(x), x.shape[1] + 1), np.float32), y)


def try_out() -> None:
    """Run a small product, to see that it can be compiled here."""
    numbers = np.ones((4, 8), np.float32)
    job = product_of(numbers, numbers[:1], np.empty((1, 4), np.float32))
    lead_product(board(1), np.zeros(1, np.int64), np.empty((1, MOST), np.int64), job)
