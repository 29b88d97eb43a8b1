"""Delaying Ctrl-C during a change that must not be left half made."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C take effect only after the block.

    Outside the main thread Python delivers no signals, and nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before is None:
        yield
        return
    came = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hold:  # else another signal has set it meanwhile
            signal.signal(signal.SIGINT, before)
    for number in came:  # a second one means more than the first
        signal.raise_signal(number)
