"""Judge a learner's function: run it, compare the answers, name the mistake by what it computes.

A mistake is a function too: the one that a wrong idea leads to. If the learner's answers are that
function's answers, the idea is recognized, no matter how the code is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from torch import Tensor

from qwenkit.checks._progress import record
from qwenkit.checks._same import Raised, answer, copied, same

P = ParamSpec("P")
TOLERANCE = 1e-5  # of the largest value, in float32
LOOSE = 1e-4  # for bfloat16, where the order of roundings shows; no mistake is that small
_EMPTY = "Still empty: write your answer in the cell above, run that cell, then this one."


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
        mistake: the name of the recognized mistake, or the general kind of error: "error", "kind",
            "shape", "dtype", "changes its input", "values". None if the answer is right.
    """

    exercise: str
    outcome: str
    message: str
    mistake: str | None = None

    def __str__(self) -> str:
        """Return the message: `print(check(...))` is all that a notebook needs."""
        return self.message


def _recorded(judging: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Record every verdict of a function in the reader's progress."""

    @wraps(judging)
    def recording(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        verdict = judging(*args, **kwargs)
        record(verdict.exercise, verdict.outcome)
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
    """
    if not callable(learner):
        message = f"Not yet: the check needs the function itself, but got {_kind(learner)}. "
        message += "Pass its name without parentheses."
        return Verdict(exercise, "not yet", message, "kind")
    got = [answer(learner, case.arguments) for case in cases]
    if all(one is None or one is ... for one in got):
        return Verdict(exercise, "empty", _EMPTY)
    wanted = [answer(right, case.arguments) for case in cases]
    if all(same(one, other, tolerance) for one, other in zip(got, wanted, strict=True)):
        if any(_changes(learner, case) for case in cases):
            return Verdict(exercise, "not yet", _CHANGED, "changes its input")
        return Verdict(exercise, "right", f"Right: {praise}")
    known = _recognized(got, wanted, cases, mistakes, tolerance)
    if known is not None:
        return Verdict(exercise, "not yet", f"Not yet: {known.hint}", known.name)
    name, message = _unrecognized(got, wanted, cases, tolerance)
    return Verdict(exercise, "not yet", f"Not yet: {message}.", name)


def _recognized(
    got: list[Any],
    wanted: list[Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    tolerance: float,
) -> Mistake | None:
    """Find the mistake that gives these answers: in every case, or else wherever it shows."""
    partly = None
    for mistake in mistakes:
        theirs = [answer(mistake.function, case.arguments) for case in cases]
        agree = [same(one, other, tolerance) for one, other in zip(got, theirs, strict=True)]
        shows = [not same(one, other, tolerance) for one, other in zip(theirs, wanted, strict=True)]
        telling = [
            fits
            for fits, seen, one in zip(agree, shows, theirs, strict=True)
            if seen and not isinstance(one, Raised)
        ]
        if all(agree) and any(shows):
            return mistake
        if partly is None and telling and all(telling):
            partly = mistake  # something else is wrong too, where this mistake does not show
    return partly


def _unrecognized(
    got: list[Any], wanted: list[Any], cases: Sequence[Case], tolerance: float
) -> tuple[str, str]:
    """Return the kind of error, and how the first wrong answer differs from the expected one."""
    pairs = zip(got, wanted, strict=True)
    wrong = [i for i, (one, other) in enumerate(pairs) if not same(one, other, tolerance)]
    name, message = _difference(got[wrong[0]], wanted[wrong[0]], tolerance)
    label, right = cases[wrong[0]].label, len(cases) - len(wrong)
    if right:
        return name, f"{message} ({label}; {right} of {len(cases)} cases are right)"
    return name, message if len(cases) == 1 else f"{message} ({label})"


_CHANGED = (
    "Not yet: the answer is right, but the function changes its input. The caller still needs that "
    "tensor: create a new one instead of writing into it."
)


def _changes(learner: Callable[..., Any], case: Case) -> bool:
    """Say whether a function writes into its arguments."""
    given = copied(case.arguments)
    learner(*given)
    return not same(list(given), list(case.arguments), 0.0)


def _difference(got: Any, wanted: Any, tolerance: float) -> tuple[str, str]:
    """Return the kind of error, and how an answer differs from the expected one."""
    if isinstance(got, Raised):
        return "error", f"it raises {got.kind}: {got.message}"
    if isinstance(wanted, Raised):
        return "error", f"it should raise {wanted.kind} here, but returns {_kind(got)}"
    if got is None:
        return "kind", "it returns None; every path through the function must return a value"
    ours, theirs = _shape(got), _shape(wanted)
    if _kind(got) != _kind(wanted):
        return "kind", f"it returns {_kind(got)}; expected {_kind(wanted)}"
    if ours != theirs:
        return "shape", f"the shape is {ours}; expected {theirs}"
    if isinstance(got, tuple | list):
        for number, (one, other) in enumerate(zip(got, wanted, strict=True), start=1):
            if not same(one, other, tolerance):
                name, message = _difference(one, other, tolerance)
                return name, f"value {number} of {len(got)}: {message}"
    if isinstance(got, Tensor | np.ndarray) and got.dtype != wanted.dtype:
        message = f"the dtype is {_dtype(got)}; expected {_dtype(wanted)}"
        return "dtype", f"{message} (the dtype of the input, or the one that was asked for)"
    if isinstance(got, Tensor) and got.is_floating_point() and got.numel():
        off = (got.detach().float() - wanted.detach().float()).abs().nan_to_num(nan=float("inf"))
        worst = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        message = f"at {list(worst)} it has {float(got[worst]):.4g}"
        message += f", expected {float(wanted[worst]):.4g}"
        return "values", f"the shape is right, the values are not: {message}"
    if isinstance(got, int | float | str):
        return "values", f"it returns {got!r}; expected {wanted!r}"
    return "values", "the values differ from the expected ones"


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list) and value:
        return f"{len(value)} values ({', '.join(type(one).__name__ for one in value)})"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _shape(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_shape(one) for one in value]
    return tuple(value.shape) if isinstance(value, Tensor | np.ndarray) else ()


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")
