"""Attention maps: one head, all heads of a layer, all heads of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool
from qwenkit.plot.heads import CURRENT, FIRST, PREVIOUS, head_scores
from qwenkit.plot.style import new_axes
from qwenkit.plot.tokens import label, label_axis

LARGEST = 256  # pixels a side; longer texts are pooled
SMALL = 64  # pixels a side where many heads share a figure
LOOK: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
ATTENDED = {
    FIRST: "the first token", PREVIOUS: "the previous token", CURRENT: "the current token",
}  # fmt: skip


def attention(
    pattern: Any, tokens: Sequence[str], *, ax: Axes | None = None, **imshow: Any
) -> Axes:
    """Draw one head's attention weights: a row per query position, a column per key position.

    Args:
        pattern: (T, S) from 0 to 1; a row sums to 1. T < S: the queries are the last T positions.
        tokens: the S strings.
        ax: where to draw; None: a new figure.
        imshow: for matplotlib's imshow.

    Raises:
        InputError: shapes that do not fit.
    """
    values = numbers(pattern, "pattern", "T S")
    queries, keys = values.shape
    if len(tokens) != keys or queries > keys:
        raise InputError(
            f"the pattern is {queries} × {keys} and there are {len(tokens)} tokens; it must have a "
            "column for each token, and no more rows"
        )
    side = min(max(2.5 + 0.16 * min(keys, 40), 3.5), 8)
    ax = ax or new_axes(side, side)
    shown, factor = pool(values, LARGEST)
    ax.imshow(shown, **(LOOK | imshow))
    label_axis(ax, tokens[::factor], "x")
    label_axis(ax, tokens[keys - queries :: factor], "y")
    pooled = f" (a pixel is the largest of {factor} × {factor} values)" if factor > 1 else ""
    ax.set_xlabel("key position" + pooled)
    ax.set_ylabel("query position")
    return ax


def attention_alt(pattern: Any, tokens: Sequence[str], name: str = "One head's attention") -> str:
    """Return the alt text of `attention`: what most queries attend to, and the largest weight."""
    values = numbers(pattern, "pattern", "T S")
    queries, keys = values.shape
    scores = head_scores(values)
    most = max((FIRST, *scores), key=lambda one: float(scores[one]))
    words = (
        f"{name} over {keys} tokens: on average {scores[most]:.0%} of a query's attention is on "
        f"{ATTENDED[most]}"
    )
    rest = values.copy()
    rows = np.arange(queries)
    rest[rows, rows + keys - queries] = rest[:, 0] = -1
    row, column = np.unravel_index(int(rest.argmax()), rest.shape)
    if rest[row, column] > 0:
        query, key = label(tokens[keys - queries + int(row)]), label(tokens[int(column)])
        words += (
            f"; apart from the first and the current token, the largest weight is from {query} to "
            f"{key} ({rest[row, column]:.0%})"
        )
    return f"{words}."


def attention_heads(
    patterns: Any, *, names: Sequence[str] | None = None, columns: int | None = None
) -> Figure:
    """Draw all heads of a layer, or of all layers, as small maps next to each other.

    Args:
        patterns: (H, T, S): one or several rows of maps; (L, H, T, S): a row for each layer.
        names: the title of each map; None: its layer and head.
        columns: maps in a row for (H, T, S); None: up to eight.

    Raises:
        InputError: another number of dimensions, NaN or an infinity.
    """
    values = numbers(patterns, "patterns", "H T S", "L H T S")
    if values.ndim == 4:
        layers, columns = values.shape[:2]
        default = [f"{layer}.{head}" for layer in range(layers) for head in range(columns)]
        values = values.reshape(-1, *values.shape[2:])
    else:
        default = [f"head {head}" for head in range(len(values))]
        columns = columns or min(len(values), 8)
    names = default if names is None else names
    if len(names) != len(values):
        raise InputError(f"there are {len(values)} heads and {len(names)} names")
    rows = -(-len(values) // columns)
    side = max(min(10 / columns, 1.8), 0.7)
    size = (side * columns, (side + 0.2) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, pattern, name in zip(axes.flat, values, names, strict=False):
        ax.imshow(pool(pattern, SMALL)[0], **LOOK)
        ax.set_title(name, fontsize=7, pad=2)
    return figure


def attention_heads_alt(patterns: Any) -> str:
    """Return the alt text of `attention_heads`: which heads are of a known type."""
    values = numbers(patterns, "patterns", "H T S", "L H T S")
    scores = head_scores(values)
    found = []
    for head_type in (PREVIOUS, FIRST):
        heads = np.argwhere(scores.get(head_type, np.zeros(values.shape[:-2])) > 0.5)
        names = [".".join(map(str, head)) for head in heads]
        few = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        unit = "head" if values.ndim == 3 else "layer.head"
        where = f" ({unit} {few})" if names else ""
        found.append(f"{len(names)} {head_type}{'s' * (len(names) != 1)}{where}")
    return (
        f"Attention of {np.prod(values.shape[:-2])} heads, small, over {values.shape[-1]} tokens. "
        f"By where most of their attention goes: {', '.join(found)}."
    )
