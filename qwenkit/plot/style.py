"""What the figures share: colors that everyone can tell apart, and the look of the axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.plot.tokens import drawable

# Okabe and Ito's colors, which people with any color vision can tell apart; a gray for references.
BLUE, VERMILION, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, GRAY, PALE = "#e69f00", "#56b4e9", "#6b6b6b", "#b0b0b0"
CURVES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)  # of one curve after another
HEADS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)  # of kv heads; more heads repeat them
LIGHT = (ORANGE, PINK, SKY)  # of these: letters on them are black

MOST_COLUMNS = 64  # of panels in a figure


def new_axes(width: float, height: float) -> Axes:
    """Return the axes of a new figure; its size is in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` axes, each so many inches in size; the last row may be shorter."""
    if not 1 <= columns <= MOST_COLUMNS:
        raise InputError(f"columns is {columns}; it must be from 1 to {MOST_COLUMNS}")
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, list(axes.flat)


def plain(ax: Axes, x: str, y: str) -> Axes:
    """Name both axes, and draw a light grid in place of the frame."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def reference_line(
    ax: Axes, name: str, value: float, *, right: bool = False, color: str = GRAY, dash: str = ":"
) -> None:
    """Draw a horizontal line with its name above one end."""
    ax.axhline(value, color=color, linestyle=dash, linewidth=1)
    ax.annotate(
        drawable(name), (int(right), value), xycoords=("axes fraction", "data"), fontsize=9,
        color=color, xytext=(-3 if right else 4, 3), textcoords="offset points",
        ha="right" if right else "left",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip
