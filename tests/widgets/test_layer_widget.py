"""LayerInspector: what it sends is what a trace holds; lens and ablation are the model's own."""

import copy
import zlib

import numpy as np
import pytest
import torch

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.interpret import ablate_heads, logit_lens
from qwenkit.widgets import layer
from qwenkit.widgets._patterns import square
from qwenkit.widgets.layer import LayerInspector

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def add(a, b):\n\treturn 'Größe 🙂'\n"
OTHER = "def sub(a):\n    return a\n"
POINTS = ("attn.q", "attn.k", "attn.q_rot", "attn.k_rot", "attn.pattern", "mlp.act")


@pytest.fixture
def widget(toy):
    return LayerInspector(*toy, PROMPT, OTHER)


@pytest.fixture(scope="module")
def traced(toy):
    model, tokenizer = toy
    trace = qk.Trace(keep=(*POINTS, "embed", "resid_mid", "resid_post"))
    model(tokenizer(PROMPT), trace=trace)
    return trace


def sent(data, name, kind, *shape):
    """Return an array as the page unpacks it."""
    return np.frombuffer(zlib.decompress(data[name]), kind).reshape(shape)


def test_the_page_gets_the_queries_and_keys_of_the_forward_pass(widget, traced):
    data, length = widget.data, len(widget.data["tokens"])
    assert (data["layers"], data["heads"], data["kv_heads"], data["dim"]) == (2, 4, 2, 16)
    for name, steps, heads in (("queries", "query_steps", 4), ("keys", "key_steps", 2)):
        whole = sent(data, name, "<i2", 2, heads, length, 16)
        for i in range(2):
            found = whole[i] * data[steps][i]
            exact = traced[f"layers.{i}.attn.{name[0]}"][0].numpy()
            assert np.abs(found - exact).max() <= data[steps][i] * 0.51
            assert data[steps][i] == pytest.approx(np.abs(exact).max() / 32767)
    # those of the chosen token, before and after RoPE
    widget.choose(layer=1, head=3, token=7)
    assert (widget.view.kv_head(), widget.view.group()) == (1, [2, 3])
    pairs = (("attn.q", 3, widget.view.query()), ("attn.k", 1, widget.view.key()))
    for name, head, (before, after) in pairs:
        exact = traced[f"layers.1.{name}"], traced[f"layers.1.{name}_rot"]
        assert np.allclose(before, exact[0][0, head, 7].numpy(), atol=1e-5)
        assert np.allclose(after, exact[1][0, head, 7].numpy(), atol=1e-5)
        assert not np.allclose(before, after, atol=0.01)  # at position 7 much is rotated


def test_attention_units_and_norms_are_those_of_the_trace(widget, traced):
    data, length = widget.data, len(widget.data["tokens"])
    weights = square(sent(data, "weights", np.uint8, 2, 4, length * (length + 1) // 2))
    numbers = sent(data, "units", "<u2", 2, length, 8)
    acts = sent(data, "acts", "<f4", 2, length, 8)
    norms = sent(data, "norms", "<f4", 2, length, 2)
    for i in range(2):
        assert np.abs(weights[i] - traced[f"layers.{i}.attn.pattern"][0].numpy()).max() < 0.002
        exact = traced[f"layers.{i}.mlp.act"][0].numpy()  # (T, F)
        order = np.argsort(-np.abs(exact), axis=-1)[:, :8]
        assert np.array_equal(numbers[i], order)
        assert np.allclose(acts[i], np.take_along_axis(exact, order, -1), atol=1e-5)
        for j, name in enumerate(("resid_mid", "resid_post")):
            lengths = np.linalg.norm(traced[f"layers.{i}.{name}"][0].numpy(), axis=-1)
            assert np.allclose(norms[i, :, j], lengths, rtol=1e-5)
    start = np.linalg.norm(traced["embed"][0].numpy(), axis=-1)
    assert np.allclose(sent(data, "embed_norms", "<f4", length), start, rtol=1e-5)
    widget.choose(token=5)
    expected = [start[5], *norms[0, 5], *norms[1, 5]]
    assert np.allclose(widget.view.norms(), expected, rtol=1e-5)


def test_the_lens_is_that_of_interpret_without_padding_rows(toy, widget):
    model, tokenizer = toy
    for token in (0, 6):
        logits = logit_lens(model, tokenizer(PROMPT), token)[:, : model.num_tokens]
        best = logits.softmax(-1).topk(3)
        rows = widget.data["lens"][str(token)]
        for row, ids, probs in zip(rows, best.indices, best.values, strict=True):
            assert [name for name, _ in row] == tokenizer.token_strings(ids)
            assert [one for _, one in row] == pytest.approx(probs.tolist(), rel=1e-4)


def test_a_head_that_is_off_changes_the_output_as_ablation_does(toy, widget):
    model, tokenizer = toy
    widget.choose(layer=0, head=2, token=9, off=[0, 2])
    ids = tokenizer(PROMPT)
    edited = qk.Trace(keep=(), edits=ablate_heads([(0, 2)]))
    before, after = (model(ids, trace=trace)[0, :, : model.num_tokens].log_softmax(-1)
                     for trace in (None, edited))  # fmt: skip
    moved = torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1)
    answer = widget.without
    assert answer["off"] == [0, 2]
    assert max(answer["moved"]) > 1e-3
    assert answer["moved"] == pytest.approx(moved.tolist(), rel=1e-3, abs=1e-5)
    for position, rows in enumerate(answer["rows"]):
        largest = torch.maximum(before[position], after[position]).exp()
        assert [token for _, token, *_ in rows] == largest.topk(6).indices.tolist()
        for name, token, one, other in rows:
            assert name == tokenizer.token_strings([token])[0]
            assert one == pytest.approx(float(before[position, token].exp()), rel=1e-3)
            assert other == pytest.approx(float(after[position, token].exp()), rel=1e-3)


def test_nothing_changes_without_a_head_that_adds_nothing(toy):
    model, tokenizer = copy.deepcopy(toy[0]), toy[1]
    model.model.layers[1].self_attn.o_proj.weight[:, 16:32] = 0  # what layer 1 takes from head 1
    widget = LayerInspector(model, tokenizer, PROMPT)
    widget.choose(off=[1, 1])
    assert max(widget.without["moved"]) == pytest.approx(0, abs=1e-6)
    widget.choose(off=[1, 0])
    assert max(widget.without["moved"]) > 1e-4


def test_an_answer_says_what_it_belongs_to(toy, monkeypatch):
    monkeypatch.setattr(layer, "CHEAP", 0)  # as if the model were large
    widget = LayerInspector(*toy, PROMPT)
    last = len(widget.data["tokens"]) - 1
    assert list(widget.data["lens"]) == [str(last)]
    widget.state = {**widget.state, "token": 3, "off": [1, 0]}  # what the page does
    assert widget.lens == {"token": 3, "rows": widget.view.lens()}
    assert widget.without["off"] == [1, 0]
    widget.state = {**widget.state, "token": 4, "off": [0, 0]}
    assert (widget.lens["token"], widget.without["off"]) == (4, [0, 0])
    assert set(widget.exported()["data"]["lens"]) == {str(last), "3", "4"}
    assert widget.exported()["without"] == widget.without


def test_the_kernel_repeats_the_number_of_the_choice_and_ignores_an_older_one(widget):
    state = widget.view.state()
    assert "turn" not in widget.state
    widget.state = state | {"token": 3, "turn": 5}
    assert (widget.view.token, widget.state["turn"]) == (3, 5)
    widget.choose(token=4)
    assert (widget.state["token"], widget.state["turn"]) == (4, 5)
    widget.state = state | {"token": 2, "turn": 4}  # chosen before, heard later
    assert (widget.view.token, widget.state) == (4, widget.view.state() | {"turn": 5})
    with pytest.raises(InputError, match="token is 99"):
        widget.state = state | {"token": 99, "turn": 6}
    assert widget.state == widget.view.state() | {"turn": 6}
    widget.choose(prompt="for i in range(3):")
    assert widget.state["turn"] > 6
    before = widget.state
    widget.state = state | {"token": 12, "turn": 7}  # of the old text
    assert widget.state == before
    assert "turn" not in widget.exported()["state"]


def test_the_alt_text_says_what_is_shown_and_the_snapshot_has_a_panel_for_each_thing(widget):
    widget.choose(layer=1, head=2, token=4, off=[1, 2])
    alt, view = widget.view.alt(), widget.view
    assert "Layer 1, head 2: previous token" in alt
    assert "token 4 of" in alt
    assert "heads 2, 3 share kv head 1" in alt
    unit, act = view.units()[0]
    assert f"the MLP's strongest unit is {unit} ({act:+.2f})" in alt
    _, probability = view.lens()[2][0]
    assert f"({probability:.0%})" in alt.split("the model would predict")[1]
    assert "without head 2 of layer 1" in alt
    assert repr(widget).startswith("LayerInspector: Layer 1, head 2: ")
    figure = widget.snapshot()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == 7  # five, the other text, and the head that is off
    figure.canvas.draw()  # no glyph is missing, nothing overlaps so far that no room is left


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_dtypes_are_shown_as_they_compute(toy_in, dtype):
    model, tokenizer = toy_in(dtype)
    widget = LayerInspector(model, tokenizer, PROMPT)
    trace = qk.Trace(keep=("attn.q_rot",))
    logits = model(tokenizer(PROMPT), trace=trace)[0, -1, : model.num_tokens].float()
    widget.choose(layer=1, head=1, off=[1, 1])
    exact = trace["layers.1.attn.q_rot"][0, 1, -1].float().numpy()
    assert np.allclose(widget.view.query()[1], exact, atol=0.02 * np.abs(exact).max())
    assert widget.view.lens()[-1][0][1] == pytest.approx(float(logits.softmax(-1).max()), rel=0.05)
    assert np.isfinite(widget.without["moved"]).all()


def test_the_marked_row_is_the_tokens_also_with_two_tokens_per_pixel(toy):
    widget = LayerInspector(*toy, "x = 1\n" * 80)
    length = len(widget.view.patterns.tokens)
    assert 256 < length <= 512
    widget.choose(token=100)
    ax = widget.snapshot().axes[0]
    (mark,) = ax.patches
    air = ax.images[0].get_array().shape[0] / 250
    assert (mark.get_y() + air, mark.get_width() - 2 * air) == pytest.approx((49.5, 51))
