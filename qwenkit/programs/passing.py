"""pass@k: how often one of k programs passes, estimated from n of them; and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from typing import NamedTuple

from qwenkit.errors import InputError

_Z = 1.959964  # 95 % of a normal distribution lies within so many standard deviations


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that at least one of k programs passes, from n programs of one task.

    1 - C(n-c, k) / C(n, k): of all choices of k from the n, those with none of the c that passed
    are left out (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", section
    2.1). It is unbiased; 1 - (1 - c/n)^k is too low.

    Args:
        n: programs that were run.
        c: how many of them passed.
        k: how many tries.

    Raises:
        InputError: not 0 <= c <= n, or not 1 <= k <= n.

    >>> pass_at_k(10, 3, 1), pass_at_k(4, 2, 2)
    (0.3, 0.8333333333333334)
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise InputError(f"n, c, k is {n}, {c}, {k}; 0 <= c <= n and 1 <= k <= n must hold")
    every = comb(n, k)
    return (every - comb(n - c, k)) / every  # integers: no rounding before the division


class Estimate(NamedTuple):
    """A mean over tasks, and its 95 % interval.

    Attributes:
        value: from 0 to 1.
        low: the interval's lower end.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it in percent."""
        return f"{self.value:6.1%} ({self.low:.1%} to {self.high:.1%})"


def interval(values: Sequence[float]) -> Estimate:
    """Return the mean of values from 0 to 1, one per task, with Wilson's interval (1927).

    It says where the mean over all tasks of this kind may lie. For values that are 0 or 1, which
    Wilson's formula is for, it holds 95 % of the time; values in between vary less, and then it
    does so more often.

    Raises:
        InputError: no values.
    """
    if not values:
        raise InputError("values is empty; there must be at least one task")
    n, mean = len(values), sum(values) / len(values)
    center = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    # At 0 and 1 an end is the mean, but for rounding.
    return Estimate(mean, max(0.0, min(mean, center - half)), min(1.0, max(mean, center + half)))
