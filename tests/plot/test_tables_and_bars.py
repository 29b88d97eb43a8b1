"""Masks, RoPE, shared kv heads, logit lens and sampling: drawn from the package's own values."""

import numpy as np
import pytest
import torch
from drawn import TOKENS, image, names, texts
from reference import LAYERS, ids, pair, tiny

from qwenkit import plot
from qwenkit.generate.sampling import Sampling
from qwenkit.interpret import logit_lens
from qwenkit.model import apply_rope, causal_mask, inverse_frequencies, repeat_kv
from qwenkit.plot.style import SIGNED
from qwenkit.plot.tokens import label

CONFIG = pair()[1].config


# masks
@pytest.mark.parametrize(("past", "window"), [(0, None), (0, 3), (2, None), (4, 2)])
def test_a_mask_is_drawn_as_the_model_makes_it(past, window):
    allowed = causal_mask(6 - past, past, window)
    ax = plot.mask(allowed, TOKENS)
    assert np.array_equal(image(ax), allowed.numpy())
    assert texts(ax.get_xticklabels()) == [label(one) for one in TOKENS]
    assert texts(ax.get_yticklabels()) == [label(one) for one in TOKENS[past:]]
    assert texts(ax.get_legend().get_texts()) == ["may attend", "may not"]


def test_without_tokens_positions_are_numbered_and_a_long_mask_is_pooled_and_says_so():
    ax = plot.mask(causal_mask(4, 6))
    assert texts(ax.get_xticklabels()) == [str(i) for i in range(10)]
    assert texts(ax.get_yticklabels()) == ["6", "7", "8", "9"]
    assert list(ax.get_yticks()) == [0, 1, 2, 3]
    ax = plot.mask(np.eye(1000, dtype=bool))
    assert image(ax).shape == (250, 250)
    assert np.array_equal(image(ax), np.eye(250))
    assert "any of 4 × 4 is" in ax.get_xlabel()
    at = dict(zip(texts(ax.get_xticklabels()), ax.get_xticks(), strict=True))
    assert at["800"] == 200  # round numbers, at the pixels that hold them


@pytest.mark.parametrize(("allowed", "words"), [
    (causal_mask(5), "5 query positions: each may attend to itself and all earlier ones"),
    (causal_mask(2, 3), "2 query positions after 3 earlier ones: each may attend to itself"),
    (causal_mask(1, 3), "1 query position after 3 earlier ones"),
    (causal_mask(6, window=3), "itself and at most the 2 before it, and to no later one"),
    (causal_mask(3, window=1), "itself and nothing else"),
    (np.ones((3, 3)), "to 3 to 3 positions, in 3 cells to a later one"),
    (np.tril(np.ones((3, 3))) * [1, 0, 1], "to 1 to 2 positions, and to no later one"),
    (np.zeros((2, 2)), "to 0 to 0 positions"),
])  # fmt: skip
def test_the_alt_text_names_the_rule_of_a_mask(allowed, words):
    assert words in plot.mask_alt(allowed)


# RoPE and GQA
def test_the_tables_are_drawn_as_they_are():
    cos, sin = (table[0] for table in pair()[1].model.rotary_emb(torch.arange(20)[None]))
    figure = plot.rope_tables(cos, sin)
    for ax, table in zip(figure.axes, (cos, sin), strict=False):
        assert np.array_equal(image(ax), table.numpy())
        assert ax.get_images()[0].get_cmap().name == SIGNED
    assert "20 positions and 8 dimensions" in plot.rope_tables_alt(cos)


def test_wavelengths_are_full_rotations():
    frequencies = inverse_frequencies(CONFIG)
    lengths = plot.rope_wavelengths(frequencies, context=100).get_lines()[0].get_ydata()
    # After that many positions every pair is where it began.
    np.testing.assert_allclose(np.cos(lengths * frequencies.numpy()), 1, atol=1e-5)
    words = plot.rope_wavelengths_alt(frequencies, 100)
    slow = sum(length > 100 for length in lengths)
    assert f"{slow} of them make no full rotation within 100 positions" in words


def test_a_pair_is_rotated_as_the_model_rotates_it():
    frequency, vector = 0.7, torch.tensor([0.6, -0.8])
    ax = plot.rope_pair(vector, frequency, range(5))
    ends = [(line.get_xdata()[1], line.get_ydata()[1]) for line in ax.get_lines()]
    angle = torch.arange(5.0) * frequency
    cos, sin = (f(angle)[None, :, None].expand(1, 5, 2) for f in (torch.cos, torch.sin))
    want = apply_rope(vector.expand(1, 1, 5, 2), cos, sin)[0, 0]
    np.testing.assert_allclose(ends, want, atol=1e-6)
    assert texts(ax.texts) == ["0", "1", "2", "3", "4"]
    assert "40.1 degrees" in plot.rope_pair_alt(frequency)


def test_the_lines_join_each_query_head_to_its_kv_head():
    ax = plot.gqa_sharing(6, 2)
    at = {text.get_text(): text.get_position() for text in ax.texts}
    for head, line in enumerate(ax.get_lines()):
        start, end = line.get_xdata()
        assert at[f"q{head}"] == (start, 1)
        assert at[f"k{head // 3}, v{head // 3}"] == (end, 0)
    assert "q0 to q2 use k0 and v0, q3 to q5 use k1 and v1" in plot.gqa_sharing_alt(6, 2)
    assert "a kv head of its own" in plot.gqa_sharing_alt(4, 4)


def test_repetition_draws_what_repeat_kv_gives():
    k = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    figure = plot.kv_repetition(k[0], 3)
    below = [image(ax) for ax in figure.axes[6:12]]
    assert np.array_equal(np.stack(below), repeat_kv(k, 3)[0].numpy())
    assert [ax.get_title() for ax in figure.axes[:6] if ax.get_images()] == ["k0", "k1"]
    assert figure.axes[6].get_images()[0].get_cmap().name == SIGNED
    assert "a cache 3 times smaller" in plot.kv_repetition_alt(k[0], 3)


# the logit lens
def test_each_cell_holds_its_token_and_its_probability():
    probabilities = np.linspace(0.05, 1, 18).reshape(3, 6)  # of three stops over six tokens
    guesses = [[f"{row}{column}" for column in range(6)] for row in range(3)]
    guesses[1][5] = guesses[2][5] = " y"
    ax = plot.logit_lens(probabilities, guesses, TOKENS)
    np.testing.assert_allclose(image(ax), probabilities, rtol=1e-6)
    assert ax.get_images()[0].get_clim() == (0, 1)
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in ax.texts}
    assert len(written) == 18
    assert (written[0, 0], written[4, 1][0]) == (("00", "white"), "14")  # on dark
    assert written[5, 2] == ("␣y", "black")  # on light
    assert texts(ax.get_yticklabels()) == ["embedding", "0", "1"]
    # the alt text says from which layer on the answer is the most likely
    words = plot.logit_lens_alt(probabilities, guesses, TOKENS)
    assert 'After the last token, "⏎", the model predicts "␣y" (100%)' in words
    assert "which is the most likely from layer 0 on" in words
    guesses[0][5] = " y"
    assert "from the embedding on" in plot.logit_lens_alt(probabilities, guesses, TOKENS)
    guesses[1][5] = "z"  # it was there before, but not all the time
    assert "from layer 1 on" in plot.logit_lens_alt(probabilities, guesses, TOKENS)


def test_the_table_of_a_model_agrees_with_the_lens():
    model, text = tiny(), ids(1, 4)
    probs = torch.stack([logit_lens(model, text, i).softmax(-1) for i in range(4)], dim=1)
    top, last = probs.max(dim=-1), model(text).softmax(-1).max(dim=-1)
    guesses = [[str(number) for number in row.tolist()] for row in top.indices]
    ax = plot.logit_lens(top.values, guesses, ["a", "b", "c", "d"])
    np.testing.assert_allclose(image(ax)[-1], last.values[0], rtol=1e-5)
    below = [text.get_text() for text in ax.texts if text.get_position()[1] == LAYERS]
    assert below == [str(number) for number in last.indices[0].tolist()]


def test_guesses_are_cut_to_their_cells_and_left_out_where_none_fit():
    wide = plot.logit_lens([[0.5] * 20], [["a" * 30] * 20], ["x"] * 20)
    shown = wide.texts[0].get_text()
    assert shown.endswith("…")
    assert 3 < len(shown) < 10
    long = plot.logit_lens([[0.5] * 599 + [1.0]], [["a"] * 600], ["x"] * 600)
    assert not long.texts
    assert (image(long).shape, image(long)[0, -1]) == ((1, 200), 1)
    assert "too many to write; a pixel is the largest of 3" in long.get_xlabel()


# sampling
def stages(**settings):
    """Return 50 logits and what each setting makes of them."""
    logits = torch.randn(50) * 3
    return {"logits": logits, **Sampling(**settings).transforms(logits, torch.tensor([]).long())}


def test_each_stage_shows_the_probabilities_that_sampling_draws_from():
    drawn = stages(temperature=0.7, top_k=8, top_p=0.9)
    figure = plot.sampling(drawn, names, most=10)
    order = drawn["logits"].argsort(descending=True)[:10]
    assert len(figure.axes) == 4
    for ax, logits in zip(figure.axes, drawn.values(), strict=True):
        bars = [bar.get_width() for bar in ax.patches]
        np.testing.assert_allclose(bars, logits.softmax(-1)[order], atol=1e-6)
    assert texts(figure.axes[0].get_yticklabels()) == names(order.tolist())


def test_more_stages_than_fit_go_on_in_another_row():
    logits = torch.randn(50)
    figure = plot.sampling({f"stage {i}": logits for i in range(6)}, names, most=4)
    assert len(figure.axes) == 6
    assert len({round(ax.get_subplotspec().rowspan.start) for ax in figure.axes}) == 2


def test_what_is_dropped_is_crossed_out():
    drawn = stages(temperature=1.0, top_k=3)
    before, after = plot.sampling(drawn, names, most=5).axes
    assert before.get_lines()[0].get_ydata().tolist() == []
    assert after.get_lines()[0].get_ydata().tolist() == [3, 4]
    assert after.get_title() == "top_k\n3 of 50 tokens"
    assert before.get_title() == "logits\nall 50 tokens"
    rest = 1 - drawn["logits"].softmax(-1).topk(5).values.sum().item()
    assert before.get_xlabel() == f"probability\n45 others: {rest:.1%}"
    assert after.get_xlabel() == "probability\nno others"


def test_the_alt_text_counts_what_is_kept():
    drawn = stages(temperature=0.5, top_k=4)
    words = plot.sampling_alt(drawn, names)
    best = drawn["logits"].argmax().item()
    top = (drawn["logits"] / 0.5).topk(4).values.softmax(-1)[0].item()
    assert f'top_k: 4 of 50 tokens, the most likely is "<{best}>" ({top:.0%})' in words
    assert "temperature: all 50 tokens" in words
    # a token that is kept with almost no probability is not called dropped
    words = plot.sampling_alt({"cold": [0.0, -2000.0, -np.inf]}, names)
    assert "cold: 2 of 3 tokens" in words
