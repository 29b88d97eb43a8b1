"""Masks: which tokens may read which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.tokens import label_axis, pool

MAY, MAY_NOT = "#0072b2", "#e6e6e6"
LARGEST = 256  # pixels a side; longer masks are pooled
GRID = 40  # up to this many a side, lines divide the squares


def mask(allowed: Any, tokens: Sequence[str] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a mask: a row for each token that reads, a column for each that is read.

    Args:
        allowed: (T, S) true where the row's token may read the column's. T < S: the rows are the
            last tokens.
        tokens: the S strings; None: their places are written instead.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: shapes that do not fit.
    """
    values = _checked(allowed, tokens)
    queries, keys = values.shape
    if ax is None:
        side = min(max(2.2 + 0.2 * min(keys, 30), 3.2), 7)
        _, ax = plt.subplots(figsize=(side, side), layout="constrained")
    shown, factor = pool(values.astype(np.float32), LARGEST)
    colours = ListedColormap([MAY_NOT, MAY])
    ax.imshow(shown, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    if tokens is None:
        _number(ax.xaxis, range(keys), factor)
        _number(ax.yaxis, range(keys - queries, keys), factor)
    else:
        label_axis(ax, tokens[::factor], "x")
        label_axis(ax, tokens[keys - queries :: factor], "y")
    if max(shown.shape) <= GRID:
        ax.set_xticks(np.arange(shown.shape[1] + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(shown.shape[0] + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
    pooled = f" (a pixel is blue where any of {factor} × {factor} is)" if factor > 1 else ""
    ax.set_xlabel("is read" + pooled)
    ax.set_ylabel("reads")
    keys_of = [Patch(color=MAY, label="may read"), Patch(color=MAY_NOT, label="may not")]
    ax.legend(
        handles=keys_of, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False,
        fontsize=9, borderaxespad=0.2, handlelength=1.2,
    )  # fmt: skip
    return ax


def mask_alt(allowed: Any, tokens: Sequence[str] | None = None) -> str:
    """Return in words what `mask` draws: the rule, where it is a known one."""
    values = _checked(allowed, tokens)
    queries, keys = values.shape
    rows = np.arange(keys - queries, keys)[:, None]
    back = rows - np.arange(keys)  # (T, S) how far back each key lies; below 0: later
    counts = values.sum(axis=1)
    window = int(counts.max())
    if np.array_equal(values, back >= 0):
        rule = "each token may read itself and all before it, and no later one"
    elif window and np.array_equal(values, (back >= 0) & (back < window)):
        some = f"at most the {window - 1} before it" if window > 1 else "nothing else"
        rule = f"each token may read itself and {some}, and no later one"
    else:
        rule = f"a token may read from {counts.min()} to {window} tokens"
        later = int((values & (back < 0)).sum())
        rule += f", and in {later} places a later one" if later else ", and no later one"
    past = f" after {keys - queries} earlier ones" if queries < keys else ""
    who = "1 token that reads" if queries == 1 else f"{queries} tokens that read"
    return f"Mask of {who}{past}: {rule}."


def _number(axis: Axis, places: range, factor: int) -> None:
    """Write round numbers of places along an axis of which a pixel is `factor` places."""
    round_ones = MaxNLocator(12, integer=True).tick_values(places[0], places[-1])
    shown = [int(place) for place in round_ones if place in places]
    axis.set_ticks([(place - places[0]) // factor for place in shown], [str(i) for i in shown])


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
