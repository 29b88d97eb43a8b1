"""`make tiny-coder`: two parts, each resumed where it was stopped, and the mean of their models."""

import subprocess
import sys
from pathlib import Path

import torch
from small import TRAINING, write_recipe

import qwenkit as qk
from qwenkit.train import average

ROOT = Path(__file__).parents[2]
STEPS = TRAINING["steps"]


def make(folder):
    """Run it with small recipes; return its status."""
    own = f"OUT={folder / 'out'}", f"RECIPES={folder}", f"BIN={Path(sys.executable).parent}", "LAB="
    return subprocess.run(["make", "tiny-coder", *own], cwd=ROOT, capture_output=True).returncode


def recipes(folder):
    """Write two of them; the first makes a model, the second begins with it."""
    for part in ("-2", ""):
        recipe = write_recipe(folder, data={"text": str(folder / "texts")}, save_every=4)[0]
        text = recipe.read_text()
        if part:
            begun = text[text.index("[data]") :].replace("vocab_size = 300\n", "")
            (folder / f"recipe{part}.toml").write_text(begun.replace("seed = 5", "seed = 6"))


def loaded(folder):
    return qk.load_pretrained(folder, device="cpu", dtype="float32")[0]


def test_the_parts_run_in_turn_and_a_stopped_one_goes_on(tmp_path):
    recipes(tmp_path)
    out, second = tmp_path / "out", tmp_path / "recipe-2.toml"
    whole = second.read_text()
    second.write_text(whole.replace("seed = 6", "seed = 'six'"))
    assert make(tmp_path) != 0  # the second part cannot begin, and nothing after it is run
    assert not (out / "model").exists()
    first = (out / "first" / "model" / "model.safetensors").stat().st_mtime_ns
    second.write_text(whole)
    assert make(tmp_path) == 0
    assert (out / "first" / "model" / "model.safetensors").stat().st_mtime_ns == first
    mean = average([loaded(out / "first/model"), loaded(out / "second/model")], [0.3, 0.7])
    want, found = mean.bfloat16().float().state_dict(), loaded(out / "model").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in want.items())

    (out / "second" / "done").unlink()  # as if it had been stopped at its newest checkpoint
    before = {name: tensor.clone() for name, tensor in found.items()}
    assert make(tmp_path) == 0
    again = loaded(out / "model").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())
