"""Answers to the exercises of notebook 15."""

import functools
import math
import re
import statistics
from fractions import Fraction
from math import comb

from qwenkit.programs import first_function, interval, pass_at_k

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


def _bounds(p, m, z=1.96):
    middle = (p + z * z / 2 / m) / (1 + z * z / m)
    half = z / (1 + z * z / m) * math.sqrt(p * (1 - p) / m + z * z / 4 / m / m)
    return middle - half, middle + half


def _loop(
    estimate=pass_at_k, cut=_lines, seeds=range, passes=lambda one: one.passed,
    over=statistics.mean, bounds=_bounds, points=lambda tasks, n: tasks,
    row=lambda p, low, high: (p, low, high),
):  # fmt: skip
    def evaluate(write, run, tasks, n, ks):
        counts = []
        for task in tasks:
            known, c = {}, 0
            for seed in seeds(n):
                text = cut(write(task.prompt, seed))
                if text not in known:
                    known[text] = passes(run(task.prompt + text, task.tests))
                c += known[text]
            counts.append(c)
        found = {}
        for k in ks:
            p = over([estimate(n, c, k) for c in counts])
            found[k] = row(p, *bounds(p, points(len(tasks), n)))
        return found

    return evaluate


def _with_a_cache(write, run, tasks, n, ks):
    cached = functools.cache(run)
    values = {k: [] for k in ks}
    for task in tasks:
        texts = [first_function(write(task.prompt, seed)) for seed in range(n)]
        c = len([1 for text in texts if cached(task.prompt + text, task.tests).reason == "passed"])
        for k in ks:
            values[k].append(_times(n, c, k))
    return {k: interval(one) for k, one in values.items()}


def _always_run(write, run, tasks, n, ks):
    def passed(task, seed):
        return run(task.prompt + _lines(write(task.prompt, seed)), task.tests).passed

    cs = [sum(passed(task, seed) for seed in range(n)) for task in tasks]
    means = {k: sum(pass_at_k(n, c, k) for c in cs) / len(cs) for k in ks}
    return {k: (p, *_bounds(p, len(tasks))) for k, p in means.items()}


def _as_a_set(write, run, tasks, n, ks):
    values = {k: [] for k in ks}
    for task in tasks:
        texts = {_lines(write(task.prompt, seed)) for seed in range(n)}
        c = sum(run(task.prompt + text, task.tests).passed for text in texts)
        for k in ks:
            values[k].append(pass_at_k(len(texts), c, min(k, len(texts))))
    return {k: interval(one) for k, one in values.items()}


def _whole_program_only(write, run, tasks, n, ks):
    return _loop()(write, lambda code, tests: run(code.split('"""\n')[1], tests), tasks, n, ks)


def _together(write, run, tasks, n, ks):
    c = 0
    for task in tasks:
        texts = [_lines(write(task.prompt, i)) for i in range(n)]
        ends = {text: run(task.prompt + text, task.tests).passed for text in {*texts}}
        c += sum(ends[text] for text in texts)
    means = {k: pass_at_k(len(tasks) * n, c, k) for k in ks}
    return {k: (p, *_bounds(p, len(tasks))) for k, p in means.items()}


def _one_program(write, run, tasks, n, ks):
    return _loop(lambda n, c, k: float(c), seeds=lambda n: [0])(write, run, tasks, n, ks)


def _solved(values):
    values = [one for one in values if one > 0]
    return sum(values) / len(values) if values else 0.0


def _wald(p, m):
    half = 1.96 * math.sqrt(p * (1 - p) / m)
    return p - half, p + half


def _undivided(p, m):
    low, high = _bounds(p, m)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + 1.96**2 / m)
    return middle - half, middle + half


def _around_p(p, m):
    low, high = _bounds(p, m)
    return p - (high - low) / 2, p + (high - low) / 2


def _without(start):
    """Return tests without the lines that begin so."""
    return lambda: "\n".join(line for line in TESTS.split("\n") if not line.startswith(start))


RIGHT = {
    "refuse": [
        lambda: TESTS, lambda: TESTS.splitlines(),
        lambda: TESTS + "for w in ('x', 'yy'):\n    assert longest_word(w) == w",
    ],
    "cut": [
        first_function, _lines, lambda text: re.split(r"\n(?=[^\s])", text)[0] + "\n",
        _up_to(lambda line: line[:1].strip()),
    ],
    "pass_at_k": [
        pass_at_k, _times, lambda n, c, k: 1 - comb(n - c, k) / comb(n, k),
        lambda n, c, k: float(1 - Fraction(comb(n - c, k), comb(n, k))),
        lambda n, c, k:
            1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1)),
    ],
    "evaluate": [
        _loop(), _loop(_times), _with_a_cache, _loop(seeds=lambda n: reversed(range(n))),
    ],
}  # fmt: skip
WRONG = {
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
    "evaluate": [
        ("not cut", _loop(cut=str)),
        ("no prompt", _whole_program_only),
        ("one seed", _loop(seeds=lambda n: [0 for _ in range(n)])),
        ("one seed", _one_program),
        ("run again", _always_run),
        ("equal programs counted once", _as_a_set),
        ("every outcome counts", _loop(passes=bool)),
        ("no error is a pass", _loop(passes=lambda one: one.reason not in ("error", "syntax"))),
        ("failures counted", _loop(passes=lambda one: one.reason != "passed")),
        ("pooled", _together),
        ("naive", _loop(lambda n, c, k: 1 - (1 - c / n) ** k)),
        ("pass@1", _loop(lambda n, c, k: c / n)),
        ("any of n", _loop(lambda n, c, k: c >= 1)),
        ("all of n", _loop(lambda n, c, k: c == n)),
        ("solved tasks only", _loop(over=_solved)),
        ("last task only", _loop(over=lambda values: values[-1])),
        ("no interval", lambda *given: {k: one[0] for k, one in _loop()(*given).items()}),
        ("no mean", lambda *given: {k: one[1:] for k, one in _loop()(*given).items()}),
        ("center and half width", _loop(row=lambda p, a, b: (p, (a + b) / 2, (b - a) / 2))),
        ("center for mean", _loop(row=lambda p, low, high: ((low + high) / 2, low, high))),
        ("around the mean", _loop(bounds=_around_p)),
        ("normal interval", _loop(bounds=_wald)),
        ("half width not divided", _loop(bounds=_undivided)),
        ("programs as data points", _loop(points=lambda tasks, n: n * tasks)),
        ("one standard error", _loop(bounds=lambda p, m: _bounds(p, m, 1))),
        ("percent", _loop(row=lambda *three: tuple(100 * one for one in three))),
        ("values", _loop(bounds=lambda p, m: _bounds(p, m + 1)), "key 1: it returns a tuple"),
        ("values", lambda write, run, tasks, n, ks: _loop()(write, run, tasks, n, ks[:1])),
        ("kind", lambda *given: list(_loop()(*given).values())),
    ],
}  # fmt: skip
