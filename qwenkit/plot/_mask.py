"""Masks: which query position may attend to which key position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool
from qwenkit.plot.style import BLUE, new_axes
from qwenkit.plot.tokens import label_axis

MAY, MAY_NOT = BLUE, "#e6e6e6"
LARGEST = 256  # pixels a side; longer masks are pooled
GRID = 40  # up to this many a side, lines divide the squares


def mask(allowed: Any, tokens: Sequence[str] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a mask: a row per query position, a column per key position.

    Args:
        allowed: (T, S) true where the query may attend to the key. T < S: the queries are the last
            T positions.
        tokens: the S strings; None: the numbers of their positions are written instead.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: shapes that do not fit.
    """
    values = _checked(allowed, tokens)
    queries, keys = values.shape
    side = min(max(2.2 + 0.2 * min(keys, 30), 3.2), 7)
    ax = ax or new_axes(side, side)
    shown, factor = pool(values.astype(np.float32), LARGEST)
    ax.imshow(shown, cmap=ListedColormap([MAY_NOT, MAY]), vmin=0, vmax=1, interpolation="nearest")
    for which, axis, first in (("x", ax.xaxis, 0), ("y", ax.yaxis, keys - queries)):
        if tokens is None:
            _number(axis, range(first, keys), factor)
        else:
            label_axis(ax, tokens[first::factor], which)
    if max(shown.shape) <= GRID:
        ax.set_xticks(np.arange(shown.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(shown.shape[0] + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
    pooled = f" (a pixel is blue where any of {factor} × {factor} is)" if factor > 1 else ""
    ax.set_xlabel("key position" + pooled)
    ax.set_ylabel("query position")
    handles = [Patch(color=MAY, label="may attend"), Patch(color=MAY_NOT, label="may not")]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False,
        fontsize=9, borderaxespad=0.2, handlelength=1.2,
    )  # fmt: skip
    return ax


def mask_alt(allowed: Any, tokens: Sequence[str] | None = None) -> str:
    """Return the alt text of `mask`: the rule, where it is a known one.

    >>> mask_alt([[1, 0], [1, 1]])[:69]
    'Mask of 2 query positions: each may attend to itself and all earlier '
    """
    values = _checked(allowed, tokens)
    queries, keys = values.shape
    rows = np.arange(keys - queries, keys)[:, None]
    back = rows - np.arange(keys)  # (T, S) how far back each key is; below 0: later
    counts = values.sum(axis=1)
    window = int(counts.max())
    if np.array_equal(values, back >= 0):
        rule = "each may attend to itself and all earlier ones, and to no later one"
    elif window and np.array_equal(values, (back >= 0) & (back < window)):
        some = f"at most the {window - 1} before it" if window > 1 else "nothing else"
        rule = f"each may attend to itself and {some}, and to no later one"
    else:
        rule = f"each may attend to {counts.min()} to {window} positions"
        later = int((values & (back < 0)).sum())
        rule += f", in {later} cells to a later one" if later else ", and to no later one"
    past = f" after {keys - queries} earlier ones" if queries < keys else ""
    return f"Mask of {queries} query position{'s' * (queries > 1)}{past}: {rule}."


def _number(axis: Axis, positions: range, factor: int) -> None:
    """Write round numbers of positions along an axis of which a pixel is `factor` positions."""
    round_ones = MaxNLocator(12, integer=True).tick_values(positions[0], positions[-1])
    shown = [int(one) for one in round_ones if one in positions]
    axis.set_ticks([(one - positions[0]) // factor for one in shown], [str(one) for one in shown])


def _checked(allowed: Any, tokens: Sequence[str] | None) -> np.ndarray:
    values = numbers(allowed, "allowed", "T S")
    queries, keys = values.shape
    if queries > keys or (tokens is not None and len(tokens) != keys):
        count = "" if tokens is None else f" and there are {len(tokens)} tokens"
        raise InputError(
            f"the mask is {queries} × {keys}{count}; it must have a column for each token, and no "
            "more rows"
        )
    if not np.isin(values, (0, 1)).all():
        raise InputError("allowed holds other values than true and false; it must hold no others")
    return values.astype(bool)
