"""A thread that helps the kernels late: the system took its core between a chunk and its work."""

import time
from random import Random


def late_follower():
    """Return a stand-in for `kernels.follow`, and two lists that it fills.

    The first has an entry per chunk: whether the others had gone on to a later stage by then. The
    second holds the stages that the thread is at now.
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

    return follow, late, inside
