"""AttentionExplorer shows what a trace holds, says what each head does, and refuses what is not."""

import zlib

import numpy as np
import pytest
import torch
from fixtures_toy import toy_of
from matplotlib.figure import Figure

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.interpret import previous_token_scores, sink_shares
from qwenkit.plot.tokens import pool
from qwenkit.widgets.attention import AttentionExplorer, AttentionView
from qwenkit.widgets.patterns import Patterns, read_patterns

PROMPT = "def add(a, b):\n    return a + b\n"
LOST = 1 / 510 + 1e-6
# Two heads on three tokens, a byte a share, row by row.
BY_HAND = Patterns(
    ["def", "·f", "("],
    np.array([[[255, 51, 204, 51, 102, 102], [255, 255, 0, 0, 0, 255]]], dtype=np.uint8),
    {"previous token": np.array([[0.3, 0.5]]), "induction": np.array([[0.25, 0.75]])},
    even=0.2,
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return qk.load_pretrained(toy_of(tmp_path_factory), dtype="float32")


def traced(model, ids):
    """Return (L, H, T, T) as a trace holds it."""
    trace = qk.Trace(keep=("attn.pattern",))
    with torch.no_grad():
        model(ids, trace=trace)
    layers = range(model.config.num_hidden_layers)
    return np.stack([trace[f"layers.{i}.attn.pattern"][0].float().numpy() for i in layers])


def test_every_head_shows_the_attention_of_the_forward_pass(toy):
    widget = AttentionExplorer(*toy, PROMPT)
    expected = traced(toy[0], toy[1](PROMPT))
    assert widget.view.patterns.tokens == toy[1].token_strings(toy[1](PROMPT))
    for layer in range(2):
        for head in range(4):
            widget.choose(layer=layer, head=head)
            assert np.abs(widget.view.matrix() - expected[layer, head]).max() <= LOST
    assert widget.view.token == expected.shape[-1] - 1  # the last token to begin with


def test_the_habits_of_the_heads_are_those_that_the_scores_name(toy):
    model, tokenizer = toy
    habits = read_patterns(model, tokenizer, PROMPT).habits
    ids, patterns = tokenizer(PROMPT), traced(model, tokenizer(PROMPT))
    assert habits["previous token"] == pytest.approx(previous_token_scores(model, ids).numpy())
    assert habits["first token"] == pytest.approx(sink_shares(model, ids).numpy())
    later = range(1, ids.shape[1])
    itself = np.mean([patterns[..., t, t] for t in later], axis=0)
    assert habits["itself"] == pytest.approx(itself, rel=1e-5)


def test_induction_is_reading_what_followed_earlier_copies(toy):
    model, tokenizer = toy
    ids = [int(i) for i in tokenizer(PROMPT)[0]]
    pairs = [(t, s + 1) for t in range(len(ids)) for s in range(t - 1) if ids[s] == ids[t]]
    assert pairs  # " b" comes twice
    readers = {t for t, _ in pairs}
    patterns = traced(model, tokenizer(PROMPT))
    expected = sum(patterns[:, :, t, s] for t, s in pairs) / len(readers)
    found = read_patterns(model, tokenizer, PROMPT)
    assert found.habits["induction"] == pytest.approx(expected, rel=1e-5)
    assert found.even == pytest.approx(sum(1 / (t + 1) for t, _ in pairs) / len(readers), rel=1e-6)


def test_on_a_repeated_text_induction_is_the_known_score(toy):
    model, tokenizer = toy
    text = "0123456789" * 2  # each digit is a token of its own
    patterns = traced(model, tokenizer(text))
    assert patterns.shape[-1] == 20
    # as qk.interpret.induction_scores has it: at the second 0, the share of the first 1, and so on
    expected = np.mean([patterns[:, :, t, t - 9] for t in range(10, 20)], axis=0)
    found = read_patterns(model, tokenizer, text).habits["induction"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_text_without_repetition_has_no_induction_and_one_token_no_habits(toy):
    found = read_patterns(*toy, "xyz")
    assert list(found.habits) == ["previous token", "first token", "itself"]
    one = AttentionExplorer(*toy, "x")
    assert one.view.title() == "Layer 0, head 0: the only token reads itself"
    assert one.view.matrix().tolist() == [[1]]
    assert one.data["strongest"] == []
    assert isinstance(one.snapshot(), Figure)


def test_titles_and_words_by_hand():
    view = AttentionView(BY_HAND, head=1, token=2)
    assert view.title() == (
        "Layer 0, head 1: previous token 50%, induction 75% (evenly spread: 20%)"
    )
    assert view.title(0, 0) == (
        "Layer 0, head 0: previous token 30%, induction 25% (evenly spread: 20%)"
    )
    assert view.alt() == (
        "Attention of 1 layers × 2 heads over 3 tokens; strongest: previous token in layer 0, "
        "head 1 (50%), induction in layer 0, head 1 (75%); chosen: Layer 0, head 1: previous "
        "token 50%, induction 75% (evenly spread: 20%); ( (2) reads ( 100%."
    )
    view.choose(head=0)
    assert view.alt().endswith("( (2) reads ·f 40%, ( 40%, def 20%.")
    view.choose(arcs="is read by", token=0)
    assert view.alt().endswith("def (0) is read by def 100%, ·f 20%, ( 20%.")
    view.choose(head=1, token=1)
    assert view.alt().endswith("·f (1) is read by nobody.")


def test_arcs_are_a_row_or_a_column_of_the_map():
    view = AttentionView(BY_HAND, token=1)
    assert view.arc_shares() == pytest.approx([0.2, 0.8, 0])
    view.choose(arcs="is read by")
    assert view.arc_shares() == pytest.approx([0, 0.8, 0.4])


def test_the_page_gets_all_heads_packed_and_all_titles():
    data = AttentionView(BY_HAND).data()
    assert zlib.decompress(data["shares"]) == BY_HAND.shares.tobytes()
    assert data["titles"][0][1].startswith("Layer 0, head 1: previous token 50%")
    assert data["strongest"] == [["previous token", 0, 1], ["induction", 0, 1]]
    assert (data["layers"], data["heads"], data["places"]) == (1, 2, ["def", "·f", "("])


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"layer": 1}, "layer is 1; it must be a whole number from 0 to 0"),
        ({"head": -1}, "head is -1; it must be a whole number from 0 to 1"),
        ({"head": True}, "head is True"),
        ({"token": 1.0}, "token is 1.0; it must be a whole number from 0 to 2"),
        ({"arcs": "writes"}, "'reads' or 'is read by'"),
        ({"faint": 1}, "faint is 1; it must be True or False"),
        ({"heads": 1}, "'heads' cannot be chosen; layer, head, token, arcs, faint can"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_words_and_changes_nothing(state, words):
    view = AttentionView(BY_HAND)
    before = view.state()
    with pytest.raises(InputError, match=words):
        view.choose(token=1, **state) if "token" not in state else view.choose(head=1, **state)
    assert view.state() == before


@pytest.mark.parametrize("prompt", ["", None])
def test_an_empty_prompt_is_refused(toy, prompt):
    with pytest.raises(InputError, match="prompt is"):
        AttentionExplorer(*toy, prompt)


def test_a_long_text_is_pooled_by_its_largest_shares_and_says_so(toy):
    model, tokenizer = toy
    text = "xyz" * 200
    ids = tokenizer(text)
    assert ids.shape == (1, 600)
    widget = AttentionExplorer(model, tokenizer, text)
    assert widget.view.patterns.factor == 2
    expected = pool(traced(model, ids)[1, 3], 512)[0]
    widget.choose(layer=1, head=3)
    assert widget.view.matrix().shape == (300, 300)
    assert np.abs(widget.view.matrix() - expected).max() <= LOST
    words = "600 tokens: each pixel is the largest of 2 × 2 shares"
    assert widget.data["pooling"] == words
    assert words in widget.view.alt()
    assert widget.view.patterns.places[:2] == ["xy", "zx"]
    assert widget.view.patterns.number(299) == "598–599"
    assert "(598–599) reads" in widget.view.alt()
    # the habits are those of the tokens, not of the pooled places
    scores = previous_token_scores(model, ids).numpy()
    assert widget.view.patterns.habits["previous token"] == pytest.approx(scores)


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_other_dtypes_are_shown_as_well(toy, tmp_path_factory, kind):
    model, tokenizer = qk.load_pretrained(toy_of(tmp_path_factory), dtype=kind)
    widget = AttentionExplorer(model, tokenizer, PROMPT)
    expected = traced(model, tokenizer(PROMPT))
    assert np.abs(widget.view.matrix() - expected[0, 0]).max() <= LOST


def test_the_mosaic_holds_each_head_in_its_place_and_nothing_above_the_diagonals(toy):
    view = AttentionExplorer(*toy, PROMPT).view
    picture, side = view.mosaic()
    assert side == len(view.patterns.tokens)
    for layer in range(2):
        for head in range(4):
            tile = picture[layer * (side + 1) :, head * (side + 1) :][:side, :side]
            shown = np.tril(np.ones((side, side), dtype=bool))
            assert np.array_equal(tile[shown], view.patterns.matrix(layer, head)[shown])
            assert np.isnan(tile[~shown]).all()
    assert np.isnan(picture[side]).all()


def test_the_snapshot_draws_the_mosaic_and_the_chosen_head(toy):
    widget = AttentionExplorer(*toy, PROMPT)
    widget.choose(layer=1, head=2, token=3)
    left, right, _ = widget.snapshot().axes
    picture, side = widget.view.mosaic()
    assert np.array_equal(left.images[0].get_array().filled(np.nan), picture, equal_nan=True)
    assert np.array_equal(right.images[0].get_array(), widget.view.matrix())
    head, row = left.patches[0], right.patches[0]
    assert (head.get_x(), head.get_y()) == (2 * (side + 1) - 1, side)
    assert row.get_y() < 3 < row.get_y() + row.get_height() < 4
    widget.choose(arcs="is read by")
    column = widget.snapshot().axes[1].patches[0]
    assert column.get_x() < 3 < column.get_x() + column.get_width() < 4


def test_a_page_needs_nothing_but_itself(toy, tmp_path):
    widget = AttentionExplorer(*toy, PROMPT)
    text = widget.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert widget.view.title() in text


def test_the_widget_says_what_it_shows_and_shows_a_picture_without_a_kernel(toy):
    widget = AttentionExplorer(*toy, PROMPT)
    assert repr(widget) == f"AttentionExplorer: {widget.view.title()}"
    data, metadata = widget._repr_mimebundle_()
    assert data["text/plain"] == widget.view.alt() == metadata["image/png"]["alt"]
    assert data["image/png"].startswith("iVBORw0KGgo")


def test_what_the_page_chooses_arrives_and_nonsense_from_it_changes_nothing(toy):
    widget = AttentionExplorer(*toy, PROMPT)
    widget.state = {**widget.state, "layer": 1, "head": 3}
    assert (widget.view.layer, widget.view.head) == (1, 3)
    with pytest.raises(InputError, match="head is 4"):
        widget.choose(head=4)
    assert widget.state["head"] == 3
