"""Threads that help with a computation, and for none of which it waits for long.

OpenMP lets threads meet after each loop, and those that come early spin until the last is there. On
a machine with other work the last one's core is somebody else's for milliseconds, while a loop
takes a tenth of one. Here one thread leads. The others take what is left to take, and may be as
late as they like: see `share` in `fast.kernels`.
"""

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

NAP = 50e-6  # seconds, about what the system needs to wake a thread
GIVEN_UP = 0.1  # seconds without a new ticket: the leader was interrupted, or has lost its core


class _Team:
    """The threads of this process, started when they are first asked for."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]]
        self._jobs = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []

    def call(self, *jobs: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        """Ask as many threads as there are jobs, functions and what they are given."""
        while len(self.threads) < len(jobs):
            made = threading.Thread(target=self._serve, name="kernels of qwenkit", daemon=True)
            made.start()
            self.threads.append(made)  # after Ctrl-C between the two there is one more, which waits
        for job in jobs:
            self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            function, given = self._jobs.get()
            try:
                function(*given)
            except Exception:  # the leader computes everything itself
                traceback.print_exc()


def _help(follow: Callable[..., bool], *given: Any) -> None:
    """Follow a job to its end."""
    board, before, since = given[0], b"", time.monotonic()
    while follow(*given):
        now = time.monotonic()
        if board.tobytes() != before:
            before, since = board.tobytes(), now
        elif now > since + GIVEN_UP:
            return
        time.sleep(NAP)


_team = _Team()


def own_threads() -> set[int | None]:
    """Return the idents of the threads that help, and run nothing else."""
    return {one.ident for one in _team.threads}


def _none_yet() -> None:
    """Begin again in a process that was forked: its parent's threads are not there."""
    global _team
    _team = _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_none_yet)


def _close(board: NDArray[np.int64]) -> None:
    """End a job, once nobody is at work on it: weights and pages may be freed then."""
    from qwenkit.fast import kernels

    while kernels.close(board) > 0:
        time.sleep(NAP / 10)


def together(lead: Callable[..., int], job: Any, done: NDArray[np.int64]) -> int:
    """Run a job on as many threads as torch uses; return what `lead` does.

    Args:
        lead: a kernel that leads through the job's stages.
        job: what `lead` and `follow` of `fast.kernels` take.
        done: (stages, columns) to work in.
    """
    from qwenkit.fast import kernels

    helpers = torch.get_num_threads() - 1
    board, counts = kernels.board(helpers + 1), np.zeros(len(done), np.int64)
    given = board, counts, done, job
    try:
        if helpers > 0:
            each = ((_help, (kernels.follow, *given, me)) for me in range(1, helpers + 1))
            _team.call(*each)
        return lead(*given)
    finally:
        _close(board)


def each_alone(jobs: list[Any]) -> int:
    """Run some steps, each on a thread of its own; return how many all of them have computed.

    For a model that fits in the cache, and texts that fill tiles: no thread waits for another at
    each stage. Once this thread has computed its own, those that are at work have as long as a step
    took. Then they end with the step they are at. What no thread has begun is computed here.

    Args:
        jobs: `kernels.Step`s of one size that share `ahead.most`.
    """
    from qwenkit.fast import kernels

    most, found = jobs[0].ahead.most, np.zeros((len(jobs), 1), np.int64)
    given = [
        (kernels.board(1), np.zeros(len(job.scratch.done), np.int64), job.scratch.done, job, steps)
        for job, steps in zip(jobs, found, strict=True)
    ]
    begun = time.perf_counter_ns()
    try:
        _team.call(*((kernels.lead_alone, one) for one in given[1:]))
        kernels.lead_alone(*given[0])
        for board, *_, steps in given[1:]:
            if board[kernels.INSIDE]:
                kernels.wait_for(steps, (time.perf_counter_ns() - begun) // int(found[0, 0]))
        if not found.all():
            most[:] = 0  # whoever is at work ends
    finally:
        for board, *_ in given:
            _close(board)
    most[:] = found[found > 0].min()
    for _, *more, steps in given:
        if not steps:  # its thread is busy with something else
            kernels.lead_alone(kernels.board(1), *more, steps)
    return int(found.min())
