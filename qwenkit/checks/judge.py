"""Judge a learner's function: run it, compare, and name the mistake by what it computes.

A mistake is a function, too: the one that a wrong idea leads to. Where the learner's answers are
that function's answers, the idea is recognized, however it was written down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from torch import Tensor

from qwenkit.checks.progress import record
from qwenkit.checks.same import Raised, answer, copied, same

P = ParamSpec("P")
TOLERANCE = 1e-5  # of the largest value, in float32
EMPTY = "Still empty: write your answer in the cell above, run that cell, then this one."


@dataclass(frozen=True)
class Case:
    """One input: how it is called in a sentence ("one token alone"), and the arguments."""

    words: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong idea: its name, what to say of it, and the function that it leads to."""

    name: str
    hint: str
    function: Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        exercise: "04.2" is the second of notebook 04.
        outcome: "right", "not yet" or "empty".
        message: what the learner reads.
        mistake: the name of the mistake that was recognized, or of what is wrong in general:
            "error", "kind", "shape", "dtype", "changes its input", "values"; None: it is right.
    """

    exercise: str
    outcome: str
    message: str
    mistake: str | None = None

    def __str__(self) -> str:
        """Return the message: `print(check(...))` is all that a notebook needs."""
        return self.message


def _noted(judging: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Let every verdict of a function be kept with the reader's progress."""

    @wraps(judging)
    def noting(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        verdict = judging(*args, **kwargs)
        record(verdict.exercise, verdict.outcome)
        return verdict

    return noting


@_noted
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
        cases: inputs; the first is the plainest, the others are those that catch people out.
        mistakes: known wrong ideas; where two fit, the first is named.
        praise: a sentence on what the learner can do now; "Right: " stands before it.
        tolerance: of the largest value, in float32.
    """
    if not callable(learner):
        words = f"Not yet: the check wants the function itself, and was given {_kind(learner)}. "
        words += "Write its name without brackets behind it."
        return Verdict(exercise, "not yet", words, "kind")
    got = [answer(learner, case.arguments) for case in cases]
    if all(one is None or one is ... for one in got):
        return Verdict(exercise, "empty", EMPTY)
    wanted = [answer(right, case.arguments) for case in cases]
    wrong = [
        place
        for place, (one, other) in enumerate(zip(got, wanted, strict=True))
        if not same(one, other, tolerance)
    ]
    if not wrong:
        changed = _changed(learner, cases)
        if changed is not None:
            return Verdict(exercise, "not yet", changed, "changes its input")
        return Verdict(exercise, "right", f"Right: {praise}")
    known = _recognized(got, wanted, cases, mistakes, tolerance)
    if known is not None:
        return Verdict(exercise, "not yet", f"Not yet: {known.hint}", known.name)
    first = wrong[0]
    name, words = _difference(got[first], wanted[first], tolerance)
    where = "" if len(cases) == 1 else f" ({cases[first].words})"
    if len(wrong) < len(cases):
        where = (
            f" ({cases[first].words}; {len(cases) - len(wrong)} of {len(cases)} tries are right)"
        )
    return Verdict(exercise, "not yet", f"Not yet: {words}{where}.", name)


def _recognized(
    got: list[Any],
    wanted: list[Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake],
    tolerance: float,
) -> Mistake | None:
    """Find the mistake whose answers these are: in every case, or else wherever it shows."""
    partly = None
    for mistake in mistakes:
        theirs = [answer(mistake.function, case.arguments) for case in cases]
        agree = [same(one, other, tolerance) for one, other in zip(got, theirs, strict=True)]
        shows = [not same(one, other, tolerance) for one, other in zip(theirs, wanted, strict=True)]
        told = [
            fits
            for fits, seen, one in zip(agree, shows, theirs, strict=True)
            if seen and not isinstance(one, Raised)
        ]
        if all(agree) and any(shows):
            return mistake
        if partly is None and told and all(told):
            partly = mistake  # besides, something else is wrong where this mistake does not show
    return partly


def _changed(learner: Callable[..., Any], cases: Sequence[Case]) -> str | None:
    """Say so if a function that answers right writes into what it was given."""
    for case in cases:
        given = copied(case.arguments)
        learner(*given)
        if not same(list(given), list(case.arguments), 0.0):
            return (
                "Not yet: the answer is right, but the function changes its input. Whoever called "
                "it still needs that tensor: compute a new one instead of writing into it."
            )
    return None


def _difference(got: Any, wanted: Any, tolerance: float) -> tuple[str, str]:
    """Say how one answer differs from the one expected."""
    if isinstance(got, Raised):
        return "error", f"it stops with {got.kind}: {got.words}"
    if isinstance(wanted, Raised):
        return "error", f"it should refuse this with {wanted.kind}, and answers {_kind(got)}"
    if got is None:
        return "kind", "it returns None; every way through the function must end in a return"
    ours, theirs = _shape(got), _shape(wanted)
    if _kind(got) != _kind(wanted):
        return "kind", f"it returns {_kind(got)}; expected is {_kind(wanted)}"
    if ours != theirs:
        return "shape", f"the shape is {ours}; expected is {theirs}"
    if isinstance(got, tuple | list):
        for number, (one, other) in enumerate(zip(got, wanted, strict=True), start=1):
            if not same(one, other, tolerance):
                name, words = _difference(one, other, tolerance)
                return name, f"of its {len(got)} values, number {number}: {words}"
    if isinstance(got, Tensor | np.ndarray) and got.dtype != wanted.dtype:
        return "dtype", f"the dtype is {_dtype(got)}; expected is {_dtype(wanted)}, as that came in"
    if isinstance(got, Tensor) and got.is_floating_point() and got.numel():
        off = (got.detach().float() - wanted.detach().float()).abs().nan_to_num(nan=float("inf"))
        place = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        return "values", (
            f"the shape fits, the values do not: at {list(place)} stands {float(got[place]):.4g}, "
            f"expected is {float(wanted[place]):.4g}"
        )
    if isinstance(got, int | float | str):
        return "values", f"it returns {got!r}; expected is {wanted!r}"
    return "values", "other values than expected"


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
