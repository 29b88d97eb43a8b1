"""The residual stream's length and the logit lens, from a model's own trace."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from reference import LAYERS, ids, tiny

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.interpret import logit_lens
from qwenkit.trace import Trace

TOKENS = ["def", " f", "(", "x", "):", "\n"]


# --- residual norms ---


def traced_lengths():
    """Return lengths of the stream, and of what attention and MLP add, on six tokens."""
    model = tiny()
    trace = Trace(keep=("embed", "attn.out", "mlp.out", "resid_post"))
    model(ids(1, 6), trace=trace)

    def lengths(name):
        return torch.stack([trace[f"layers.{i}.{name}"][0] for i in range(LAYERS)]).norm(dim=-1)

    stream = torch.cat([trace["embed"].norm(dim=-1), lengths("resid_post")])
    return stream, lengths("attn.out"), lengths("mlp.out")


def test_the_streams_length_is_drawn_at_each_stop():
    stream, attention, mlp = traced_lengths()
    ax = plot.residual_norms(stream, attention=attention, mlp=mlp)
    others, first, added, more = ax.get_lines()
    np.testing.assert_allclose(others.get_ydata(), np.median(stream[:, 1:], axis=1), rtol=1e-6)
    np.testing.assert_allclose(first.get_ydata(), stream[:, 0])
    np.testing.assert_allclose(added.get_ydata(), np.median(attention[:, 1:], axis=1), rtol=1e-6)
    np.testing.assert_allclose(more.get_ydata(), np.median(mlp[:, 1:], axis=1), rtol=1e-6)
    assert list(first.get_xdata()) == [0, 1, 2, 3]
    assert list(added.get_xdata()) == [1, 2, 3]  # what a layer adds stands where it is added
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["embedding", "0", "1", "2"]
    assert ax.get_yscale() == "log"


def test_one_token_has_one_line():
    ax = plot.residual_norms([[1.0], [2.0], [4.0]])
    (line,) = ax.get_lines()
    assert list(line.get_ydata()) == [1, 2, 4]
    words = plot.residual_norms_alt([[1.0], [2.0], [4.0]])
    assert words == "Length of the residual stream over 2 layers: from 1 to 4."


def test_the_streams_alt_text_says_how_it_grows():
    stream = np.array([[1.0, 2, 2], [50, 3, 5], [60, 8, 8]])
    words = plot.residual_norms_alt(stream, mlp=np.array([[9.0, 1, 1], [9, 6, 6]]))
    assert "over 2 layers: for the 2 tokens after the first, in the median, from 2 after" in words
    assert "to 8 after the last layer; for the first token from 1 to 60" in words
    assert "the MLP adds at most 6 (in layer 1)" in words
    assert "attention" not in words


# --- the logit lens ---


def table():
    """Return probabilities and guesses of three stops over six tokens."""
    probabilities = np.linspace(0.05, 1, 18).reshape(3, 6)
    guesses = [[f"{row}{column}" for column in range(6)] for row in range(3)]
    guesses[1][5] = guesses[2][5] = " y"
    return probabilities, guesses


def test_each_cell_holds_its_token_and_its_probability():
    probabilities, guesses = table()
    ax = plot.logit_lens(probabilities, guesses, TOKENS)
    np.testing.assert_allclose(ax.get_images()[0].get_array(), probabilities, rtol=1e-6)
    assert ax.get_images()[0].get_clim() == (0, 1)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written[0, 0] == "00"
    assert written[4, 1] == "14"
    assert written[5, 2] == "␣y"
    assert len(written) == 18
    colours = {text.get_position(): text.get_color() for text in ax.texts}
    assert (colours[0, 0], colours[5, 2]) == ("white", "black")  # on dark, on light
    stops = [text.get_text() for text in ax.get_yticklabels()]
    assert stops == ["embedding", "0", "1"]


def test_the_table_of_a_model_agrees_with_the_lens():
    model, text = tiny(), ids(1, 4)
    probs = torch.stack([logit_lens(model, text, i).softmax(-1) for i in range(4)], dim=1)
    top = probs.max(dim=-1)
    guesses = [[str(number) for number in row.tolist()] for row in top.indices]
    ax = plot.logit_lens(top.values, guesses, ["a", "b", "c", "d"])
    last = model(text).softmax(-1).max(dim=-1)
    drawn = ax.get_images()[0].get_array()[-1]
    np.testing.assert_allclose(drawn, last.values[0], rtol=1e-5)
    below = [text.get_text() for text in ax.texts if text.get_position()[1] == LAYERS]
    assert below == [str(number) for number in last.indices[0].tolist()]


def test_the_lens_alt_text_says_since_when_the_answer_stands():
    probabilities, guesses = table()
    words = plot.logit_lens_alt(probabilities, guesses, TOKENS)
    assert 'After the last token, "⏎", the model says "␣y" (100%)' in words
    assert "that is the likeliest from layer 0 on" in words
    guesses[0][5] = " y"
    assert "from the embedding on" in plot.logit_lens_alt(probabilities, guesses, TOKENS)
    guesses[1][5] = "z"  # it stood there before, but not all the time
    assert "from layer 1 on" in plot.logit_lens_alt(probabilities, guesses, TOKENS)


def test_words_are_cut_to_their_cells_and_left_out_where_none_fit():
    wide = plot.logit_lens([[0.5] * 20], [["a" * 30] * 20], ["x"] * 20)
    shown = wide.texts[0].get_text()
    assert shown.endswith("…")
    assert 3 < len(shown) < 10
    long = plot.logit_lens([[0.5] * 599 + [1.0]], [["a"] * 600], ["x"] * 600)
    assert not long.texts
    drawn = long.get_images()[0].get_array()
    assert (drawn.shape, drawn[0, -1]) == ((1, 200), 1)
    assert "too many for the words; a pixel is the largest of 3" in long.get_xlabel()


def test_both_draw_on_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert plot.residual_norms([[1.0, 2], [2, 3]], ax=left) is left
    probabilities, guesses = table()
    assert plot.logit_lens(probabilities, guesses, TOKENS, ax=right) is right


def test_every_guess_can_be_drawn():
    odd = [["\n", "$", "面積", "🙂", "\\frac", "_{"]]
    plot.logit_lens([[0.5] * 6], odd, TOKENS).figure.canvas.draw()


BAD = {
    "no layers": (lambda: plot.residual_norms([[1.0, 2.0]]), "a row for each layer"),
    "one dimension": (lambda: plot.residual_norms([1.0, 2.0]), "stream has shape"),
    "other layers": (
        lambda: plot.residual_norms([[1.0, 2], [2, 3]], mlp=[[1.0, 2], [2, 3]]),
        r"what the MLP adds have shape \(2, 2\).* it must be \(1, 2\)",
    ),
    "other guesses": (
        lambda: plot.logit_lens([[0.5, 0.5]], [["a"]], ["x", "y"]),
        "a guess for each probability",
    ),
    "other tokens": (lambda: plot.logit_lens([[0.5]], [["a"]], ["x", "y"]), "and 2 tokens"),
    "logits": (
        lambda: plot.logit_lens([[-3.0]], [["a"]], ["x"]),
        "go from -3 to -3; they lie between 0 and 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
