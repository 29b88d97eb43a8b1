"""How long the residual stream grows from layer to layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import BLUE, GREEN, ORANGE, VERMILION, new_axes, plain

LOOKS = {"attention": ("^", ORANGE), "the MLP": ("v", GREEN)}


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
    values, added = _checked(stream, attention, mlp)
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
    ax.yaxis.set_major_formatter("{x:g}")
    step = -(-len(values) // 20)
    names = ["embedding", *(str(layer) for layer in range(len(values) - 1))]
    ax.set_xticks(stops[::step], names[::step])
    ax.legend(frameon=False, fontsize=8)
    return ax


def residual_norms_alt(stream: Any, *, attention: Any = None, mlp: Any = None) -> str:
    """Return the alt text of `residual_norms`."""
    values, added = _checked(stream, attention, mlp)
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


def _usual(norms: np.ndarray) -> np.ndarray:
    """Return the median token's norm, the first token left out where there are others."""
    return np.asarray(np.median(norms[:, 1:] if norms.shape[1] > 1 else norms, axis=1))


def _checked(stream: Any, attention: Any, mlp: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    values = numbers(stream, "stream", "L+1 T")
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
