"""Learning rate schedules: how large each step may be."""

import math
from dataclasses import dataclass

from qwenkit.errors import InputError
from qwenkit.train._checks import at_least, check_types, one_of, require

KINDS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step: a warm-up, then constant, or down linearly or as a cosine.

    >>> rate = Schedule(1.0, steps=5, kind="linear", warmup_steps=2, final=0.4)
    >>> [round(rate(step), 2) for step in range(5)]
    [0.5, 1.0, 0.8, 0.6, 0.4]

    Args:
        peak: the largest learning rate, reached at the end of the warm-up.
        steps: of the whole training.
        kind: "constant", "linear" or "cosine" (Loshchilov and Hutter 2017, equation 5, without
            restarts).
        warmup_steps: the rate grows linearly through these steps: Adam's first estimates come
            from few gradients, and should not be trusted far.
        final: the last step's rate, as a fraction of the peak (not for "constant").

    Raises:
        InputError: values that make no schedule, or a step below 0.
    """

    peak: float
    steps: int
    kind: str = "cosine"
    warmup_steps: int = 0
    final: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        one_of(KINDS, kind=self.kind)
        at_least(1, steps=self.steps)
        require(self.peak > 0, "peak", self.peak, "above 0")
        rule = f"from 0 to below the {self.steps} steps of the training"
        require(0 <= self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, rule)
        require(0 <= self.final <= 1, "final", self.final, "a fraction of the peak, 0 to 1")

    def __call__(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0.

        The warm-up's last step, or else the first step, has the peak; the training's last step, and
        any after it, have `final` of it. (Where these are one step, it has the peak.)
        """
        if step < 0:
            raise InputError(f"step is {step}; steps are counted from 0")
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        start = max(self.warmup_steps - 1, 0)  # the step that has the peak
        done = min((step - start) / max(self.steps - 1 - start, 1), 1.0)  # 0 at the peak, 1 at last
        left = 1.0 - done if self.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
        low = self.peak * self.final
        return low + (self.peak - low) * left
