"""Judge a learner's function: run it, compare the answers, name the mistake by what it computes.

A mistake is a function too: the one that a wrong idea leads to. If the learner's answers are that
function's answers, the idea is recognized, no matter how the code is written.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from types import CodeType
from typing import Any, ParamSpec
from weakref import WeakSet

from qwenkit.checks._differs import difference, kind
from qwenkit.checks._general import general
from qwenkit.checks._progress import record
from qwenkit.checks._same import Raised, answer, copied, only_floats, same

P = ParamSpec("P")
TOLERANCE = 1e-5  # of the largest value, in float32
LOOSE = 1e-4  # for bfloat16, where the order of roundings shows; no mistake is that small
_EMPTY = "Still empty: write your answer in the cell above, run that cell, then this one."
_NO_RETURN = (
    "it computes something but returns None. End the function with `return` and the result; "
    "printing a value does not return it."
)
_NOT_INTEGERS = (
    "the value is right, but it is a float. A count is an int: divide with `//`, or convert the "
    "result with `int()`."
)


@dataclass(frozen=True)
class Case:
    """One input: its label in a message ("one token alone"), and the arguments."""

    label: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong idea: its name, the hint to give, and the function that the idea leads to."""

    name: str
    hint: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        exercise: "04.2" is the second exercise of notebook 04.
        outcome: "right", "not yet" or "empty".
        message: what the learner reads.
        mistake: the name of the recognized mistake; "forbidden", "changes its input", "no return";
            or the general kind of error: "error", "kind", "shape", "dtype" or "values", with a
            diagnosis that any exercise may get after a colon ("values: times a constant"). None if
            the answer is right.
    """

    exercise: str
    outcome: str
    message: str
    mistake: str | None = None

    def __str__(self) -> str:
        """Return the message: `print(check(...))` is all that a notebook needs."""
        return self.message


_RIGHT: WeakSet[Callable[..., Any]] = WeakSet()


def is_right(learner: object) -> bool:
    """Say whether a check has called this very function right, in this process."""
    return callable(learner) and inspect.unwrap(learner) in _RIGHT


def _recorded(judging: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Record every verdict of a function in the reader's progress."""

    @wraps(judging)
    def recording(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        verdict = judging(*args, **kwargs)
        record(verdict.exercise, verdict.outcome, verdict.mistake)
        if verdict.outcome == "right" and callable(args[1]):
            _RIGHT.add(inspect.unwrap(args[1]))
        return verdict

    return recording


@_recorded
def judge(
    exercise: str,
    learner: Callable[..., Any],
    right: Callable[..., Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    praise: str,
    tolerance: float = TOLERANCE,
    forbidden: Sequence[str] = (),
) -> Verdict:
    """Run a learner's function on every case and say what it computes.

    Args:
        exercise: "04.2": the notebook and the number of its exercise.
        learner: the function to judge.
        right: what it should compute.
        cases: inputs; the first is the simplest, the others are edge cases.
        mistakes: known wrong ideas; if two match, the first one is named.
        praise: a sentence on what the learner can do now; it follows "Right: ".
        tolerance: relative to the largest value, in float32.
        forbidden: names of functions that the exercise asks the learner to do without.
    """

    def not_yet(name: str, message: str) -> Verdict:
        return Verdict(exercise, "not yet", f"Not yet: {message}", name)

    if not callable(learner):
        message = f"the check needs the function itself, but got {kind(learner)}. "
        return not_yet("kind", message + "Pass its name without parentheses.")
    got = [answer(learner, case.arguments) for case in cases]
    if all(one is None or one is ... for one in got):
        if ... in got or _is_stub(learner):
            return Verdict(exercise, "empty", _EMPTY)
        return not_yet("no return", _NO_RETURN)
    wanted = [answer(right, case.arguments) for case in cases]
    if all(same(one, other, tolerance) for one, other in zip(got, wanted, strict=True)):
        used = [name for name in forbidden if name in _names(learner)]
        if used:
            message = f"the answer is right, but it uses `{used[0]}`, which this exercise forbids."
            return not_yet("forbidden", f"{message} Write that step yourself.")
        if any(only_floats(one, other) for one, other in zip(got, wanted, strict=True)):
            return not_yet("kind: a float", _NOT_INTEGERS)
        changed = next(filter(None, (_changed(learner, case) for case in cases)), None)
        if changed is not None:
            return not_yet("changes its input", changed)
        return Verdict(exercise, "right", f"Right: {praise}")
    return not_yet(*_diagnosis(learner, got, wanted, cases, mistakes, tolerance))


def _diagnosis(
    learner: Callable[..., Any],
    got: list[Any],
    wanted: list[Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    tolerance: float,
) -> tuple[str, str]:
    """Return the name of what went wrong, and what to say: the best known explanation first."""
    pairs = zip(got, wanted, strict=True)
    wrong = [i for i, (one, other) in enumerate(pairs) if not same(one, other, tolerance)]
    fully, partly = _recognized(got, wanted, cases, mistakes, tolerance)
    if fully is not None:
        return fully.name, fully.hint
    inputs = [cases[i].arguments for i in wrong]
    found = general([got[i] for i in wrong], [wanted[i] for i in wrong], inputs, tolerance)
    if found is None and partly is not None:
        return partly.name, partly.hint
    first = wrong[0]
    name, fact, advice = found or difference(got[first], wanted[first], inputs[0], tolerance)
    return name, f"{fact}{_where(wrong, cases)}. {advice}".rstrip()


def _recognized(
    got: list[Any],
    wanted: list[Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    tolerance: float,
) -> tuple[Mistake | None, Mistake | None]:
    """Find the mistake that gives these answers in every case, and one that does wherever it shows.

    The latter must show in at least half of the wrong cases: else it explains too little. One that
    shows only by errors must raise the same ones, messages included.
    """
    partly = None
    wrong = sum(not same(one, other, tolerance) for one, other in zip(got, wanted, strict=True))
    for mistake in mistakes:
        theirs = [answer(mistake.function, case.arguments) for case in cases]
        agree = [same(one, other, tolerance) for one, other in zip(got, theirs, strict=True)]
        shows = [not same(one, other, tolerance) for one, other in zip(theirs, wanted, strict=True)]
        telling = [
            fits
            for fits, seen, one in zip(agree, shows, theirs, strict=True)
            if seen and not isinstance(one, Raised)
        ]
        exact = [
            one == other for one, other in zip(got, theirs, strict=True) if isinstance(one, Raised)
        ]
        if all(agree) and any(shows) and (telling or all(exact)):
            return mistake, None
        explained = sum(fits and seen for fits, seen in zip(agree, shows, strict=True))
        if partly is None and telling and all(telling) and 2 * explained >= wrong:
            partly = mistake  # something else is wrong too, where this mistake does not show
    return None, partly


def _where(wrong: list[int], cases: Sequence[Case]) -> str:
    """Say which input gave the first wrong answer."""
    if len(cases) == 1:
        return ""
    right = len(cases) - len(wrong)
    of_all = f"; {right} of {len(cases)} cases are right" if right else ""
    return f" ({cases[wrong[0]].label}{of_all})"


def _changed(learner: Callable[..., Any], case: Case) -> str | None:
    """Return what to say if a function writes into an argument."""
    given = copied(case.arguments)
    with suppress(Exception):  # an error may be the right answer
        learner(*given)
    for one, other in zip(given, case.arguments, strict=True):
        if not same(one, other, 0.0):
            thing = type(one).__name__.replace("Tensor", "tensor")
            message = f"the answer is right, but the function changes its input, a {thing}. The "
            return message + f"caller still needs that {thing}: create a new one instead."
    return None


# --- the code of a function ---


def _codes(learner: Callable[..., Any]) -> Iterator[CodeType]:
    """Yield the code of a function and of those inside it; nothing where there is no such code."""
    code = getattr(inspect.unwrap(learner), "__code__", None)
    found = [code] if code is not None else []
    while found:
        code = found.pop()
        yield code
        found += [one for one in code.co_consts if isinstance(one, CodeType)]


def _names(learner: Callable[..., Any]) -> set[str]:
    """Return the names of all that a function looks up outside of itself, methods included."""
    return {name for code in _codes(learner) for name in code.co_names}


def _is_stub(learner: Callable[..., Any]) -> bool:
    """Say whether a function reads none of its arguments and no other name: nothing is computed."""
    steps = [one.opname for code in _codes(learner) for one in dis.get_instructions(code)]
    reads = any(step.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")) for step in steps)
    return not reads and _names(learner) <= {"NotImplementedError"}
