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

    def own() -> float:
        times = psutil.Process().cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def busy() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    found = SimpleNamespace(share=0.0)
    mine, all_of_them, began = own(), busy(), time.perf_counter()
    try:
        yield found
    finally:
        span = (time.perf_counter() - began) * (os.cpu_count() or 1)
        found.share = max((busy() - all_of_them) - (own() - mine), 0.0) / span
