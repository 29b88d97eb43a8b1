"""Learning rate schedules: how large each step may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwenkit.errors import InputError

KINDS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step: a warm-up, then constant, or down in a line or a half wave.

    Args:
        peak: the largest learning rate, reached at the end of the warm-up.
        steps: of the whole training.
        kind: "constant", "linear" or "cosine" (Loshchilov and Hutter 2017, equation 5, without
            restarts).
        warmup_steps: the rate grows in a line through these steps: Adam's first estimates are made
            of few gradients and should not be trusted far.
        final: the last step's rate, as a share of the peak (not for "constant").

    Raises:
        InputError: values that make no schedule, or a step below 0.
    """

    peak: float
    steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    final: float = 0.1

    def __post_init__(self) -> None:
        for name in ("steps", "warmup_steps"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a whole number")
        for name in ("peak", "final"):
            if type(getattr(self, name)) not in (int, float):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a number")
        if self.kind not in KINDS:
            raise InputError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if not (self.peak > 0 and math.isfinite(self.peak)):
            raise InputError(f"peak is {self.peak}; it must be a number above 0")
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it must be at least 1")
        if not 0 <= self.warmup_steps < self.steps:
            raise InputError(
                f"warmup_steps is {self.warmup_steps}; it must be from 0 to below the "
                f"{self.steps} steps of the training"
            )
        if not 0.0 <= self.final <= 1.0:
            raise InputError(f"final is {self.final}; it must be a share of the peak, 0 to 1")

    def __call__(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0.

        The warm-up's last step, or else the first step, has the peak; the training's last step, and
        any after it, have `final` of it. (Where these are one step, it has the peak.)
        """
        if step < 0:
            raise InputError(f"step is {step}; steps are counted from 0")
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        start = max(self.warmup_steps - 1, 0)  # the step that has the peak
        done = min((step - start) / max(self.steps - 1 - start, 1), 1.0)  # 0 at the peak, 1 at last
        if self.kind == "constant":
            left = 1.0
        elif self.kind == "linear":
            left = 1.0 - done
        else:
            left = 0.5 * (1.0 + math.cos(math.pi * done))
        low = self.peak if self.kind == "constant" else self.peak * self.final
        return low + (self.peak - low) * left
