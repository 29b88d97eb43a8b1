"""A tiny training for tests: made-up Python texts, a model of two layers, and a recipe of both."""

import csv
import errno
import functools
import itertools
import json
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

import qwenkit as qk
from qwenkit.tokenizer import learn_merges, write_tokenizer
from qwenkit.train import Document, Mix

NAMES = ("width", "height", "depth", "total", "count", "price", "weight", "speed")
CONTEXT = 16
MODEL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
DATA = {
    "context": CONTEXT, "batch_size": 4, "vocab_size": 300, "held_out": ["held.py"], "fim": 0.25,
    "repeats": 0.1,
}  # fmt: skip
TRAINING = {"steps": 12, "learning_rate": 0.01, "warmup_steps": 2, "log_every": 3, "seed": 5}


TEXT = "def add_{0}({0}, {1}):\n    return {0} + {1}\n\n\ndef show_{1}({1}):\n    print({1})\n"
TEXTS = {f"{one}.py": TEXT.format(one, two) for one, two in itertools.pairwise(NAMES)}
HELD = {"held.py": TEXT.format("speed", "width")}
DOCUMENTS = [Document(name, text) for name, text in sorted(TEXTS.items())]
HELD_OUT = [Document(name, text) for name, text in HELD.items()]


@functools.cache
def tokenizer() -> qk.Tokenizer:
    """Return a tokenizer learned from the texts."""
    with tempfile.TemporaryDirectory() as folder:
        return write_tokenizer(folder, learn_merges(TEXTS.values(), DATA["vocab_size"]))


def small_model(seed: int = 0, **changes) -> qk.QwenForCausalLM:
    """Return an untrained model."""
    values = {"model_type": "qwen2", "vocab_size": tokenizer().num_tokens, **MODEL, **changes}
    model = qk.QwenForCausalLM(qk.QwenConfig.from_dict(values))
    qk.train.init_weights(model, seed)
    return model


def small_batches(**changes) -> qk.train.Batches:
    """Return the texts' batches, with examples of infilling and copying among them."""
    values = {"context": CONTEXT, "batch_size": 4, "seed": 5, "mix": Mix(0.25, 0.1), **changes}
    return qk.train.Batches(values.pop("documents", DOCUMENTS), tokenizer(), **values)


def small_trainer(*callbacks, model=None, batches=None, evaluate=None, **settings):
    """Return a trainer that has done no step."""
    given = model or small_model(), batches or small_batches()
    settings = qk.train.TrainingSettings(**{**TRAINING, **settings})
    return qk.train.Trainer(*given, settings, evaluate=evaluate, callbacks=callbacks)


def trained(*callbacks, **settings) -> qk.train.Trainer:
    """Return a trainer that has run."""
    trainer = small_trainer(*callbacks, **settings)
    trainer.run()
    return trainer


def held_out_loss(model: qk.QwenForCausalLM) -> qk.train.Evaluation:
    """Evaluate the text that is held out."""
    return qk.train.evaluate(model, tokenizer(), HELD_OUT, context=CONTEXT)["held.py"]


class Record(qk.train.Callback):
    """Keeps what each step gave, without the time it took; ends the run after step `until`."""

    def __init__(self, until: int = 0) -> None:
        self.until = until
        self.rows = []

    def on_step(self, trainer, metrics):
        row = (metrics.step, metrics.tokens, metrics.loss, metrics.learning_rate)
        self.rows.append((*row, metrics.gradient_norm, metrics.evaluation))
        if metrics.step == self.until:
            trainer.stopping = "the test asked for it"


def resumed(folder: Path, make, at: int):
    """Train in folder/whole, and in folder/parts with a stop; both must leave the same.

    `make(folder, record, again)` returns a trainer that keeps one checkpoint in its folder, and has
    the record as its first callback. Returned are the whole training's trainer and the last part's.
    """
    runs = []
    for name, until, again in (("whole", 0, False), ("parts", at, False), ("parts", 0, True)):
        torch.manual_seed(1 + again)  # another process has other random numbers
        runs.append(make(folder / name, Record(until), again=again))
        if again:
            assert qk.train.load_training(folder / name / "checkpoints", runs[-1]) == at
        runs[-1].run()
    whole, _, then = runs
    rows, before, after = (one.callbacks[0].rows for one in runs)
    assert before + after == rows
    assert len(before) == at
    assert same_weights(then.model, whole.model)
    assert_same_run(folder / "parts", folder / "whole", unlike=None)
    return whole, then


def assert_same_run(out: Path, whole: Path, unlike: str | None = "random_state") -> None:
    """Every file is the same to the last bit, but for the seconds that steps took.

    The random numbers of two processes are unlike, for a training takes none of them.
    """
    found, want = content(out), content(whole)
    assert found.keys() == want.keys()
    for name, pair in {name: (found[name], want[name]) for name in want}.items():
        if name == "metrics.csv":
            assert rows_of(out / name) == rows_of(whole / name)
        elif name.endswith("state.json"):
            states = [json.loads(one) for one in pair]
            for state in states:
                state["callbacks"].get("CsvLog", {"sums": [0] * 3})["sums"].pop(2)  # seconds
            assert states[0] == states[1]
        elif name.endswith(("optimizer.safetensors", "adapter_model.safetensors")):
            tensors, others = (load(one) for one in pair)
            assert tensors.keys() == others.keys()
            assert all(t.equal(others[n]) for n, t in tensors.items() if n != unlike)
        else:
            assert pair[0] == pair[1], name


class At(qk.train.Callback):
    """Does something after one step; None: after each."""

    def __init__(self, step, work) -> None:
        self.step, self.work = step, work

    def on_step(self, trainer, metrics):
        if self.step in (metrics.step, None):
            self.work(trainer)


def interrupt(*_, **__):
    """End a run with an error, as Ctrl-C does."""
    raise KeyboardInterrupt


def full(*args, **kwargs):
    """Fail as what writes to a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def same_weights(one, other) -> bool:
    """Tell whether every bit of two models' weights is the same."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics file, without the column that no two runs share."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row.pop("tokens_per_second")) > 0
    return rows


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder."""
    return [step for step, _ in qk.train.checkpoints(folder)]


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by its path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_recipe(folder: Path, *, model=(), data=(), **training) -> tuple[Path, Path]:
    """Write the texts and a recipe into a folder, and return the paths of recipe and texts."""
    texts = folder / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    for name, text in {**TEXTS, **HELD}.items():
        (texts / name).write_text(text, encoding="utf-8")
    recipe, lines = folder / "recipe.toml", ""
    tables = ("model", {**MODEL, **dict(model)}), ("data", {**DATA, **dict(data)})
    for table, values in (*tables, ("training", {**TRAINING, **training})):
        lines += f"[{table}]\n"
        lines += "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    recipe.write_text(lines, encoding="utf-8")
    return recipe, texts


@contextmanager
def small_disk(folder: Path):
    """Mount a disk of one megabyte at a folder; only an administrator of Linux can."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"NO REAL FULL DISK WAS TRIED: a disk cannot be mounted here ({error})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
