"""Progress: a line or a bar for each stage that takes over a second.

Both go to stderr. `QWENKIT_QUIET=1` switches them off.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 1.0  # seconds
T = TypeVar("T")


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Print what is being done, once the block has taken a second.

    >>> with stage("Reading the text"):
    ...     pass
    """
    if _quiet():
        yield
        return
    # tqdm's write does not garble a bar that is shown.
    timer = threading.Timer(DELAY, tqdm.write, [f"{what} ..."], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def bar(what: str, total: int | None, unit: str = "it") -> Iterator[Callable[[int], object]]:
    """Yield a function that advances a bar by a number of units; shown after one second.

    Where stderr is neither a terminal nor a notebook's, a line takes its place.
    """
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        with stage(what):
            yield lambda count: None
        return
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, delay=DELAY, leave=False,
        disable=_quiet(), file=sys.stderr,
    ) as shown:  # fmt: skip
        yield shown.update


def counted(what: str, steps: Iterable[T], total: int | None, unit: str = "token") -> Iterator[T]:
    """Yield each of some steps, and show in a bar how many are done; total None: not known."""
    with bar(what, total, unit) as advance:
        for step in steps:
            yield step
            advance(1)


def _quiet() -> bool:
    return os.environ.get("QWENKIT_QUIET", "") not in ("", "0")
