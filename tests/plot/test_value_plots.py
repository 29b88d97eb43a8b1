"""Histograms and outlier channels count what is there, in any dtype."""

import numpy as np
import torch
from drawn import image, texts

from qwenkit import plot
from qwenkit.plot._values import BINS, WIDEST, _channel_ratios

RNG = np.random.default_rng(0)


def test_a_histogram_counts_every_value_once_and_has_a_name_and_the_spread():
    weight = torch.nn.Parameter(torch.randn(40, 30).to(torch.bfloat16))
    figure = plot.value_histograms({"w": weight, "b": [0.0, 0.0, 2.0]})
    (one, other) = (ax.patches[0].get_data() for ax in figure.axes)
    assert one.values.sum() == 1200
    reach = weight.detach().float().abs().max().item()
    np.testing.assert_allclose(one.edges[[0, -1]], [-reach, reach])
    assert other.values[[BINS // 2, -1]].tolist() == [2, 1]  # 0 is in the middle bin
    assert figure.axes[0].get_yscale() == "log"
    name = "model.layers.11.self_attn.q_proj.weight"  # its panel has the last parts of it
    figure = plot.value_histograms({name: [[-3.0, 3.0]], "x": np.float32(2.0)}, columns=1)
    assert [ax.get_title() for ax in figure.axes] == [
        "11.self_attn.q_proj.weight\nstd 3, largest 3", "x\nstd 0, largest 2",
    ]  # fmt: skip


def test_the_histograms_alt_text_names_the_one_farthest_out():
    flat = np.tile([-1.0, 1.0], 8)
    far = np.array([*flat, 5.0])
    words = plot.value_histograms_alt({"flat": flat, "far": far})
    assert "flat (16 values, std 1, largest 1)" in words
    assert f"Farthest out for its spread: far, at {5 / far.std():.1f} standard deviations" in words
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
    want = np.ones((3, 20))
    want[:, 7] = 40
    assert np.array_equal(image(ax), want)
    assert texts(ax.get_yticklabels()) == list(activations)
    assert texts(ax.texts) == ["7"]
    words = plot.outlier_channels_alt(activations)
    assert "Highest: channel 7 of layers.0.resid_post at 40.0 times" in words
    assert words.endswith("channels above 6 times: 7 (in 3 of 3).")
    # even channels have no outlier
    words = plot.outlier_channels_alt({"x": np.ones((4, 6))})
    assert "no channel is above 6 times" in words
    assert not plot.outlier_channels({"x": np.ones((4, 6))}).texts
    assert _channel_ratios({"x": np.zeros((4, 6))}).tolist() == [[0] * 6]


def test_many_channels_are_pooled_keep_the_outlier_and_say_so():
    ax = plot.outlier_channels(outliers(width=2 * WIDEST + 1, channel=700))
    assert image(ax).shape == (3, -(-(2 * WIDEST + 1) // 3))
    assert np.argwhere(image(ax)[0] == 40).ravel().tolist() == [700 // 3]
    assert "largest of 3" in ax.get_xlabel()
    assert ax.texts[0].xy[0] == 700 // 3
