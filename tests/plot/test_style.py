"""What all figures share: text as large as a notebook's, and a width that no notebook shrinks."""

import numpy as np
import pytest
from drawn import TOKENS, causal, names, written
from fixtures_toy import small_config
from matplotlib.axes import Axes

from qwenkit import plot
from qwenkit.plot._show import DPI
from qwenkit.plot.style import KEY, QUERY, TEXT, VALUE, WIDEST

BODY = 14  # pixels of a notebook's body text
RNG = np.random.default_rng(0)
HEADS = np.stack([causal(6, seed) for seed in range(8)])
LINE = np.linspace(1.0, 40.0, 12)
CONFIG = small_config(hidden_size=16, num_attention_heads=4, num_key_value_heads=2)
FIGURES = {
    "architecture": lambda: plot.architecture(CONFIG),
    "attention": lambda: plot.attention(causal(6), TOKENS),
    "attention, a long text": lambda: plot.attention(causal(40), ["x" * 12] * 40),
    "attention_heads": lambda: plot.attention_heads(HEADS),
    "attention_heads with names": lambda: plot.attention_heads(
        HEADS, names=[f"layer 3, head {i}: {i} %" for i in range(8)], columns=4
    ),
    "mask": lambda: plot.mask(np.tri(6), TOKENS),
    "cache_growth": lambda: plot.cache_growth(CONFIG, tokens=100, references={"weights": 1e3}),
    "gqa_sharing": lambda: plot.gqa_sharing(14, 2),
    "kv_repetition": lambda: plot.kv_repetition(RNG.normal(size=(2, 12, 8)), 7),
    "logit_lens": lambda: plot.logit_lens(np.full((3, 6), 0.5), [TOKENS] * 3, TOKENS),
    "lora_spectra": lambda: plot.lora_spectra(LINE[:3], LINE),
    "outlier_channels": lambda: plot.outlier_channels({"a": RNG.normal(size=(9, 30)) ** 5}),
    "qk_distance": lambda: plot.qk_distance(LINE, name="one"),
    "residual_norms": lambda: plot.residual_norms(RNG.random((4, 6)) + 1),
    "rope_pair": lambda: plot.rope_pair((3, 4), 0.5),
    "rope_tables": lambda: plot.rope_tables(np.cos(HEADS[0]), np.sin(HEADS[0])),
    "rope_wavelengths": lambda: plot.rope_wavelengths(1 / LINE, context=20),
    "sampling": lambda: plot.sampling({f"{i}": LINE for i in range(5)}, names, most=6),
    "training_curve": lambda: plot.training_curve(
        {"step": [1, 2], "loss": [3.0, 2.0]}, references={"unigram": 2.5}
    ),
    "value_histograms": lambda: plot.value_histograms({f"{i}": LINE for i in range(5)}),
}


def test_every_figure_of_the_package_is_here():
    drawing = {name for name in plot.__all__ if not name.endswith("_alt")} - {"show", "as_png"}
    assert drawing == {name.partition(",")[0].partition(" ")[0] for name in FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_as_large_as_the_notebooks_and_inside_the_figure(name):
    drawn = FIGURES[name]()
    figure = drawn.figure if isinstance(drawn, Axes) else drawn
    assert figure.get_figwidth() <= WIDEST
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    shown = written(figure)
    assert shown
    for text in shown:
        assert text.get_fontsize() >= TEXT, text.get_text()
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.y0 >= -1, text.get_text()
        assert box.x1 <= width + 1, text.get_text()
        assert box.y1 <= height + 1, text.get_text()
    assert TEXT * DPI / 72 >= BODY


def test_queries_keys_and_values_have_three_colors():
    assert len({QUERY, KEY, VALUE}) == 3
