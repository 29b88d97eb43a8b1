"""A loop of decode steps in which only code of ours runs: what is checked holds for the next token.

To ask whether everything is as it was (`fast.layers`) takes two milliseconds after a token of a
model that is larger than the processor's cache: all that is asked for has left the cache by then.
Within `complete` or `generate_batch` the answer holds as long as nothing but their own loop ran.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwenkit.fast.team import own_threads

AT_MOST = 16  # tokens of a check: whatever nobody has thought of, such as a signal, is seen then
Arrays = tuple[NDArray[np.float32], ...]
CPU_TIME, BITS = 6, 3  # Linux names a thread's clock by the thread's number, inverted, and a 6


class ClosedLoop:
    """What a decode step has checked, for the next steps of the same loop.

    Other threads may run at any time. The system counts how long each of them has computed: if
    none has for a nanosecond, none has changed anything. Else all is checked again.

    A loop whose caller gets each token, such as the iterator of `generate`, is not closed. One that
    gives a cache other buffers takes a new one.
    """

    def __init__(self) -> None:
        self._asked: tuple[Any, ...] = ()
        self._found: Any = None
        self._others: dict[int, int] | None = None
        self._left = 0
        self._ahead: tuple[NDArray[np.int64], Arrays] | None = None

    def ask(self, check: Callable[..., Any], *about: Any) -> Any:
        """Return what `check(*about)` returns, or what it returned if nothing can have changed."""
        if self._left and all(map(is_, (check, *about), self._asked)) and self._others == others():
            self._left -= 1
            return self._found
        self._left, self._ahead = 0, None  # an error of the check is no answer
        before = others()  # what a thread does during the check came after it
        self._found, self._asked, self._others = check(*about), (check, *about), before
        self._left = 0 if before is None else AT_MOST - 1
        return self._found

    def ahead(
        self, compute: Callable[[NDArray[np.int64]], Arrays], positions: NDArray[np.int64]
    ) -> Arrays:
        """Return what `compute(positions)` returns, computed for the next tokens, too.

        What it depends on must be what `ask` has asked about for this token.

        Args:
            compute: of positions of any shape returns arrays with a dimension more.
            positions: (N) of each text's new token; each time one further, or computed again.
        """
        if self._ahead is not None:
            first, found = self._ahead
            step = int(positions[0] - first[0])
            alike = len(positions) == len(first) and bool((positions == first + step).all())
            if alike and 0 <= step < found[0].shape[1]:
                return _column(found, step)
        self._ahead = positions, compute(positions[:, None] + np.arange(1 + self._left))
        return _column(self._ahead[1], 0)


def _column(arrays: Arrays, step: int) -> Arrays:
    return tuple(np.ascontiguousarray(one[:, step]) for one in arrays)


def others() -> dict[int, int] | None:
    """Return how long each other thread that may run Python has computed, in nanoseconds.

    Threads that help the kernels are left out.

    Returns:
        Thread's number -> its time; None: this system does not tell, or not of every thread.
    """
    if sys.platform != "linux":
        return None
    numbers = {one.ident: one.native_id for one in threading.enumerate()}
    found = {}
    for ident in sys._current_frames().keys() - own_threads() - {threading.get_ident()}:
        number = numbers.get(ident)
        if number is None:
            return None
        try:  # time.pthread_getcpuclockid may crash where a thread has just ended
            found[number] = time.clock_gettime_ns(~number << BITS | CPU_TIME)
        except OSError:
            return None
    return found
