"""Tokens as labels: what is blank is made visible, what is long is cut, what is many is thinned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font

LONGEST = 12  # characters of a label
MOST = 40  # labels on an axis
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def label(token: str) -> str:
    """Return a token as a label: blanks visible, no longer than twelve characters.

    Characters that matplotlib's own font has not are written as their code points: a box would
    say nothing.
    """
    shown = "".join(VISIBLE.get(letter, letter) for letter in token)
    if len(shown) > LONGEST:
        shown = shown[: LONGEST - 1] + "…"
    shown = "".join(letter if _has(letter) else f"U+{ord(letter):04X}" for letter in shown)
    return shown.replace("$", r"\$") or "∅"  # a dollar would start a formula


def label_axis(ax: Axes, tokens: Sequence[str], which: str, size: float = 8) -> None:
    """Write tokens along an axis: all of them, or every n-th where there are too many.

    Args:
        ax: its pixel i belongs to token i.
        tokens: the strings.
        which: "x" or "y".
        size: of the letters, in points.
    """
    step = -(-len(tokens) // MOST) or 1
    places = range(0, len(tokens), step)
    names = [label(tokens[place]) for place in places]
    if which == "x":
        ax.set_xticks(list(places), names, rotation=90, fontsize=size, family="monospace")
    else:
        ax.set_yticks(list(places), names, fontsize=size, family="monospace")


def _has(letter: str) -> bool:
    font = get_font(findfont(FontProperties(family="monospace")))
    return bool(font.get_char_index(ord(letter)))


def pool(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Shrink a square picture to at most `size` a side, each pixel the largest of a block.

    Returns:
        The picture, and how many values a side one pixel stands for. The largest and not the mean:
        a thin bright line, such as a head that looks back one token, stays bright.
    """
    factor = -(-max(values.shape) // size)
    if factor <= 1:
        return values, 1
    rows, columns = (-(-length // factor) * factor for length in values.shape)
    padded = np.full((rows, columns), -np.inf)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(rows // factor, factor, columns // factor, factor)
    return blocks.max(axis=(1, 3)), factor
