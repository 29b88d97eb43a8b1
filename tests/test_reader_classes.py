"""The classes a reader writes in notebook 09: they load a checkpoint and equal the package."""

import ast
import os
import textwrap
from pathlib import Path

import pytest
import torch
from notebook_cells import FOLDER, code_cells, read, tags
from test_real import why_not
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED

NOTEBOOK = FOLDER / "09_whole_model.ipynb"
CLASSES = {"RMSNorm", "Attention", "MLP", "DecoderLayer", "QwenModel", "QwenForCausalLM"}
CODE = Path(textwrap.__file__).read_text(encoding="utf-8")[:600]


def defines(node):
    """Tell whether a statement defines something and needs nothing but other definitions."""
    if isinstance(node, ast.FunctionDef):
        return all(isinstance(default, ast.Constant) for default in node.args.defaults)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)


@pytest.fixture(scope="module")
def written():
    """Return name -> what the notebook's cells define; the rest of them is not run."""
    found = {"__name__": "notebook_09"}
    for cell in code_cells(read(NOTEBOOK)):
        if not any(tag.startswith("exercise") for tag in tags(cell)):
            nodes = [node for node in ast.parse(cell.source).body if defines(node)]
            exec(compile(ast.Module(nodes, type_ignores=[]), str(NOTEBOOK), "exec"), found)
    return found


def test_every_class_is_the_readers_own(written):
    assert {name: written[name].__module__ for name in CLASSES} == dict.fromkeys(
        CLASSES, "notebook_09"
    )
    assert all(kind.__mro__[1] is torch.nn.Module for kind in map(written.get, CLASSES))


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


def test_tiny_coder(written):
    assert off(written["QwenForCausalLM"], EMBEDDED) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_a_toy_with_large_biases_tied_and_untied(written, tied, tmp_path):
    folder = write_toy_checkpoint(tmp_path, tied=tied)
    ids = torch.randint(300, (2, 40))
    assert off(written["QwenForCausalLM"], folder, ids) <= 1e-5


def test_a_norm_that_was_not_loaded_is_seen(written):
    width = qk.Checkpoint(EMBEDDED).config.hidden_size
    ones = {"model.layers.0.input_layernorm.weight": torch.ones(width)}
    assert off(written["QwenForCausalLM"], EMBEDDED, **ones) > 1e-3


@pytest.mark.real
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_real_model(written):
    folder = Path(os.environ["QWENKIT_MODEL"]).expanduser()
    assert off(written["QwenForCausalLM"], folder) <= 1e-5
