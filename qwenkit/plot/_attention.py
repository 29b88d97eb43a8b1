"""Attention maps (one head, all heads of a layer, of all layers), and masks."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool
from qwenkit.plot.heads import CURRENT, FIRST, PREVIOUS, head_scores
from qwenkit.plot.style import BLUE, TEXT, UNSIGNED, WIDEST, color_bar, grid, new_axes
from qwenkit.plot.tokens import drawable, label, label_axis

LARGEST = 256  # pixels a side; longer texts are pooled
SMALL = 64  # pixels a side where many heads share a figure
LETTER = 0.088  # inches of a letter in a title
RIGHT, BELOW = 0.9, 0.4  # inches for the color bar, and for the name of the axis
GRID = 40  # up to this many a side, lines divide the squares of a mask
MAY, MAY_NOT = BLUE, "#e6e6e6"
LOOK: dict[str, Any] = {"cmap": UNSIGNED, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
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
        ax: where to draw; None: a new figure, which also has a color bar.
        imshow: for matplotlib's imshow.

    Raises:
        InputError: shapes that do not fit.
    """
    values = _checked("pattern", numbers(pattern, "pattern", "T S"), tokens)
    side = min(max(2.6 + 0.17 * min(len(tokens), 40), 3.8), 8)
    alone = ax is None
    ax = ax or new_axes(side + 0.8, side)
    _draw_map(ax, values, tokens, "a pixel is the largest of {0} × {0} values", LOOK | imshow)
    if alone:
        color_bar(ax.get_images()[0], "attention weight", ax, shrink=0.7)
    return ax


def attention_alt(pattern: Any, tokens: Sequence[str], name: str = "One head's attention") -> str:
    """Return the alt text of `attention`: what most queries attend to, and the largest weight."""
    values = _checked("pattern", numbers(pattern, "pattern", "T S"), tokens)
    queries, keys = values.shape
    scores = head_scores(values)
    most = max((FIRST, *scores), key=lambda one: float(scores[one]))
    words = (
        f"{name} over {keys} tokens: on average {scores[most]:.0%} of a query's attention is on "
        f"{ATTENDED[most]}"
    )
    rest, rows = values.copy(), np.arange(queries)
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
        columns = values.shape[1]
        default = [f"{layer}.{head}" for layer, head in np.ndindex(values.shape[:2])]
        values = values.reshape(-1, *values.shape[2:])
    else:
        default = [f"head {head}" for head in range(len(values))]
        columns = columns or min(len(values), 8)
    names = default if names is None else names
    if len(names) != len(values):
        raise InputError(f"there are {len(values)} heads and {len(names)} names")
    side = max(min((WIDEST - RIGHT) / columns, 1.8), 0.7)
    lines = [wrap(drawable(name), max(int(side / LETTER), 4)) for name in names]
    height = side + 0.2 * max(map(len, lines))
    figure, axes = grid(len(values), columns, side, height)
    figure.set_size_inches(figure.get_figwidth() + RIGHT, figure.get_figheight() + BELOW)
    for ax, pattern, name in zip(axes, values, lines, strict=False):
        ax.set(xticks=[], yticks=[])
        image = ax.imshow(pool(pattern, SMALL)[0], **LOOK)
        ax.set_title("\n".join(name), fontsize=TEXT, pad=3)
    figure.supxlabel("key position", fontsize=TEXT)
    figure.supylabel("query position", fontsize=TEXT)
    color_bar(image, "attention weight", *axes, aspect=30)
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
    values = _booleans(allowed, tokens)
    side = min(max(2.2 + 0.2 * min(values.shape[1], 30), 3.2), 7)
    ax = ax or new_axes(side, side)
    look = LOOK | {"cmap": ListedColormap([MAY_NOT, MAY])}
    note = "a pixel is blue where any of {0} × {0} is"
    height, width = _draw_map(ax, values.astype(np.float32), tokens, note, look)
    if max(height, width) <= GRID:
        ax.set_xticks(np.arange(width + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(height + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
    handles = [Patch(color=MAY, label="may attend"), Patch(color=MAY_NOT, label="may not")]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False,
        fontsize=TEXT, borderaxespad=0.2, handlelength=1.2,
    )  # fmt: skip
    return ax


def mask_alt(allowed: Any, tokens: Sequence[str] | None = None) -> str:
    """Return the alt text of `mask`: the rule, where it is a known one.

    >>> mask_alt([[1, 0], [1, 1]])[:69]
    'Mask of 2 query positions: each may attend to itself and all earlier '
    """
    values = _booleans(allowed, tokens)
    queries, keys = values.shape
    back = np.arange(keys - queries, keys)[:, None] - np.arange(keys)  # (T, S); below 0: later
    counts = values.sum(axis=1)
    window = int(counts.max())
    if np.array_equal(values, back >= 0):
        rule = "itself and all earlier ones, and to no later one"
    elif window and np.array_equal(values, (back >= 0) & (back < window)):
        some = f"at most the {window - 1} before it" if window > 1 else "nothing else"
        rule = f"itself and {some}, and to no later one"
    else:
        later = int((values & (back < 0)).sum())
        rule = f"{counts.min()} to {window} positions, "
        rule += f"in {later} cells to a later one" if later else "and to no later one"
    past = f" after {keys - queries} earlier ones" if queries < keys else ""
    each = f"{queries} query position{'s' * (queries > 1)}{past}"
    return f"Mask of {each}: each may attend to {rule}."


def _draw_map(
    ax: Axes, values: np.ndarray, tokens: Sequence[str] | None, note: str, look: dict[str, Any]
) -> tuple[int, int]:
    """Draw a map with its axes, pooled if it is large; return its rows and columns."""
    queries, keys = values.shape
    shown, factor = pool(values, LARGEST)
    ax.imshow(shown, **look)
    for which, axis, first in (("x", ax.xaxis, 0), ("y", ax.yaxis, keys - queries)):
        if tokens is None:
            _number(axis, range(first, keys), factor)
        else:
            label_axis(ax, tokens[first::factor], which)
    ax.set_xlabel("key position" + (f" ({note.format(factor)})" if factor > 1 else ""))
    ax.set_ylabel("query position")
    return shown.shape[0], shown.shape[1]


def _number(axis: Axis, positions: range, factor: int) -> None:
    """Write round numbers of positions along an axis of which a pixel is `factor` positions."""
    round_ones = MaxNLocator(12, integer=True).tick_values(positions[0], positions[-1])
    shown = [int(one) for one in round_ones if one in positions]
    axis.set_ticks([(one - positions[0]) // factor for one in shown], [str(one) for one in shown])


def _checked(name: str, values: np.ndarray, tokens: Sequence[str] | None) -> np.ndarray:
    queries, keys = values.shape
    if queries > keys or (tokens is not None and len(tokens) != keys):
        count = "" if tokens is None else f" and there are {len(tokens)} tokens"
        raise InputError(
            f"the {name} is {queries} × {keys}{count}; it must have a column for each token, and "
            "no more rows"
        )
    return values


def _booleans(allowed: Any, tokens: Sequence[str] | None) -> np.ndarray:
    values = _checked("mask", numbers(allowed, "allowed", "T S"), tokens)
    if not np.isin(values, (0, 1)).all():
        raise InputError("allowed holds other values than true and false; it must hold no others")
    return values.astype(bool)
