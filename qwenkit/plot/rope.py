"""RoPE: the tables, how fast each pair turns, and that only the distance counts."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from qwenkit.errors import InputError
from qwenkit.plot.training import HELD_OUT, REFERENCE, TRAINED


def rope_tables(cos: Any, sin: Any) -> Figure:
    """Draw the cos and sin tables as pictures: a row for each position, a column a dimension.

    Args:
        cos: (T, D) as `RotaryEmbedding` gives it for one text.
        sin: (T, D).

    Raises:
        InputError: shapes that do not fit.
    """
    tables = {"cos": np.asarray(cos, np.float32), "sin": np.asarray(sin, np.float32)}
    if tables["cos"].ndim != 2 or tables["cos"].shape != tables["sin"].shape:
        raise InputError(
            f"cos has shape {tables['cos'].shape}, sin {tables['sin'].shape}; both must be (T, D)"
        )
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        image = ax.imshow(
            table, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
        )
        half = table.shape[1] // 2
        ax.axvline(half - 0.5, color="black", linewidth=1)
        ax.set_title(f"{name}: dimensions i and i + {half} turn alike", fontsize=9)
        ax.set_xlabel("dimension")
    axes[0].set_ylabel("position")
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def rope_tables_alt(cos: Any) -> str:
    """Return in words what `rope_tables` draws."""
    positions, dimensions = np.shape(cos)
    return (
        f"Two pictures, cos and sin, for {positions} positions and {dimensions} dimensions. In the "
        f"first columns the colour changes from position to position, in the later ones ever more "
        f"slowly; from column {dimensions // 2} on the same begins again."
    )


def rope_wavelengths(
    frequencies: Any, *, context: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how many positions each pair needs for a full turn.

    Args:
        frequencies: (D / 2) radians a position, as `inverse_frequencies` gives them.
        context: a length to mark, such as that of the training.
        ax: where to draw; None: a new figure.
    """
    lengths = 2 * np.pi / np.asarray(frequencies, np.float64)
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ax.semilogy(lengths, "o", markersize=4, color=TRAINED)
    if context is not None:
        ax.axhline(context, color=HELD_OUT, linestyle="--", linewidth=1)
        ax.annotate(
            f"{context:,} positions", (0, context), xytext=(2, 3), textcoords="offset points",
            color=HELD_OUT, fontsize=9,
        )  # fmt: skip
    ax.set_xlabel("pair")
    ax.set_ylabel("positions for a full turn")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def rope_wavelengths_alt(frequencies: Any, context: int | None = None) -> str:
    """Return in words what `rope_wavelengths` draws."""
    lengths = 2 * np.pi / np.asarray(frequencies, np.float64)
    words = (
        f"The positions that each of {len(lengths)} pairs needs for a full turn, on a logarithmic "
        f"scale: a straight line from {lengths[0]:,.1f} to {lengths[-1]:,.0f}"
    )
    if context is not None:
        slow = int((lengths > context).sum())
        words += f"; {slow} of them make no full turn within {context:,} positions"
    return f"{words}."


def rope_pair(
    vector: Any, frequency: float, positions: Any = range(8), *, ax: Axes | None = None
) -> Axes:
    """Draw one pair of dimensions as a point in the plane, turned by each of some positions.

    Args:
        vector: its two numbers.
        frequency: radians a position.
        positions: which.
        ax: where to draw; None: a new figure.
    """
    x, y = (float(one) for one in vector)
    places = np.asarray(list(positions))
    angles = frequency * places
    points = np.stack([x * np.cos(angles) - y * np.sin(angles),
                       y * np.cos(angles) + x * np.sin(angles)])  # fmt: skip
    if ax is None:
        _, ax = plt.subplots(figsize=(3.8, 3.8), layout="constrained")
    radius = float(np.hypot(x, y)) or 1.0
    ax.add_patch(Circle((0, 0), radius, fill=False, color=REFERENCE, linestyle=":"))
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(places)))
    for place, (a, b), shade in zip(places, points.T, shades, strict=True):
        ax.plot([0, a], [0, b], color=shade, linewidth=2)
        ax.annotate(str(place), (a * 1.12, b * 1.12), ha="center", va="center", fontsize=8)
    ax.set_xlim(-1.3 * radius, 1.3 * radius)
    ax.set_ylim(-1.3 * radius, 1.3 * radius)
    ax.set_aspect("equal")
    ax.set_xlabel("dimension i")
    ax.set_ylabel("dimension i + D/2")
    return ax


def rope_pair_alt(frequency: float, positions: Any = range(8)) -> str:
    """Return in words what `rope_pair` draws."""
    places = list(positions)
    return (
        f"Arrows from the centre of a circle, one for each of {len(places)} positions: from one "
        f"position to the next the pair is turned by {np.degrees(frequency):.1f} degrees; its "
        "length stays."
    )
