"""RoPE: the tables, how fast each pair rotates, one pair in the plane, and q·k by distance."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import BLUE, CURVES, GRAY, VERMILION, new_axes, plain, reference_line
from qwenkit.plot.tokens import drawable

MOST = 1024  # points of a curve; longer ones are pooled
SAME = 1e-3  # of the largest product: what rounding may change, and nobody sees


def rope_tables(cos: Any, sin: Any) -> Figure:
    """Draw the cos and sin tables as pictures: a row per position, a column per dimension.

    Args:
        cos: (T, D) as `RotaryEmbedding` gives it for one text.
        sin: (T, D).

    Raises:
        InputError: shapes that do not fit.
    """
    tables = {"cos": numbers(cos, "cos", "T D"), "sin": numbers(sin, "sin", "T D")}
    if tables["cos"].shape != tables["sin"].shape:
        raise InputError(
            f"cos has shape {tables['cos'].shape}, sin {tables['sin'].shape}; both must be (T, D)"
        )
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", sharey=True)
    look: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
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
    positions, dimensions = numbers(cos, "cos", "T D").shape
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
    lengths = _wavelengths(frequencies)
    ax = plain(ax or new_axes(6, 3.2), "pair", "positions for a full rotation")
    ax.semilogy(lengths, "o", markersize=4, color=BLUE)
    if context is not None:
        reference_line(ax, f"{context:,} positions", context, color=VERMILION, dash="--")
    return ax


def rope_wavelengths_alt(frequencies: Any, context: int | None = None) -> str:
    """Return the alt text of `rope_wavelengths`."""
    lengths = _wavelengths(frequencies)
    words = (
        f"The positions that each of {len(lengths)} pairs needs for a full rotation, on a "
        f"logarithmic scale: a straight line from {lengths[0]:,.1f} to {lengths[-1]:,.0f}"
    )
    if context is not None:
        slow = int((lengths > context).sum())
        words += f"; {slow} of them make no full rotation within {context:,} positions"
    return f"{words}."


def _wavelengths(frequencies: Any) -> np.ndarray:
    values = numbers(frequencies, "frequencies", "half").astype(np.float64)
    if values.min() <= 0:
        raise InputError(f"frequencies go down to {values.min():.3g}; they must be above 0")
    return np.asarray(2 * np.pi / values)


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
    pair = numbers(vector, "vector", "pair").astype(np.float64)
    if len(pair) != 2:
        raise InputError(f"vector has {len(pair)} values; it must be a pair")
    x, y = pair.tolist()
    positions, frequency = _rotation(positions, frequency)
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
    positions, frequency = _rotation(positions, frequency)
    return (
        f"Arrows from the center of a circle, one for each of {len(positions)} positions: "
        f"from one position to the next the pair is rotated by {np.degrees(frequency):.1f} "
        "degrees; its length stays the same."
    )


def _rotation(positions: Any, frequency: Any) -> tuple[np.ndarray, float]:
    """Return positions as an array, and the frequency, or refuse them."""
    if isinstance(positions, range):
        positions = positions[: MOST + 1]
    found = numbers(positions, "positions", "n").astype(np.int64)
    if len(found) > MOST:
        raise InputError(f"there are {len(found):,} positions; at most {MOST:,} are drawn")
    return found, float(numbers(frequency, "frequency", ""))


def qk_distance(products: Any, *, name: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw q·k against the distance from the query back to the key.

    Args:
        products: (S,) one for each distance, from 0 on; or (T, S) products of the last T positions'
            queries with all S keys: their mean is drawn for each distance, and a band from the
            smallest to the largest. Keys later than their query are left out.
        name: of the curve, for the legend; call again with the same axes for another curve.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: another number of dimensions, or more queries than keys.
    """
    mean, low, high = by_distance(products)
    factor = -(-len(mean) // MOST)
    starts = np.arange(0, len(mean), factor)
    middle = np.add.reduceat(mean, starts) / np.diff([*starts, len(mean)])
    low, high = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    pooled = f"\n(a point is the mean of {factor} distances, the band their range)"
    x = "distance from query back to key, in tokens" + pooled * (factor > 1)
    ax = plain(ax or new_axes(6, 3.2), x, "q·k")
    shown = None if name is None else drawable(name)
    before = [line for line in ax.get_lines() if line.get_gid() == "products"]
    if not before:
        ax.axhline(0, color=GRAY, linewidth=0.8, linestyle=":")
    color = CURVES[len(before) % len(CURVES)]
    style = {"marker": "o", "markersize": 3} if len(starts) <= 64 else {}
    ax.plot(starts, middle, color=color, linewidth=1.2, label=shown, gid="products", **style)  # type: ignore[arg-type]
    if (high - low).max() > 0:
        ax.fill_between(starts, low, high, color=color, alpha=0.2, linewidth=0)
    if name is not None:
        ax.legend(frameon=False, fontsize=9)
    return ax


def qk_distance_alt(products: Any, name: str = "q·k") -> str:
    """Return the alt text of one call of `qk_distance`."""
    mean, low, high = by_distance(products)
    top, bottom = int(mean.argmax()), int(mean.argmin())
    words = (
        f"{name} against the distance from query to key, 0 to {len(mean) - 1} tokens: "
        f"{mean[0]:.3g} at distance 0, at most {mean[top]:.3g} (at {top}), at least "
        f"{mean[bottom]:.3g} (at {bottom})"
    )
    spread = float((high - low).max())
    if np.ndim(products) == 2 and len(mean) > 1:
        if spread <= SAME * float(np.abs([low, high]).max()):
            words += "; at each distance it is the same at all positions"
        else:
            words += f"; at one distance it differs by up to {spread:.3g} between positions"
    return f"{words}."


def by_distance(products: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, smallest and largest product at each distance, (S,) each; arguments as above."""
    values = numbers(products, "products", "S", "T S").astype(np.float64)  # sums of large ones
    if values.ndim == 1:
        return values, values, values
    queries, keys = values.shape
    if queries > keys:
        raise InputError(
            f"products has shape {values.shape}; there must be a key for each query, so T ≤ S"
        )
    lines = [np.diagonal(values, keys - queries - distance) for distance in range(keys)]
    mean, low, high = (np.array([f(line) for line in lines]) for f in (np.mean, np.min, np.max))
    return mean, low, high
