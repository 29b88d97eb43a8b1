"""q·k against the distance between query and key."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import BLUE, GRAY, GREEN, ORANGE, PINK, SKY, VERMILION, new_axes, plain

COLORS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)  # of one curve after another
MOST = 1024  # points of a curve; longer ones are pooled
SAME = 1e-3  # of the largest product: what rounding may change, and nobody sees


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
    before = [line for line in ax.get_lines() if line.get_gid() == "products"]
    if not before:
        ax.axhline(0, color=GRAY, linewidth=0.8, linestyle=":")
    color = COLORS[len(before) % len(COLORS)]
    style = {"marker": "o", "markersize": 3} if len(starts) <= 64 else {}
    ax.plot(starts, middle, color=color, linewidth=1.2, label=name, gid="products", **style)  # type: ignore[arg-type]
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
    values = numbers(products, "products", "S", "T S")
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
