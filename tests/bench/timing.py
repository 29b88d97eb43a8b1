"""Sides take turns, and it is measured how busy other processes kept the machine meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TypeVar

import psutil
from torch import Tensor

Found = TypeVar("Found")
BIG = 1 << 28  # float32 of which reading is timed: 1 GiB, more than any cache holds
# Ends when the process that started it is gone, however that ended; Ctrl-C is for that one alone.
BUSY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import numpy as np
matrix = np.random.default_rng(0).random((256, 256))
print("busy", flush=True)
while os.getppid() == int(sys.argv[1]):
    matrix @ matrix
"""


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


def memory_speed(big: Tensor, times: int = 3) -> float:
    """Return how many gigabytes per second torch's threads read at best.

    Args:
        big: what is read, several times as large as the processor's cache.
        times: of which the best counts.
    """
    return big.nbytes / 1e9 / min(seconds(big.sum) for _ in range(times))


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep so many processes busy, each on one core, while the block lasts; after Ctrl-C they end.

    They multiply matrices that stay in the cache, so what they take is cores, not memory's speed.
    """
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-c", BUSY, str(os.getpid())]
    started = []
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | threads)
            stack.enter_context(process)  # waits for it at the end
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it computes from now on
        yield started


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
