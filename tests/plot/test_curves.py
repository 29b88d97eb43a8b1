"""Curves draw the numbers they are given: distance, cache, LoRA, residual stream, training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import texts
from fixtures_toy import small_config
from reference import LAYERS, ids, pair, tiny

from qwenkit import plot
from qwenkit.files import format_bytes
from qwenkit.model import apply_rope
from qwenkit.plot._rope import MOST, by_distance
from qwenkit.trace import Trace

CONFIG = small_config(
    hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3,
    max_position_embeddings=100,
)  # fmt: skip
METRICS = {
    "step": [10.0, 20.0, 30.0], "loss": [5.0, 4.0, 3.5], "evaluation_loss": [math.nan, 4.5, 4.25],
}  # fmt: skip


# q·k against distance
def test_the_same_vectors_give_one_product_at_each_distance():
    cos, sin = pair()[1].model.rotary_emb(torch.arange(20)[None])
    q, k = apply_rope(torch.randn(2, 8)[None, :, None].expand(1, 2, 20, 8), cos, sin)[0]
    products = q @ k.T  # of the same two vectors, rotated to each position
    drawn = plot.qk_distance(products).get_lines()[1].get_ydata()  # the first line is 0
    want = products[-1].flip(0)  # the last query's, from itself back to the first key
    np.testing.assert_allclose(drawn, want, atol=1e-5)
    assert "the same at all positions" in plot.qk_distance_alt(products)


def test_other_products_are_drawn_as_a_mean_and_a_band():
    products = np.array([[1.0, 9, 9], [3, 2, 9], [6, 5, 4]])  # 9: later keys, left out
    mean, low, high = by_distance(products)
    assert mean.tolist() == pytest.approx([7 / 3, 4, 6])
    assert (low.tolist(), high.tolist()) == ([1, 3, 6], [4, 5, 6])
    words = plot.qk_distance_alt(products, "Head 3's q·k")
    assert words.startswith("Head 3's q·k against the distance from query to key, 0 to 2 tokens")
    assert "2.33 at distance 0, at most 6 (at 2), at least 2.33 (at 0)" in words
    assert "differs by up to 3 between positions" in words
    assert by_distance([[6.0, 5, 4]])[0].tolist() == [4, 5, 6]  # fewer queries are the last tokens


def test_further_curves_take_other_colors_and_are_in_the_legend():
    ax = plot.qk_distance([1.0, 2, 3], name="near")
    zero, near, far = plot.qk_distance([3.0, 2, 1], name="far", ax=ax).get_lines()
    assert list(zero.get_ydata()) == [0, 0]
    assert near.get_color() != far.get_color()
    assert texts(ax.get_legend().get_texts()) == ["near", "far"]
    assert list(far.get_ydata()) == [3, 2, 1]


def test_a_long_curve_is_pooled_and_says_so():
    ax = plot.qk_distance(np.arange(2 * MOST + 1, dtype=np.float32))
    line = ax.get_lines()[1]
    assert len(line.get_xdata()) <= MOST
    assert list(line.get_xdata()[:3]) == [0, 3, 6]
    assert list(line.get_ydata()[:2]) == [1, 4]  # the mean of 0, 1, 2 and of 3, 4, 5
    band = ax.collections[0].get_paths()[0].vertices
    assert {(3.0, 3.0), (3.0, 5.0)} <= {tuple(point) for point in band.tolist()}
    assert "mean of 3 distances" in ax.get_xlabel()


# cache
def test_one_config_is_compared_with_mha_and_mqa():
    ax = plot.cache_growth(CONFIG, tokens=50, dtype="float32")
    ends = {line.get_label().partition(":")[0]: (line.get_xdata()[1], line.get_ydata()[1])
            for line in ax.get_lines()}  # fmt: skip
    # keys and values × 3 layers × kv heads × 4 dimensions × 4 bytes × 50 tokens
    assert ends == {"MHA": (50, 19_200), "GQA": (50, 9_600), "MQA": (50, 4_800)}
    words = plot.cache_growth_alt(CONFIG, tokens=50, dtype="float32")
    assert "MHA 384 bytes per token, 19.2 kB" in words
    assert "The steepest rises 4 times as fast as the flattest." in words


def test_several_configs_reach_to_the_longest_context_each_in_its_dtype():
    long = replace(CONFIG, max_position_embeddings=1000, dtype="float32")
    ax = plot.cache_growth({"a": CONFIG, "b": long}, references={"memory": 5e4})
    one, other, line = ax.get_lines()
    assert list(one.get_xdata()) == list(other.get_xdata()) == [0, 1000]
    assert one.get_ydata()[1] == 1000 * CONFIG.kv_bytes_per_token("bfloat16")
    assert other.get_ydata()[1] == 1000 * CONFIG.kv_bytes_per_token("float32")
    assert list(line.get_ydata()) == [5e4, 5e4]
    assert texts(ax.texts) == ["memory"]


@pytest.mark.parametrize(("count", "words"), [
    (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_600, "1 MB"), (12_288_000, "12.3 MB"),
    (2e10, "20 GB"), (2.5e12, "2.5 TB"),
])  # fmt: skip
def test_bytes_are_written_in_decimal_units(count, words):
    assert format_bytes(count) == words


# LoRA
def test_the_spectra_are_those_of_the_matrices():
    update, weight = torch.randn(12, 2) @ torch.randn(2, 9), torch.randn(12, 9)
    old, new, _ = plot.lora_spectra(update, weight).get_lines()
    np.testing.assert_allclose(old.get_ydata(), torch.linalg.svdvals(weight), rtol=1e-4)
    np.testing.assert_allclose(new.get_ydata(), torch.linalg.svdvals(update)[:2], rtol=1e-4)
    assert list(new.get_xdata()) == [1, 2]
    assert new.get_label() == "update, of rank 2"


def test_singular_values_may_be_given_themselves_and_a_fresh_update_is_zero():
    words = plot.lora_spectra_alt([0.3, 0.4, 0.0], [3.0, 4.0])
    assert "The update has 2, from 0.4 to 0.3, then none" in words
    assert "the weight has 2, from 4 to 3" in words
    assert "the update is 10.0% as large as the weight" in words
    fresh = torch.zeros(4, 3), torch.eye(4, 3)
    assert plot.lora_spectra(*fresh).get_lines()[1].get_ydata().tolist() == []
    words = "The update is 0; the weight's largest singular value is 1."
    assert plot.lora_spectra_alt(*fresh) == words


# residual norms
def test_the_streams_norm_is_drawn_at_each_stop():
    names = ("resid_post", "attn.out", "mlp.out")
    trace = Trace(keep=("embed", *names))
    tiny()(ids(1, 6), trace=trace)
    stream, attention, mlp = (
        torch.stack([trace[f"layers.{i}.{name}"][0] for i in range(LAYERS)]).norm(dim=-1)
        for name in names
    )
    stream = torch.cat([trace["embed"].norm(dim=-1), stream])
    ax = plot.residual_norms(stream, attention=attention, mlp=mlp)
    others, first, added, more = ax.get_lines()
    for line, norms in ((others, stream), (added, attention), (more, mlp)):
        np.testing.assert_allclose(line.get_ydata(), np.median(norms[:, 1:], axis=1), rtol=1e-6)
    np.testing.assert_allclose(first.get_ydata(), stream[:, 0])
    assert list(first.get_xdata()) == [0, 1, 2, 3]
    assert list(added.get_xdata()) == [1, 2, 3]  # what a layer adds is drawn after that layer
    assert texts(ax.get_xticklabels()) == ["embedding", "0", "1", "2"]
    assert ax.get_yscale() == "log"


def test_the_streams_alt_text_says_how_it_grows_and_one_token_has_one_line():
    stream = np.array([[1.0, 2, 2], [50, 3, 5], [60, 8, 8]])
    words = plot.residual_norms_alt(stream, mlp=np.array([[9.0, 1, 1], [9, 6, 6]]))
    assert "over 2 layers: the median of the 2 tokens after the first goes from 2 after" in words
    assert "to 8 after the last layer; the first token goes from 1 to 60" in words
    assert "the MLP adds at most 6 (in layer 1)" in words
    assert "attention" not in words
    (line,) = plot.residual_norms([[1.0], [2.0], [4.0]]).get_lines()
    assert list(line.get_ydata()) == [1, 2, 4]
    words = plot.residual_norms_alt([[1.0], [2.0], [4.0]])
    assert words == "Norm of the residual stream over 2 layers: from 1 to 4."


# training
def test_the_training_curve_draws_both_losses():
    ax = plot.training_curve(METRICS, references={"unigram": 4.8})
    trained, held, line = ax.get_lines()
    assert list(trained.get_xdata()) == [10, 20, 30]
    assert list(trained.get_ydata()) == [5.0, 4.0, 3.5]
    assert list(held.get_xdata()) == [20, 30]  # where there was no evaluation there is no point
    assert list(held.get_ydata()) == [4.5, 4.25]
    assert list(line.get_ydata()) == [4.8, 4.8]
    assert texts(ax.texts) == ["unigram"]
    alone = {"step": [1.0], "loss": [2.0]}
    assert len(plot.training_curve(alone).get_lines()) == 1
    assert "held-out" not in plot.training_curve_alt(alone)
    assert plot.training_curve_alt(METRICS) == (
        "The loss over 30 steps: on the text trained on it falls from 5.00 to 3.50, "
        "on the held-out text from 4.50 to 4.25 nats per token."
    )
