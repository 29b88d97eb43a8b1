"""The curve of a training run: how the loss falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.style import BLUE, VERMILION, new_axes, plain, reference_line

Metrics = Mapping[str, Sequence[float]]


def training_curve(
    metrics: Metrics, *, ax: Axes | None = None, references: Mapping[str, float] | None = None
) -> Axes:
    """Draw the loss over the steps: on the text trained on, and on held-out text.

    Args:
        metrics: columns of a metrics.csv, as `qwenkit.train.read_metrics` gives them: step, loss,
            and evaluation_loss where there were evaluations.
        ax: where to draw; None: a new figure.
        references: name -> another loss to compare with, drawn as dotted lines.

    Raises:
        InputError: no steps.
    """
    steps, losses, evaluated = _columns(metrics)
    ax = plain(ax or new_axes(7, 3.5), "step", "loss (nats per token)")
    ax.plot(steps, losses, color=BLUE, linewidth=1, label="trained on")
    if evaluated:
        x, y = zip(*evaluated, strict=True)
        ax.plot(x, y, "o-", color=VERMILION, markersize=4, label="held out")
    for name, value in (references or {}).items():
        reference_line(ax, name, value, right=True)
    ax.legend(frameon=False)
    return ax


def training_curve_alt(metrics: Metrics) -> str:
    """Return the alt text of `training_curve`."""
    steps, losses, evaluated = _columns(metrics)
    words = (
        f"The loss over {steps[-1]:.0f} steps: on the text trained on it falls from "
        f"{losses[0]:.2f} to {losses[-1]:.2f}"
    )
    if evaluated:
        words += f", on the held-out text from {evaluated[0][1]:.2f} to {evaluated[-1][1]:.2f}"
    return f"{words} nats per token."


def _columns(
    metrics: Metrics,
) -> tuple[Sequence[float], Sequence[float], list[tuple[float, float]]]:
    steps, losses = metrics.get("step", ()), metrics.get("loss", ())
    if not steps or len(steps) != len(losses):
        raise InputError(
            f"metrics hold {len(steps)} steps and {len(losses)} losses; there must be one loss for "
            "each step"
        )
    held = metrics.get("evaluation_loss", ())
    evaluated = [(s, v) for s, v in zip(steps, held, strict=False) if not math.isnan(v)]
    return steps, losses, evaluated
