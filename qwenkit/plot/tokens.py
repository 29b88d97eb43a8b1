"""Tokens as labels: white space made visible, long ones shortened, not too many on an axis."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font

LONGEST = 12  # characters of a label
WIDEST = 24  # characters of a label in which letters became code points
LONGEST_NAME = 60  # of the name of a tensor, a curve or a stage
MOST = 40  # labels on an axis
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def label(token: str) -> str:
    """Return a token as a label of at most twelve characters, with visible white space.

    A character that matplotlib's own font lacks is written as its code point: matplotlib would draw
    the same box for all of them.

    >>> label(" for"), label("")
    ('␣for', '∅')
    """
    shown = "".join(VISIBLE.get(letter, letter) for letter in token[: LONGEST + 1])
    return drawable(shown, LONGEST, "monospace")


def drawable(text: str, longest: int = LONGEST_NAME, family: str = "sans-serif") -> str:
    r"""Return text that matplotlib draws as it is: no formula, no character that the font lacks.

    >>> drawable("a.$x$"), drawable("a\nb"), drawable("layers.0.mlp", 8)
    ('a.\\$x\\$', 'aU+000Ab', 'layers.…')
    """
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    font = get_font(findfont(FontProperties(family=[family])))
    known = [one if font.get_char_index(ord(one)) else f"U+{ord(one):04X}" for one in text]
    while sum(map(len, known)) > max(longest, WIDEST):  # code points are long, too
        known[-2:] = ["…"]
    shown = "".join(known).replace("$", r"\$") or "∅"  # a dollar would start a formula
    hidden = shown[0] == "_" and family == "sans-serif"  # a legend leaves such names out
    return f" {shown}" if hidden else shown


def label_axis(ax: Axes, tokens: Sequence[str], which: str, size: float = 10) -> None:
    """Write tokens along an axis: all of them, or every n-th if there are too many.

    Args:
        ax: its pixel i belongs to token i.
        tokens: the strings.
        which: "x" or "y".
        size: of the letters, in points.
    """
    positions = list(range(0, len(tokens), -(-len(tokens) // MOST) or 1))
    names = [label(tokens[position]) for position in positions]
    ticks, rotation = (ax.set_xticks, 90) if which == "x" else (ax.set_yticks, 0)
    ticks(positions, names, rotation=rotation, fontsize=size, family="monospace")
