"""Models and texts that no picture was made for: shown, or refused with a clear error."""

import json
import re
from contextlib import suppress

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sound_calls
import torch
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit.errors import InputError, QwenkitError
from qwenkit.plot.tokens import drawable, label
from qwenkit.widgets import CheckpointBrowser
from qwenkit.widgets._base import page
from qwenkit.widgets._tensors import histogram

pytestmark = [pytest.mark.usefixtures("one_thread")]
NAN, INF, LARGE = float("nan"), float("inf"), 3.4e38
TEXTS = ("AttentionExplorer", "GenerationStepper", "LayerInspector", "SamplingExplorer")
DOWN, HEAD, Q = "layers.0.mlp.down_proj", "lm_head", "layers.1.self_attn.q_proj"
CASES = [  # which weight, what it becomes, which widgets still show the model
    *((where, value, ()) for where in (DOWN, "embed_tokens") for value in (NAN, INF)),
    (HEAD, NAN, ("AttentionExplorer",)), (HEAD, LARGE, None),
    (DOWN, LARGE, None), (Q, LARGE, None), (Q, NAN, None), ("padding row", 1e30, TEXTS),
]  # fmt: skip


def odd(folder, where, value):
    """Return a model with one odd weight, or one odd padding row, and its tokenizer."""
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="float32")
    if where == "padding row":
        model.model.embed_tokens.weight[-1] = value
        model.lm_head.weight[-1] = value
        return model, tokenizer
    name = where if where == HEAD else f"model.{where}"
    weight = model.get_submodule(name).weight
    weight[slice(None) if where == "embed_tokens" else 3, 4] = value
    return model, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_of(tmp_path_factory, tied=False)


def page_of(widget):
    """Return the values in a widget's page, read as strict JSON."""
    assert widget.view.alt()
    text = page(widget, b"")
    (values,) = re.findall('<script type="application/json" id="values">(.*)</script>', text)
    assert "<" not in values
    return json.loads(values, parse_constant=pytest.fail)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(("where", "value", "shown"), CASES)
def test_a_model_with_an_odd_weight_is_shown_or_refused(folder, kind, where, value, shown):
    def make():
        page_of(getattr(qk.widgets, kind)(*odd(folder, where, value), "def f(a):"))

    if shown is None:  # it depends on how large the activations are
        with suppress(InputError):
            make()
    elif kind in shown:
        make()
    else:
        with pytest.raises(InputError, match=r"NaN|not finite"):
            make()


@pytest.mark.parametrize(("where", "value", "shown"), CASES)
def test_every_interpret_function_takes_an_odd_model(folder, where, value, shown):
    model, _ = odd(folder, where, value)
    for name, arguments in sound_calls.insights(model).items():
        with suppress(QwenkitError):
            getattr(qk.interpret, name)(**arguments)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("prompt", [
    "a",
    "\x00\x1b[0m\u05e9\u05dc \u202e $\\frac{a}{b}$ $ \r <!--<script>\u0301\u2028\ufeff\u4e2d",
])  # fmt: skip
def test_odd_texts_are_shown(toy, kind, prompt):
    widget = getattr(qk.widgets, kind)(*toy, prompt)
    page_of(widget)
    widget.snapshot().canvas.draw()


@pytest.mark.parametrize("values", [
    [LARGE, -LARGE, 1.0], [LARGE, NAN, INF], [1e-45, -1e-45], [], [NAN], [0.0], [1e30, 1e30],
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_histograms_of_any_values_are_finite(values, dtype):
    found = histogram(torch.tensor(values, dtype=dtype))
    assert np.isfinite([found.edge, found.mean, found.std]).all()
    assert sum(found.counts) + found.not_finite == len(values)


def test_a_tensor_of_large_values_is_drawn(folder, tmp_path):
    model, tokenizer = odd(folder, DOWN, LARGE)
    qk.save_pretrained(model, tmp_path / "large", tokenizer)
    browser, name = CheckpointBrowser(tmp_path / "large"), f"model.{DOWN}.weight"
    browser.choose(asked=[name], selected=name)
    found = page_of(browser)["histograms"][name]
    assert found["edge"] == pytest.approx(LARGE, rel=0.01)


@pytest.mark.parametrize("where", ["absent/page.html", "folder", "a\x00b"])
def test_a_page_that_cannot_be_written_is_refused_and_leaves_nothing(toy, tmp_path, where):
    (tmp_path / "folder").mkdir()
    widget = qk.widgets.GQAExplorer()
    with pytest.raises(InputError, match="the page cannot be written to"):
        widget.to_html(tmp_path / where)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_what_cannot_be_drawn_is_refused_before_it_is_computed(toy):
    config = qk.QwenConfig.from_file("data/tiny-coder")
    for make, words in (
        (lambda: qk.widgets.LayerInspector(*toy, "x = 1\n" * 600), "takes at most 512"),
        (lambda: qk.widgets.AttentionExplorer(*toy, "x = 1\n" * 6000), "takes at most 7,9"),
        (lambda: qk.widgets.RopeExplorer(theta=1e-300), "theta is 1e-300"),
        (lambda: qk.widgets.RopeExplorer(head_dim=10**6), "head_dim is 1000000"),
        (lambda: qk.widgets.GQAExplorer(qk.QwenConfig(8, 2000, 8, 1, 1000, 1)), "heads is 1000"),
        (lambda: qk.widgets.GenerationStepper(*toy, "a", 10**12), "fewer max_new_tokens"),
        (lambda: next(qk.generate(toy[0], [1], 10**11)), "fewer max_new_tokens"),
        (lambda: qk.beam_search(toy[0], [1], num_beams=10**12), "fewer max_new_tokens"),
        (lambda: qk.beam_search(toy[0], [1], length_penalty=-2000), "from -40 to 40"),
        (lambda: next(qk.generate(toy[0], [1], temperature=10**400)), "temperature is 1000"),
        (lambda: next(qk.generate(toy[0], [1], repetition_penalty=1e-45)), "closer to 1"),
    ):
        with pytest.raises(QwenkitError, match=words):
            make()
    assert config.num_hidden_layers


@pytest.mark.filterwarnings("ignore:Data has no positive values")
@pytest.mark.parametrize("values", [LARGE, 0.0])
def test_every_plot_takes_extreme_values(values):
    many = np.full((3, 4), values, np.float32)
    many[:, 2] *= values and -1e-30  # a small one of the other sign
    maps, plots = many / 300, qk.plot  # matplotlib multiplies a map by its 256 colors
    calls = (
        (plots.value_histograms, {"a": many}), (plots.value_histograms_alt, {"a": many}),
        (plots.outlier_channels, {"a": many}), (plots.outlier_channels_alt, {"a": many}),
        (plots.qk_distance, many[0]), (plots.qk_distance_alt, many),
        (plots.residual_norms, many), (plots.residual_norms_alt, many),
        (plots.lora_spectra, many, many), (plots.lora_spectra_alt, many, many),
        (plots.kv_repetition, many[None], 2), (plots.rope_tables, maps, maps),
        (plots.attention_heads, maps[None, :, :3]), (plots.attention, maps, list("abcd")),
        (plots.rope_pair, many[0, :2], 0.5),
        (plots.training_curve, {"step": [1], "loss": [values]}),
        (plots.sampling, {"a": many[0]}, sound_calls.names),
    )  # fmt: skip
    for function, *arguments in calls:
        with suppress(QwenkitError):
            found = function(*arguments)
            if not isinstance(found, str) and values:
                plt.gcf().canvas.draw()
        plt.close("all")


def test_names_are_text_in_figures():
    names = ["$\\frac$", "a\nb\x07\u05e9", "", "_x", "\ud83d"]
    config = qk.QwenConfig.from_file("data/tiny-coder")
    qk.plot.value_histograms(dict.fromkeys(names, (1.0, 2.0))).canvas.draw()
    qk.plot.cache_growth(dict.fromkeys(names, config)).figure.canvas.draw()
    ax = None
    for name in names:
        ax = qk.plot.qk_distance([1.0, 2], name=name, ax=ax)
        assert "\n" not in drawable(name)
        assert label(name)
    ax.figure.canvas.draw()
    assert label("\U0001f600" * 9) == "U+1F600U+1F600U+1F600…"
    assert len(drawable("\u4e2d" * 60)) <= 60
    plt.close("all")
