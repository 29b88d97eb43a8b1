"""Which models an exported page carries, and with what weights."""

import json
import re
import zlib

import pytest
import torch
from safetensors.torch import load

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.pretrained import EMBEDDED
from qwenkit.widgets import _carried
from qwenkit.widgets._carried import carried

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def add(a, b):\n"


@pytest.fixture
def tiny():
    return qk.load_pretrained(EMBEDDED, dtype="float32", device="cpu")


def carry(model, tokenizer):
    return carried(model, tokenizer, tokenizer(PROMPT))


def test_the_weights_are_those_of_now_in_bfloat16_where_that_loses_nothing(tiny):
    model, tokenizer = tiny
    with torch.no_grad():
        model.model.norm.weight[0] = 1 / 3  # as a reader edits it
    found = carry(model, tokenizer)
    tensors = load(zlib.decompress(found["weights"]))
    wanted = model.state_dict()
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor.float(), wanted[name])
        exact = torch.float32 if name == "model.norm.weight" else torch.bfloat16
        assert tensor.dtype == exact
    assert found["config"]["hidden_size"] == 256
    assert len(found["tokenizer"]["model"]["vocab"]) > 1000


def hooked(model):
    model.model.layers[0].register_forward_hook(lambda *_: None)  # changes nothing
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: 2 * out)


REFUSED = {
    "bfloat16": (lambda model: model.bfloat16(), "the model is in bfloat16, not in float32"),
    "LoRA": (lambda model: qk.add_lora(model, rank=2), "it has other weights than its config"),
    "a hook": (hooked, "it computes otherwise than its config and weights tell"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_the_engine_would_not_compute_alike_is_refused(tiny, name):
    change, words = REFUSED[name]
    model, tokenizer = tiny
    change(model)
    with pytest.raises(InputError, match=f"cannot carry its model: {words}"):
        carry(model, tokenizer)


def test_a_large_model_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(_carried, "MOST_BYTES", 9_000_000)
    with pytest.raises(InputError, match=r"take 9,\d{3},\d{3} bytes, more than 9,000,000"):
        carry(*tiny)


def test_a_page_of_a_small_model_is_written_whole_or_not_at_all(tiny, tmp_path):
    widget = qk.widgets.SamplingExplorer(*tiny, PROMPT)
    page = widget.to_html(tmp_path / "page.html", live=True)
    text = page.read_text(encoding="utf-8")
    values = json.loads(re.search(r'id="values">(.*?)</script>', text)[1])
    assert values["prompt"] == PROMPT
    assert values["engine"].keys() == {"config", "tokenizer", "weights", "settings"}
    assert page.stat().st_size < 16_000_000
    assert "engine" not in json.dumps(widget.exported(), default=bytes.hex)
    tiny[0].double()
    with pytest.raises(InputError, match="float64, not in float32"):
        widget.to_html(tmp_path / "other.html", live=True)
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
