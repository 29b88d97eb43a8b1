"""Sides take turns, and it is measured how busy other processes kept the machine meanwhile."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TypeVar

import psutil

Found = TypeVar("Found")


def take_turns(
    sides: Mapping[str, Callable[[], Found]], rounds: int, warm_up: int = 1
) -> dict[str, list[Found]]:
    """Call each side once a round, the order reversed every other round.

    The rounds of the warm-up are not counted: in them pages are touched, threads woken and files
    read for the first time.
    """
    found: dict[str, list[Found]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            result = sides[name]()
            if number >= 0:
                found[name].append(result)
    return found


def few(rounds: int, least: int) -> int:
    """Return half the rounds, for what takes long, but not below `least` unless fewer are asked."""
    return min(rounds, max(least, rounds // 2))


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def others_share() -> Iterator[SimpleNamespace]:
    """Measure which share of the cores went to processes that are not this one or its children."""

    def now() -> tuple[float, float, float]:
        """Seconds of this process and its children, of all processes, and by the clock."""
        own, every = psutil.Process().cpu_times(), psutil.cpu_times()
        mine = own.user + own.system + own.children_user + own.children_system
        busy = sum(every) - every.idle - getattr(every, "iowait", 0.0)
        return mine, busy, time.perf_counter()

    found, began = SimpleNamespace(share=0.0), now()
    try:
        yield found
    finally:
        mine, busy, span = (after - before for after, before in zip(now(), began, strict=True))
        found.share = max(busy - mine, 0.0) / (span * (os.cpu_count() or 1))
