"""The checks of notebook 15, programs that run: tests, cutting, pass@k, and a whole benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qwenkit.checks._judge import Case, Verdict, judge
from qwenkit.checks._program_benchmark import (
    BENCHMARK_MISTAKES,
    TASKS,
    benchmark,
    counted,
    written,
)
from qwenkit.checks._program_cut import CUT_MISTAKES, without_end
from qwenkit.checks._program_pass import PASS_MISTAKES
from qwenkit.checks._program_tests import MUTANTS, TEST_MISTAKES, judged_tests
from qwenkit.programs import first_function
from qwenkit.programs import pass_at_k as right_pass_at_k

EXERCISES = {
    "15.1": "tests that refuse wrong programs",
    "15.2": "cut a completion",
    "15.3": "pass@k from n and c",
    "15.4": "a benchmark with intervals",
}
_EXACT, _ROUNDED = 1e-9, 1e-4  # with z = 1.96, or with more digits


def refuse(learner: Callable[[], str]) -> Verdict:
    """Check `learner()`, the asserts for `longest_word`: exercise 15.1."""
    judged = judged_tests(learner) if callable(learner) else learner
    praise = f"the right program passes your tests, and {len(MUTANTS)} wrong ones do not."
    return judge("15.1", judged, lambda: "", [Case("", ())], TEST_MISTAKES, praise)


def cut(learner: Callable[[str], str]) -> Verdict:
    """Check `learner(completion)`, its part up to the end of the function: exercise 15.2."""
    texts = {
        "another function follows": "    return 1\n\n\ndef other():\n    return 2\n",
        "nothing follows": "    total = 0\n    return total\n",
        "a print follows at once": "    return x\nprint(f(2))\nprint(f(3))\n",
        "a blank line within the function":
            "    total = 0\n\n    for x in y:\n        total += x\n    return total\n\nmain()\n",
        "an if with two returns":
            "    if x:\n        return 1\n    return 2\n\nclass A:\n    pass\n",
        "a nested function":
            "    def inner(x):\n        return x\n    return inner\n\n@cache\ndef f():\n    pass\n",
        "a comment follows": "    return 1\n# Tests\nassert f() == 1\n",
        "a loop ends, and the function goes on":
            "    for x in y:\n        z += x\n    return z\n\nif z:\n    f()\n",
    }  # fmt: skip
    cases = [Case(label, (text,)) for label, text in texts.items()]
    praise = "the function is whole, and nothing that follows it is run."
    judged = without_end(learner) if callable(learner) else learner
    return judge("15.2", judged, without_end(first_function), cases, CUT_MISTAKES, praise)


def pass_at_k(learner: Callable[[int, int, int], float]) -> Verdict:
    """Check `learner(n, c, k)`, a probability: exercise 15.3."""
    cases = [
        Case("4 programs, 2 passed, k = 2", (4, 2, 2)),
        Case("k = 1", (10, 3, 1)),
        Case("10 programs, 3 passed, k = 5", (10, 3, 5)),
        Case("none passed", (10, 0, 5)),
        Case("all passed", (10, 10, 3)),
        Case("fewer failures than k", (5, 3, 4)),
        Case("k = n", (6, 1, 6)),
        Case("5,000 programs", (5000, 40, 200)),
    ]
    praise = "no choice of k programs is counted twice, and 5,000 programs are no problem."
    return judge("15.3", learner, right_pass_at_k, cases, PASS_MISTAKES, praise, _EXACT)


def evaluate(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(write, run, tasks, n, ks)`: k -> (mean, low, high): exercise 15.4."""
    labels: dict[str, tuple[Sequence[Any], int, Sequence[int]]] = {
        "four tasks, four programs each": (TASKS, 4, (1, 2)),
        "eight programs each, k = 3": (TASKS, 8, (3,)),
        "one task": (TASKS[1:2], 4, (1, 4)),
        "a task that never passes": (TASKS[2:3], 4, (2,)),
    }
    cases = [Case(label, (written, *given)) for label, given in labels.items()]
    judged = counted(learner) if callable(learner) else learner
    praise = "prompt, completion, cut, run, count, interval: that is a whole benchmark."
    right = counted(benchmark())
    return judge("15.4", judged, right, cases, BENCHMARK_MISTAKES, praise, _ROUNDED)
