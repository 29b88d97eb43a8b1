"""The logit lens as a table: what the model would predict if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool_columns
from qwenkit.plot.style import new_axes
from qwenkit.plot.tokens import label, label_axis

LARGEST = 256  # columns; longer texts are pooled
POINTS = 7.5  # size of the text in the cells
LETTER = 0.68 * POINTS  # width of a letter, in points
FEWEST = 4  # letters that a cell must hold for text to be written


def logit_lens(
    probabilities: Any,
    guesses: Sequence[Sequence[str]],
    tokens: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw a table: a column per token, a row per layer, the most likely next token in each cell.

    Args:
        probabilities: (L + 1, T) of the most likely token: after the embedding, then after each
            layer.
        guesses: L + 1 rows of T strings: which token that is.
        tokens: the T strings of the text.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: shapes that do not fit, or probabilities outside 0 to 1.
    """
    values = _checked(probabilities, guesses, tokens)
    stops, length = values.shape
    ax = ax or new_axes(min(max(1.6 + 0.72 * length, 4), 12), 1.3 + 0.26 * stops)
    shown, factor = pool_columns(values, LARGEST)
    image = ax.imshow(shown, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    fits = int(_points(ax) / length / LETTER)
    if fits >= FEWEST:
        _write(ax, values, guesses, fits)
    label_axis(ax, tokens[::factor], "x")
    names = ["embedding", *(str(layer) for layer in range(stops - 1))]
    ax.set_yticks(range(stops), names, fontsize=8)
    notes = ["too many to write" if fits < FEWEST else ""]
    notes += [f"a pixel is the largest of {factor}" if factor > 1 else ""]
    note = "; ".join(filter(None, notes))
    ax.set_xlabel("after the token" + (f" ({note})" if note else ""))
    ax.set_ylabel("stopped after layer")
    ax.figure.colorbar(image, ax=ax, pad=0.015).set_label("probability", fontsize=8)
    return ax


def logit_lens_alt(
    probabilities: Any, guesses: Sequence[Sequence[str]], tokens: Sequence[str]
) -> str:
    """Return the alt text of `logit_lens`: what the last token's column says."""
    values = _checked(probabilities, guesses, tokens)
    column = [row[-1] for row in guesses]
    answer, layer = column[-1], len(column) - 1
    while layer and column[layer - 1] == answer:
        layer -= 1
    since = f"layer {layer - 1} on" if layer else "the embedding on"
    return (
        f"Logit lens over {len(tokens)} tokens and {len(values) - 1} layers: in each cell the most "
        f'likely next token, and as color its probability. After the last token, "'
        f'{label(tokens[-1])}", the model predicts "{label(answer)}" ({values[-1, -1]:.0%}), '
        f"which is the most likely from {since}. Over all tokens the mean probability goes from "
        f"{values[0].mean():.0%} after the embedding to {values[-1].mean():.0%} at the end."
    )


def _write(ax: Axes, values: np.ndarray, guesses: Sequence[Sequence[str]], fits: int) -> None:
    """Write each cell's token, cut to the letters that fit, dark on light and light on dark."""
    for row, column in np.ndindex(values.shape):
        shown = label(guesses[row][column])
        shown = shown if len(shown) <= fits else f"{shown[: fits - 1]}…"
        ax.text(
            column, row, shown, ha="center", va="center", fontsize=POINTS, family="monospace",
            color="black" if values[row, column] > 0.55 else "white", clip_on=True,
        )  # fmt: skip


def _points(ax: Axes) -> float:
    """Return about how wide the axes are, in points (72 per inch)."""
    figure = ax.get_figure(root=True)
    return 0.0 if figure is None else float(ax.get_position().width * figure.get_figwidth() * 72)


def _checked(
    probabilities: Any, guesses: Sequence[Sequence[str]], tokens: Sequence[str]
) -> np.ndarray:
    values = numbers(probabilities, "probabilities", "L+1 T")
    rows = [len(row) for row in guesses]
    if rows != [values.shape[1]] * len(values) or len(tokens) != values.shape[1]:
        raise InputError(
            f"there are {values.shape[0]} × {values.shape[1]} probabilities, {len(rows)} rows of "
            f"guesses with {sorted(set(rows))} in each, and {len(tokens)} tokens; there must be a "
            "guess for each probability and a token for each column"
        )
    if values.min() < 0 or values.max() > 1 + 1e-5:
        raise InputError(
            f"probabilities go from {values.min():.3g} to {values.max():.3g}; they must be between "
            "0 and 1 (take the softmax of the logits)"
        )
    return values
