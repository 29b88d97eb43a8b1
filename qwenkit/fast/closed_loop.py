"""A loop of decode steps in which only code of ours runs: what is checked holds for the next token.

To ask whether everything is as it was (`fast.layers`) takes two milliseconds after a token of a
model that is larger than the processor's cache: all that is asked for has left the cache by then.
Within `complete` or `generate_batch` the answer holds as long as nothing but their own loop ran.

With a small model, the Python between two tokens takes longer than the kernels. A greedy loop feeds
the token of the largest logit. So the kernels go on by themselves, and ask the system before each
token whether another thread has computed. The loop then finds what it asks for.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwenkit.fast.team import own_threads

AT_MOST = 32  # tokens of a check: whatever nobody has thought of, such as a signal, is seen then
Arrays = tuple[NDArray[np.float32], ...]
CPU_TIME, BITS = 6, 3  # Linux names a thread's clock by the thread's number, inverted, and a 6


class Greedy(NamedTuple):
    """What a loop does with logits, if it feeds the token of the largest.

    Attributes:
        num_tokens: ids from here on are no tokens.
        stops: a text that gets one of these tokens ends.
        length: what the cache will hold at last.
    """

    num_tokens: int
    stops: Collection[int]
    length: int


class _Computed(NamedTuple):
    """Logits after tokens that the loop has not fed yet, but will.

    Attributes:
        logits: gives those of a step, (B, 1, V); the first ones are known to the loop.
        tokens: (n, B) int64, of the largest logits; -1 where not all are finite.
        length: of the cache before the first token.
    """

    logits: Callable[[int], Tensor]
    tokens: NDArray[np.int64]
    length: int


class ClosedLoop:
    """What a decode step has checked, for the next steps of the same loop.

    Other threads may run at any time. The system counts how long each of them has computed: if
    none has for a nanosecond, none has changed anything. Else all is checked again.

    A loop whose caller gets each token, such as the iterator of `generate`, is not closed. One that
    gives a cache other buffers takes a new one.

    Where the loop says that it is greedy, the kernels compute some tokens at once, and what they
    found is kept until the loop has fed those tokens. If it feeds others, or another thread has
    run in between, it is forgotten.

    Args:
        most: tokens that are computed at once.

    Attributes:
        greedy: what the loop does with logits, if it says so.
    """

    def __init__(self, most: int = AT_MOST) -> None:
        self.greedy: Greedy | None = None
        self._memory: Tensor | None = None
        self._most = most
        self._asked: tuple[Any, ...] = ()
        self._found: Any = None
        self._others: dict[int, int] | None = None
        self._left = 0
        self._ahead: tuple[NDArray[np.int64], Arrays] | None = None
        self._computed: _Computed | None = None

    def ask(self, check: Callable[..., Any], *about: Any) -> Any:
        """Return what `check(*about)` returns, or what it returned if nothing can have changed."""
        if self._holds((check, *about)):
            self._left -= 1
            return self._found
        self._left, self._ahead = 0, None  # an error of the check is no answer
        before = others()  # what a thread does during the check came after it
        self._found, self._asked, self._others = check(*about), (check, *about), before
        self._left = 0 if before is None else AT_MOST - 1
        return self._found

    def _holds(self, asked: tuple[Any, ...]) -> bool:
        """Tell whether what was found before is still right."""
        return bool(self._left and all(map(is_, asked, self._asked)) and self._others == others())

    def most(self, length: int) -> int:
        """Return how many tokens may be computed at once, the one that was asked about among them.

        Args:
            length: of the cache before it.
        """
        if self.greedy is None:
            return 1
        return max(1, min(self._most, 1 + self._left, self.greedy.length - length))

    @property
    def clocks(self) -> NDArray[np.int64]:
        """(T, 2) the number of each other thread's clock, and what it showed; see `others`."""
        shown = (self._others or {}).items()
        return np.array([(_clock(number), time) for number, time in shown], np.int64).reshape(-1, 2)

    def ahead(
        self, compute: Callable[[NDArray[np.int64]], Arrays], positions: NDArray[np.int64]
    ) -> Arrays:
        """Return what `compute(positions)` returns, computed for the next tokens, too.

        What it depends on must be what `ask` has asked about for this token.

        Args:
            compute: of positions of any shape returns arrays with a dimension more.
            positions: (N) of each text's new token; each time one further, or computed again.

        Returns:
            Arrays (N, K, ...) of K tokens, the new one and those after it.
        """
        if self._ahead is not None:
            first, found = self._ahead
            step = int(positions[0] - first[0])
            alike = len(positions) == len(first) and bool((positions == first + step).all())
            if alike and 0 <= step < found[0].shape[1]:
                return tuple(one[:, step:] for one in found)
        self._ahead = positions, compute(positions[:, None] + np.arange(1 + self._left))
        return self._ahead[1]

    def memory(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return memory for logits, the same for each step of this loop: new one costs time."""
        kept = self._memory
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._memory = torch.empty(shape, dtype=dtype)
        return kept

    def keep(self, logits: Callable[[int], Tensor], tokens: NDArray[np.int64], length: int) -> None:
        """Keep what was computed ahead.

        Args:
            logits: gives those of a step, (B, 1, V): after the token that was fed first, and after
                those that follow it.
            tokens: (n, B) int64: of the largest logits; -1 where not all are finite.
            length: of the cache before the first.
        """
        self._computed = _Computed(logits, tokens, length)

    def computed(
        self, ids: NDArray[np.int64], length: int, check: Callable[..., Any], *about: Any
    ) -> tuple[Callable[[], Tensor], Callable[[], list[list[int]]]] | None:
        """Return what comes after a token, if it was computed, and all that was checked holds.

        Args:
            ids: (B, 1) the token of each text.
            length: of the cache before it.
            check: as of `ask`.
            about: as of `ask`.

        Returns:
            What gives the logits, (B, 1, V); and what gives all tokens from here on, and takes
            them as fed.
        """
        kept = self._computed
        step = 0 if kept is None else length - kept.length
        if kept is None or not 0 < step < len(kept.tokens):
            return None
        if not np.array_equal(ids[:, 0], kept.tokens[step - 1]) or not self._holds((check, *about)):
            self._computed = None
            return None
        self._left -= 1
        return partial(kept.logits, step), partial(self._taken, step)

    def _taken(self, step: int) -> list[list[int]]:
        """Return the tokens of a step and those that follow, if all logits are finite."""
        kept, self._computed = self._computed, None
        tokens = np.empty((0, 0)) if kept is None else kept.tokens[step:]
        finite = (tokens >= 0).all(1)
        own = tokens if finite.all() else tokens[: finite.argmin()]
        self._left = max(0, self._left - max(0, len(own) - 1))
        return own.tolist()  # type: ignore[no-any-return]


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
            found[number] = time.clock_gettime_ns(_clock(number))
        except OSError:
            return None
    return found


def _clock(number: int) -> int:
    """Return the clock that shows how long a thread has computed."""
    return ~number << BITS | CPU_TIME
