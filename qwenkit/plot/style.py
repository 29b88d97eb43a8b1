"""What the figures share: colors that everyone can tell apart, and the look of the axes."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullFormatter

from qwenkit.errors import InputError
from qwenkit.plot.tokens import drawable

# Okabe and Ito's colors, which people with any color vision can tell apart; a gray for references.
BLUE, VERMILION, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, GRAY, PALE = "#e69f00", "#56b4e9", "#6b6b6b", "#b0b0b0"
QUERY, KEY, VALUE = BLUE, VERMILION, GREEN  # wherever one of the three is drawn
SIGNED = "RdBu_r"  # a map of signed values: red positive, blue negative, white 0
UNSIGNED = "viridis"  # a map of values from 0 on: the brighter, the larger
CURVES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)  # of one curve after another
HEADS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)  # of kv heads; more heads repeat them
LIGHT = (ORANGE, PINK, SKY)  # of these: letters on them are black

TEXT = 10  # points of the smallest text; as a PNG at 101 dpi 14 pixels, a notebook's body text
WIDEST = 9.0  # inches of a figure that a notebook shows at its full size
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


def log_ticks(ax: Axes) -> None:
    """Write plain numbers at 1, 2 and 5 times the powers of ten of a logarithmic y axis."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def color_bar(image: AxesImage, label: str, *axes: Axes, **style: Any) -> None:
    """Draw what the colors of a map mean, next to some axes."""
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    figure.colorbar(image, ax=list(axes), **{"pad": 0.02, **style}).set_label(label)


def reference_line(
    ax: Axes, name: str, value: float, *, right: bool = False, color: str = GRAY, dash: str = ":"
) -> None:
    """Draw a horizontal line with its name above one end."""
    ax.axhline(value, color=color, linestyle=dash, linewidth=1)
    ax.annotate(
        drawable(name), (int(right), value), xycoords=("axes fraction", "data"), fontsize=TEXT,
        color=color, xytext=(-3 if right else 4, 3), textcoords="offset points",
        ha="right" if right else "left",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip
