"""The classes of notebook 09's long exercise: they load a checkpoint and equal the package."""

import os
import textwrap
from pathlib import Path

import pytest
import torch
from notebook_cells import BLOCK, FOLDER, read, tagged
from test_real import why_not
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED

CODE = Path(textwrap.__file__).read_text(encoding="utf-8")[:600]


@pytest.fixture(scope="module")
def whole():
    """Return the class of the solution, on the package's functions: no reader has solved a part."""
    notebook = read(FOLDER / "09_whole_model.ipynb")
    solution = BLOCK.findall(notebook.cells[tagged(notebook, "solution")[3]].source)[-1]
    found = {"__name__": "notebook_09", "torch": torch, "nn": torch.nn}
    for name in qk.mine.PARTS:
        found[name] = getattr(qk.mine.stand_ins, name)
    exec(compile(solution, "notebook_09", "exec"), found)
    classes = [one for one in found.values() if getattr(one, "__module__", "") == "notebook_09"]
    assert {one.__mro__[1] for one in classes} == {torch.nn.Module}
    return found["Whole"]


@torch.no_grad()
def off(kind, folder, ids=None, **changed):
    """Return how far a class's logits are from the package's, divided by the largest."""
    theirs, tokenizer = qk.load_pretrained(folder, dtype="float32", device="cpu")
    ids = tokenizer(CODE) if ids is None else ids
    expected = theirs(ids)
    tensors = {name: one.float() for name, one in qk.Checkpoint(folder).load().items()}
    mine = kind(theirs.config)
    mine.load_state_dict({**tensors, **changed}, strict=True, assign=True)
    logits = mine(ids)
    assert logits.shape == expected.shape
    return float((logits - expected).abs().max() / expected.abs().max())


def test_tiny_coder(whole):
    assert off(whole, EMBEDDED) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_a_toy_with_large_biases_tied_and_untied(whole, tied, tmp_path):
    folder = write_toy_checkpoint(tmp_path, tied=tied)
    ids = torch.randint(300, (2, 40))
    assert off(whole, folder, ids) <= 1e-5


def test_a_norm_that_was_not_loaded_is_seen(whole):
    width = qk.Checkpoint(EMBEDDED).config.hidden_size
    ones = {"model.layers.0.input_layernorm.weight": torch.ones(width)}
    assert off(whole, EMBEDDED, **ones) > 1e-3


@pytest.mark.real
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_real_model(whole):
    folder = Path(os.environ["QWENKIT_MODEL"]).expanduser()
    assert off(whole, folder) <= 1e-5
