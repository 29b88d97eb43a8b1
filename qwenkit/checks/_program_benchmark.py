"""A benchmark on a model that is only pretended, right and with common mistakes (exercise 15.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from math import sqrt
from typing import Any

from qwenkit.checks._judge import Mistake
from qwenkit.programs import Outcome, Task, first_function, pass_at_k

Run = Callable[[str, str], Outcome]
Write = Callable[[str, int], str]
Row = tuple[float, ...] | float  # mean, low, high
Wilson = Callable[[float, int], tuple[float, float]]
AGAIN = "programs run again"

_ONE = 'def one():\n    """Return 1."""\n'
_TWICE = 'def twice(x):\n    """Return two times x."""\n'
_SIGN = 'def sign(x):\n    """Return 1, 0 or -1."""\n'
_ZERO = 'def zero():\n    """Return 0."""\n'
TASKS = [
    Task(_ONE, "assert one() == 1"),
    Task(_TWICE, "assert twice(4) == 8\nassert twice(3) == 6"),
    Task(_SIGN, "assert sign(-5) == -1\nassert sign(0) == 0\nassert sign(7) == 1"),
    Task(_ZERO, "assert zero() == 0"),
]
_TEXTS = {
    _ONE: ("    return 1\n\nprint(undefined)\n", "    return 2 - 1\n",
        "    return 1\n\nprint(undefined)\n", "    one = 1\n    return one\n"),
    _TWICE: ("    return 2 * x\n\nassert twice(1) == 3\n", "    return x *\n", "    return x + 2\n",
        "    return y\n"),
    _SIGN: ("    return x\n", "    return 1\n", "    return sgn(x)\n", "    return x\n"),
    _ZERO: ("    return 1\n", "    return 0\n", "    return 0\n", "    return None\n"),
}  # fmt: skip


def written(prompt: str, seed: int) -> str:
    """Return what a pretended model writes."""
    return _TEXTS[prompt][seed % 4]


def run(code: str, tests: str) -> Outcome:
    """Run one of the programs above, as `programs.run` does, but in this process."""
    try:
        exec(code + "\n" + tests, {})
    except AssertionError:
        return Outcome("failed")
    except SyntaxError:
        return Outcome("syntax")
    except Exception:
        return Outcome("error")
    return Outcome("passed")


def counted(learner: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function; its answer also says how many programs ran again, if any did."""

    @wraps(learner)
    def counting(write: Write, tasks: list[Task], n: int, ks: Sequence[int]) -> Any:
        ran: list[tuple[str, str]] = []

        def running(code: str, tests: str) -> Outcome:
            ran.append((code, tests))
            return run(code, tests)

        found = learner(write, running, tasks, n, ks)
        again = len(ran) - len({*ran})
        return {**found, AGAIN: again} if again and isinstance(found, Mapping) else found

    return counting


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _wilson(p: float, m: int, z: float = 1.96) -> tuple[float, float]:
    """Return the center and the half width of the interval of a mean over m tasks."""
    below = 1 + z**2 / m
    return (p + z**2 / (2 * m)) / below, z * sqrt(p * (1 - p) / m + z**2 / (4 * m**2)) / below


def _undivided(p: float, m: int) -> tuple[float, float]:
    center, half = _wilson(p, m)
    return center, half * (1 + 1.96**2 / m)


def _normal(p: float, m: int) -> tuple[float, float]:
    return p, 1.96 * sqrt(p * (1 - p) / m)


def _ends(p: float, center: float, half: float) -> Row:
    return p, center - half, center + half


def benchmark(
    of_task: Callable[[int, int, int], float] = pass_at_k,
    over: Callable[[Sequence[float]], float] = _mean,
    program: Callable[[str, str], str] = lambda prompt, text: prompt + first_function(text),
    passed: Callable[[Outcome], bool] = lambda outcome: outcome.passed,
    seeds: Callable[[int], Sequence[int]] = range,
    once: bool = True,
    distinct: bool = False,
    wilson: Wilson = _wilson,
    points: Callable[[int, int], int] = lambda tasks, n: tasks,
    row: Callable[[float, float, float], Row] = _ends,
) -> Callable[..., dict[int, Row]]:
    """Return the benchmark; each argument is a step of it."""

    def loop(write: Write, run: Run, tasks: list[Task], n: int, ks: Sequence[int]) -> Any:
        counts = []
        for task in tasks:
            codes = [program(task.prompt, write(task.prompt, seed)) for seed in seeds(n)]
            codes = list(dict.fromkeys(codes)) if distinct else codes
            running = cache(run) if once else run
            every = [running(code, task.tests) for code in codes]
            counts.append((len(every), sum(map(passed, every))))
        found = {}
        for k in ks:
            p = over([of_task(m, c, min(k, m)) for m, c in counts])
            found[k] = row(p, *wilson(p, points(len(tasks), n)))
        return found

    return loop


def _pooled(write: Write, run: Run, tasks: list[Task], n: int, ks: Sequence[int]) -> Any:
    share = benchmark(lambda n, c, k: c / n)(write, run, tasks, n, [1])[1]
    assert isinstance(share, tuple)
    total = n * len(tasks)
    pooled = {k: pass_at_k(total, round(share[0] * total), k) for k in ks}
    return {k: _ends(p, *_wilson(p, len(tasks))) for k, p in pooled.items()}


BENCHMARK_MISTAKES = (
    Mistake("not cut", "you run the whole completion. What the model wrote after the function is "
        "run too, and fails.",
        counted(benchmark(program=lambda prompt, text: prompt + text))),
    Mistake("no prompt", "you run the completion without its prompt. A body alone is not Python.",
        counted(benchmark(program=lambda prompt, text: first_function(text)))),
    Mistake("one seed", "the n programs of a task are all the same one, or there is only one. Each "
        "needs its own seed.", counted(benchmark(seeds=lambda n: [0] * n))),
    Mistake("run again", "the numbers are right, but equal programs of a task run more than once. "
        "A run takes time: how can you remember what was run?",
        counted(benchmark(once=False))),
    Mistake("equal programs counted once", "equal programs count as one. Run each of them once, "
        "but count all n: a program that the model writes often is more likely.",
        counted(benchmark(distinct=True))),
    Mistake("every outcome counts", "every program counts as passed. An Outcome is true in an if, "
        "whatever happened; ask for its attribute passed.",
        counted(benchmark(passed=lambda one: True))),
    Mistake("no error is a pass", "you count programs that ran without an error. A failed assert "
        "is not a pass.",
        counted(benchmark(passed=lambda one: one.reason in ("passed", "failed")))),
    Mistake("failures counted", "you count the programs that do not pass.",
        counted(benchmark(passed=lambda one: not one.passed))),
    Mistake("pooled", "you count the programs of all tasks together. Then the k come from any "
        "task, and an easy one answers for a hard one. Estimate each task, then take the mean.",
        counted(_pooled)),
    Mistake("naive", "you use 1 − (1 − c/n)^k, which is biased.",
        counted(benchmark(lambda n, c, k: 1 - (1 - c / n) ** k))),
    Mistake("pass@1", "every value is pass@1, whatever k is.",
        counted(benchmark(lambda n, c, k: c / n))),
    Mistake("any of n", "a task counts as solved if any of the n passes. That is pass@n.",
        counted(benchmark(lambda n, c, k: float(c > 0)))),
    Mistake("all of n", "a task counts as solved only if all of the n pass.",
        counted(benchmark(lambda n, c, k: float(c == n)))),
    Mistake("solved tasks only", "your mean leaves out the tasks that no program solved.",
        counted(benchmark(over=lambda values: _mean([v for v in values if v] or [0.0])))),
    Mistake("last task only", "you return the last task's value. Collect all, then take the mean.",
        counted(benchmark(over=lambda values: values[-1]))),
    Mistake("no interval", "the means are right; each k also needs the ends of its interval.",
        counted(benchmark(row=lambda p, center, half: p))),
    Mistake("no mean", "the intervals are right; put the mean before them: three numbers for "
        "each k.", counted(benchmark(row=lambda p, center, half: (center - half, center + half)))),
    Mistake("center and half width", "you return the half width. Return where the interval "
        "begins and where it ends.",
        counted(benchmark(row=lambda p, center, half: (p, center, half)))),
    Mistake("center for mean", "the first number is the center of the interval; return the mean "
        "itself. The two differ with few tasks.",
        counted(benchmark(row=lambda p, center, half: (center, center - half, center + half)))),
    Mistake("around the mean", "the interval lies around the mean. Wilson's lies around a center "
        "that is nearer to one half.",
        counted(benchmark(wilson=lambda p, m: (p, _wilson(p, m)[1])))),
    Mistake("normal interval", "that is p ± z · √(p(1 − p)/m). With a mean of 0 or 1 it has no "
        "width at all; Wilson's has one.", counted(benchmark(wilson=_normal))),
    Mistake("half width not divided", "the half width is also divided by 1 + z²/m.",
        counted(benchmark(wilson=_undivided))),
    Mistake("programs as data points", "your interval is that of n programs per task. The n "
        "programs of a task are not independent: m is the number of tasks.",
        counted(benchmark(points=lambda tasks, n: tasks * n))),
    Mistake("one standard error", "your interval has z = 1: it holds in 68 % of all cases.",
        counted(benchmark(wilson=lambda p, m: _wilson(p, m, 1.0)))),
    Mistake("percent", "the numbers are right, but in percent. Return values from 0 to 1.",
        counted(benchmark(row=lambda p, center, half:
            (100 * p, 100 * (center - half), 100 * (center + half))))),
)  # fmt: skip
