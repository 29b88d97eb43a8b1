"""Grouped-query attention: which query heads read which kv head, and what that saves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.errors import InputError

# Okabe and Ito's colours, the lightest left out; kv heads beyond take them again.
LIGHT = ("#e69f00", "#cc79a7", "#56b4e9")  # of these: letters on them are black
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def gqa_sharing(heads: int, kv_heads: int, *, ax: Axes | None = None) -> Axes:
    """Draw which query heads share a kv head: two rows of boxes, and lines between them.

    Args:
        heads: H, query heads.
        kv_heads: KV; it divides H.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: numbers that do not divide.
    """
    groups = _groups(heads, kv_heads)
    if ax is None:
        _, ax = plt.subplots(figsize=(max(0.55 * heads, 4), 2.2), layout="constrained")
    for head in range(heads):
        kv = head // groups
        centre = kv * groups + (groups - 1) / 2
        ax.plot([head, centre], [1, 0], color=COLOURS[kv % len(COLOURS)], linewidth=1.5, zorder=0)
        _box(ax, head, 1, f"q{head}", COLOURS[kv % len(COLOURS)])
    for kv in range(kv_heads):
        centre = kv * groups + (groups - 1) / 2
        _box(ax, centre, 0, f"k{kv}, v{kv}", COLOURS[kv % len(COLOURS)], wide=True)
    ax.set_xlim(-0.7, heads - 0.3)
    ax.set_ylim(-0.4, 1.4)
    ax.set_axis_off()
    return ax


def gqa_sharing_alt(heads: int, kv_heads: int) -> str:
    """Return in words what `gqa_sharing` draws."""
    groups = _groups(heads, kv_heads)
    if groups == 1:
        return f"{heads} query heads, each with a kv head of its own."
    spans = ", ".join(f"q{kv * groups} to q{kv * groups + groups - 1} read k{kv} and v{kv}"
                      for kv in range(min(kv_heads, 4)))  # fmt: skip
    more = ", and so on" if kv_heads > 4 else ""
    return f"{heads} query heads share {kv_heads} kv heads, {groups} each: {spans}{more}."


def kv_repetition(k: Any, groups: int) -> Figure:
    """Draw the key tensor before and after its kv heads are repeated for the query heads.

    Args:
        k: (KV, S, D) keys of one text.
        groups: how many times each kv head is repeated, in a run.
    """
    values = np.asarray(k, np.float32)
    if values.ndim != 3 or groups < 1:
        raise InputError(f"k has shape {values.shape}, groups is {groups}; k must be (KV, S, D)")
    kv_heads = len(values)
    repeated = np.repeat(values, groups, axis=0)
    limit = float(np.abs(values).max()) or 1.0
    figure, axes = plt.subplots(
        2, kv_heads * groups, figsize=(max(1.0 * kv_heads * groups, 5), 3.4),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    look: dict[str, Any] = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "aspect": "auto"}
    look["interpolation"] = "nearest"  # a number a pixel: nothing between them
    for kv in range(kv_heads):
        ax = axes[0, kv * groups]
        ax.imshow(values[kv], **look)
        ax.set_title(f"k{kv}", fontsize=9, color=COLOURS[kv % len(COLOURS)])
    for head in range(len(repeated)):
        ax = axes[1, head]
        ax.imshow(repeated[head], **look)
        ax.set_title(f"for q{head}", fontsize=8, color=COLOURS[head // groups % len(COLOURS)])
    return figure


def kv_repetition_alt(k: Any, groups: int) -> str:
    """Return in words what `kv_repetition` draws."""
    kv_heads, length, size = np.shape(k)
    return (
        f"Above, the keys of {kv_heads} kv heads, each {length} tokens by {size} dimensions; "
        f"below, the same {groups} times each in a run, one for each of {kv_heads * groups} query "
        f"heads. Stored are the {kv_heads} above: a cache {groups} times smaller."
    )


def _groups(heads: int, kv_heads: int) -> int:
    if kv_heads < 1 or heads < kv_heads or heads % kv_heads:
        raise InputError(
            f"{heads} query heads and {kv_heads} kv heads; the first must be a multiple of the last"
        )
    return heads // kv_heads


def _box(ax: Axes, x: float, y: float, text: str, colour: str, wide: bool = False) -> None:
    ax.text(
        x, y, text, ha="center", va="center", fontsize=9,
        color="black" if colour in LIGHT else "white",
        bbox={"boxstyle": "round,pad=0.35" if wide else "round,pad=0.25", "facecolor": colour,
              "edgecolor": "none"},
    )  # fmt: skip
