"""A few rows times a large weight: a plain loop, compiled, that keeps the memory busy.

To decode a token, each weight is read once and used once. The processor could multiply far more
than it gets, so the loop below asks for memory well, and is otherwise the textbook's:

- Weights are read as they are stored, in two bytes or one, and become float32 on arrival.
- Four rows of the weight are read side by side, each a quarter of the weight further on. Memory is
  fetched ahead of a loop that walks through it in order; four such walks are four times the
  requests under way. Four rows that follow one another would be one walk.
- The rows are shared out among all cores.

Numba compiles it at its first use, which takes a second or two, and keeps the result on disk.
`loop` is the Python function itself: slow, and the same numbers.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, no_type_check

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from qwenkit.errors import InputError

WALKS = 4  # the weight's rows that are read side by side

# Numba's own threads may only be started by one thread at a time, unless its layer allows more.
_one_at_a_time = threading.Lock()


@no_type_check
def as_float(stored):
    """Return a stored number as float32: it is one, or an int8, or a bfloat16's sixteen bits.

    bfloat16 is the upper half of a float32: sixteen zeros behind it make it one.
    """
    if stored.dtype != np.uint16:
        return np.float32(stored)
    return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


@overload(as_float, inline="always")
@no_type_check
def _as_float(stored):
    """Tell numba the same, for the dtype that it compiles the loop for."""
    if stored != numba.uint16:
        return lambda stored: np.float32(stored)
    return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


@no_type_check
def loop(weight, x, y):
    """Write x weightᵀ into y; arguments as of `few_rows`."""
    outer, inner = weight.shape
    quarter = outer // WALKS
    for row in numba.prange(quarter):
        for n in range(len(x)):
            a = b = c = d = np.float32(0)
            for i in range(inner):
                a += as_float(weight[row, i]) * x[n, i]
                b += as_float(weight[row + quarter, i]) * x[n, i]
                c += as_float(weight[row + 2 * quarter, i]) * x[n, i]
                d += as_float(weight[row + 3 * quarter, i]) * x[n, i]
            y[n, row], y[n, row + quarter] = a, b
            y[n, row + 2 * quarter], y[n, row + 3 * quarter] = c, d
    for row in range(WALKS * quarter, outer):  # what four does not divide
        for n in range(len(x)):
            a = np.float32(0)
            for i in range(inner):
                a += as_float(weight[row, i]) * x[n, i]
            y[n, row] = a


@no_type_check
def compiled(function, options):
    """Compile a function at its first call, and keep the result on disk where that may be.

    What is kept is made anew when the function's own file changes, not when another does that it
    calls into: who changes this file must change `layer_loops` too, or run `make clean`.
    """
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that it may write to: compiled anew in each process
        return numba.njit(**options)(function)


# The sum may be added up in another order, several numbers at once; nothing else is given up.
OPTIONS = {"parallel": True, "fastmath": {"reassoc", "contract", "nsz"}}
parallel_loop = compiled(loop, OPTIONS)


def few_rows(x: NDArray[np.float32], weight: NDArray[Any], threads: int = 1) -> NDArray[np.float32]:
    """Return x weightᵀ, an (N, O) float32 array.

    Args:
        x: (N, I) float32, a few rows.
        weight: (O, I) float32, int8, or bfloat16 as uint16.
        threads: cores to use at the most.

    Raises:
        InputError: the shapes do not fit; compiled code would read past the end of a row.
    """
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise InputError(
            f"x has shape {x.shape} and the weight {weight.shape}; they must be (N, I) and (O, I)"
        )
    y = np.empty((len(x), len(weight)), dtype=np.float32)
    with cores(threads):
        parallel_loop(weight, np.ascontiguousarray(x), y)
    return y


@contextlib.contextmanager
def cores(threads: int) -> Iterator[None]:
    """Let compiled loops run on so many cores, one caller at a time."""
    with _one_at_a_time:
        if numba.get_num_threads() != threads:
            numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
        yield


def shares_cores_with_torch() -> bool:
    """Tell whether the loop runs, on threads that leave the cores alone when they wait.

    Numba starts its threads through OpenMP or TBB. Where it finds neither, its own threads and
    torch's get in each other's way, and torch's products are quicker.
    """
    few_rows(np.ones((1, 8), np.float32), np.ones((WALKS, 8), np.uint16))
    return str(numba.threading_layer()) in ("omp", "tbb")
