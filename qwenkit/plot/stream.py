"""How long the residual stream grows from layer to layer."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.training import HELD_OUT, TRAINED

ATTENTION, MLP = "#e69f00", "#009e73"


def residual_norms(
    stream: Any, *, attention: Any = None, mlp: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw the length of the residual stream after each layer, on a logarithmic scale.

    The first token has a line of its own, because in many models it is far longer than the others.
    Of these the median is drawn, and a band that holds eight in ten.

    Args:
        stream: (L + 1, T) lengths: after the embedding, then after each layer.
        attention: (L, T) lengths of what attention adds; None: not drawn.
        mlp: (L, T) lengths of what the MLP adds; None: not drawn.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: shapes that do not fit.
    """
    values, added = _checked(stream, attention, mlp)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    stops = np.arange(len(values))
    if values.shape[1] > 1:
        low, middle, high = np.quantile(values[:, 1:], (0.1, 0.5, 0.9), axis=1)
        ax.fill_between(stops, low, high, color=TRAINED, alpha=0.2, linewidth=0)
        name = f"stream, the other {values.shape[1] - 1} tokens"
        ax.plot(stops, middle, "o-", color=TRAINED, markersize=4, label=name)
    ax.plot(
        stops, values[:, 0], "s--", color=HELD_OUT, markersize=4, label="stream, the first token"
    )
    looks = {"attention": ("^", ATTENTION), "the MLP": ("v", MLP)}
    for part, lengths in added.items():
        marker, colour = looks[part]
        ax.plot(
            stops[1:], _usual(lengths), marker, color=colour, markersize=5,
            label=f"what {part} adds",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    step = -(-len(values) // 20)
    names = ["embedding", *(str(layer) for layer in range(len(values) - 1))]
    ax.set_xticks(stops[::step], names[::step])
    ax.set_xlabel("after layer")
    ax.set_ylabel("length")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return ax


def residual_norms_alt(stream: Any, *, attention: Any = None, mlp: Any = None) -> str:
    """Return in words what `residual_norms` draws."""
    values, added = _checked(stream, attention, mlp)
    layers, tokens = len(values) - 1, values.shape[1]
    usual, first = _usual(values), values[:, 0]
    words = f"Length of the residual stream over {layers} layer{'s' * (layers > 1)}: "
    if tokens > 1:
        words += (
            f"for the {tokens - 1} tokens after the first, in the median, from {usual[0]:.3g} "
            f"after the embedding to {usual[-1]:.3g} after the last layer; for the first token "
        )
    words += f"from {first[0]:.3g} to {first[-1]:.3g}"
    for part, lengths in added.items():
        most = _usual(lengths)
        layer = int(most.argmax())
        words += f"; {part} adds at most {most[layer]:.3g} (in layer {layer})"
    return f"{words}."


def _usual(lengths: np.ndarray) -> np.ndarray:
    """Return the median token's length, the first token left out where there are others."""
    return np.asarray(np.median(lengths[:, 1:] if lengths.shape[1] > 1 else lengths, axis=1))


def _checked(stream: Any, attention: Any, mlp: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    values = numbers(stream, "stream", "L+1 T")
    given = {"attention": attention, "the MLP": mlp}
    added = {part: numbers(one, part, "L T") for part, one in given.items() if one is not None}
    layers, tokens = values.shape[0] - 1, values.shape[1]
    if layers < 1:
        raise InputError(
            f"stream has shape {values.shape}; it must hold the embedding's lengths and then a row "
            "for each layer"
        )
    for part, lengths in added.items():
        if lengths.shape != (layers, tokens):
            raise InputError(
                f"the lengths of what {part} adds have shape {lengths.shape}; beside a stream of "
                f"shape {values.shape} it must be ({layers}, {tokens})"
            )
    return values, added
