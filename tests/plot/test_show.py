"""A figure reaches the notebook with the words that tell what it shows."""

import importlib
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from qwenkit import plot
from qwenkit.errors import InputError

show_module = importlib.import_module("qwenkit.plot.show")  # the name is the function too
ALT = "A line that rises from 1 to 2 & ends."


@pytest.fixture
def shown(monkeypatch):
    """Collect what would be displayed in a notebook."""
    found = []
    monkeypatch.setattr(show_module, "get_ipython", lambda: object())
    monkeypatch.setattr(show_module, "display", lambda data, **how: found.append((data, how)))
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


def test_a_png_is_small_and_looks_like_the_figure():
    """At most 256 colours; hardly a pixel is off by what an eye would see."""
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.imshow(np.arange(900).reshape(30, 30), cmap="viridis")
    ax.set_title("all of viridis")
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=show_module.DPI)
    small = show_module.as_png(figure)
    plt.close(figure)
    one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
                  for data in (plain.getvalue(), small))  # fmt: skip
    assert one.shape == other.shape
    off = np.abs(one - other).max(axis=-1)
    assert np.quantile(off, 0.99) <= 24
    assert off.mean() < 2
    assert len(small) < 0.6 * len(plain.getvalue())


def test_axes_stand_for_their_figure(shown):
    _, axes = plt.subplots(1, 2)
    plot.show(axes[1], ALT)
    assert len(shown) == 2
    assert plt.get_fignums() == []


def test_outside_a_notebook_the_words_are_printed(capsys):
    plot.show(plt.figure(), ALT)
    assert capsys.readouterr().out == ALT + "\n"


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_a_figure_without_words_is_refused(alt):
    with pytest.raises(InputError, match="it must say in words"):
        plot.show(plt.figure(), alt)
    plt.close("all")
