"""Attention maps draw the numbers they are given, and say in words what stands out."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.plot import tokens as room
from qwenkit.plot.tokens import label, pool

TOKENS = ["def", " f", "(", "x", "):", "\n"]


def causal(size, seed=0):
    values = np.tril(np.random.default_rng(seed).random((size, size)) + 0.01)
    return (values / values.sum(1, keepdims=True)).astype(np.float32)


def previous(size):
    pattern = np.eye(size, k=-1, dtype=np.float32)
    pattern[0, 0] = 1
    return pattern


def test_a_map_draws_the_pattern_with_its_tokens_on_both_sides():
    pattern = causal(6)
    ax = plot.attention(pattern, TOKENS)
    assert np.array_equal(ax.get_images()[0].get_array(), pattern)
    assert [text.get_text() for text in ax.get_xticklabels()] == [label(one) for one in TOKENS]
    assert [text.get_text() for text in ax.get_yticklabels()] == [label(one) for one in TOKENS]
    assert ax.get_images()[0].get_clim() == (0, 1)


def test_fewer_queries_than_keys_are_the_last_tokens():
    ax = plot.attention(causal(6)[4:], TOKENS)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["):", "⏎"]


def test_it_draws_on_given_axes_and_takes_imshows_settings():
    _, ax = plt.subplots()
    assert plot.attention(causal(6), TOKENS, ax=ax, cmap="cividis", vmax=0.5) is ax
    assert ax.get_images()[0].get_cmap().name == "cividis"
    assert ax.get_images()[0].get_clim() == (0, 0.5)


def test_a_long_text_is_pooled_keeps_thin_lines_and_says_so():
    ax = plot.attention(previous(600), ["x"] * 600)
    drawn = ax.get_images()[0].get_array()
    assert drawn.shape == (200, 200)
    assert drawn.diagonal().min() == 1  # each block holds a piece of the line
    assert "largest of 3 × 3 values" in ax.get_xlabel()
    assert len(ax.get_xticklabels()) <= room.MOST


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (previous(6), "100% to the token just before"),
        (np.eye(6), "100% to themselves"),
        (np.eye(6)[[0] * 6], "100% to the first token"),
        (np.ones((1, 1)), "100% to the first token"),
    ],
)
def test_the_alt_text_names_the_habit(pattern, words):
    assert words in plot.attention_alt(pattern, TOKENS[: len(pattern)])


def test_the_alt_text_names_the_strongest_reading():
    pattern = np.eye(6) * 0.3
    pattern[5, 3] = 0.7
    assert "⏎ reads x most (70%)" in plot.attention_alt(pattern, TOKENS)


def test_all_heads_stand_in_order():
    patterns = np.stack([causal(5, seed) for seed in range(6)])
    figure = plot.attention_heads(patterns.reshape(2, 3, 5, 5))
    assert [ax.get_title() for ax in figure.axes] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    for ax, pattern in zip(figure.axes, patterns, strict=True):
        assert np.array_equal(ax.get_images()[0].get_array(), pattern)
    one_layer = plot.attention_heads(patterns, columns=4)
    assert [ax.get_title() for ax in one_layer.axes[:6]] == [f"head {i}" for i in range(6)]
    assert not one_layer.axes[7].get_images()  # left over


def test_the_alt_text_of_all_heads_finds_the_known_kinds():
    rest = np.zeros((5, 5))
    rest[:, 0] = 1
    patterns = np.stack([np.stack([previous(5), causal(5)]), np.stack([rest, np.eye(5)])])
    words = plot.attention_heads_alt(patterns)
    assert "4 heads" in words
    assert "1 mostly look at the token just before (layer.head 0.0)" in words
    assert "1 mostly rest on the first token (layer.head 1.0)" in words


def test_the_alt_text_of_one_layer_names_its_heads_alone():
    patterns = np.stack([np.full((6, 6), 1 / 6), np.eye(6, k=-1)])
    assert "1 mostly look at the token just before (head 1)" in plot.attention_heads_alt(patterns)


def test_a_trace_in_bfloat16_with_gradients_is_drawn_as_it_is():
    pattern = torch.tensor(causal(6)).bfloat16().requires_grad_()
    shown = plot.attention(pattern, TOKENS).get_images()[0].get_array()
    assert np.array_equal(shown, pattern.detach().float().numpy())
    assert plot.attention_alt(pattern, TOKENS) == plot.attention_alt(shown, TOKENS)
    assert len(plot.attention_heads(pattern[None]).axes) == 1


BAD = {
    "three dimensions": (lambda: plot.attention(np.ones((2, 3, 3)), TOKENS), "it must be"),
    "other tokens": (lambda: plot.attention(causal(6), TOKENS[:5]), "6 × 6 and there are 5 tokens"),
    "more queries": (lambda: plot.attention(np.ones((4, 3)), TOKENS[:3]), "no more rows"),
    "nothing": (lambda: plot.attention(np.ones((0, 3)), TOKENS[:3]), "pattern has shape"),
    "one head": (lambda: plot.attention_heads(causal(3)), "it must be"),
    "one head in words": (lambda: plot.attention_heads_alt(causal(3)), "it must be"),
    "no number": (lambda: plot.attention(np.full((2, 2), np.nan), TOKENS[:2]), "holds NaN"),
    "names": (
        lambda: plot.attention_heads(causal(3)[None], names=["a", "b"]),
        "1 heads and 2 names",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_shapes_that_do_not_fit_are_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()


# --- labels ---


@pytest.mark.parametrize(
    ("token", "want"),
    [
        (" x", "␣x"), ("\n\n", "⏎⏎"), ("\t", "⇥"), ("", "∅"), ("a" * 20, "a" * 11 + "…"),
        ("$x$", r"\$x\$"), ("größe", "größe"), ("面", "U+9762"), ("🙂", "U+1F642"),
    ],
)  # fmt: skip
def test_labels_show_what_is_blank_and_what_no_font_has(token, want):
    assert label(token) == want


@pytest.mark.filterwarnings("error")
def test_every_label_can_be_drawn():
    tokens = [" ", "\n", "\r\n", "$", "_{", "面積", "🙂", "é", "\\frac", "a" * 30]
    plot.attention(causal(10), tokens).figure.canvas.draw()


def test_pooling_keeps_the_largest_of_each_block():
    values = np.arange(25.0).reshape(5, 5)
    pooled, factor = pool(values, 3)
    assert factor == 2
    assert pooled.tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]
    assert pool(values, 5)[1] == 1
