"""The learning rate of each step: its ends, its shape, and transformers' own schedules."""

import itertools
import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from qwenkit.errors import InputError
from qwenkit.train import Schedule
from qwenkit.train.schedules import KINDS

PEAK = 3e-3
CASES = list(itertools.product(KINDS, [0, 1, 2, 10, 99], [0.0, 0.1, 1.0]))


def rates(schedule):
    return [schedule(step) for step in range(schedule.steps)]


@pytest.mark.parametrize(("kind", "warmup", "final"), CASES)
def test_ends_and_shape(kind, warmup, final):
    schedule = Schedule(PEAK, 100, kind, warmup, final)
    found = rates(schedule)
    top = max(warmup - 1, 0)  # the step that has the peak
    last = PEAK if kind == "constant" else PEAK * final
    ends = found[0], found[top], found[-1]
    assert ends == pytest.approx((PEAK / max(warmup, 1), PEAK, last))
    assert all(a < b for a, b in itertools.pairwise(found[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found[top:]))
    assert min(found[:-1]) > 0
    assert max(found) <= PEAK * (1 + 1e-12)
    assert schedule(100) == schedule(10**6) == schedule(99)  # beyond the end: the last rate


def test_values_by_hand_and_no_step_before_the_first():
    half = 0.4 * math.sqrt(0.5)
    for schedule, want in (
        (Schedule(1.0, 7, "linear", 2, 0.5), [0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),
        (Schedule(1.0, 5, "cosine", final=0.2), [1.0, 0.6 + half, 0.6, 0.6 - half, 0.2]),
        (Schedule(2.0, 4, "constant", warmup_steps=3), [2 / 3, 4 / 3, 2.0, 2.0]),
    ):
        assert rates(schedule) == pytest.approx(want)
    for kind in KINDS:  # a training of one step
        assert Schedule(PEAK, 1, kind, final=0.0)(0) == PEAK
    assert Schedule(PEAK, 50) == Schedule(PEAK, 50, "cosine", 0, 0.1)
    assert Schedule(PEAK, 50)(49) == pytest.approx(PEAK / 10)


THEIRS = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}


@pytest.mark.parametrize(("kind", "make"), THEIRS.items(), ids=THEIRS)
@pytest.mark.parametrize(("warmup", "steps"), [(1, 20), (5, 20), (19, 20)])
def test_the_shape_is_that_of_transformers(kind, make, warmup, steps):
    """Theirs begins with a step of rate 0, which moves nothing; ours leaves that step out."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    theirs = make(optimizer, warmup, steps)
    wanted = []
    for _ in range(steps):
        optimizer.step()
        theirs.step()
        wanted.append(theirs.get_last_lr()[0])
    ours = Schedule(PEAK, steps, kind, warmup, final=0.0)
    assert rates(ours) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("kind", "step", "it must be one of constant, linear, cosine"), ("peak", 0.0, "above 0"),
    ("kind", None, "it must be a string"), ("peak", -1e-3, ""), ("peak", math.nan, ""),
    ("peak", math.inf, ""), ("peak", "1e-3", "a fini"), ("peak", True, "a finite number"),
    ("steps", 0, "it must be at least 1"), ("steps", -5, ""), ("steps", "10", ""),
    ("steps", 10.5, "it must be an integer"), ("steps", True, ""), ("warmup_steps", 11, ""),
    ("warmup_steps", 10, "below the 10 steps"), ("warmup_steps", -1, ""), ("final", -0.1, ""),
    ("warmup_steps", math.nan, "it must be an integer"), ("warmup_steps", True, ""),
    ("final", 1.1, "it must be a fraction of the peak, 0 to 1"), ("final", math.nan, ""),
    ("final", False, ""), ("final", "0", "it must be a finite number"),
])  # fmt: skip
def test_values_that_make_no_schedule_are_refused(name, value, rule):
    with pytest.raises(InputError, match=f"{name} is {value!r}; .*{rule}"):
        Schedule(**{"peak": PEAK, "steps": 10, name: value})
    for warmup in (0, 3):
        with pytest.raises(InputError, match="step is -1; steps are counted from 0"):
            Schedule(PEAK, 10, warmup_steps=warmup)(-1)
