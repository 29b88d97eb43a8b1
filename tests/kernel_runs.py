"""How tests run the kernels: as the Python functions that one reads, or with a late thread."""

import time
from contextlib import contextmanager
from random import Random

import pytest
import torch


@contextmanager
def threads(number):
    """Let torch, and so the kernels, use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def in_python():
    """Let the kernels run as Python functions."""
    from qwenkit.fast import kernels

    with pytest.MonkeyPatch.context() as patch, threads(1):  # reads and writes are not atomic
        for name, function in vars(kernels).items():
            if hasattr(function, "py_func"):
                patch.setattr(kernels, name, function.py_func)
        yield


@contextmanager
def late_thread():
    """Let a thread be late: the system took its core between a chunk and its work.

    Two threads must be in use. Given are two lists. The first has an entry per chunk: whether the
    others had gone on to a later stage by then. The second holds the stages that the thread is at
    now. At the end the test is skipped where the thread was never late.
    """
    from qwenkit.fast import kernels

    late, inside, random = [], [], Random(0)

    def follow(board, counts, done, job, me):
        kernels.fetch_add(board, kernels.INSIDE, 1)
        while board[kernels.OPEN] == 1:
            stage, first, end = kernels.take(board, counts, me)
            if stage >= 0:
                inside.append(stage)
                time.sleep(random.uniform(0, 3e-4))
                late.append(board[kernels.TICKETS] >> kernels.BITS > stage)
                kernels.work(job, stage, first, end)
                inside.pop()
        kernels.fetch_add(board, kernels.INSIDE, -1)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "follow", follow)
        yield late, inside
    if not any(late):
        pytest.skip("on this machine no thread took a chunk and was late")
