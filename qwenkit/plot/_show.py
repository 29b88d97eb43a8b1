"""Showing a figure in a notebook, with the text that describes it."""

from __future__ import annotations

import html
import io

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from qwenkit.errors import InputError

DPI = 101  # 10 points, matplotlib's usual letters, are 14 pixels: a notebook's body text
COLORS = 256  # the most that a PNG with a palette has; a third of the bytes, and no eye sees it


def show(figure: Figure | Axes, alt: str) -> None:
    """Display a figure as a PNG with an alternative text, and close it.

    The text goes where each reader finds it: into the PNG's `alt` metadata (pages made from the
    notebook), into the output's plain text (a terminal, and tests, which compare it), and into a
    line that unfolds below the picture, because JupyterLab gives a PNG no alternative text.
    Outside a notebook the text is printed.

    Args:
        figure: the figure, or any axes on it.
        alt: what it shows, in a sentence or more.

    Raises:
        InputError: an empty `alt`, or not a figure.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise InputError(f"alt is {alt!r}; it must be a text that describes the figure")
    if not isinstance(figure, Figure | Axes):
        raise InputError(f"figure is a {type(figure).__name__}; it must be a figure, or axes")
    whole = figure.get_figure(root=True) if isinstance(figure, Axes) else figure
    assert isinstance(whole, Figure)
    if get_ipython() is None:
        print(alt)
    else:
        bundle = {"image/png": as_png(whole), "text/plain": alt}
        display(bundle, raw=True, metadata={"image/png": {"alt": alt}})  # type: ignore[no-untyped-call]
        words = f"<details><summary>This picture as text</summary>{html.escape(alt)}</details>"
        display({"text/html": words, "text/plain": "(the same as text)"}, raw=True)  # type: ignore[no-untyped-call]
    plt.close(whole)


def as_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a small PNG."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(packed, format="PNG", optimize=True)
    return packed.getvalue()
