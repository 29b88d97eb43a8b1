"""Are the compiled kernels right and fast here? Asked on processors where nobody measured them."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import numpy as np
import torch

from qwenkit.fast import kernels
from qwenkit.fast.team import together

SIZE = 2048  # rows and columns of the weight: 16 MB, more than most caches hold
ROUNDS = 7  # of which the median counts
NEAR = 1e-4  # how far the two may differ, relative to the largest value


class Race(NamedTuple):
    """What a product with one token took, in seconds, and how far the two results are apart.

    Attributes:
        kernel: the kernel's median.
        torch: torch's median.
        difference: the largest, relative to the largest value.
    """

    kernel: float
    torch: float
    difference: float


def race() -> Race:
    """Multiply a float32 weight by one token, in turns: a tenth of a second."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, SIZE, generator=generator) for rows in (SIZE, 1))
    y = np.empty((1, SIZE), np.float32)
    job = kernels.product_of(weight.numpy(), x.numpy(), y)
    done = np.empty((1, kernels.MOST), np.int64)
    ours, theirs = list[float](), list[float]()
    for _ in range(1 + ROUNDS):  # the first touches memory, and may compile
        start = time.perf_counter()
        together(kernels.lead_product, job, done)
        between = time.perf_counter()
        want = torch.nn.functional.linear(x, weight)
        ours.append(between - start)
        theirs.append(time.perf_counter() - between)
    difference = (torch.from_numpy(y) - want).abs().max() / want.abs().max()
    return Race(statistics.median(ours[1:]), statistics.median(theirs[1:]), float(difference))
