"""Grouped-query attention: which query heads share a kv head, and what that saves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qwenkit.errors import InputError
from qwenkit.plot.style import HEADS, LIGHT, new_axes

NAMED = 20  # heads, up to which their names are written


def gqa_sharing(
    heads: int, kv_heads: int, *, ax: Axes | None = None, marked: int | None = None
) -> Axes:
    """Draw which query heads share a kv head: two rows of boxes, and lines between them.

    Args:
        heads: H, query heads.
        kv_heads: KV; it divides H.
        ax: where to draw; None: a new figure.
        marked: a query head whose line and boxes stand out; None: no one's.

    Raises:
        InputError: numbers that do not divide.
    """
    groups = _groups(heads, kv_heads)
    ax = ax or new_axes(max(0.55 * heads, 4), 2.2)
    for head in range(heads):
        kv, x = head // groups, head + 0.5
        color, width = HEADS[kv % len(HEADS)], 3.5 if head == marked else 1.5
        ax.plot([x, (kv + 0.5) * groups], [1, 0], color=color, linewidth=width, zorder=0)
        _box(ax, (x, 1), 1, f"q{head}" if heads <= NAMED else "", color, head == marked)
    for kv in range(kv_heads):
        color, edge = HEADS[kv % len(HEADS)], marked is not None and marked // groups == kv
        name = f"k{kv}, v{kv}" if kv_heads <= NAMED else ""
        _box(ax, ((kv + 0.5) * groups, 0), groups, name, color, edge)
    ax.set(xlim=(0, heads), ylim=(-0.25, 1.25))
    ax.set_axis_off()
    return ax


def gqa_sharing_alt(heads: int, kv_heads: int) -> str:
    """Return the alt text of `gqa_sharing`.

    >>> gqa_sharing_alt(4, 2)
    '4 query heads share 2 kv heads, 2 each: q0 to q1 use k0 and v0, q2 to q3 use k1 and v1.'
    """
    groups = _groups(heads, kv_heads)
    if groups == 1:
        return f"{heads} query heads, each with a kv head of its own."
    spans = ", ".join(f"q{kv * groups} to q{kv * groups + groups - 1} use k{kv} and v{kv}"
                      for kv in range(min(kv_heads, 4)))  # fmt: skip
    more = ", and so on" if kv_heads > 4 else ""
    return f"{heads} query heads share {kv_heads} kv heads, {groups} each: {spans}{more}."


def kv_repetition(k: Any, groups: int) -> Figure:
    """Draw the key tensor before and after its kv heads are repeated for the query heads.

    Args:
        k: (KV, S, D) keys of one text.
        groups: how many times each kv head is repeated consecutively, as by repeat_interleave.

    Raises:
        InputError: another shape, or groups below 1.
    """
    values = np.asarray(k, np.float32)
    if values.ndim != 3 or groups < 1:
        raise InputError(f"k has shape {values.shape}, groups is {groups}; k must be (KV, S, D)")
    heads = len(values) * groups
    limit = float(np.abs(values).max()) or 1.0
    size = (max(1.0 * heads, 5), 3.4)
    figure, axes = plt.subplots(2, heads, figsize=size, layout="constrained", squeeze=False)
    look: dict[str, Any] = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "aspect": "auto"}
    look["interpolation"] = "nearest"  # a pixel per value, nothing between them
    for ax in axes.flat:
        ax.set_axis_off()
    for head in range(heads):
        kv, offset = divmod(head, groups)
        names = {1: (f"for q{head}", 8)} if offset else {0: (f"k{kv}", 9), 1: (f"for q{head}", 8)}
        for row, (name, points) in names.items():
            axes[row, head].imshow(values[kv], **look)
            axes[row, head].set_title(name, fontsize=points, color=HEADS[kv % len(HEADS)])
    return figure


def kv_repetition_alt(k: Any, groups: int) -> str:
    """Return the alt text of `kv_repetition`."""
    kv_heads, length, size = np.shape(k)
    return (
        f"Above, the keys of {kv_heads} kv heads, each {length} tokens by {size} dimensions; "
        f"below, each {groups} times consecutively, one for each of {kv_heads * groups} query "
        f"heads. Only the {kv_heads} above are stored: a cache {groups} times smaller."
    )


def _groups(heads: int, kv_heads: int) -> int:
    if kv_heads < 1 or heads < kv_heads or heads % kv_heads:
        raise InputError(
            f"{heads} query heads and {kv_heads} kv heads; the first must be a multiple of the last"
        )
    return heads // kv_heads


def _box(
    ax: Axes, middle: tuple[float, float], width: float, text: str, color: str, marked: bool
) -> None:
    corner, wide = (middle[0] - 0.42 * width, middle[1] - 0.15), 0.84 * width
    edge = "black" if marked else "none"
    ax.add_patch(Rectangle(corner, wide, 0.3, facecolor=color, edgecolor=edge))
    dark = "black" if color in LIGHT else "white"
    ax.text(*middle, text, ha="center", va="center", fontsize=9, color=dark)
