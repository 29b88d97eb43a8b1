"""The residual stream: its norm from layer to layer, and the logit lens as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool_columns
from qwenkit.plot.style import (
    BLUE,
    GREEN,
    ORANGE,
    TEXT,
    UNSIGNED,
    VERMILION,
    WIDEST,
    color_bar,
    log_ticks,
    new_axes,
    plain,
)
from qwenkit.plot.tokens import label, label_axis

LOOKS = {"attention": ("^", ORANGE), "the MLP": ("v", GREEN)}
LARGEST = 256  # columns of the logit lens; longer texts are pooled
LETTER = 0.62 * TEXT  # width of a letter, in points
FEWEST = 4  # letters that a cell must hold for text to be written
Strings = Sequence[str]


def residual_norms(
    stream: Any, *, attention: Any = None, mlp: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw the norm of the residual stream after each layer, on a logarithmic scale.

    The first token has a line of its own, because in many models it is far longer than the others.
    Of these the median is drawn, and a band that holds eight in ten.

    Args:
        stream: (L + 1, T) norms: after the embedding, then after each layer.
        attention: (L, T) norms of what attention adds; None: not drawn.
        mlp: (L, T) norms of what the MLP adds; None: not drawn.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: shapes that do not fit.
    """
    values, added = _checked_norms(stream, attention, mlp)
    ax = plain(ax or new_axes(7, 3.6), "after layer", "norm")
    stops = np.arange(len(values))
    if values.shape[1] > 1:
        low, middle, high = np.quantile(values[:, 1:], (0.1, 0.5, 0.9), axis=1)
        ax.fill_between(stops, low, high, color=BLUE, alpha=0.2, linewidth=0)
        name = f"stream, the other {values.shape[1] - 1} tokens"
        ax.plot(stops, middle, "o-", color=BLUE, markersize=4, label=name)
    name = "stream, the first token"
    ax.plot(stops, values[:, 0], "s--", color=VERMILION, markersize=4, label=name)
    for part, norms in added.items():
        marker, color = LOOKS[part]
        name = f"what {part} adds"
        ax.plot(stops[1:], _usual(norms), marker, color=color, markersize=5, label=name)
    ax.set_yscale("log")
    log_ticks(ax)
    step = -(-len(values) // 20)
    ax.set_xticks(stops[::step], _stops(len(values))[::step])
    ax.legend(frameon=False, fontsize=TEXT)
    return ax


def residual_norms_alt(stream: Any, *, attention: Any = None, mlp: Any = None) -> str:
    """Return the alt text of `residual_norms`."""
    values, added = _checked_norms(stream, attention, mlp)
    layers, tokens = len(values) - 1, values.shape[1]
    usual, first = _usual(values), values[:, 0]
    words = f"Norm of the residual stream over {layers} layer{'s' * (layers > 1)}: "
    if tokens > 1:
        words += (
            f"the median of the {tokens - 1} tokens after the first goes from {usual[0]:.3g} "
            f"after the embedding to {usual[-1]:.3g} after the last layer; the first token goes "
        )
    words += f"from {first[0]:.3g} to {first[-1]:.3g}"
    for part, norms in added.items():
        most = _usual(norms)
        layer = int(most.argmax())
        words += f"; {part} adds at most {most[layer]:.3g} (in layer {layer})"
    return f"{words}."


def _stops(count: int) -> list[str]:
    """Return the names of the embedding and the layers."""
    return ["embedding", *map(str, range(count - 1))]


def _usual(norms: np.ndarray) -> np.ndarray:
    """Return the median token's norm, the first token left out where there are others."""
    return np.asarray(np.median(norms[:, 1:] if norms.shape[1] > 1 else norms, axis=1))


def _checked_norms(
    stream: Any, attention: Any, mlp: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    values = numbers(stream, "stream", "L+1 T").astype(np.float64)  # for means of large ones
    given = {"attention": attention, "the MLP": mlp}
    added = {part: numbers(one, part, "L T") for part, one in given.items() if one is not None}
    layers, tokens = values.shape[0] - 1, values.shape[1]
    if layers < 1:
        raise InputError(
            f"stream has shape {values.shape}; it must hold the embedding's norms and then a row "
            "for each layer"
        )
    for part, norms in added.items():
        if norms.shape != (layers, tokens):
            raise InputError(
                f"the norms of what {part} adds have shape {norms.shape}; with a stream of shape "
                f"{values.shape} it must be ({layers}, {tokens})"
            )
    return values, added


def logit_lens(
    probabilities: Any, guesses: Sequence[Strings], tokens: Strings, *, ax: Axes | None = None
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
    values = _checked_lens(probabilities, guesses, tokens)
    stops, length = values.shape
    ax = ax or new_axes(min(max(1.9 + 0.8 * length, 4.5), WIDEST), 1.5 + 0.28 * stops)
    shown, factor = pool_columns(values, LARGEST)
    image = ax.imshow(shown, cmap=UNSIGNED, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    fits = int(_points(ax) / length / LETTER)
    if fits >= FEWEST:
        _write(ax, values, guesses, fits)
    label_axis(ax, tokens[::factor], "x")
    ax.set_yticks(range(stops), _stops(stops))
    notes = ["too many to write"] if fits < FEWEST else []
    notes += [f"a pixel is the largest of {factor}"] if factor > 1 else []
    ax.set_xlabel("after the token" + (f" ({'; '.join(notes)})" if notes else ""))
    ax.set_ylabel("stopped after layer")
    color_bar(image, "probability", ax)
    return ax


def logit_lens_alt(probabilities: Any, guesses: Sequence[Strings], tokens: Strings) -> str:
    """Return the alt text of `logit_lens`: what the last token's column says."""
    values = _checked_lens(probabilities, guesses, tokens)
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


def _write(ax: Axes, values: np.ndarray, guesses: Sequence[Strings], fits: int) -> None:
    """Write each cell's token, cut to the letters that fit, dark on light and light on dark."""
    for row, column in np.ndindex(values.shape):
        shown = label(guesses[row][column])
        shown = shown if len(shown) <= fits else f"{shown[: fits - 1]}…"
        ax.text(
            column, row, shown, ha="center", va="center", fontsize=TEXT, family="monospace",
            color="black" if values[row, column] > 0.55 else "white", clip_on=True,
        )  # fmt: skip


def _points(ax: Axes) -> float:
    """Return about how wide the axes are, in points (72 per inch)."""
    figure = ax.get_figure(root=True)
    return 0.0 if figure is None else float(ax.get_position().width * figure.get_figwidth() * 72)


def _checked_lens(probabilities: Any, guesses: Sequence[Strings], tokens: Strings) -> np.ndarray:
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
