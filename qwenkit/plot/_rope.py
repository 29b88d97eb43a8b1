"""RoPE: the tables, how fast each pair rotates, and one pair in the plane."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from qwenkit.errors import InputError
from qwenkit.plot.style import BLUE, GRAY, VERMILION, new_axes, plain, reference_line


def rope_tables(cos: Any, sin: Any) -> Figure:
    """Draw the cos and sin tables as pictures: a row per position, a column per dimension.

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
    look: dict[str, Any] = {"cmap": "RdBu", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        image = ax.imshow(table, aspect="auto", **look)
        half = table.shape[1] // 2
        ax.axvline(half - 0.5, color="black", linewidth=1)
        ax.set_title(f"{name}: dimensions i and i + {half} rotate together", fontsize=9)
        ax.set_xlabel("dimension")
    axes[0].set_ylabel("position")
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def rope_tables_alt(cos: Any) -> str:
    """Return the alt text of `rope_tables`."""
    positions, dimensions = np.shape(cos)
    return (
        f"Two pictures, cos and sin, for {positions} positions and {dimensions} dimensions. In the "
        f"first columns the color changes from position to position, in later ones more and more "
        f"slowly; from column {dimensions // 2} on the same columns are repeated."
    )


def rope_wavelengths(
    frequencies: Any, *, context: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how many positions each pair needs for a full rotation.

    Args:
        frequencies: (D / 2) radians per position, as `inverse_frequencies` gives them.
        context: a length to mark, such as that of the training.
        ax: where to draw; None: a new figure.
    """
    lengths = 2 * np.pi / np.asarray(frequencies, np.float64)
    ax = plain(ax or new_axes(6, 3.2), "pair", "positions for a full rotation")
    ax.semilogy(lengths, "o", markersize=4, color=BLUE)
    if context is not None:
        reference_line(ax, f"{context:,} positions", context, color=VERMILION, dash="--")
    return ax


def rope_wavelengths_alt(frequencies: Any, context: int | None = None) -> str:
    """Return the alt text of `rope_wavelengths`."""
    lengths = 2 * np.pi / np.asarray(frequencies, np.float64)
    words = (
        f"The positions that each of {len(lengths)} pairs needs for a full rotation, on a "
        f"logarithmic scale: a straight line from {lengths[0]:,.1f} to {lengths[-1]:,.0f}"
    )
    if context is not None:
        slow = int((lengths > context).sum())
        words += f"; {slow} of them make no full rotation within {context:,} positions"
    return f"{words}."


def rope_pair(
    vector: Any, frequency: float, positions: Any = range(8), *, ax: Axes | None = None
) -> Axes:
    """Draw one pair of dimensions as a point in the plane, rotated by each of some positions.

    Args:
        vector: its two values.
        frequency: radians per position.
        positions: which.
        ax: where to draw; None: a new figure.
    """
    x, y = (float(one) for one in vector)
    positions = np.asarray(list(positions))
    angles = frequency * positions
    points = np.stack([x * np.cos(angles) - y * np.sin(angles),
                       y * np.cos(angles) + x * np.sin(angles)])  # fmt: skip
    ax = ax or new_axes(3.8, 3.8)
    radius = float(np.hypot(x, y)) or 1.0
    ax.add_patch(Circle((0, 0), radius, fill=False, color=GRAY, linestyle=":"))
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(positions)))
    for position, (a, b), shade in zip(positions, points.T, shades, strict=True):
        ax.plot([0, a], [0, b], color=shade, linewidth=2)
        ax.annotate(str(position), (a * 1.12, b * 1.12), ha="center", va="center", fontsize=8)
    limits = (-1.3 * radius, 1.3 * radius)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set(xlabel="dimension i", ylabel="dimension i + D/2")
    return ax


def rope_pair_alt(frequency: float, positions: Any = range(8)) -> str:
    """Return the alt text of `rope_pair`."""
    return (
        f"Arrows from the center of a circle, one for each of {len(list(positions))} positions: "
        f"from one position to the next the pair is rotated by {np.degrees(frequency):.1f} "
        "degrees; its length stays the same."
    )
