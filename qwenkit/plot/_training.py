"""Training: the loss curve, and the singular values of a LoRA update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import BLUE, GRAY, TEXT, VERMILION, new_axes, plain, reference_line

Metrics = Mapping[str, Sequence[float]]
NOTHING = 1e-6  # of the largest singular value: float32's rounding, and not a direction


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


def lora_spectra(update: Any, weight: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the singular values of a LoRA update and of the weight that it is added to.

    Args:
        update: (out, in) the update, scale · B A; or its singular values, (N,).
        weight: (out, in) the weight; or its singular values, (N,).
        ax: where to draw; None: a new figure.

    Raises:
        InputError: another number of dimensions, NaN or an infinity.
    """
    new, old = _spectrum(update, "update"), _spectrum(weight, "weight")
    rank, full = _rank(new), _rank(old)
    x = "number of the singular value, the largest first"
    ax = plain(ax or new_axes(6, 3.4), x, "singular value")
    ax.loglog(1 + np.arange(full), old[:full], color=BLUE, label="weight")
    style = {"color": VERMILION, "markersize": 4, "label": f"update, of rank {rank}"}
    ax.loglog(1 + np.arange(rank), new[:rank], "o-", **style)
    if 0 < rank < len(new):
        ax.axvline(rank + 0.5, color=GRAY, linestyle=":", linewidth=1)
        ax.annotate(
            "the update has no more", (rank + 0.5, 0), xycoords=("data", "axes fraction"),
            xytext=(4, 4), textcoords="offset points", fontsize=TEXT, color=GRAY,
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize=TEXT)
    return ax


def lora_spectra_alt(update: Any, weight: Any) -> str:
    """Return the alt text of `lora_spectra`."""
    new, old = _spectrum(update, "update"), _spectrum(weight, "weight")
    rank, full = _rank(new), _rank(old)
    if rank == 0:
        return f"The update is 0; the weight's largest singular value is {old[0]:.3g}."
    size = np.linalg.norm(new) / (np.linalg.norm(old) or 1.0)
    return (
        f"Singular values, both scales logarithmic. The update has {rank}, from {new[0]:.3g} to "
        f"{new[rank - 1]:.3g}, then none; the weight has {full}, from {old[0]:.3g} to "
        f"{old[full - 1]:.3g}. As a whole the update is {size:.1%} as large as the weight."
    )


def _spectrum(values: Any, name: str) -> np.ndarray:
    """Return the singular values of a matrix, the largest first; those of a vector are itself."""
    array = numbers(values, name, "out in", "N")
    reach = np.float64(np.abs(array).max() or 1.0)  # sums of large ones overflow float32
    array = array / np.float32(reach)
    sizes = np.linalg.svd(array, compute_uv=False) if array.ndim == 2 else np.abs(array)
    return np.asarray(np.sort(sizes)[::-1] * reach)


def _rank(singular_values: np.ndarray) -> int:
    """Return how many of them are more than rounding."""
    return int((singular_values > NOTHING * singular_values[0]).sum())
