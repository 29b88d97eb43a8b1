"""A training's curve: how the loss falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from qwenkit.errors import InputError

Metrics = Mapping[str, Sequence[float]]
TRAINED, HELD_OUT, REFERENCE = "#0072b2", "#d55e00", "#6b6b6b"  # Okabe and Ito's colours


def training_curve(
    metrics: Metrics, *, ax: Axes | None = None, references: Mapping[str, float] | None = None
) -> Axes:
    """Draw the loss over the steps: on the text trained on, and on what was held out.

    Args:
        metrics: columns of a metrics.csv, as `qwenkit.train.read_metrics` gives them: step, loss,
            and evaluation_loss where there were evaluations.
        ax: where to draw; None: a new figure.
        references: further losses to compare with, as dotted lines, by their names.

    Raises:
        InputError: no steps.
    """
    steps, losses, evaluated = _columns(metrics)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
    ax.plot(steps, losses, color=TRAINED, linewidth=1, label="trained on")
    if evaluated:
        ax.plot(*zip(*evaluated, strict=True), "o-", color=HELD_OUT, markersize=4, label="held out")
    for name, value in (references or {}).items():
        ax.axhline(value, color=REFERENCE, linestyle=":", linewidth=1)
        ax.annotate(
            name, (1, value), xycoords=("axes fraction", "data"), xytext=(-3, 3),
            textcoords="offset points", ha="right", color=REFERENCE, fontsize=9,
        )  # fmt: skip
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats a token)")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def training_curve_alt(metrics: Metrics) -> str:
    """Return in words what `training_curve` draws."""
    steps, losses, evaluated = _columns(metrics)
    words = (
        f"The loss over {steps[-1]:.0f} steps: on the text trained on it falls from "
        f"{losses[0]:.2f} to {losses[-1]:.2f}"
    )
    if evaluated:
        words += f", on the held-out text from {evaluated[0][1]:.2f} to {evaluated[-1][1]:.2f}"
    return f"{words} nats a token."


def _columns(
    metrics: Metrics,
) -> tuple[Sequence[float], Sequence[float], list[tuple[float, float]]]:
    steps, losses = metrics.get("step", ()), metrics.get("loss", ())
    if not steps or len(steps) != len(losses):
        raise InputError(
            f"metrics hold {len(steps)} steps and {len(losses)} losses; one loss for each step"
        )
    held = metrics.get("evaluation_loss", ())
    evaluated = [(s, v) for s, v in zip(steps, held, strict=False) if not math.isnan(v)]
    return steps, losses, evaluated
