"""LoRA: the singular values of the update beside those of the weight."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from qwenkit.plot.arrays import numbers
from qwenkit.plot.training import HELD_OUT, REFERENCE, TRAINED

NOTHING = 1e-6  # of the largest singular value: float32's rounding, and no direction


def lora_spectra(update: Any, weight: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the singular values of a LoRA update and of the weight that it is added to.

    Args:
        update: (out, in) the update, scale · B A; or its singular values, (N,).
        weight: (out, in) the weight; or its singular values, (N,).
        ax: where to draw; None: a new figure.

    Raises:
        InputError: another number of dimensions, or values that are no numbers.
    """
    new, old = spectrum(update, "update"), spectrum(weight, "weight")
    rank = rank_of(new)
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
    ax.loglog(1 + np.arange(rank_of(old)), old[: rank_of(old)], color=TRAINED, label="weight")
    ax.loglog(
        1 + np.arange(rank), new[:rank], "o-", color=HELD_OUT, markersize=4,
        label=f"update, of rank {rank}",
    )  # fmt: skip
    if 0 < rank < len(new):
        ax.axvline(rank + 0.5, color=REFERENCE, linestyle=":", linewidth=1)
        ax.annotate(
            "the update has no more", (rank + 0.5, 0), xycoords=("data", "axes fraction"),
            xytext=(4, 4), textcoords="offset points", fontsize=8, color=REFERENCE,
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("number of the singular value, the largest first")
    ax.set_ylabel("singular value")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return ax


def lora_spectra_alt(update: Any, weight: Any) -> str:
    """Return in words what `lora_spectra` draws."""
    new, old = spectrum(update, "update"), spectrum(weight, "weight")
    rank = rank_of(new)
    if rank == 0:
        return f"The update is 0; the weight's largest singular value is {old[0]:.3g}."
    share = np.linalg.norm(new) / (np.linalg.norm(old) or 1.0)
    return (
        f"Singular values, both scales logarithmic. The update has {rank}, from {new[0]:.3g} to "
        f"{new[rank - 1]:.3g}, then none; the weight has {rank_of(old)}, from {old[0]:.3g} to "
        f"{old[rank_of(old) - 1]:.3g}. As a whole the update is {share:.1%} as large as the weight."
    )


def spectrum(values: Any, name: str) -> np.ndarray:
    """Return the singular values of a matrix, the largest first; those of a vector are itself."""
    array = numbers(values, name, "out in", "N")
    if array.ndim == 2:
        return np.linalg.svd(array, compute_uv=False)
    return np.sort(np.abs(array))[::-1]


def rank_of(singular_values: np.ndarray) -> int:
    """Return how many of them are more than rounding."""
    return int((singular_values > NOTHING * singular_values[0]).sum())
