"""A whole training in a folder: what it leaves there, and that no way of ending it loses anything.

The runs that are killed, interrupted or kept from writing are children of one other process, which
forks them; they are resumed here, and must end as a run that nobody disturbed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch
from fixtures_toy import ROOT
from safetensors.torch import load
from small import (
    DATA,
    HELD_OUT,
    Record,
    content,
    rows_of,
    small_disk,
    small_trainer,
    tokenizer,
    write_recipe,
)

import qwenkit as qk
from qwenkit.errors import (
    CheckpointError,
    ConfigError,
    SourceError,
    TokenizerError,
    TrainingError,
)
from qwenkit.pretrained import compare
from qwenkit.train import checkpoints, evaluate, train
from qwenkit.train.run import _stop_on_signals as stop_on_signals

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"steps": 6, "save_every": 2, "evaluate_every": 3, "log_every": 2, "patience": 9}
LEFT = {"checkpoints", "metrics.csv", "model", "recipe.toml", "tokenizer"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), **SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(recipe[0], out, text=recipe[1])
    return out


def steps_in(out):
    return [step for step, _ in checkpoints(out / "checkpoints")]


def assert_same_run(out, whole):
    """Every file is the same to the last bit, but for the seconds that steps took."""
    found, want = content(out), content(whole)
    assert found.keys() == want.keys()
    assert rows_of(out / "metrics.csv") == rows_of(whole / "metrics.csv")
    for name in want:
        if name.endswith("state.json"):
            states = [json.loads(files[name]) for files in (found, want)]
            for state in states:
                state["callbacks"]["CsvLog"]["sums"].pop(2)  # seconds
            assert states[0] == states[1]
        elif name.endswith("optimizer.safetensors"):
            moments = [load(files[name]) for files in (found, want)]
            for tensors in moments:
                tensors.pop("random_state")  # each process has its own; a training takes nothing
            assert moments[0].keys() == moments[1].keys()
            assert all(value.equal(moments[1][moment]) for moment, value in moments[0].items())
        elif name != "metrics.csv":
            assert found[name] == want[name], name


def test_a_single_bit_makes_another_run(tmp_path, whole):
    """So that the tests below can fail."""
    shutil.copytree(whole, tmp_path / "out")
    assert_same_run(tmp_path / "out", whole)
    weights = tmp_path / "out" / "checkpoints" / "step-000006" / "model.safetensors"
    found = bytearray(weights.read_bytes())
    found[-1] ^= 1
    weights.write_bytes(found)
    with pytest.raises(AssertionError, match=r"step-000006/model\.safetensors"):
        assert_same_run(tmp_path / "out", whole)


# --- what a training leaves ---


def test_a_training_leaves_all_that_is_needed(whole, recipe):
    assert {path.name for path in whole.iterdir()} == LEFT
    assert (whole / "recipe.toml").read_bytes() == recipe[0].read_bytes()
    assert steps_in(whole) == [4, 6]
    rows = rows_of(whole / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "3", "4", "6"]
    model, words = qk.load_pretrained(whole / "model", dtype="float32")
    found = evaluate(model, words, HELD_OUT, context=DATA["context"])["held.py"]
    best = min(float(row["evaluation_loss"]) for row in rows if row["evaluation_loss"])
    assert found.loss == pytest.approx(best, abs=1e-4)
    assert words.num_tokens == model.config.vocab_size == tokenizer().num_tokens
    end = words.special["<|endoftext|>"]
    assert model.stop_ids == (end, words.special["<|im_end|>"])
    assert model.config.pad_token_id == model.config.bos_token_id == end


def test_the_same_recipe_gives_the_same_bits(tmp_path, whole, recipe):
    torch.manual_seed(123)
    trainer = train(recipe[0], tmp_path / "out", text=recipe[1], device="cpu")
    assert_same_run(tmp_path / "out", whole)
    assert (trainer.step, trainer.stopping, trainer.interrupted) == (6, None, False)


def test_a_device_with_wrong_numbers_is_left_for_the_cpu(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    with pytest.warns(UserWarning, match=r"torch 2\.8 on MPS.*Using the CPU") as said:
        trainer = train(recipe[0], tmp_path / "out", text=recipe[1])
    assert trainer.model.device.type == "cpu"
    assert said[0].filename == __file__


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_a_device_is_tried_in_the_dtype_of_the_products(tmp_path, monkeypatch, autocast):
    tried = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(compare, "known_problem", lambda device: None)
    monkeypatch.setattr(compare, "disagreement", lambda *given: tried.append(given) or "wrong")
    recipe, text = write_recipe(tmp_path, steps=1, warmup_steps=0, autocast=autocast)
    with pytest.warns(UserWarning, match=r"wrong\. Using the CPU"):
        train(recipe, tmp_path / "out", text=text)
    assert tried == [(torch.device("mps"), getattr(torch, autocast))]


def test_the_recipe_may_name_the_text_and_hold_nothing_out(tmp_path):
    texts = tmp_path / "texts"
    recipe, _ = write_recipe(
        tmp_path, data={"text": str(texts), "held_out": []}, steps=3, dtype="bfloat16"
    )
    trainer = train(recipe, tmp_path / "out")
    assert trainer.evaluate is None
    assert len(trainer.batches.documents) == len(list(texts.iterdir()))
    checkpoint = qk.Checkpoint(tmp_path / "out" / "model")
    assert checkpoint.dtype == torch.bfloat16
    last = {name: p.bfloat16() for name, p in trainer.model.state_dict().items()}
    assert all(value.equal(last[name]) for name, value in checkpoint.load().items())


def test_a_recipe_in_the_trainings_own_folder_is_left_there(tmp_path):
    (tmp_path / "out").mkdir()
    recipe, texts = write_recipe(tmp_path / "out", steps=3)
    before = recipe.read_bytes()
    train(recipe, tmp_path / "out", text=texts)
    assert recipe.read_bytes() == before


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_recipe(tmp_path, steps=3)
    train("~/recipe.toml", "~/out", text="~/texts")
    assert {path.name for path in (tmp_path / "out").iterdir()} == LEFT


def test_patience_ends_the_run_and_a_resumed_one_at_once(tmp_path):
    recipe, texts = write_recipe(
        tmp_path, steps=40, evaluate_every=1, patience=2, learning_rate=1.0, warmup_steps=0
    )
    trainer = train(recipe, tmp_path / "out", text=texts)
    assert 2 < trainer.step < 40
    assert "in 2 evaluations" in trainer.stopping
    assert not trainer.interrupted
    assert steps_in(tmp_path / "out") == [trainer.step]
    again = train(recipe, tmp_path / "out", text=texts, resume=True)
    assert (again.step, again.stopping) == (trainer.step, trainer.stopping)


def test_resuming_a_finished_training_changes_nothing(tmp_path, whole, recipe):
    shutil.copytree(whole, tmp_path / "out")
    before = content(tmp_path / "out")
    trainer = train(recipe[0], tmp_path / "out", text=recipe[1], resume=True)
    assert trainer.step == 6
    assert content(tmp_path / "out") == before


def test_a_training_in_another_thread_needs_no_signals(tmp_path, recipe, whole):
    errors = []

    def work():
        try:
            train(recipe[0], tmp_path / "out", text=recipe[1])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert_same_run(tmp_path / "out", whole)


# --- what is refused ---


def test_a_new_training_where_one_is_already_is_refused(tmp_path, whole, recipe):
    shutil.copytree(whole, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(
        CheckpointError, match="out holds a training; continue it with --resume, or"
    ):
        train(recipe[0], tmp_path / "out", text=recipe[1])
    assert content(tmp_path / "out") == before


def test_nothing_to_resume_is_refused(tmp_path, recipe):
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume; begin without"):
        train(recipe[0], tmp_path / "out", text=recipe[1], resume=True)
    assert not (tmp_path / "out").exists()


def changed(tmp_path, **changes):
    return write_recipe(tmp_path / "other", **{**SETTINGS, **changes})


def more_text(tmp_path):
    recipe, texts = changed(tmp_path)
    (texts / "more.py").write_text("x = 1\n")
    return recipe, texts


OTHERS = {
    "settings": (lambda to: changed(to, clip=0.5), "clip of the settings was 1.0 and is 0.5"),
    "model": (lambda to: changed(to, model={"num_hidden_layers": 1}), "the model's config differs"),
    "mix": (lambda to: changed(to, data={"fim": 0.0}), "mix of the text was {'fim': 0.25"),
    "text": (more_text, "sha256 of the text was '"),
}


@pytest.mark.parametrize(("make", "words"), OTHERS.values(), ids=OTHERS)
def test_resuming_with_another_recipe_is_refused(tmp_path, whole, make, words):
    shutil.copytree(whole, tmp_path / "out")
    before = content(tmp_path / "out")
    recipe, texts = make(tmp_path)
    with pytest.raises(TrainingError) as caught:
        train(recipe, tmp_path / "out", text=texts, resume=True)
    assert words in str(caught.value)
    assert content(tmp_path / "out") == before


def test_what_cannot_be_followed_is_refused_before_anything_is_written(tmp_path, recipe):
    path, texts = recipe
    out = tmp_path / "out"
    with pytest.raises(SourceError, match="no text to train on"):
        train(path, out)
    with pytest.raises(SourceError, match="is not a folder"):
        train(path, out, text=tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read"):
        train(tmp_path / "absent.toml", out, text=texts)
    other, _ = write_recipe(tmp_path / "small", data={"vocab_size": 100})
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        train(other, out, text=texts)
    assert not out.exists()


@pytest.mark.parametrize("name", ["vocab_size", "bos_token_id", "eos_token_id", "model_type"])
def test_a_recipe_must_not_set_what_comes_from_the_text(tmp_path, name):
    recipe, texts = write_recipe(tmp_path, model={name: 5})
    with pytest.raises(ConfigError, match=rf"\[model\] sets {name}; that comes from the text"):
        train(recipe, tmp_path / "out", text=texts)


def test_a_model_that_cannot_be_is_refused(tmp_path):
    recipe, texts = write_recipe(tmp_path, model={"num_key_value_heads": 3})
    with pytest.raises(ConfigError, match=r"\[model\]: num_attention_heads is 4; it must be div"):
        train(recipe, tmp_path / "out", text=texts)


def test_a_file_in_the_folders_place_is_one_clear_error(tmp_path, recipe):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(CheckpointError, match="out could not be written"):
        train(recipe[0], tmp_path / "out", text=recipe[1])
    assert (tmp_path / "out").read_text() == "mine"


def test_a_resumed_training_whose_tokenizer_is_gone_is_one_clear_error(tmp_path, whole, recipe):
    shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "tokenizer")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        train(recipe[0], tmp_path / "out", text=recipe[1], resume=True)


# --- signals ---


class Signal(Record):
    """Sends signals to its own process during one step."""

    def __init__(self, at, *numbers):
        super().__init__()
        self.at, self.numbers = at, numbers

    def on_step(self, trainer, metrics):
        super().on_step(trainer, metrics)
        if metrics.step == self.at:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.fixture
def handlers():
    """The handlers that must be back after a run."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step(number):
    record = Signal(3, number)
    trainer = small_trainer(record)
    with stop_on_signals(trainer):
        trainer.run()
    assert (trainer.step, len(record.rows), trainer.interrupted) == (3, 3, True)
    assert trainer.stopping == f"stopped by {number.name}"


@pytest.mark.usefixtures("handlers")
def test_a_second_ctrl_c_ends_the_run_at_once():
    trainer = small_trainer(Signal(3, signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), stop_on_signals(trainer):
        trainer.run()


def test_signals_are_as_before_when_a_training_has_failed(handlers):
    def fail():
        with stop_on_signals(small_trainer()):
            assert signal.getsignal(signal.SIGINT) != handlers[0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


# --- runs that are ended by force ---

# Forks children that train, or save, and comes to an end of each in a way of its own.
FORKS = """
import errno, json, os, pathlib, resource, shutil, signal, sys, traceback
import torch
torch.set_num_threads(1)
from small import content, small_trainer
from qwenkit.checkpoint import saving
from qwenkit.files import clear_leftovers
from qwenkit.train import checkpoints, save_training, train
FILE, LOOP = (sys.modules["qwenkit.train." + name] for name in ("checkpoints", "loop"))
recipe, texts, base = map(pathlib.Path, sys.argv[1:])

def forked(work, *arguments):
    child = os.fork()
    if child:
        return child
    sys.stderr = open(os.devnull, "w")  # no bars
    try:
        work(*arguments)
    except BaseException as error:
        print(type(error).__name__ + ":", error, flush=True)
        os._exit(1)
    os._exit(0)

def die(path=None):
    if path:  # as if the file were half written
        pathlib.Path(path).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

def arm(at):
    "Kill this process at its at-th step towards the disk; return the count of steps."
    count = [0]
    def deadly(function, writes=False):
        def wrapped(*args, **kwargs):
            count[0] += 1
            if count[0] == at:
                die(args[1] if writes else None)
            return function(*args, **kwargs)
        return wrapped
    saving.save_file = deadly(saving.save_file, writes=True)
    for where, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree")):
        setattr(where, name, deadly(getattr(where, name)))
    for name in ("rename", "mkdir", "write_text"):
        setattr(pathlib.Path, name, deadly(getattr(pathlib.Path, name)))
    return count

def train_and_die(out, at):
    arm(at)
    train(recipe, out, text=texts)

def killed_trainings():
    at, found = 1, {}
    while True:
        out = base / f"killed-{at}"
        _, status = os.waitpid(forked(train_and_die, out, at), 0)
        if not os.WIFSIGNALED(status):
            return found
        found[out.name] = os.WTERMSIG(status)
        at += 5

def killed_saves():
    trainer, start, want, found = small_trainer(), base / "start", {}, []
    for step in (1, 2, 3):
        trainer.train_step()
        if step < 3:
            save_training(start, trainer)
    shutil.copytree(start, base / "reference")
    save_training(base / "reference", trainer, keep=3)
    want = {path.name: content(path) for _, path in checkpoints(base / "reference")}
    running, at = True, 0
    while running:
        at += 1
        folder = base / "saves" / str(at)
        shutil.copytree(start, folder)
        def save():
            arm(at)
            save_training(folder, trainer)
        running = os.WIFSIGNALED(os.waitpid(forked(save), 0)[1])
        whole = checkpoints(folder)
        sound = all(content(path) == want[path.name] for _, path in whole)
        left = len(list(folder.iterdir())) - len(whole)
        clear_leftovers(folder, FILE._NAME.pattern)
        after = len(list(folder.iterdir()))
        found.append([running, [step for step, _ in whole], sound, left, after == len(whole)])
    return found

def at_step(number, work):
    "Do something in the middle of a step."
    real, count = LOOP.next_token_loss, [0]
    def loss(*args, **kwargs):
        count[0] += 1
        if count[0] == number:
            work()
        return real(*args, **kwargs)
    LOOP.next_token_loss = loss

def train_and_wait(out, ready, go):
    at_step(4, lambda: (os.write(ready, b"."), os.read(go, 1)))
    trainer = train(recipe, out, text=texts)
    print(trainer.stopping, trainer.interrupted, trainer.step, flush=True)

def signalled(name, number):
    (listen, ready), (go, tell) = os.pipe(), os.pipe()
    sys.stdout.flush()
    child = forked(train_and_wait, base / name, ready, go)
    os.read(listen, 1)
    os.kill(child, number)
    os.write(tell, b".")
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)

def train_and_stop_at_once(out):
    at_step(4, lambda: (signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGINT)))
    train(recipe, out, text=texts)

def train_with_a_limit(out):
    limit = (150_000, resource.RLIM_INFINITY)  # the optimizer's file is larger
    at_step(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    train(recipe, out, text=texts)

found = {"saves": killed_saves(), "killed": killed_trainings()}
found["SIGINT"] = signalled("SIGINT", signal.SIGINT)
found["SIGTERM"] = signalled("SIGTERM", signal.SIGTERM)
found["twice"] = os.WEXITSTATUS(os.waitpid(forked(train_and_stop_at_once, base / "twice"), 0)[1])
found["limit"] = os.WEXITSTATUS(os.waitpid(forked(train_with_a_limit, base / "limit"), 0)[1])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory, recipe):
    """Return the folder of all disturbed runs, how each ended, and what they printed."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    base = tmp_path_factory.mktemp("forks")
    tests = ROOT / "tests"
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{tests}:{tests / 'train'}", "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *map(str, (*recipe, base))],
        capture_output=True, text=True, env=environment, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return base, json.loads(last), said


def test_a_killed_save_leaves_whole_checkpoints_only(forks):
    _, found, _ = forks
    running, steps, sound, left, cleared = zip(*found["saves"], strict=True)
    assert list(running) == [True] * (len(running) - 1) + [False]
    assert len(running) > 12
    states = [[1, 2], [1, 2, 3], [2, 3]]
    assert sorted(steps, key=states.index) == list(steps)  # never back
    assert [state for state in states if state in steps] == states
    assert all(sound)
    assert any(left)  # else this proves nothing of the next line
    assert all(cleared)


def test_a_killed_training_goes_on_as_if_it_had_not_been(forks, whole, recipe):
    base, found, _ = forks
    assert len(found["killed"]) >= 10
    assert set(found["killed"].values()) == {signal.SIGKILL}
    begun = set()
    for name in found["killed"]:
        out = base / name
        there = steps_in(out)
        begun.add(there[-1] if there else 0)
        names = {"config.json", "model.safetensors", "optimizer.safetensors", "state.json"}
        for _, folder in checkpoints(out / "checkpoints"):
            assert {path.name for path in folder.iterdir()} == names, folder
        train(recipe[0], out, text=recipe[1], resume=bool(there))
        if there == [2, 4, 6]:  # killed before the oldest was removed, with nothing left to save
            shutil.rmtree(out / "checkpoints" / "step-000002")
        assert_same_run(out, whole)
    assert begun >= {0, 2, 4}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_training_saves_the_step_and_goes_on_from_it(forks, whole, recipe, name):
    base, found, said = forks
    assert found[name] == 0
    assert f"stopped by {name} True 4" in said
    assert steps_in(base / name) == [2, 4]
    train(recipe[0], base / name, text=recipe[1], resume=True)
    assert_same_run(base / name, whole)


def test_a_second_ctrl_c_keeps_the_last_checkpoint(forks, whole, recipe):
    base, found, said = forks
    assert found["twice"] == 1
    assert "KeyboardInterrupt: " in said
    assert steps_in(base / "twice") == [2]
    train(recipe[0], base / "twice", text=recipe[1], resume=True)
    assert_same_run(base / "twice", whole)


def test_a_file_that_the_system_will_not_let_grow_is_one_clear_error(forks, whole, recipe):
    base, found, said = forks
    assert found["limit"] == 1
    (line,) = [line for line in said if "File too large" in line]
    assert line.startswith(
        f"CheckpointError: no checkpoint could be written to {base / 'limit' / 'checkpoints'} ("
    )
    assert steps_in(base / "limit") == [2]
    assert len(list((base / "limit" / "checkpoints").iterdir())) == 1
    train(recipe[0], base / "limit", text=recipe[1], resume=True)
    assert_same_run(base / "limit", whole)


# --- a disk that is full ---


def test_a_training_on_a_full_disk_fails_clearly_and_goes_on_later(tmp_path, whole, recipe):
    """The disk has a megabyte, too little for three checkpoints, and here still less."""
    had = []
    with small_disk(tmp_path / "disk") as disk:
        for filled in (0, 300_000, 600_000, 850_000, 1_030_000):
            out, copy = disk / "out", tmp_path / "copy"
            (disk / "filler").write_bytes(bytes(filled))
            with pytest.raises(CheckpointError, match=r"No space left on device|os error 28"):
                train(recipe[0], out, text=recipe[1])
            (disk / "filler").unlink()
            shutil.move(out, copy)
            had.append(steps_in(copy))
            train(recipe[0], copy, text=recipe[1], resume=bool(had[-1]))
            assert_same_run(copy, whole)
            shutil.rmtree(copy)
    assert had[0] == [2, 4]
    assert had[-1] == []
