"""Masks and q·k against distance: drawn as they are, and the alt text finds the rule."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from reference import pair

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.model import apply_rope
from qwenkit.model.mask import causal_mask
from qwenkit.plot.distance import MOST, by_distance
from qwenkit.plot.tokens import label

TOKENS = ["def", " f", "(", "x", "):", "\n"]


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


# --- masks ---


@pytest.mark.parametrize(("past", "window"), [(0, None), (0, 3), (2, None), (4, 2)])
def test_a_mask_is_drawn_as_the_model_makes_it(past, window):
    allowed = causal_mask(6 - past, past, window)
    ax = plot.mask(allowed, TOKENS)
    assert np.array_equal(ax.get_images()[0].get_array(), allowed.numpy())
    assert labels(ax.xaxis) == [label(one) for one in TOKENS]
    assert labels(ax.yaxis) == [label(one) for one in TOKENS[past:]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["may read", "may not"]


def test_without_tokens_places_are_written_where_they_lie():
    ax = plot.mask(causal_mask(4, 6))
    assert labels(ax.xaxis) == [str(i) for i in range(10)]
    assert labels(ax.yaxis) == ["6", "7", "8", "9"]
    assert list(ax.get_yticks()) == [0, 1, 2, 3]


def test_a_long_mask_is_pooled_keeps_a_thin_diagonal_and_says_so():
    allowed = np.eye(1000, dtype=bool)
    ax = plot.mask(allowed)
    drawn = ax.get_images()[0].get_array()
    assert drawn.shape == (250, 250)
    assert np.array_equal(drawn, np.eye(250))
    assert "any of 4 × 4 is" in ax.get_xlabel()
    at = dict(zip(labels(ax.xaxis), ax.get_xticks(), strict=True))
    assert at["800"] == 200  # round numbers, at the pixels that hold them


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (causal_mask(5), "5 tokens that read: each token may read itself and all before it"),
        (causal_mask(2, 3), "2 tokens that read after 3 earlier ones: each token may read itself"),
        (causal_mask(1, 3), "1 token that reads after 3 earlier ones"),
        (causal_mask(6, window=3), "itself and at most the 2 before it, and no later one"),
        (causal_mask(3, window=1), "itself and nothing else"),
        (np.ones((3, 3)), "from 3 to 3 tokens, and in 3 places a later one"),
        (np.tril(np.ones((3, 3))) * [1, 0, 1], "from 1 to 2 tokens, and no later one"),
        (np.zeros((2, 2)), "from 0 to 0 tokens"),
    ],
)
def test_the_alt_text_names_the_rule_of_a_mask(allowed, words):
    assert words in plot.mask_alt(allowed)


# --- q·k against distance ---


def turned(vector, positions):
    """Return a vector (D,) turned by RoPE as it would be at each position, (T, D)."""
    model = pair()[1]
    cos, sin = model.model.rotary_emb(torch.arange(positions)[None])
    return apply_rope(vector.expand(1, 1, positions, -1), cos, sin)[0, 0]


def test_the_same_vectors_give_one_product_at_each_distance():
    q, k = torch.randn(2, 8)
    products = turned(q, 20) @ turned(k, 20).T
    ax = plot.qk_distance(products)
    drawn = ax.get_lines()[1].get_ydata()  # the first line is 0
    want = products[-1].flip(0)  # the last query's, from itself back to the first key
    np.testing.assert_allclose(drawn, want, atol=1e-5)
    assert "the same wherever the two tokens stand" in plot.qk_distance_alt(products)


def test_other_products_are_drawn_as_a_mean_and_a_band():
    products = np.array([[1.0, 9, 9], [3, 2, 9], [6, 5, 4]])  # 9: later keys, left out
    mean, low, high = by_distance(products)
    assert mean.tolist() == pytest.approx([7 / 3, 4, 6])
    assert low.tolist() == [1, 3, 6]
    assert high.tolist() == [4, 5, 6]
    words = plot.qk_distance_alt(products, "Head 3's q·k")
    assert words.startswith("Head 3's q·k against the distance from query to key, 0 to 2 tokens")
    assert "2.33 at distance 0, at most 6 (at 2), at least 2.33 (at 0)" in words
    assert "differs by up to 3 from place to place" in words


def test_fewer_queries_are_the_last_tokens():
    mean, *_ = by_distance([[6.0, 5, 4]])
    assert mean.tolist() == [4, 5, 6]


def test_further_curves_take_other_colours_and_stand_in_the_legend():
    _, ax = plt.subplots()
    assert plot.qk_distance([1.0, 2, 3], name="near", ax=ax) is ax
    plot.qk_distance([3.0, 2, 1], name="far", ax=ax)
    zero, near, far = ax.get_lines()
    assert list(zero.get_ydata()) == [0, 0]
    assert near.get_color() != far.get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["near", "far"]
    assert list(far.get_ydata()) == [3, 2, 1]


def test_a_long_curve_is_pooled_and_says_so():
    products = np.arange(2 * MOST + 1, dtype=np.float32)
    ax = plot.qk_distance(products)
    line = ax.get_lines()[1]
    assert len(line.get_xdata()) <= MOST
    assert list(line.get_xdata()[:3]) == [0, 3, 6]
    assert list(line.get_ydata()[:2]) == [1, 4]  # the mean of 0, 1, 2 and of 3, 4, 5
    band = ax.collections[0].get_paths()[0].vertices
    assert {(3.0, 3.0), (3.0, 5.0)} <= {tuple(point) for point in band.tolist()}
    assert "mean of 3 distances" in ax.get_xlabel()


BAD = {
    "a row too many": (lambda: plot.mask(np.ones((4, 3))), "4 × 3; it must have a column for"),
    "other tokens": (lambda: plot.mask(causal_mask(6), TOKENS[:5]), "there are 5 tokens"),
    "scores": (lambda: plot.mask([[0.5]]), "other values than true and false"),
    "one dimension": (lambda: plot.mask([True, False]), r"it must be \(T, S\)"),
    "nothing": (lambda: plot.qk_distance([]), r"shape \(0,\)"),
    "three dimensions": (lambda: plot.qk_distance(np.ones((2, 3, 3))), r"\(S\) or \(T, S\)"),
    "more queries": (lambda: plot.qk_distance(np.ones((4, 3))), "a key for each query"),
    "masked scores": (lambda: plot.qk_distance([1, -np.inf]), "holds NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
