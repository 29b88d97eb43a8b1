"""Answers to the exercises of notebook 15."""

import math
import re
from fractions import Fraction
from math import comb

from qwenkit.programs import first_function, pass_at_k

TESTS = """assert longest_word("a ccc bb") == "ccc"
assert longest_word("ONE b Two") == "ONE"
assert longest_word("") == ""
assert longest_word("a longer\\nb") == "longer"
assert longest_word("a zz bbb y") == "bbb"
"""
FIRST = 'assert longest_word("a ccc bb") == "ccc"\n'


def _times(n, c, k):
    none = 1.0
    for i in range(k):
        none *= max(0, n - c - i) / (n - i)
    return 1 - none


def _lines(text):
    kept = []
    for line in text.split("\n"):
        if line and line[0] not in " \t":
            break
        kept.append(line)
    return "\n".join(kept)


def _shallower(text):
    kept = []
    for line in filter(str.strip, text.split("\n")):
        if kept and len(re.match(" *", line)[0]) < len(re.match(" *", kept[-1])[0]):
            return text[: text.index("\n" + line)]
        kept.append(line)
    return text


def _up_to(stops):
    def cut(text):
        lines = text.splitlines()
        ends = [i for i, line in enumerate(lines) if stops(line)]
        return "\n".join(lines[: ends[0]] if ends else lines)

    return cut


def _loop(estimate=pass_at_k, cut=first_function, seeds=range, passes=lambda one: one.passed):
    def evaluate(write, run, tasks, n, k):
        total = 0.0
        for task in tasks:
            c = 0
            for seed in seeds(n):
                c += passes(run(task.prompt + cut(write(task.prompt, seed)), task.tests))
            total += estimate(n, c, k)
        return total / len(tasks)

    return evaluate


def _whole_program_only(write, run, tasks, n, k):
    return _loop()(write, lambda code, tests: run(code.split('"""\n')[1], tests), tasks, n, k)


def _together(write, run, tasks, n, k):
    c = 0
    for task in tasks:
        c += sum(
            run(task.prompt + _lines(write(task.prompt, i)), task.tests).passed for i in range(n)
        )
    return pass_at_k(len(tasks) * n, c, k)


def _solved_only(write, run, tasks, n, k):
    each = [_loop()(write, run, [task], n, k) for task in tasks]
    each = [one for one in each if one > 0]
    return sum(each) / len(each) if each else 0.0


def _one_program(write, run, tasks, n, k):
    return _loop(lambda n, c, k: float(c), seeds=lambda n: [0])(write, run, tasks, n, k)


def _without(start):
    """Return tests without the lines that begin so."""
    return lambda: "\n".join(line for line in TESTS.split("\n") if not line.startswith(start))


RIGHT = {
    "pass_at_k": [
        pass_at_k, _times, lambda n, c, k: 1 - comb(n - c, k) / comb(n, k),
        lambda n, c, k: float(1 - Fraction(comb(n - c, k), comb(n, k))),
        lambda n, c, k:
            1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1)),
    ],
    "refuse": [
        lambda: TESTS, lambda: TESTS.splitlines(),
        lambda: TESTS + "for w in ('x', 'yy'):\n    assert longest_word(w) == w",
    ],
    "cut": [
        first_function, _lines, lambda text: re.split(r"\n(?=[^\s])", text)[0] + "\n",
        _up_to(lambda line: line[:1].strip()),
    ],
    "evaluate": [
        _loop(), _loop(_times, _lines), _loop(seeds=lambda n: range(1, n + 1)),
    ],
}  # fmt: skip
WRONG = {
    "pass_at_k": [
        ("naive", lambda n, c, k: 1 - ((n - c) / n) ** k),
        ("pass@1", lambda n, c, k: c * (1 / n)),
        ("all pass", lambda n, c, k: math.perm(c, k) / math.perm(n, k)),
        ("none passes", lambda n, c, k: 1 - _times(n, c, k)),
        ("one fails", lambda n, c, k: _times(n, n - c, k)),
        ("exactly one", lambda n, c, k: comb(c, 1) * comb(n - c, k - 1) / comb(n, k)),
        ("expected number", lambda n, c, k: c / n * k),
        ("expected number", lambda n, c, k: min(c / n * k, 1)),
        ("any passed", lambda n, c, k: 1.0 if c else 0.0),
        ("percent", lambda n, c, k: _times(n, c, k) * 100),
        ("all pass, with replacement", lambda n, c, k: math.prod([c / n] * k)),
        ("few failures", lambda n, c, k: 1 - math.exp(math.lgamma(n - c + 1)
            - math.lgamma(n - c - k + 1) - math.lgamma(n + 1) + math.lgamma(n - k + 1))),
        ("overflow", lambda n, c, k: 1 - comb(n - c, k) * 1.0 / (comb(n, k) * 1.0)),
        ("one draw too many", lambda n, c, k: _times(n, c, k + 1) if k < n else 1.0),
        ("one draw too few", lambda n, c, k: _times(n, c, k - 1)),
        ("values", lambda n, c, k: k / n),
    ],
    "refuse": [
        ("no assert", lambda: "longest_word('a')"),
        ("right program refused", lambda: TESTS + "assert longest_word('a bb cc') == 'cc'"),
        ("all accepted", lambda: "assert longest_word"),
        ("first word", lambda: "assert longest_word('aa b') == 'aa'"),
        ("last word", lambda: "assert longest_word('a bb') == 'bb'"),
        ("shortest", lambda: "assert longest_word('bb a ccc bb') in ('ccc', 'a')"),
        ("alphabet", lambda: "assert longest_word('a bb a') == 'bb'"),
        ("length", lambda: "assert longest_word('b aaa c')"
            " in ('aaa', 3)"),
        ("list", lambda: "assert 'aaa' in longest_word('b aaa c')"),
        ("lower case", lambda: FIRST + "assert longest_word('a zz bbb y') == 'bbb'"),
        ("last of equals", lambda: FIRST + "assert longest_word('z AB a') == 'AB'"),
        ("empty text fails", _without("assert longest_word(\"\")")),
        ("None for an empty text", lambda: _without("assert longest_word(\"\")")()
            + "assert not longest_word('')"),
        ("spaces only", _without("assert longest_word(\"a longer")),
        ("error", lambda: "assert longest_words('a') == 'a'"),
    ],
    "cut": [
        ("unchanged", lambda text: text),
        ("blank line", lambda text: text.partition("\n\n")[0]),
        ("two blank lines", lambda text: text.partition("\n\n\n")[0]),
        ("def only", lambda text: text.partition("\ndef ")[0]),
        ("def and class only", lambda text: re.split(r"\n(?:def|class) ", text)[0]),
        ("a list of words", lambda text: re.split(r"\n(?=def|class|print|if|assert)", text)[0]),
        ("any def", lambda text: text.partition("def ")[0]),
        ("first return", lambda text: re.match(r"(?s).*?return.*?(?=\n)", text).group()),
        ("last return", lambda text: re.match(r"(?s).*return[^\n]*", text).group()),
        ("one line", lambda text: text.splitlines()[0]),
        ("one line too many", lambda text: "\n".join(
            text.split("\n")[: _lines(text).count("\n") + 2])),
        ("indentation lost", lambda text: _lines(text).strip()),
        ("the rest", lambda text: text[len(_lines(text)):]),
        ("any dedent", _shallower),
        ("values", lambda text: "    pass"),
    ],
    "evaluate": [
        ("not cut", _loop(cut=str)),
        ("no prompt", _whole_program_only),
        ("one seed", _loop(seeds=lambda n: [0 for _ in range(n)])),
        ("one seed", _one_program),
        ("every outcome counts", _loop(passes=bool)),
        ("no error is a pass", _loop(passes=lambda one: one.reason not in ("error", "syntax"))),
        ("failures counted", _loop(passes=lambda one: one.reason != "passed")),
        ("pooled", _together),
        ("naive", _loop(lambda n, c, k: 1 - (1 - c / n) ** k)),
        ("pass@1", _loop(lambda n, c, k: c / n)),
        ("any of n", _loop(lambda n, c, k: c >= 1)),
        ("all of n", _loop(lambda n, c, k: c == n)),
        ("no mean", lambda w, r, tasks, n, k: _loop()(w, r, tasks, n, k) * len(tasks)),
        ("percent", lambda w, r, tasks, n, k: 100 * _loop()(w, r, tasks, n, k)),
        ("solved tasks only", _solved_only),
        ("last task only", lambda w, r, tasks, n, k: _loop()(w, r, tasks[-1:], n, k)),
        ("values", lambda w, r, tasks, n, k: 0.123),
    ],
}  # fmt: skip
