"""A figure reaches the notebook with the text that describes it."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from qwenkit import plot
from qwenkit.plot import _show

ALT = "A line that rises from 1 to 2 & ends."


@pytest.fixture
def shown(monkeypatch):
    """Collect what would be displayed in a notebook."""
    found = []
    monkeypatch.setattr(_show, "get_ipython", lambda: object())
    monkeypatch.setattr(_show, "display", lambda data, **how: found.append((data, how)))
    return found


def test_a_figure_is_displayed_with_its_alt_text_and_closed(shown):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    plot.show(figure, ALT)
    (picture, how), (words, _) = shown
    assert picture["image/png"].startswith(b"\x89PNG")
    assert picture["text/plain"] == ALT
    assert how["metadata"] == {"image/png": {"alt": ALT}}
    assert "from 1 to 2 &amp; ends." in words["text/html"]
    assert plt.get_fignums() == []
    plot.show(plt.subplots(1, 2)[1][1], ALT)  # axes stand for their figure
    assert len(shown) == 4
    assert plt.get_fignums() == []


def test_a_png_is_small_and_looks_like_the_figure():
    """At most 256 colors; hardly a pixel is off by what an eye would see."""
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.imshow(np.arange(900).reshape(30, 30), cmap="viridis")
    ax.set_title("all of viridis")
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=_show.DPI)
    small = plot.as_png(figure)
    one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
                  for data in (plain.getvalue(), small))  # fmt: skip
    assert one.shape == other.shape
    off = np.abs(one - other).max(axis=-1)
    assert np.quantile(off, 0.99) <= 24
    assert off.mean() < 2
    assert len(small) < 0.6 * len(plain.getvalue())


def test_outside_a_notebook_the_text_is_printed(capsys):
    plot.show(plt.figure(), ALT)
    assert capsys.readouterr().out == ALT + "\n"
