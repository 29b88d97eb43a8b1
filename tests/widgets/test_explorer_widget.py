"""ModelExplorer: what it sends, what it refuses, and that a notebook never stores the model."""

import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_toy import published, toy_of
from nbformat.v4 import new_code_cell, new_notebook
from safetensors.torch import load

import qwenkit as qk
from qwenkit.config import LinearScaling
from qwenkit.errors import InputError
from qwenkit.widgets import ModelExplorer
from qwenkit.widgets._base import source
from qwenkit.widgets.explorer import EXAMPLES, MOST_READ, PROMPT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def widget():
    return ModelExplorer()


def test_the_weights_travel_unchanged_in_16_bits(widget):
    sent = load(zlib.decompress(widget.files["weights"]))
    model, _ = qk.load_pretrained(dtype="float32", device="cpu")
    assert sent.keys() == model.config.tensor_shapes().keys()
    held = model.state_dict()
    for name, value in sent.items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value.float(), held[name])


def test_a_model_that_was_edited_is_sent_as_it_is(toy_in):
    model, tokenizer = toy_in("float32")
    widget = ModelExplorer(model, tokenizer, "x = 1")
    sent = load(zlib.decompress(widget.files["weights"]))
    for name, value in model.state_dict().items():
        assert torch.equal(sent[name].float(), value)
    assert widget.files["config"]["num_hidden_layers"] == model.config.num_hidden_layers
    assert widget.data["tokens"] == model.num_tokens


def test_the_next_tokens_are_the_models_and_those_of_an_ablated_one(widget):
    view = widget.view
    view.choose(prompt=PROMPT, off=[])
    ids = view.tokenizer(PROMPT)
    expected = view.model(ids)[0, -1].softmax(-1).topk(8)
    names, parts = zip(*view.next_tokens(), strict=True)
    assert list(names) == view.tokenizer.token_strings(expected.indices)
    assert parts == pytest.approx(expected.values.tolist(), abs=5e-6)
    view.choose(off=[[3, 2], [3, 5], [0, None]])
    heads = qk.interpret.ablate_heads([(3, 2), (3, 5)])
    trace = qk.Trace(keep=(), edits={**heads, "layers.0.mlp.out": torch.zeros_like})
    expected = view.model(ids, trace=trace)[0, -1].softmax(-1).topk(8)
    _, parts = zip(*view.next_tokens(), strict=True)
    assert parts == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert "3 parts off" in view.title()
    view.choose(off=[])


@pytest.mark.parametrize("prompt", ["", "😀\n<b>", "x = 1\n" * 300])
def test_any_text_is_a_prompt(widget, prompt):
    widget.choose(prompt=prompt)
    found = widget.view.next_tokens()
    assert len(found) == (8 if prompt else 0)
    assert widget.view.ids().shape[1] <= MOST_READ
    assert widget.view.alt()
    widget.snapshot()
    widget.choose(prompt=PROMPT)


def test_the_opening_prompt_is_completed_and_examples_are_texts(widget):
    assert widget.state["prompt"] == PROMPT == EXAMPLES["Is a number even?"]
    model, tokenizer = widget.view.model, widget.view.tokenizer
    assert qk.complete(model, tokenizer, PROMPT, max_new_tokens=12) == " not n % 2\n"
    assert "·n " in widget.view.alt()


@pytest.mark.parametrize(("arguments", "words"), [
    ({"prompt": 3}, "prompt is 3; it must be a string"),
    ({"model": 3}, "model is a int; it must be a folder"),
    ({"tokenizer": 3}, "without a model"),
])  # fmt: skip
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        ModelExplorer(**arguments)


def test_models_that_a_page_cannot_run_are_refused(toy_in):
    model, tokenizer = toy_in("float32")
    with pytest.raises(InputError, match="tokenizer is a NoneType; a model needs its Tokenizer"):
        ModelExplorer(model)
    for config, words in (
        (published("0.5B"), r"494,032,768 parameters; .* takes at most 32,000,000"),
        (replace(model.config, rope_scaling=LinearScaling(2.0)), "has rope_scaling, which"),
    ):
        with torch.device("meta"):
            other = qk.QwenForCausalLM(config)
        with pytest.raises(InputError, match=words):
            ModelExplorer(other, tokenizer)


def test_a_model_with_adapters_is_refused_until_they_are_merged(tmp_path_factory):
    folder = toy_of(tmp_path_factory)
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="float32")
    qk.add_lora(model, rank=2)
    with pytest.raises(InputError, match="merge adapters"):
        ModelExplorer(model, tokenizer)


def test_a_model_that_computes_otherwise_than_the_page_would_is_refused(toy_in):
    model, tokenizer = toy_in("float32")
    hook = model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(InputError, match=r"otherwise than its config and weights tell \(a hook"):
        ModelExplorer(model, tokenizer)
    hook.remove()
    ModelExplorer(model, tokenizer)


def test_the_page_asks_for_the_files_and_no_trait_holds_them(widget, monkeypatch):
    sent = []
    monkeypatch.setattr(widget, "send", lambda *message, **more: sent.append((message, more)))
    widget._handle_custom_msg({"ask": "something else"}, [])
    assert sent == [(({"heard": "something else"},), {})]
    widget._handle_custom_msg({"ask": "1", "files": True}, [])
    (content,), more = sent[-1]
    buffers = more["buffers"]
    assert content["files"].keys() == {"config", "tokenizer"}
    json.dumps(content)
    assert len(buffers[0]) > 5_000_000
    assert len(json.dumps({name: widget.get_state()[name] for name in ("state", "data")})) < 5_000
    assert len(source("explorer")) < 400_000


def test_an_executed_notebook_does_not_hold_the_model(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    code = "import qwenkit as qk\nqk.widgets.ModelExplorer()"
    notebook = new_notebook(cells=[new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    kinds = [one["output_type"] for one in notebook.cells[0].outputs]
    assert "error" not in kinds
    assert "application/vnd.jupyter.widget-state+json" in notebook.metadata["widgets"]
    assert len(json.dumps(notebook)) < 2_000_000  # scripts and the picture; the weights have 7 MB


def test_the_snapshot_draws_the_bars(widget):
    figure = widget.snapshot()
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    assert widths == pytest.approx([part for _, part in widget.view.next_tokens()])
    figure.savefig(io.BytesIO())
    assert np.isfinite(widths).all()
