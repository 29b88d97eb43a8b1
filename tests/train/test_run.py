"""A whole training in a folder: what it leaves there, and that no way of ending it loses anything.

The runs that are killed, interrupted or kept from writing are children of one other process
(forks.py); they are resumed here, and must end as a run that nobody disturbed.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import small
import torch
from fixtures_toy import ROOT
from small import Record, assert_same_run, content, rows_of, small_trainer, write_recipe

import qwenkit as qk
from qwenkit.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MemoryForecastError,
    SourceError,
    TokenizerError,
    TrainingError,
)
from qwenkit.fast import FastLinear, swap
from qwenkit.pretrained import compare
from qwenkit.train import run as run_file
from qwenkit.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"steps": 6, "save_every": 2, "evaluate_every": 3, "log_every": 2, "patience": 9}
LEFT = {"checkpoints", "metrics.csv", "model", "recipe.toml", "tokenizer"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TAKEN = "sets {}; that comes from the text"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), **SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(recipe[0], out, text=recipe[1])
    return out


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def follow(recipe, out):
    """Train in `out`, or in another folder, by the recipe."""
    return lambda folder=out, **options: train(recipe[0], folder, text=recipe[1], **options)


@pytest.fixture
def copy(whole, out):
    """Put a copy of the undisturbed run into `out`; return its content."""
    return content(shutil.copytree(whole, out))


def steps_in(out):
    return small.steps_in(out / "checkpoints")


def test_a_training_leaves_all_that_is_needed(whole, recipe):
    assert {path.name for path in whole.iterdir()} == LEFT
    assert (whole / "recipe.toml").read_bytes() == recipe[0].read_bytes()
    assert steps_in(whole) == [4, 6]
    rows = rows_of(whole / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "3", "4", "6"]
    model, tokenizer = qk.load_pretrained(whole / "model", dtype="float32")
    best = min(float(row["evaluation_loss"]) for row in rows if row["evaluation_loss"])
    assert small.held_out_loss(model).loss == pytest.approx(best, abs=1e-4)
    assert tokenizer.num_tokens == model.config.vocab_size == small.tokenizer().num_tokens
    end = tokenizer.special["<|endoftext|>"]
    assert model.stop_ids == (end, tokenizer.special["<|im_end|>"])
    assert model.config.pad_token_id == model.config.bos_token_id == end


def test_the_same_recipe_gives_the_same_bits_in_any_thread(tmp_path, out, whole, follow):
    with ThreadPoolExecutor(1) as pool:  # which gets no signals
        pool.submit(follow, tmp_path / "thread").result()
    assert_same_run(tmp_path / "thread", whole)
    torch.manual_seed(123)
    trainer = follow(device="cpu")
    assert_same_run(out, whole)
    assert (trainer.step, trainer.stopping, trainer.interrupted) == (6, None, False)
    weights = out / "checkpoints" / "step-000006" / "model.safetensors"
    *found, last = weights.read_bytes()
    weights.write_bytes(bytes([*found, last ^ 1]))  # a single bit makes another run
    with pytest.raises(AssertionError, match=r"step-000006/model\.safetensors"):
        assert_same_run(out, whole)


def test_an_accelerated_model_is_trained_and_resumed_as_well(out, whole, follow, monkeypatch):
    monkeypatch.setattr(run_file, "accelerate", swap)  # the CPU leaves small models as they are
    model = follow().model
    assert isinstance(model.model.layers[0].mlp.up_proj, FastLinear)
    plain, _ = qk.load_pretrained(whole / "model", dtype="float32")
    for name, weight in qk.load_model(out / "model", dtype="float32").named_parameters():
        torch.testing.assert_close(weight, plain.get_parameter(name), atol=1e-3, rtol=1e-3)
    undisturbed = shutil.copytree(out, out.parent / "undisturbed")
    shutil.rmtree(out / "checkpoints" / "step-000006")
    assert isinstance(follow(resume=True).model.model.layers[0].mlp.up_proj, FastLinear)
    assert steps_in(out) == [4, 6]
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize("autocast", ["auto", "float32", "bfloat16"])
def test_a_device_is_tried_in_the_dtype_of_products_and_a_wrong_one_left_for_the_cpu(
    tmp_path, out, monkeypatch, autocast
):
    tried = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    recipe, text = write_recipe(tmp_path, steps=1, warmup_steps=0, autocast=autocast)
    with mock.patch.object(torch, "__version__", "2.8.0"):
        with pytest.warns(UserWarning, match=r"torch 2\.8 on MPS.*Using the CPU") as said:
            trainer = train(recipe, tmp_path / "first", text=text)
    assert (trainer.model.device.type, said[0].filename) == ("cpu", __file__)
    monkeypatch.setattr(compare, "known_problem", lambda device: None)
    monkeypatch.setattr(compare, "disagreement", lambda *given: tried.append(given) or "wrong")
    with pytest.warns(UserWarning, match=r"wrong\. Using the CPU"):
        train(recipe, out, text=text)
    products = "float32" if autocast == "auto" else autocast  # on MPS
    assert tried == [(torch.device("mps"), getattr(torch, products))]


def test_the_recipe_may_name_the_text_and_hold_nothing_out(tmp_path, out):
    data = {"text": str(tmp_path / "texts"), "held_out": []}
    recipe, texts = write_recipe(tmp_path, data=data, steps=3, dtype="bfloat16")
    trainer = train(recipe, out)
    assert trainer.evaluate is None
    assert len(trainer.batches.documents) == len(list(texts.iterdir()))
    checkpoint = qk.Checkpoint(out / "model")
    assert checkpoint.dtype == torch.bfloat16
    last = {name: p.bfloat16() for name, p in trainer.model.state_dict().items()}
    assert all(value.equal(last[name]) for name, value in checkpoint.load().items())


def test_a_tilde_is_home_and_a_recipe_in_the_trainings_own_folder_stays(tmp_path, out, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_recipe(tmp_path, steps=3)
    out.mkdir()
    (tmp_path / "recipe.toml").rename(out / "recipe.toml")
    before = (out / "recipe.toml").read_bytes()
    train("~/out/recipe.toml", "~/out", text="~/texts")
    assert {path.name for path in out.iterdir()} == LEFT
    assert (out / "recipe.toml").read_bytes() == before


def test_patience_ends_the_run_and_a_resumed_one_at_once(tmp_path, out):
    settings = {"steps": 40, "evaluate_every": 1, "patience": 2, "warmup_steps": 0}
    recipe, texts = write_recipe(tmp_path, learning_rate=1.0, **settings)
    trainer = train(recipe, out, text=texts)
    assert 2 < trainer.step < 40
    assert "in 2 evaluations" in trainer.stopping
    assert (trainer.interrupted, steps_in(out)) == (False, [trainer.step])
    again = train(recipe, out, text=texts, resume=True)
    assert (again.step, again.stopping) == (trainer.step, trainer.stopping)


def test_resuming_a_finished_training_and_beginning_it_again_change_nothing(copy, out, follow):
    assert follow(resume=True).step == 6
    assert content(out) == copy
    with pytest.raises(CheckpointError, match="out holds a training; continue it with --resume"):
        follow()
    assert content(out) == copy
    shutil.rmtree(out / "tokenizer")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        follow(resume=True)


@pytest.mark.parametrize(("changes", "difference"), [
    ({"clip": 0.5}, "clip of the settings was 1.0 and is 0.5"), ({}, "sha256 of the text was '"),
    ({"model": {"num_hidden_layers": 1}}, "the model's config differs"),
    ({"data": {"fim": 0.0}}, "mix of the text was {'fim': 0.25"),
])  # fmt: skip
def test_resuming_with_another_recipe_is_refused(tmp_path, copy, out, changes, difference):
    recipe, texts = write_recipe(tmp_path / "other", **{**SETTINGS, **changes})
    if not changes:
        (texts / "more.py").write_text("x = 1\n")
    with pytest.raises(TrainingError, match=re.escape(difference)):
        train(recipe, out, text=texts, resume=True)
    assert content(out) == copy


def test_what_cannot_be_followed_is_refused_before_anything_is_written(tmp_path, out, recipe):
    path, texts = recipe
    other, _ = write_recipe(tmp_path / "small", data={"vocab_size": 100})
    for given, options, error, message in (
        (path, {}, SourceError, "no text to train on"),
        (path, {"text": tmp_path / "absent"}, SourceError, "is not a folder"),
        (tmp_path / "absent.toml", {"text": texts}, ConfigError, r"absent\.toml cannot be read"),
        (other, {"text": texts}, ConfigError, "vocab_size is 100"),
        (path, {"text": texts, "resume": True}, CheckpointError,
         "holds no checkpoint to resume; begin without"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            train(given, out, **options)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(CheckpointError, match=r"nothing was saved to .*out.tokenizer \(Not a dir"):
        train(path, out, text=texts)
    assert out.read_text() == "mine"


@pytest.fixture
def further(tmp_path):
    """A recipe without a model, and its texts."""
    path, texts = write_recipe(tmp_path / "further", **SETTINGS)
    path.write_text(re.sub(r"\[model\].*(?=\[data\])", "", path.read_text(), flags=re.DOTALL))
    return path, texts


def test_a_training_may_start_from_a_model_with_its_tokenizer(tmp_path, out, whole, further):
    recipe, texts = further
    slow = tmp_path / "slow.toml"
    slow.write_text(recipe.read_text().replace("learning_rate = 0.01", "learning_rate = 1e-9"))
    start = whole / "model"
    train(slow, out, text=texts, start=start)
    assert {path.name for path in out.iterdir()} == {*LEFT, "config.json"}
    first, last = (qk.load_model(one, dtype="float32") for one in (start, out / "model"))
    for name, weight in first.named_parameters():
        torch.testing.assert_close(weight, last.get_parameter(name), atol=1e-6, rtol=0)
    for folder in (out / "tokenizer", out / "model"):
        assert (folder / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    train(recipe, tmp_path / "again", text=texts, start=start)
    rows = [rows_of(one / "metrics.csv")[-1] for one in (tmp_path / "again", whole)]
    assert float(rows[0]["loss"]) < float(rows[1]["loss"])


def test_a_training_that_started_from_a_model_goes_on_without_it(tmp_path, out, whole, further):
    start = shutil.copytree(whole / "model", tmp_path / "start")
    train(further[0], out, text=further[1], start=start)
    undisturbed = shutil.copytree(out, tmp_path / "undisturbed")
    shutil.rmtree(out / "checkpoints" / "step-000006")
    shutil.rmtree(start)
    train(further[0], out, text=further[1], resume=True)
    assert steps_in(out) == [4, 6]
    assert_same_run(out, undisturbed, unlike=None)


def test_a_start_and_a_model_in_the_recipe_exclude_each_other(tmp_path, out, recipe, further):
    given = {"text": recipe[1]}
    for path, options, error, message in (
        (recipe[0], {"start": tmp_path}, ConfigError, "both say what to begin with; leave out one"),
        (further[0], {}, ConfigError, "has no .model.; add that table, or name a model to start"),
        (further[0], {"start": tmp_path / "none"}, SourceError, "none"),
    ):
        with pytest.raises(error, match=message):
            train(path, out, **given, **options)
    assert not out.exists()


def test_a_start_for_a_training_that_is_resumed_is_refused(out, copy, follow, whole):
    with pytest.raises(InputError, match="has its weights already; leave start out"):
        follow(resume=True, start=whole / "model")
    assert content(out) == copy


@pytest.mark.parametrize(("name", "message"), [
    ("vocab_size", TAKEN), ("bos_token_id", TAKEN), ("eos_token_id", TAKEN), ("model_type", TAKEN),
    ("num_key_value_heads", "num_attention_heads is 4; it must be div"),
])  # fmt: skip
def test_a_recipe_of_a_model_that_cannot_be_is_refused(tmp_path, out, name, message):
    recipe, texts = write_recipe(tmp_path, model={name: 3})
    with pytest.raises(ConfigError, match=rf"\[model\].* {message.format(name)}"):
        train(recipe, out, text=texts)


@pytest.mark.parametrize(("table", "name"), [
    ("model", "hidden_size"), ("model", "intermediate_size"), ("data", "context"),
])  # fmt: skip
def test_a_training_that_memory_cannot_hold_is_refused(tmp_path, out, table, name):
    recipe, texts = write_recipe(tmp_path, **{table: {name: 4 * 10**9}})
    with pytest.raises(MemoryForecastError, match=r"needs at least .* [TE]?B .* is free; make"):
        train(recipe, out, text=texts)


def test_a_lack_of_memory_in_the_middle_is_named(tmp_path, out, monkeypatch):
    def step(trainer):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(run_file.Trainer, "train_step", step)
    recipe, texts = write_recipe(tmp_path)
    with pytest.raises(MemoryForecastError, match=r"more memory than is free.*batch_size smaller"):
        train(recipe, out, text=texts)


def signalled(*numbers):
    """Return a trainer and its record after signals to this process in the third step."""
    before = [signal.getsignal(number) for number in SIGNALS]
    work = small.At(3, lambda trainer: [signal.raise_signal(number) for number in numbers])
    trainer = small_trainer(record := Record(), work)
    try:
        with run_file._stop_on_signals(trainer):
            assert signal.getsignal(signal.SIGINT) != before[0]
            trainer.run()
    finally:
        assert [signal.getsignal(number) for number in SIGNALS] == before
    return trainer, record


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_after_the_step_and_a_second_ctrl_c_at_once(number):
    trainer, record = signalled(number)
    assert (trainer.step, len(record.rows), trainer.interrupted) == (3, 3, True)
    assert trainer.stopping == f"stopped by {number.name}"
    with pytest.raises(KeyboardInterrupt):
        signalled(number, signal.SIGINT)


@pytest.fixture(scope="module")
def forks(tmp_path_factory, recipe):
    """Return the folder of all disturbed runs, how each ended, and what they printed."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    base = tmp_path_factory.mktemp("forks")
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "tests" / "train" / "forks.py"), *map(str, recipe), base]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return base, json.loads(last), said


def test_a_killed_save_leaves_whole_checkpoints_only(forks):
    running, steps, sound, left, cleared = zip(*forks[1]["saves"], strict=True)
    assert running == (True,) * (len(running) - 1) + (False,)
    assert len(running) > 12
    states = [step for step, _ in itertools.groupby(steps)]
    assert states == [[1, 2], [1, 2, 3], [2, 3]]  # each occurs, and never an earlier one again
    assert any(left)  # else `cleared` proves nothing
    assert all((*sound, *cleared))


def test_a_killed_training_goes_on_as_if_it_had_not_been(forks, whole, follow):
    base, found, _ = forks
    assert len(found["killed"]) >= 10
    assert set(found["killed"].values()) == {-signal.SIGKILL}
    names = {"config.json", "model.safetensors", "optimizer.safetensors", "state.json"}
    begun = set()
    for out in (base / name for name in found["killed"]):
        there = steps_in(out)
        begun.add(max(there, default=0))
        for _, folder in qk.train.checkpoints(out / "checkpoints"):
            assert {path.name for path in folder.iterdir()} == names, folder
        follow(out, resume=bool(there))
        if there == [2, 4, 6]:  # killed before the oldest was removed, with nothing left to save
            shutil.rmtree(out / "checkpoints" / "step-000002")
        assert_same_run(out, whole)
    assert begun >= {0, 2, 4}


@pytest.mark.parametrize(("name", "code", "printed", "steps"), [
    ("SIGINT", 0, "stopped by SIGINT True 4", [2, 4]),
    ("SIGTERM", 0, "stopped by SIGTERM True 4", [2, 4]),
    ("twice", 1, "KeyboardInterrupt: ", [2]),  # at once: the last checkpoint is kept
    ("limit", 1, r"CheckpointError: no checkpoint could be written to {} \(.*File too large", [2]),
])  # fmt: skip
def test_an_interrupted_training_goes_on(forks, whole, follow, name, code, printed, steps):
    base, found, said = forks
    folder = base / name / "checkpoints"
    assert found[name] == code
    assert sum(bool(re.match(printed.format(folder), line)) for line in said) == 1
    assert steps_in(base / name) == steps
    assert len(list(folder.iterdir())) == len(steps)
    follow(base / name, resume=True)
    assert_same_run(base / name, whole)


def test_a_training_on_a_full_disk_fails_clearly_and_goes_on_later(tmp_path, whole, follow):
    """The disk has a megabyte, too little for three checkpoints, and here still less."""
    had, copy = [], tmp_path / "copy"
    with small.small_disk(tmp_path / "disk") as disk:
        for filled in (0, 300_000, 600_000, 850_000, 1_030_000):
            (disk / "filler").write_bytes(bytes(filled))
            with pytest.raises(CheckpointError, match=r"No space left on device|os error 28"):
                follow(disk / "out")
            (disk / "filler").unlink()
            shutil.move(disk / "out", copy)
            had.append(steps_in(copy))
            follow(copy, resume=bool(had[-1]))
            assert_same_run(copy, whole)
            shutil.rmtree(copy)
    assert (had[0], had[-1]) == ([2, 4], [])
