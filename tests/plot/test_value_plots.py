"""Histograms and outlier channels count what is there, in any dtype."""

import numpy as np
import pytest
import torch

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.plot.arrays import pool_columns
from qwenkit.plot.values import BINS, WIDEST, channel_ratios

RNG = np.random.default_rng(0)


def test_a_histogram_counts_every_value_once():
    weight = torch.nn.Parameter(torch.randn(40, 30).to(torch.bfloat16))
    figure = plot.value_histograms({"w": weight, "b": [0.0, 0.0, 2.0]})
    (one, other) = (ax.patches[0].get_data() for ax in figure.axes)
    assert one.values.sum() == 1200
    reach = weight.detach().float().abs().max().item()
    np.testing.assert_allclose(one.edges[[0, -1]], [-reach, reach])
    assert other.values[[BINS // 2, -1]].tolist() == [2, 1]  # 0 lies in the middle bin
    assert figure.axes[0].get_yscale() == "log"


def test_panels_bear_the_last_parts_of_their_names_and_the_spread():
    name = "model.layers.11.self_attn.q_proj.weight"
    figure = plot.value_histograms({name: [[-3.0, 3.0]], "x": np.float32(2.0)}, columns=1)
    title, single = (ax.get_title() for ax in figure.axes)
    assert title == "11.self_attn.q_proj.weight\nstd 3, largest 3"
    assert single == "x\nstd 0, largest 2"


def test_the_histograms_alt_text_names_the_one_furthest_out():
    flat = np.tile([-1.0, 1.0], 8)
    far = np.array([-1.0, 1.0] * 8 + [5.0])
    words = plot.value_histograms_alt({"flat": flat, "far": far})
    assert "flat (16 values, std 1, largest 1)" in words
    std = far.std()
    assert f"Furthest out for its spread: far, at {5 / std:.1f} standard deviations" in words
    many = plot.value_histograms_alt({str(i): [1.0, 2.0] for i in range(8)})
    assert "Histograms of 8 tensors" in many
    assert "and 2 more" in many


def outliers(modules=3, width=20, channel=7):
    """Return activations of ±1 alone, but for a channel that is 40 in all modules."""
    found = {}
    for number in range(modules):
        values = np.where(RNG.random((5, width)) < 0.5, -1.0, 1.0)
        values[2, channel] = -40
        found[f"layers.{number}.resid_post"] = values
    return found


def test_outlier_channels_are_multiples_of_the_median_channel():
    activations = outliers()
    ax = plot.outlier_channels(activations)
    drawn = ax.get_images()[0].get_array()
    want = np.ones((3, 20))
    want[:, 7] = 40
    assert np.array_equal(drawn, want)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(activations)
    assert [text.get_text() for text in ax.texts] == ["7"]
    words = plot.outlier_channels_alt(activations)
    assert "Highest: channel 7 of layers.0.resid_post at 40.0 times" in words
    assert words.endswith("channels above 6 times: 7 (in 3 of 3).")


def test_even_channels_have_no_outlier():
    words = plot.outlier_channels_alt({"x": np.ones((4, 6))})
    assert "no channel is above 6 times" in words
    assert not plot.outlier_channels({"x": np.ones((4, 6))}).texts
    assert channel_ratios({"x": np.zeros((4, 6))}).tolist() == [[0] * 6]


def test_many_channels_are_pooled_keep_the_outlier_and_say_so():
    ax = plot.outlier_channels(outliers(width=2 * WIDEST + 1, channel=700))
    drawn = ax.get_images()[0].get_array()
    assert drawn.shape == (3, -(-(2 * WIDEST + 1) // 3))
    assert np.argwhere(drawn[0] == 40).ravel().tolist() == [700 // 3]
    assert "largest of 3" in ax.get_xlabel()
    assert ax.texts[0].xy[0] == 700 // 3


def test_pooling_columns_keeps_the_largest_of_each_run():
    pooled, factor = pool_columns(np.array([[1, 5, 2, 0, -3], [-1, -2, -3, -4, -5]]) * 1.0, 3)
    assert factor == 2
    assert pooled.tolist() == [[5, 2, -3], [-1, -3, -5]]


BAD = {
    "no tensors": (lambda: plot.value_histograms({}), "there are 0 tensors; draw from 1 to 32"),
    "many": (lambda: plot.value_histograms({str(i): [1] for i in range(33)}), "there are 33"),
    "nan": (lambda: plot.value_histograms({"w": [np.nan]}), "w holds NaN or infinity"),
    "empty": (lambda: plot.value_histograms({"w": []}), r"w has shape \(0,\)"),
    "no modules": (lambda: plot.outlier_channels({}), "activations is empty"),
    "other widths": (
        lambda: plot.outlier_channels({"a": np.ones((2, 3)), "b": np.ones((2, 4))}),
        r"other numbers of channels \(a 3, b 4\); draw them apart",
    ),
    "a batch": (lambda: plot.outlier_channels({"a": np.ones((1, 2, 3))}), r"must be \(N, C\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
