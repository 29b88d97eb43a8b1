"""pass@k computed wrongly, each way that is often met (exercise 15.3)."""

from __future__ import annotations

from math import comb, exp, lgamma

from qwenkit.checks._judge import Mistake
from qwenkit.programs import pass_at_k as right_pass_at_k


def _by_logarithms(n: int, c: int, k: int) -> float:
    """Return pass@k by lgamma, which cannot take 0 or less."""
    part = lgamma(n - c + 1) - lgamma(n - c - k + 1) + lgamma(n - k + 1) - lgamma(n + 1)
    return 1 - exp(part)


def _in_floats(n: int, c: int, k: int) -> float:
    return 1 - float(comb(n - c, k)) / float(comb(n, k))


def _product(first: int, last: int, n: int, c: int) -> float:
    """Return 1 - the product of the chances that one more draw fails."""
    none = 1.0
    for i in range(first, last):
        none *= max(0.0, (n - c - i) / (n - i)) if n > i else 0.0
    return 1 - none


PASS_MISTAKES = (
    Mistake("naive", "that is 1 − (1 − c/n)^k: k draws that put each program back. The k programs "
        "are different ones, so the chance that the next fails changes with each draw.",
        lambda n, c, k: 1 - (1 - c / n) ** k),
    Mistake("pass@1", "that is c/n, whatever k is. It is right for k = 1 alone.",
        lambda n, c, k: c / n),
    Mistake("all pass", "that is the chance that all k pass. One is enough.",
        lambda n, c, k: comb(c, k) / comb(n, k)),
    Mistake("none passes", "that is the chance that none of the k passes. You need the opposite.",
        lambda n, c, k: comb(n - c, k) / comb(n, k)),
    Mistake("one fails", "that is the chance that at least one *fails*. Which programs may the k "
        "be chosen from, if none of them passes?",
        lambda n, c, k: 1 - comb(c, k) / comb(n, k)),
    Mistake("exactly one", "that is the chance that *exactly* one passes. Two are fine, too.",
        lambda n, c, k: c * comb(n - c, k - 1) / comb(n, k)),
    Mistake("expected number", "that is k·c/n, how many of the k pass on average. It can be more "
        "than 1.",
        lambda n, c, k: k * c / n),
    Mistake("expected number", "that is k·c/n, cut at 1: a count of programs, not a probability.",
        lambda n, c, k: min(1.0, k * c / n)),
    Mistake("any passed", "you return 1 where any of the n passed. Some choices of k may still "
        "hold none of those.",
        lambda n, c, k: float(c > 0)),
    Mistake("percent", "the numbers are right, but in percent. Return a value from 0 to 1.",
        lambda n, c, k: 100 * right_pass_at_k(n, c, k)),
    Mistake("all pass, with replacement", "that is (c/n)^k: all k pass, and each is put back.",
        lambda n, c, k: (c / n) ** k),
    Mistake("few failures", "right, except where fewer than k programs failed: then any choice "
        "of k holds one that passed. The logarithm of 0 does not exist.",
        _by_logarithms),
    Mistake("overflow", "right, except for many programs: the number of choices does not fit into "
        "a float. Divide the two integers as integers, or multiply small fractions.",
        _in_floats),
    Mistake("one draw too many", "your product has one factor too many. With k = 1 there is one.",
        lambda n, c, k: _product(0, k + 1, n, c)),
    Mistake("one draw too few", "your product has one factor too few. With k = 1 there is one.",
        lambda n, c, k: _product(0, k - 1, n, c)),
)  # fmt: skip
