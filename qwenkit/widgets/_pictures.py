"""What several snapshots draw: bars, and the frame around the chosen part of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from qwenkit.plot.style import TEXT, VERMILION
from qwenkit.plot.tokens import label

MARK: dict[str, Any] = {
    "fill": False, "edgecolor": VERMILION, "linewidth": 1.5, "clip_on": False, "zorder": 5,
}  # fmt: skip


def bars(ax: Axes, names: list[str], *series: tuple[Any, Any, str | None]) -> None:
    """Draw horizontal bars, the first on top.

    Args:
        ax: where to draw.
        names: one for each bar.
        series: values, color or colors, and a name for the legend, of bars next to each other.
    """
    rows, height = np.arange(len(names)), 0.8 / len(series)
    for number, (values, color, name) in enumerate(series):
        offset = (number - (len(series) - 1) / 2) * height
        ax.barh(rows + offset, values, height, color=color, label=name)
    ax.set_yticks(rows, names, family="monospace", fontsize=TEXT)
    ax.invert_yaxis()
    ax.set_axisbelow(True)


def fewer_labels(ax: Axes, tokens: list[str], most: int) -> None:
    """Name every n-th position along both axes of an attention map, so that names do not touch.

    Args:
        ax: what `plot.attention` drew the map on.
        tokens: one for each position.
        most: how many names there is room for.
    """
    drawn = ax.images[0].get_array()
    assert drawn is not None
    size = drawn.shape[0]
    factor = -(-len(tokens) // size)  # a large map is drawn pooled
    shown = list(range(0, size, -(-size // most)))
    names = [label(tokens[pixel * factor]) for pixel in shown]
    ax.set_xticks(shown, names, rotation=90, family="monospace", fontsize=TEXT)
    ax.set_yticks(shown, names, family="monospace", fontsize=TEXT)


def mark(ax: Axes, position: int, positions: int, *, column: bool = False) -> None:
    """Frame a query position's row, or a key position's column, of an attention map."""
    drawn = ax.images[0].get_array()
    assert drawn is not None
    size = drawn.shape[0]
    pixel = position // -(-positions // size)  # a large map is drawn pooled
    air = size / 250  # so that the frame does not cover a thin row
    x = y = pixel - 0.5 - air
    width, height = 1 + 2 * air, size - pixel + 2 * air
    if not column:
        x, width, height = -0.5 - air, pixel + 1 + 2 * air, 1 + 2 * air
    ax.add_patch(Rectangle((x, y), width, height, **MARK))
