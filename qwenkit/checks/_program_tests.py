"""Tests of a reader, and the wrong programs that they should refuse (exercise 15.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from qwenkit.checks._judge import Mistake

Program = Callable[[str], Any]


def _longest(text: str) -> str:
    return max(text.split(), key=len, default="")


def _first_or_fail(text: str) -> str:
    return max(text.split(), key=len)


# The name of a wrong program, what it does, and the program.
MUTANTS: tuple[tuple[str, str, Program], ...] = (
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


def judged_tests(learner: Callable[[], Any]) -> Callable[[], Any]:
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
        accepted = [name for name, _, mutant in MUTANTS if not _tried(mutant, text)]
        return "all accepted" if len(accepted) == len(MUTANTS) else (accepted or [""])[0]

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


TEST_MISTAKES = (
    Mistake("no assert", "there is no assert. A test is a statement that fails when it must.",
        _names("no assert")),
    Mistake("right program refused", "a right program fails one of your asserts. What does the "
        "docstring ask for there?", _names("right program refused")),
    Mistake("all accepted", "every wrong program passes. Do your asserts call longest_word, and "
        "compare what it returns?", _names("all accepted")),
    *(Mistake(name, f"a program passes your tests that {does}. Add an assert that refuses it.",
        _names(name)) for name, does, _ in MUTANTS),
)  # fmt: skip
