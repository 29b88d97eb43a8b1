"""The checks of notebook 15, programs that run: pass@k, tests, cutting, and the whole loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import comb, exp, lgamma
from typing import Any

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.programs import Outcome, Task, first_function
from qwenkit.programs import pass_at_k as right_pass_at_k

EXERCISES = {
    "15.1": "pass@k from n and c",
    "15.2": "tests that refuse wrong programs",
    "15.3": "cut a completion",
    "15.4": "from prompt to pass@k",
}
Program = Callable[[str], Any]
Run = Callable[[str, str], Outcome]
Write = Callable[[str, int], str]
_EXACT = 1e-9


def pass_at_k(learner: Callable[[int, int, int], float]) -> Verdict:
    """Check `learner(n, c, k)`, a probability: exercise 15.1."""
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
    return judge("15.1", learner, right_pass_at_k, cases, _PASS_MISTAKES, praise, _EXACT)


def refuse(learner: Callable[[], str]) -> Verdict:
    """Check `learner()`, the asserts for `longest_word`: exercise 15.2."""
    judged = _judged_tests(learner) if callable(learner) else learner
    praise = f"the right program passes your tests, and {len(_MUTANTS)} wrong ones do not."
    return judge("15.2", judged, lambda: "", [Case("", ())], _TEST_MISTAKES, praise)


def cut(learner: Callable[[str], str]) -> Verdict:
    """Check `learner(completion)`, its part up to the end of the function: exercise 15.3."""
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
    judged = _without_end(learner) if callable(learner) else learner
    return judge("15.3", judged, _without_end(first_function), cases, _CUT_MISTAKES, praise)


def evaluate(learner: Callable[[Write, Run, list[Task], int, int], float]) -> Verdict:
    """Check `learner(write, run, tasks, n, k)`, the mean pass@k: exercise 15.4."""
    cases = [
        Case("four tasks, four programs each, k = 2", (_written, _run, _TASKS, 4, 2)),
        Case("k = 1", (_written, _run, _TASKS, 4, 1)),
        Case("one task", (_written, _run, _TASKS[1:2], 4, 3)),
        Case("a task that never passes", (_written, _run, _TASKS[2:3], 4, 2)),
    ]
    praise = "prompt, completion, cut, run, count: that is a whole evaluation."
    return judge("15.4", learner, _evaluate(), cases, _EVALUATE_MISTAKES, praise, _EXACT)


# --- 15.1 ---


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


_PASS_MISTAKES = (
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

# --- 15.2 ---


def _longest(text: str) -> str:
    return max(text.split(), key=len, default="")


def _first_or_fail(text: str) -> str:
    return max(text.split(), key=len)


# The name of a wrong program, what it does, and the program.
_MUTANTS: tuple[tuple[str, str, Program], ...] = (
    ("first word", "returns the first word", lambda text: (text.split() or [""])[0]),
    ("last word", "returns the last word", lambda text: (text.split() or [""])[-1]),
    ("shortest", "returns the shortest word",
        lambda text: min(text.split(), key=len, default="")),
    ("alphabet", "returns the word that comes last in the alphabet",
        lambda text: max(text.split(), default="")),
    ("length", "returns the length of the word",
        lambda text: len(_longest(text)) if text.split() else ""),
    ("list", "returns all of the longest words, in a list",
        lambda text: [w for w in text.split() if len(w) == len(_longest(text))] or ""),
    ("lower case", "turns the word into lower case", lambda text: _longest(text).lower()),
    ("last of equals", "returns the last of several words that are equally long",
        lambda text: max(reversed(text.split()), key=len, default="")),
    ("empty text fails", "raises an error if the text has no words", _first_or_fail),
    ("None for an empty text", "returns None if the text has no words",
        lambda text: _longest(text) or None),
    ("spaces only", "separates words at spaces only, not at a new line or a tab",
        lambda text: max(text.split(" "), key=len)),
)  # fmt: skip


def _judged_tests(learner: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function: the name of the first wrong program that the tests accept, or ""."""

    @wraps(learner)
    def judged() -> Any:
        tests = learner()
        if tests is None or tests is ...:
            return tests
        text = "\n".join(tests) if isinstance(tests, list) else tests
        if not isinstance(text, str):
            raise TypeError(f"the tests must be text, and these are {type(tests).__name__}")
        if "assert" not in text:
            return "no assert"
        if isinstance(problem := _tried(_longest, text), AssertionError):
            return "right program refused"
        if problem:
            raise problem
        accepted = [name for name, _, mutant in _MUTANTS if not _tried(mutant, text)]
        return "all accepted" if len(accepted) == len(_MUTANTS) else (accepted or [""])[0]

    return judged


def _tried(program: Program, tests: str) -> Exception | None:
    """Run the reader's tests on a program of ours; return the error, if there is one."""
    try:
        exec(tests, {"longest_word": program})
    except Exception as error:
        return error
    return None


def _names(name: str) -> Callable[[], str]:
    return lambda: name


_TEST_MISTAKES = (
    Mistake("no assert", "there is no assert. A test is a statement that fails when it must.",
        _names("no assert")),
    Mistake("right program refused", "a right program fails one of your asserts. What does the "
        "docstring ask for there?", _names("right program refused")),
    Mistake("all accepted", "every wrong program passes. Do your asserts call longest_word, and "
        "compare what it returns?", _names("all accepted")),
    *(Mistake(name, f"a program passes your tests that {does}. Add an assert that refuses it.",
        _names(name)) for name, does, _ in _MUTANTS),
)  # fmt: skip

# --- 15.3 ---


def _without_end(cutting: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the function, its answer without whitespace at the end, which does not count."""

    @wraps(cutting)
    def judged(text: str) -> Any:
        found = cutting(text)
        return found.rstrip() if isinstance(found, str) else found

    return judged


def _until(stops: Callable[[str, int], bool], also: int = 0) -> Callable[[str], str]:
    """Return a cut before the first line that stops it, given with its number; `also`: after."""

    def cutting(text: str) -> str:
        lines = text.split("\n")
        ends = [i for i, line in enumerate(lines) if stops(line, i)]
        return "\n".join(lines[: ends[0] + also] if ends else lines).rstrip()

    return cutting


def _starts(*words: str) -> Callable[[str, int], bool]:
    return lambda line, _: line.startswith(words)


def _flush(line: str, _: int) -> bool:
    return bool(line) and not line[0].isspace()


def _before_a_dedent(text: str) -> str:
    lines = text.split("\n")
    depths = [len(line) - len(line.lstrip()) if line.strip() else None for line in lines]
    kept, before = [], 0
    for line, depth in zip(lines, depths, strict=True):
        if depth is not None and depth < before:
            break
        before = before if depth is None else depth
        kept.append(line)
    return "\n".join(kept).rstrip()


_CUT_MISTAKES = (
    Mistake("unchanged", "nothing is cut. What the model wrote after the function is run, too.",
        lambda text: text.rstrip()),
    Mistake("blank line", "you cut at the first blank line. A function may hold blank lines, and "
        "the next statement may follow without one.",
        lambda text: text.split("\n\n")[0].rstrip()),
    Mistake("two blank lines", "you cut at two blank lines. Models do not always write them.",
        lambda text: text.split("\n\n\n")[0].rstrip()),
    Mistake("def only", "you cut at the next def. A class, a print or an assert may follow, too.",
        _until(_starts("def"))),
    Mistake("def and class only", "you cut at def and class. A print, a comment or a decorator "
        "may follow, too. What do all these lines have in common?",
        _until(_starts("def", "class"))),
    Mistake("a list of words", "you cut at a list of words, and a line that begins with another "
        "one is kept. What do all lines outside the function have in common?",
        _until(_starts("def", "class", "print", "if", "assert"))),
    Mistake("any def", "you cut at a def inside the function, too. Look at the indentation.",
        lambda text: text.split("def ")[0].rstrip()),
    Mistake("first return", "you cut after the first return. A function may have several.",
        _until(lambda line, _: line.strip().startswith("return"), also=1)),
    Mistake("last return", "you keep everything up to the last return, which may belong to "
        "another function.",
        lambda text: (text[: text.rfind("return")] + text[text.rfind("return"):].split("\n")[0])),
    Mistake("one line", "you keep one line. A body may have many.", lambda text:
        text.split("\n")[0].rstrip()),
    Mistake("one line too many", "you keep the first line that is outside the function.",
        _until(_flush, also=1)),
    Mistake("indentation lost", "the function ends in the right place, but the spaces at the start "
        "are gone. After the prompt, that is an IndentationError.",
        lambda text: first_function(text).strip()),
    Mistake("the rest", "you return what comes after the function.",
        lambda text: text[len(first_function(text)):].rstrip()),
    Mistake("any dedent", "you cut where the indentation gets smaller. A loop ends that way, too; "
        "the function ends at a line in column 0.",
        _before_a_dedent),
)  # fmt: skip

# --- 15.4 ---

_ONE = 'def one():\n    """Return 1."""\n'
_TWICE = 'def twice(x):\n    """Return two times x."""\n'
_SIGN = 'def sign(x):\n    """Return 1, 0 or -1."""\n'
_ZERO = 'def zero():\n    """Return 0."""\n'
_TASKS = [
    Task(_ONE, "assert one() == 1"),
    Task(_TWICE, "assert twice(4) == 8\nassert twice(3) == 6"),
    Task(_SIGN, "assert sign(-5) == -1\nassert sign(0) == 0\nassert sign(7) == 1"),
    Task(_ZERO, "assert zero() == 0"),
]
_TEXTS = {
    _ONE: ("    return 1\n\nprint(undefined)\n", "    return 1\n", "    return 2 - 1\n",
        "    one = 1\n    return one\n"),
    _TWICE: ("    return 2 * x\n\nassert twice(1) == 3\n", "    return x *\n", "    return x + 2\n",
        "    return y\n"),
    _SIGN: ("    return x\n", "    return 1\n", "    return sgn(x)\n", "    return -x\n"),
    _ZERO: ("    return 1\n", "    return 0\n", "    return None\n", "    return 2 - 2\n"),
}  # fmt: skip


def _written(prompt: str, seed: int) -> str:
    """Return what a pretended model writes."""
    return _TEXTS[prompt][seed % 4]


def _run(code: str, tests: str) -> Outcome:
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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _evaluate(
    of_task: Callable[[int, int, int], float] = right_pass_at_k,
    over: Callable[[Sequence[float]], float] = _mean,
    program: Callable[[str, str], str] = lambda prompt, text: prompt + first_function(text),
    passed: Callable[[Outcome], bool] = lambda outcome: outcome.passed,
    seeds: Callable[[int], Sequence[int]] = range,
) -> Callable[..., float]:
    """Return the loop; each argument is a step of it."""

    def loop(write: Write, run: Run, tasks: list[Task], n: int, k: int) -> float:
        found = []
        for task in tasks:
            texts = [write(task.prompt, seed) for seed in seeds(n)]
            ends = [run(program(task.prompt, text), task.tests) for text in texts]
            found.append(of_task(len(ends), sum(map(passed, ends)), min(k, len(ends))))
        return over(found)

    return loop


def _pooled(write: Write, run: Run, tasks: list[Task], n: int, k: int) -> float:
    share = _evaluate(lambda n, c, k: c / n)(write, run, tasks, n, k)
    return right_pass_at_k(n * len(tasks), round(share * n * len(tasks)), k)


_EVALUATE_MISTAKES = (
    Mistake("not cut", "you run the whole completion. What the model wrote after the function is "
        "run too, and fails.", _evaluate(program=lambda prompt, text: prompt + text)),
    Mistake("no prompt", "you run the completion without its prompt. A body alone is not Python.",
        _evaluate(program=lambda prompt, text: first_function(text))),
    Mistake("one seed", "the n programs of a task are all the same one, or there is only one. Each "
        "needs its own seed.", _evaluate(seeds=lambda n: [0] * n)),
    Mistake("every outcome counts", "every program counts as passed. An Outcome is true in an if, "
        "whatever happened; ask for its attribute passed.", _evaluate(passed=lambda one: True)),
    Mistake("no error is a pass", "you count programs that ran without an error. A failed assert "
        "is not a pass.", _evaluate(passed=lambda one: one.reason in ("passed", "failed"))),
    Mistake("failures counted", "you count the programs that do not pass.",
        _evaluate(passed=lambda one: not one.passed)),
    Mistake("pooled", "you count the programs of all tasks together. Then the k come from any "
        "task, and an easy one answers for a hard one. Estimate each task, then take the mean.",
        _pooled),
    Mistake("naive", "you use 1 − (1 − c/n)^k, which is biased.",
        _evaluate(lambda n, c, k: 1 - (1 - c / n) ** k)),
    Mistake("pass@1", "you return pass@1, whatever k is.", _evaluate(lambda n, c, k: c / n)),
    Mistake("any of n", "a task counts as solved if any of the n passes. That is pass@n.",
        _evaluate(lambda n, c, k: float(c > 0))),
    Mistake("all of n", "a task counts as solved only if all of the n pass.",
        _evaluate(lambda n, c, k: float(c == n))),
    Mistake("no mean", "you add up the tasks. Divide by their number.", _evaluate(over=sum)),
    Mistake("percent", "the number is right, but in percent. Return a value from 0 to 1.",
        _evaluate(over=lambda values: 100 * _mean(values))),
    Mistake("solved tasks only", "your mean leaves out the tasks that no program solved.",
        _evaluate(over=lambda values: _mean([v for v in values if v] or [0.0]))),
    Mistake("last task only", "you return the last task's value. Collect all, then take the mean.",
        _evaluate(over=lambda values: values[-1])),
)  # fmt: skip
