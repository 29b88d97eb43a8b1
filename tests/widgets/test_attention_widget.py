"""AttentionExplorer shows what a trace holds, and says what type each head is."""

import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.interpret import previous_token_scores, sink_scores
from qwenkit.plot.arrays import pool
from qwenkit.plot.heads import CURRENT, FIRST, INDUCTION, PREVIOUS, induction_targets
from qwenkit.widgets._patterns import Patterns, pack, read_patterns, square, triangle
from qwenkit.widgets.attention import AttentionExplorer, AttentionView

PROMPT = "def add(a, b):\n    return a + b\n"
LOST = 1 / 510 + 1e-6
# Two heads on three tokens, a byte per weight, row by row.
BY_HAND = Patterns(
    ["def", "·f", "("],
    np.array([[[255, 51, 204, 51, 102, 102], [255, 255, 0, 0, 0, 255]]], dtype=np.uint8),
    {PREVIOUS: np.array([[0.3, 0.5]]), INDUCTION: np.array([[0.25, 0.75]])},
    even=0.2,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_head_shows_the_attention_of_the_forward_pass(toy_in, patterns_of, dtype):
    model, tokenizer = toy_in(dtype)
    widget = AttentionExplorer(model, tokenizer, PROMPT)
    expected = patterns_of(model, tokenizer(PROMPT))
    assert widget.view.patterns.tokens == tokenizer.token_strings(tokenizer(PROMPT))
    for layer, head in np.ndindex(2, 4):
        widget.choose(layer=layer, head=head)
        assert np.abs(widget.view.matrix() - expected[layer, head]).max() <= LOST
    # to begin with, a token whose attention goes far, not to the first one or its neighbors
    start = AttentionExplorer(model, tokenizer, PROMPT).view
    rows = np.rint(np.tril(start.matrix(), -2)[:, 1:].max(-1) * 255)
    words = [any(letter.isalnum() for letter in one) for one in start.patterns.tokens]
    assert words[start.token]
    assert rows[start.token] == rows[words].max() > 0
    far = np.rint(np.tril(expected, -2)[..., 3:, 1:].max(-1) * 255).mean(-1)
    assert far[start.layer, start.head] == pytest.approx(far.max(), abs=0.1)


def test_the_scores_of_the_heads_are_those_of_interpret(toy, patterns_of):
    model, tokenizer = toy
    scores = read_patterns(model, tokenizer, PROMPT).scores
    ids = tokenizer(PROMPT)
    patterns = patterns_of(model, ids)
    assert scores[PREVIOUS] == pytest.approx(previous_token_scores(model, ids).numpy())
    assert scores[FIRST] == pytest.approx(sink_scores(model, ids).numpy())
    current = np.mean([patterns[..., t, t] for t in range(1, ids.shape[1])], axis=0)
    assert scores[CURRENT] == pytest.approx(current, rel=1e-5)


def test_induction_is_attending_to_what_followed_earlier_copies(toy, patterns_of):
    model, tokenizer = toy
    ids = [int(i) for i in tokenizer(PROMPT)[0]]
    pairs = [(t, s + 1) for t in range(len(ids)) for s in range(t - 1) if ids[s] == ids[t]]
    assert pairs  # " b" comes twice
    queries = {t for t, _ in pairs}
    patterns = patterns_of(model, tokenizer(PROMPT))
    expected = sum(patterns[:, :, t, s] for t, s in pairs) / len(queries)
    found = read_patterns(model, tokenizer, PROMPT)
    assert found.scores[INDUCTION] == pytest.approx(expected, rel=1e-5)
    assert found.even == pytest.approx(sum(1 / (t + 1) for t, _ in pairs) / len(queries), rel=1e-6)
    # on a repeated text it is the known score
    text = "0123456789" * 2  # each digit is a token of its own
    patterns = patterns_of(model, tokenizer(text))
    assert patterns.shape[-1] == 20
    # as qk.interpret.induction_scores has it: at the second 0, the weight of the first 1, ...
    expected = np.mean([patterns[:, :, t, t - 9] for t in range(10, 20)], axis=0)
    found = read_patterns(model, tokenizer, text).scores[INDUCTION]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_text_without_repetition_has_no_induction_and_one_token_no_scores(toy):
    assert list(read_patterns(*toy, "xyz").scores) == [PREVIOUS, FIRST, CURRENT]
    one = AttentionExplorer(*toy, "x")
    assert one.view.title() == "Layer 0, head 0: the only token attends to itself"
    assert one.view.matrix().tolist() == [[1]]
    assert one.data["strongest"] == []
    assert isinstance(one.snapshot(), Figure)


def test_titles_alt_text_arcs_and_data_by_hand():
    view = AttentionView(BY_HAND, head=1, token=2)
    scores = "previous token 50%, induction 75% (evenly spread: 20%)"
    assert view.title() == f"Layer 0, head 1: {scores}"
    assert BY_HAND.title(0, 0) == (
        "Layer 0, head 0: previous token 30%, induction 25% (evenly spread: 20%)"
    )
    assert view.alt() == (
        "Attention of 1 layers × 2 heads over 3 tokens; strongest: previous-token head in layer 0, "
        "head 1 (50%), induction head in layer 0, head 1 (75%); chosen: Layer 0, head 1: "
        f"{scores}; ( (2) attends to ( 100%."
    )
    view.choose(head=0)
    assert view.alt().endswith("( (2) attends to ·f 40%, ( 40%, def 20%.")
    view.choose(arcs="is attended to by", token=0)
    assert view.alt().endswith("def (0) is attended to by def 100%, ·f 20%, ( 20%.")
    view.choose(head=1, token=1)
    assert view.alt().endswith("·f (1) is attended to by no token.")
    # arcs are a row or a column of the map
    view = AttentionView(BY_HAND, token=1)
    assert view.arc_weights() == pytest.approx([0.2, 0.8, 0])
    view.choose(arcs="is attended to by")
    assert view.arc_weights() == pytest.approx([0, 0.8, 0.4])
    # the page gets all heads packed, and all titles
    data = view.data()
    assert zlib.decompress(data["weights"]) == BY_HAND.weights.tobytes()
    assert data["titles"][0][1].startswith("Layer 0, head 1: previous token 50%")
    assert data["strongest"] == [[PREVIOUS, 0, 1, 2], [INDUCTION, 0, 1, 2]]
    assert (data["layers"], data["heads"], data["labels"]) == (1, 2, ["def", "·f", "("])


def test_each_type_has_a_token_that_shows_it(toy, patterns_of):
    model, tokenizer = toy
    widget = AttentionExplorer(model, tokenizer, PROMPT)
    patterns, tokens = patterns_of(model, tokenizer(PROMPT)), widget.view.patterns.tokens
    words = [t for t, token in enumerate(tokens) if any(map(str.isalnum, token))]
    targets = induction_targets(tokenizer(PROMPT)[0])
    for name, layer, head, token in widget.data["strongest"]:
        one = patterns[layer, head]
        weights = {
            PREVIOUS: np.array([-1, -1, *one.diagonal(-1)[1:]]),
            FIRST: np.array([-1, *one[1:, 0]]),
            INDUCTION: (one * targets).sum(-1),
        }[name]
        assert token in words
        assert weights[token] == pytest.approx(max(weights[words]), abs=1 / 255)


def test_the_contrast_of_a_long_text_adapts(toy):
    short, long = (AttentionExplorer(*toy, "xyz" * count) for count in (5, 200))
    assert short.view.brightest() == 1
    weights = long.view.patterns.weights[long.view.layer, long.view.head] / 255
    assert long.view.brightest() < 1
    assert (weights > long.view.brightest()).mean() < 0.006
    assert long.snapshot().axes[1].images[0].norm.vmax == long.view.brightest()


def test_a_long_text_is_pooled_by_its_largest_weights_and_says_so(toy, patterns_of):
    model, tokenizer = toy
    text = "xyz" * 200
    ids = tokenizer(text)
    assert ids.shape == (1, 600)
    widget = AttentionExplorer(model, tokenizer, text)
    patterns = widget.view.patterns
    assert patterns.factor == 2
    expected = pool(patterns_of(model, ids)[1, 3], 512)[0]
    assert widget.view.token < 300
    widget.choose(layer=1, head=3, token=299)
    assert widget.view.matrix().shape == (300, 300)
    assert np.abs(widget.view.matrix() - expected).max() <= LOST
    words = "600 tokens: each pixel is the largest of 2 × 2 weights"
    assert widget.data["pooling"] == words
    assert words in widget.view.alt()
    assert patterns.labels[:2] == ["xy", "zx"]
    assert patterns.number(299) == "598–599"
    assert "(598–599) attends to" in widget.view.alt()
    # the scores are those of the tokens, not of the pooled positions
    scores = previous_token_scores(model, ids).numpy()
    assert patterns.scores[PREVIOUS] == pytest.approx(scores)


def test_the_mosaic_holds_each_head_and_the_snapshot_marks_what_is_chosen(toy):
    widget = AttentionExplorer(*toy, PROMPT)
    view, (picture, side) = widget.view, widget.view.mosaic()
    assert side == len(view.patterns.tokens)
    shown = np.tril(np.ones((side, side), dtype=bool))
    for layer, head in np.ndindex(2, 4):
        tile = picture[layer * (side + 1) :, head * (side + 1) :][:side, :side]
        assert np.array_equal(tile[shown], view.patterns.matrix(layer, head)[shown])
        assert np.isnan(tile[~shown]).all()
    assert np.isnan(picture[side]).all()
    # the snapshot draws it next to the chosen head
    widget.choose(layer=1, head=2, token=3)
    left, right, _ = widget.snapshot().axes
    assert np.array_equal(left.images[0].get_array().filled(np.nan), picture, equal_nan=True)
    assert np.array_equal(right.images[0].get_array(), widget.view.matrix())
    head, row = left.patches[0], right.patches[0]
    assert (head.get_x(), head.get_y()) == (2 * (side + 1) - 1, side)
    assert row.get_y() < 3 < row.get_y() + row.get_height() < 4
    widget.choose(arcs="is attended to by")
    column = widget.snapshot().axes[1].patches[0]
    assert column.get_x() < 3 < column.get_x() + column.get_width() < 4
    # what the page chooses arrives, and a wrong choice changes nothing
    widget.state = {**widget.state, "layer": 1, "head": 3}
    assert (widget.view.layer, widget.view.head) == (1, 3)
    with pytest.raises(InputError, match="head is 4"):
        widget.choose(head=4)
    assert widget.state["head"] == 3


# attention as bytes
def random_patterns(*shape, size):
    """Return softmaxed random scores below the diagonal, from flat to sharp."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(*shape, size, size)) * 6
    scores[..., *np.triu_indices(size, 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_the_triangle_is_row_by_row_rounded_to_the_nearest_255th():
    pattern = np.array([[1, 0, 0], [0.2, 0.8, 0], [0.4, 0.6, 0]])
    assert triangle(pattern).tolist() == [255, 51, 204, 102, 153, 0]
    diagonal = np.diag(np.float32([0, 1 / 510 - 1e-6, 1 / 510 + 1e-6, 0.5, 1]))
    back = np.diag(square(triangle(diagonal))).tolist()
    assert back == pytest.approx([0, 0, 1 / 255, 128 / 255, 1])


@pytest.mark.parametrize("size", [1, 2, 37, 256])
def test_at_most_a_510th_is_lost_and_every_weight_keeps_its_position(size):
    patterns = random_patterns(2, 3, size=size)
    weights = triangle(patterns)
    assert (weights.shape, weights.dtype) == ((2, 3, size * (size + 1) // 2), np.uint8)
    rows, columns = np.tril_indices(size)
    back = weights / 255.0
    assert np.abs(back - patterns[..., rows, columns].astype(np.float64)).max() <= 1 / 510
    assert np.abs(square(weights) - patterns).max() <= 1 / 510 + 1e-7  # float32's own rounding
    assert not np.triu(square(weights), 1).any()


def test_every_byte_survives_the_way_there_and_back_and_packing_is_zlib():
    for first in (0, 3):  # 253 = 22 × 23 / 2 bytes: 0 to 252, 3 to 255
        every = np.arange(first, first + 253, dtype=np.uint8)
        assert triangle(square(every)).tolist() == every.tolist()
    weights = triangle(random_patterns(2, size=5))
    assert zlib.decompress(pack(weights)) == bytes(weights[0].tolist() + weights[1].tolist())
    reverse = weights[:, ::-1]
    assert zlib.decompress(pack(reverse)) == bytes(reverse.reshape(-1).tolist())


@pytest.mark.parametrize(("patterns", "words"), [
    (np.ones(3), "must be"), (np.ones((2, 3)), "must be"), (np.ones((0, 2, 2)), "must be"),
    (np.full((2, 2), 1.5), "from 1.5 to 1.5"), (np.diag([0.5, -0.1]), "from -0.1"),
    (np.diag([0.5, np.nan]), "weights must be between 0 and 1"),
    (np.ones((2, 2)), "attends to a later key"),
])  # fmt: skip
def test_what_is_not_causal_attention_is_refused(patterns, words):
    with pytest.raises(InputError, match=words):
        triangle(patterns)
