"""Attention maps: one head, all heads of a layer, all heads of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.tokens import label, label_axis, pool

LARGEST = 256  # pixels a side; longer texts are pooled
SMALL = 64  # pixels a side where many heads share a figure


def attention(
    pattern: Any, tokens: Sequence[str], *, ax: Axes | None = None, **imshow: Any
) -> Axes:
    """Draw one head's attention: a row for each token that reads, a column for each that is read.

    Args:
        pattern: (T, S) shares from 0 to 1; a row sums to 1. T < S: the queries are the last tokens.
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
    if ax is None:
        side = min(max(2.5 + 0.16 * min(keys, 40), 3.5), 8)
        _, ax = plt.subplots(figsize=(side, side), layout="constrained")
    shown, factor = pool(values, LARGEST)
    look: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(shown, **(look | imshow))
    label_axis(ax, tokens[::factor], "x")
    label_axis(ax, tokens[keys - queries :: factor], "y")
    ax.set_xlabel("is read" + _pooled(factor))
    ax.set_ylabel("reads")
    return ax


def attention_alt(pattern: Any, tokens: Sequence[str], name: str = "One head's attention") -> str:
    """Return in words what `attention` draws: where most tokens read, and the strongest reading."""
    values = numbers(pattern, "pattern", "T S")
    queries, keys = values.shape
    ends = np.arange(keys - queries, keys)
    rows = np.arange(queries)
    habits = {
        "the first token": values[:, 0],
        "themselves": values[rows, ends],
        "the token just before": np.where(ends > 0, values[rows, np.maximum(ends - 1, 0)], 0.0),
    }
    shares = {habit: float(share[1:].mean()) if queries > 1 else float(share[0])
              for habit, share in habits.items()}  # fmt: skip
    habit = max(shares, key=lambda one: shares[one])
    masked = values.copy()
    masked[rows, ends] = masked[:, 0] = -1  # what is said of the habits is not said again
    row, column = np.unravel_index(int(masked.argmax()), masked.shape)
    words = f"{name} over {keys} tokens: on average the tokens give {shares[habit]:.0%} to {habit}"
    if masked[row, column] > 0:
        reader, read = label(tokens[keys - queries + int(row)]), label(tokens[int(column)])
        words += f"; apart from the first token and themselves, {reader} reads {read} most"
        words += f" ({masked[row, column]:.0%})"
    return f"{words}."


def attention_heads(
    patterns: Any, *, names: Sequence[str] | None = None, columns: int | None = None
) -> Figure:
    """Draw all heads of a layer, or of all layers, small beside one another.

    Args:
        patterns: (H, T, S): one row of pictures or several; (L, H, T, S): a row for each layer.
        names: what stands above each picture; None: its layer and head.
        columns: pictures in a row for (H, T, S); None: up to eight.

    Raises:
        InputError: another number of dimensions, or a number that is none.
    """
    values = numbers(patterns, "patterns", "H T S", "L H T S")
    if values.ndim == 4:
        layers, heads = values.shape[:2]
        default = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
        columns = heads
        values = values.reshape(-1, *values.shape[2:])
    else:
        default = [f"head {head}" for head in range(len(values))]
        columns = columns or min(len(values), 8)
    names = default if names is None else names
    if len(names) != len(values):
        raise InputError(f"there are {len(values)} heads and {len(names)} names")
    rows = -(-len(values) // columns)
    side = max(min(10 / columns, 1.8), 0.7)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.2) * rows), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, pattern, name in zip(axes.flat, values, names, strict=False):
        ax.imshow(pool(pattern, SMALL)[0], cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(name, fontsize=7, pad=2)
    return figure


def attention_heads_alt(patterns: Any) -> str:
    """Return in words what `attention_heads` draws: which heads look back in a known way."""
    values = numbers(patterns, "patterns", "H T S", "L H T S")
    one_layer = values.ndim == 3
    if one_layer:
        values = values[None]
    size = min(values.shape[-2:])
    after = np.arange(1, size)
    kinds = {
        "look at the token just before": values[:, :, after, after - 1].mean(-1),
        "rest on the first token": values[:, :, after, 0].mean(-1),
    }
    found = []
    for kind, share in kinds.items():
        places = [
            str(head) if one_layer else f"{layer}.{head}"
            for layer, head in np.argwhere(share > 0.5)
        ]
        unit = "head" if one_layer else "layer.head"
        few = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
        found.append(f"{len(places)} mostly {kind}" + (f" ({unit} {few})" if places else ""))
    layers, heads = values.shape[:2]
    return (
        f"Attention of {layers * heads} heads, small, over {values.shape[-1]} tokens: "
        f"{'; '.join(found)}."
    )


def _pooled(factor: int) -> str:
    return "" if factor == 1 else f" (a pixel is the largest of {factor} × {factor} values)"
