"""Attention maps draw the weights they are given, and say as text what stands out."""

import numpy as np
import pytest
import torch
from drawn import TOKENS, causal, image, texts

from qwenkit import plot
from qwenkit.plot import tokens
from qwenkit.plot.arrays import pool, pool_columns
from qwenkit.plot.heads import CURRENT, FIRST, PREVIOUS, attended, head_scores
from qwenkit.plot.tokens import label


def previous(size):
    pattern = np.eye(size, k=-1, dtype=np.float32)
    pattern[0, 0] = 1
    return pattern


def test_a_map_draws_the_pattern_with_its_tokens_on_both_sides():
    pattern = causal(6)
    ax = plot.attention(pattern, TOKENS)
    assert np.array_equal(image(ax), pattern)
    for ticks in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert texts(ticks) == [label(one) for one in TOKENS]
    assert ax.get_images()[0].get_clim() == (0, 1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key position", "query position")
    ax = plot.attention(pattern[4:], TOKENS)  # fewer queries than keys are the last tokens
    assert texts(ax.get_yticklabels()) == ["):", "⏎"]
    ax = plot.attention(pattern, TOKENS, cmap="cividis", vmax=0.5)
    assert ax.get_images()[0].get_cmap().name == "cividis"
    assert ax.get_images()[0].get_clim() == (0, 0.5)


def test_a_long_text_is_pooled_keeps_thin_lines_and_says_so():
    ax = plot.attention(previous(600), ["x"] * 600)
    assert image(ax).shape == (200, 200)
    assert image(ax).diagonal().min() == 1  # each block holds a piece of the line
    assert "largest of 3 × 3 values" in ax.get_xlabel()
    assert len(ax.get_xticklabels()) <= tokens.MOST


STRONG = np.eye(6) * 0.3
STRONG[5, 3] = 0.7


@pytest.mark.parametrize(("pattern", "words"), [
    (previous(6), "100% of a query's attention is on the previous token"),
    (np.eye(6), "100% of a query's attention is on the current token"),
    (np.eye(6)[[0] * 6], "100% of a query's attention is on the first token"),
    (np.ones((1, 1)), "100% of a query's attention is on the first token"),
    (previous(6)[4:], "100% of a query's attention is on the previous token"),
    (STRONG, "the largest weight is from ⏎ to x (70%)"),
])  # fmt: skip
def test_the_alt_text_names_the_head_type_and_the_largest_weight(pattern, words):
    assert words in plot.attention_alt(pattern, TOKENS[: pattern.shape[1]])


def test_all_heads_are_in_order():
    patterns = np.stack([causal(5, seed) for seed in range(6)])
    figure = plot.attention_heads(patterns.reshape(2, 3, 5, 5))
    *maps, bar = figure.axes
    assert [ax.get_title() for ax in maps] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert (bar.get_ylabel(), figure.get_supxlabel()) == ("attention weight", "key position")
    assert figure.get_supylabel() == "query position"
    for ax, pattern in zip(maps, patterns, strict=True):
        assert np.array_equal(image(ax), pattern)
    one_layer = plot.attention_heads(patterns, columns=4)
    assert [ax.get_title() for ax in one_layer.axes[:6]] == [f"head {i}" for i in range(6)]
    assert not one_layer.axes[7].get_images()  # left over


def test_the_alt_text_of_all_heads_finds_the_known_types():
    rest = np.zeros((5, 5))
    rest[:, 0] = 1
    patterns = np.stack([np.stack([previous(5), causal(5)]), np.stack([rest, np.eye(5)])])
    words = plot.attention_heads_alt(patterns)
    assert "4 heads" in words
    assert "1 previous-token head (layer.head 0.0)" in words
    assert "1 first-token head (layer.head 1.0)" in words
    patterns = np.stack([np.full((6, 6), 1 / 6), np.eye(6, k=-1)])
    for one_layer in (patterns, patterns[:, 4:]):  # also where the queries are the last tokens
        assert "1 previous-token head (head 1)" in plot.attention_heads_alt(one_layer)
    assert "0 previous-token heads, 1 first-token" in plot.attention_heads_alt(np.ones((1, 1, 1)))


def test_a_trace_in_bfloat16_with_gradients_is_drawn_as_it_is():
    pattern = torch.tensor(causal(6)).bfloat16().requires_grad_()
    shown = image(plot.attention(pattern, TOKENS))
    assert np.array_equal(shown, pattern.detach().float().numpy())
    assert plot.attention_alt(pattern, TOKENS) == plot.attention_alt(shown, TOKENS)
    assert len(plot.attention_heads(pattern[None]).axes) == 2  # the map and its color bar


# head types
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_the_scores_of_a_head_are_those_counted_by_hand(kind):
    pattern = causal(7)
    found = head_scores(kind(pattern)[None])
    by_hand = {
        PREVIOUS: [pattern[t, t - 1] for t in range(1, 7)],
        FIRST: [pattern[t, 0] for t in range(1, 7)],
        CURRENT: [pattern[t, t] for t in range(1, 7)],
    }
    assert found.keys() == by_hand.keys()
    for name, weights in by_hand.items():
        assert attended(kind(pattern), name).tolist() == [float(one) for one in weights]
        assert float(found[name][0]) == pytest.approx(np.mean(weights), rel=1e-6)
    assert attended(pattern[4:], PREVIOUS).tolist() == [pattern[5, 4], pattern[6, 5]]


# labels
@pytest.mark.parametrize(("token", "want"), [
    (" x", "␣x"), ("\n\n", "⏎⏎"), ("\t", "⇥"), ("", "∅"), ("a" * 20, "a" * 11 + "…"),
    ("$x$", r"\$x\$"), ("größe", "größe"), ("面", "U+9762"), ("🙂", "U+1F642"),
])  # fmt: skip
def test_labels_show_white_space_and_what_no_font_has(token, want):
    assert label(token) == want


@pytest.mark.filterwarnings("error")
def test_every_label_can_be_drawn():
    odd = [" ", "\n", "\r\n", "$", "_{", "面積", "🙂", "é", "\\frac", "a" * 30]
    plot.attention(causal(10), odd).figure.canvas.draw()
    plot.logit_lens([[0.5] * 10], [odd], odd).figure.canvas.draw()


def test_pooling_keeps_the_largest_of_each_block():
    values = np.arange(25.0).reshape(5, 5)
    pooled, factor = pool(values, 3)
    assert (pooled.tolist(), factor) == ([[6, 8, 9], [16, 18, 19], [21, 23, 24]], 2)
    assert pool(values, 5)[1] == 1
    pooled, factor = pool_columns(np.array([[1, 5, 2, 0, -3], [-1, -2, -3, -4, -5]]) * 1.0, 3)
    assert (pooled.tolist(), factor) == ([[5, 2, -3], [-1, -3, -5]], 2)
