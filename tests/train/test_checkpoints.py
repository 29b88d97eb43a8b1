"""Checkpoints: going on is as never having stopped, and no failure leaves a broken one."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import (
    DOCUMENTS,
    Record,
    content,
    held_out_loss,
    rows_of,
    same_weights,
    small_batches,
    small_disk,
    small_model,
    small_trainer,
    tokenizer,
)

from qwenkit.checkpoint import saving
from qwenkit.errors import CheckpointError, InputError, TrainingError
from qwenkit.files import clear_leftovers
from qwenkit.train import (
    Callback,
    CsvLog,
    Document,
    EarlyStop,
    KeepModel,
    Mix,
    SaveTraining,
    checkpoints,
    load_training,
    save_training,
)
from qwenkit.train.checkpoints import _NAME as NAME

FILE = sys.modules["qwenkit.train.checkpoints"]  # its function `checkpoints` has the same name


def steps_in(folder):
    return [step for step, _ in checkpoints(folder)]


def saved_at(folder, step, **settings):
    """Train some steps, save, and return the trainer."""
    trainer = small_trainer(Record(until=step), **settings)
    trainer.run()
    save_training(folder, trainer)
    return trainer


# --- going on ---


class Chance(Callback):
    """Draws from the global random numbers, as a callback of a reader may."""

    def __init__(self):
        self.drawn = []

    def on_step(self, trainer, metrics):
        self.drawn.append(torch.rand(()).item())


def whole_set(folder, until=0):
    """Return callbacks of every kind that has a state, for a training in a folder."""
    record, chance = Record(until), Chance()
    kept = [CsvLog(folder / "metrics.csv"), EarlyStop(3), KeepModel(folder / "model", tokenizer())]
    return record, chance, [record, chance, *kept, SaveTraining(folder / "checkpoints")]


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (5, {"evaluate_every": 2}),
        (4, {"evaluate_every": 3}),  # an epoch ends with step 4
        (8, {"accumulate": 2, "label_smoothing": 0.1, "clip": 0.0, "save_every": 3}),
        (7, {"autocast": "bfloat16", "schedule": "linear"}),
    ],
    ids=str,
)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, stop, settings):
    settings = {"evaluate": held_out_loss, **settings}
    torch.manual_seed(1)
    record, chance, callbacks = whole_set(tmp_path / "whole")
    whole = small_trainer(*callbacks, **settings)
    whole.run()
    assert whole.batches.epoch >= 2  # so that borders of epochs are crossed

    torch.manual_seed(1)
    first, drawn, callbacks = whole_set(tmp_path / "parts", until=stop)
    small_trainer(*callbacks, **settings).run()
    torch.manual_seed(2)  # another process would be anywhere
    then, drawn_then, callbacks = whole_set(tmp_path / "parts")
    trainer = small_trainer(*callbacks, model=small_model(seed=99), **settings)
    assert load_training(tmp_path / "parts" / "checkpoints", trainer) == stop
    trainer.run()

    assert first.rows + then.rows == record.rows
    assert len(then.rows) == 12 - stop
    assert drawn.drawn + drawn_then.drawn == chance.drawn
    assert same_weights(trainer.model, whole.model)
    assert trainer.tokens == whole.tokens
    assert trainer.batches.position == whole.batches.position
    metrics = [rows_of(tmp_path / run / "metrics.csv") for run in ("parts", "whole")]
    assert metrics[0] == metrics[1]
    models = [content(tmp_path / run / "model") for run in ("parts", "whole")]
    assert models[0] == models[1]
    last = [tmp_path / run / "checkpoints" / "step-000012" for run in ("parts", "whole")]
    states = [json.loads((folder / "state.json").read_text()) for folder in last]
    for state in states:
        state["callbacks"].pop("CsvLog")  # holds seconds
    assert states[0] == states[1]
    optimizers = [load_file(folder / "optimizer.safetensors") for folder in last]
    assert optimizers[0].keys() == optimizers[1].keys()
    assert all(value.equal(optimizers[1][name]) for name, value in optimizers[0].items())


def test_the_newest_checkpoint_is_taken(tmp_path):
    trainer = small_trainer()
    for _ in range(3):
        trainer.train_step()
        save_training(tmp_path, trainer, keep=3)
    (tmp_path / "step-000003").rename(tmp_path / "step-1000000")
    spoiled = json.loads((tmp_path / "step-1000000" / "state.json").read_text())
    text = json.dumps({**spoiled, "step": 1_000_000})
    (tmp_path / "step-1000000" / "state.json").write_text(text)
    assert steps_in(tmp_path) == [1, 2, 1_000_000]  # by number, not by letters
    assert load_training(tmp_path, small_trainer()) == 1_000_000


def test_a_training_that_has_not_begun_can_be_saved(tmp_path):
    save_training(tmp_path, small_trainer())
    trainer = small_trainer(model=small_model(seed=9))
    assert load_training(tmp_path, trainer) == 0
    record, whole = Record(), Record()
    trainer.callbacks = [record]
    trainer.run()
    small_trainer(whole).run()
    assert record.rows == whole.rows


def test_frozen_parameters_have_no_moments_and_need_none(tmp_path):
    def partly():
        model = small_model().requires_grad_(False)
        model.model.layers[1].requires_grad_(True)
        return model

    first, whole = Record(until=3), Record()
    trainer = small_trainer(first, SaveTraining(tmp_path), model=partly())
    trainer.run()
    names = load_file(tmp_path / "step-000003" / "optimizer.safetensors")
    assert {name.split(".")[3] for name in names if name != "random_state"} == {"1"}
    other = small_trainer(then := Record(), model=partly())
    load_training(tmp_path, other)
    other.run()
    small_trainer(whole, model=partly()).run()
    assert first.rows + then.rows == whole.rows
    with pytest.raises(CheckpointError, match="does not fit the parameters that are trained"):
        load_training(tmp_path, small_trainer())


def test_the_loaded_state_does_not_hold_the_files_open(tmp_path):
    saved_at(tmp_path, 3)
    trainer = small_trainer()
    load_training(tmp_path, trainer)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "optimizer.safetensors" not in maps.read_text()
    for path in (tmp_path / "step-000003").iterdir():
        path.write_bytes(b"")  # would end the process if they were still mapped
    trainer.train_step()
    assert trainer.step == 4


# --- what a folder holds ---


@pytest.mark.parametrize(("keep", "left"), [(1, [6]), (2, [5, 6]), (9, [1, 2, 3, 4, 5, 6])])
def test_the_newest_are_kept(tmp_path, keep, left):
    saving_callback = SaveTraining(tmp_path, keep)
    small_trainer(saving_callback, steps=6, save_every=1).run()
    assert steps_in(tmp_path) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{n:06}" for n in left]


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_none_is_refused(tmp_path, keep):
    with pytest.raises(InputError, match="keep is"):
        save_training(tmp_path, small_trainer(), keep)
    with pytest.raises(InputError, match="keep is"):
        SaveTraining(tmp_path, keep)
    assert list(tmp_path.iterdir()) == []


def test_what_was_just_saved_is_never_removed(tmp_path):
    for step in (5, 6):
        (tmp_path / f"step-{step:06}").mkdir()
    trainer = small_trainer()
    trainer.train_step()
    assert save_training(tmp_path, trainer, keep=1) == tmp_path / "step-000001"
    assert steps_in(tmp_path) == [1, 6]


def test_the_same_step_twice_is_one_checkpoint(tmp_path):
    trainer = saved_at(tmp_path, 2)
    before = content(tmp_path)
    save_training(tmp_path, trainer)
    assert content(tmp_path) == before


def test_only_what_a_killed_run_was_writing_is_removed(tmp_path):
    for name in ("step-000004.0a1b2c3d.tmp", "step-1000000.ffffffff.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    saved_at(tmp_path, 2)
    users = ["step-000004.tmp", "step-best.0a1b2c3d.tmp", "notes.txt", "step-000004.0a1b2c3d.bak"]
    for name in users:
        (tmp_path / name).write_text("mine")
    (tmp_path / "step-000002-copy").mkdir()
    users += ["step-000002", "step-000002-copy"]
    clear_leftovers(tmp_path, NAME.pattern)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(users)
    assert steps_in(tmp_path) == [2]
    clear_leftovers(tmp_path / "absent", NAME.pattern)
    assert checkpoints(tmp_path / "absent") == []


def test_a_new_training_clears_leftovers_and_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "step-000004.0a1b2c3d.tmp").mkdir()
    small_trainer(SaveTraining(tmp_path), Record(until=2)).run()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match="of an earlier training; resume that, or take"):
        small_trainer(SaveTraining(tmp_path)).run()
    assert content(tmp_path) == before


@pytest.mark.parametrize("made", [True, False])
def test_nothing_to_resume_is_said(tmp_path, made):
    folder = tmp_path / "checkpoints"
    if made:
        (folder / "step-000001.0a1b2c3d.tmp").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint; begin without resuming"):
        load_training(folder, small_trainer())


# --- failures ---


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_after_a_part(tensors, path, metadata=None):
    Path(path).write_bytes(b"part")
    full()


PLACES = [
    (saving, "save_file", full_after_a_part),
    (saving, "write_json", full),
    (FILE, "write_tensors", full),
    (FILE, "write_json", full),
    (os, "fsync", full),
    (os, "replace", full),
    (Path, "rename", full),
    (Path, "mkdir", full),
]


@pytest.mark.parametrize(
    ("where", "name", "fails"),
    PLACES,
    ids=[f"{where.__name__}.{name}" for where, name, _ in PLACES],
)
def test_a_full_disk_leaves_the_older_checkpoints(tmp_path, monkeypatch, where, name, fails):
    trainer = small_trainer()
    for _ in range(2):
        trainer.train_step()
        save_training(tmp_path, trainer)
    before = content(tmp_path)
    trainer.train_step()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fails)
        with pytest.raises(CheckpointError) as caught:
            save_training(tmp_path, trainer)
    assert str(caught.value).startswith(f"no checkpoint could be written to {tmp_path} (")
    assert "No space left on device" in str(caught.value)
    assert str(caught.value).endswith("those that were there are unchanged")
    assert content(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2
    assert load_training(tmp_path, small_trainer()) == 2
    save_training(tmp_path, trainer)  # and once there is room again
    assert steps_in(tmp_path) == [2, 3]


def test_a_disk_that_is_really_full_leaves_the_older_checkpoints(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)


def fill(disk):
    before = []

    class Look(Callback):
        def on_step(self, trainer, metrics):
            before.append(content(disk))

    trainer = small_trainer(Look(), SaveTraining(disk, keep=9), save_every=1)
    with pytest.raises(CheckpointError, match="No space left on device"):
        trainer.run()
    assert content(disk) == before[-1]
    assert steps_in(disk) == list(range(1, trainer.step))
    assert len(list(disk.iterdir())) == trainer.step - 1 >= 2
    assert load_training(disk, small_trainer(save_every=1)) == trainer.step - 1


def test_a_checkpoint_that_cannot_be_deleted_stays_and_the_training_goes_on(tmp_path, monkeypatch):
    real = Path.rename

    def rename(path, target):
        if "tmp" not in path.name:  # an old one on its way out
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    small_trainer(SaveTraining(tmp_path), steps=4, save_every=1).run()
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files cannot be seen here")
    synced, renamed = [], []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )

    def noted(path, target):
        renamed.append(list(synced))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    folder = save_training(tmp_path, small_trainer())
    (before,) = renamed
    # the weights are written as model.RANDOM.tmp, and named when they are on the disk
    names = {Path(path).name for path in before if "model." not in path}
    assert names >= {path.name for path in folder.iterdir()} - {"model.safetensors"}
    assert any("model." in path for path in before)
    assert any(path.endswith(".tmp") and "model." not in path for path in before)  # the folder
    assert synced[-1] == str(tmp_path)  # and that it now has that name


def test_a_state_that_is_no_json_leaves_nothing(tmp_path):
    class Wrong(Callback):
        def state(self):
            return {"tensor": torch.zeros(1)}

    with pytest.raises(TypeError, match="not JSON serializable"):
        save_training(tmp_path, small_trainer(Wrong()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, value):
    trainer = small_trainer(SaveTraining(tmp_path), steps=6, save_every=1)
    real = trainer.optimizer.step

    def step():
        real()
        if trainer.step == 2:  # two are done, this is the third
            with torch.no_grad():
                trainer.model.model.norm.weight[1] = value

    trainer.optimizer.step = step
    with pytest.raises(TrainingError, match=r"step 3: model\.norm\.weight holds NaN or infinity"):
        trainer.run()
    assert steps_in(tmp_path) == [1, 2]


def test_nothing_is_saved_after_the_numbers_are_lost(tmp_path):
    keep = KeepModel(tmp_path / "model", tokenizer())
    trainer = small_trainer(
        keep, SaveTraining(tmp_path / "checkpoints"), learning_rate=1e9, steps=50, save_every=1
    )
    with pytest.raises(TrainingError, match=r"^step \d+: "):
        trainer.run()
    assert not (tmp_path / "model").exists()
    for _, folder in checkpoints(tmp_path / "checkpoints"):
        weights = load_file(folder / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
    other = small_trainer(learning_rate=1e9, steps=50, save_every=1)
    assert load_training(tmp_path / "checkpoints", other) >= 1


# --- damage ---


def without(*keys):
    """Return what takes a key out of state.json."""

    def spoil(folder):
        state = json.loads((folder / "state.json").read_text())
        inner = state
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (folder / "state.json").write_text(json.dumps(state))

    return spoil


def with_value(value, *keys):
    """Return what sets a value of state.json."""

    def spoil(folder):
        state = json.loads((folder / "state.json").read_text())
        inner = state
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / "state.json").write_text(json.dumps(state))

    return spoil


def written(name, text):
    return lambda folder: (folder / name).write_bytes(text)


def gone(name):
    return lambda folder: (folder / name).unlink()


def cut(name, to):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


def optimizer(change):
    """Return what rewrites optimizer.safetensors."""

    def spoil(folder):
        tensors = {n: t.clone() for n, t in load_file(folder / "optimizer.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "optimizer.safetensors")

    return spoil


NORM = "model.norm.weight"
DAMAGE = {
    "no state": gone("state.json"),
    "empty state": written("state.json", b""),
    "half a state": cut("state.json", 200),
    "state of zeros": written("state.json", bytes(500)),
    "state is a list": written("state.json", b"[1, 2]"),
    "state is an empty object": written("state.json", b"{}"),
    **{
        f"no {key}": without(key)
        for key in ("step", "tokens", "position", "settings", "text", "callbacks")
    },
    **{
        f"{key} is {value!r}": with_value(value, key)
        for key in ("step", "tokens", "position", "settings", "text", "callbacks")
        for value in (None, "3", [3], 3.0, True, -1)
    },
    "step of another folder": with_value(4, "step"),
    "no epoch": without("position", "epoch"),
    "no index": without("position", "index"),
    "epoch is a word": with_value("one", "position", "epoch"),
    "epoch below 0": with_value(-1, "position", "epoch"),
    "index below 0": with_value(-4, "position", "index"),
    "index is half": with_value(0.5, "position", "index"),
    "index beyond the end": with_value(10**6, "position", "index"),
    "no best": without("callbacks", "EarlyStop", "best"),
    "best is a list": with_value([1], "callbacks", "KeepModel", "best"),
    "best is a word": with_value("low", "callbacks", "EarlyStop", "best"),
    "worse is nothing": with_value(None, "callbacks", "EarlyStop", "worse"),
    "a callback's state is a list": with_value([1], "callbacks", "KeepModel"),
    "a callback's state is a word": with_value("x", "callbacks", "CsvLog"),
    "no sums": without("callbacks", "CsvLog", "sums"),
    "three sums": with_value([1.0, 2.0, 3.0], "callbacks", "CsvLog", "sums"),
    "sums of words": with_value(["a", "b", "c", "d"], "callbacks", "CsvLog", "sums"),
    "sums is a number": with_value(1.0, "callbacks", "CsvLog", "sums"),
    "no optimizer": gone("optimizer.safetensors"),
    "empty optimizer": written("optimizer.safetensors", b""),
    "half an optimizer": cut("optimizer.safetensors", 100_000),
    "optimizer's header cut": cut("optimizer.safetensors", 100),
    "optimizer without tensors": optimizer(dict.clear),
    "no moment": optimizer(lambda t: t.pop(f"exp_avg.{NORM}")),
    "no step count": optimizer(lambda t: t.pop(f"step.{NORM}")),
    "no random state": optimizer(lambda t: t.pop("random_state")),
    "short random state": optimizer(lambda t: t.update(random_state=t["random_state"][:9])),
    "random state of zeros": optimizer(lambda t: t["random_state"].zero_()),
    "random state of floats": optimizer(lambda t: t.update(random_state=t["random_state"].float())),
    "moment of a wrong shape": optimizer(lambda t: t.update({f"exp_avg.{NORM}": torch.ones(31)})),
    "moment that would broadcast": optimizer(
        lambda t: t.update({f"exp_avg_sq.{NORM}": torch.ones(1)})
    ),
    "moment of a wrong dtype": optimizer(
        lambda t: t.update({f"exp_avg.{NORM}": torch.ones(32, dtype=torch.int32)})
    ),
    "step count of two": optimizer(lambda t: t.update({f"step.{NORM}": torch.ones(2)})),
    "a moment of nobody": optimizer(lambda t: t.update({"exp_avg.model.extra": torch.ones(2)})),
    "no weights": gone("model.safetensors"),
    "empty weights": written("model.safetensors", b""),
    "half the weights": cut("model.safetensors", 50_000),
    "weights of another shape": lambda folder: save_file(
        {
            name: value[:-1].clone() if name == NORM else value.clone()
            for name, value in load_file(folder / "model.safetensors").items()
        },
        folder / "model.safetensors",
    ),
    "no config": gone("config.json"),
    "half a config": cut("config.json", 100),
    "config without a field": written("config.json", b'{"model_type": "qwen2"}'),
}


def with_states(folder, **settings):
    """Return a trainer whose callbacks all have states."""
    kept = [CsvLog(folder / "metrics.csv"), EarlyStop(3), KeepModel(folder / "model", tokenizer())]
    return small_trainer(*kept, evaluate=held_out_loss, evaluate_every=1, **settings)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with the checkpoints of steps 2 and 3, that a test copies before it breaks them."""
    folder = tmp_path_factory.mktemp("sound")
    trainer = with_states(folder / "rest")
    trainer.callbacks += [Record(until=3), SaveTraining(folder / "checkpoints", keep=2)]
    trainer.callbacks.insert(0, Save(folder / "checkpoints", 2))
    trainer.run()
    return folder / "checkpoints"


class Save(Callback):
    """Saves after one step."""

    def __init__(self, folder, step):
        self.folder, self.step = folder, step

    def on_step(self, trainer, metrics):
        if metrics.step == self.step:
            save_training(self.folder, trainer)


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_a_way_out_is_told(tmp_path, sound, spoil):
    folder = tmp_path / "checkpoints"
    shutil.copytree(sound, folder)
    newest = folder / "step-000003"
    spoil(newest)
    with pytest.raises(CheckpointError) as caught:
        load_training(folder, with_states(tmp_path))
    assert str(caught.value).startswith(f"{newest} is damaged (")
    assert str(caught.value).endswith("delete that folder to resume from the one before it")
    assert caught.value.__suppress_context__


def test_what_the_table_damages_is_sound_itself(tmp_path, sound):
    trainer = with_states(tmp_path)
    assert load_training(sound, trainer) == 3
    shutil.copytree(sound / "step-000002", tmp_path / "checkpoints" / "step-000002")
    assert load_training(tmp_path / "checkpoints", with_states(tmp_path)) == 2
    assert [type(callback.state().get("best")) for callback in trainer.callbacks[1:]] == [float] * 2


def test_callbacks_that_were_not_there_keep_the_state_they_have(tmp_path):
    saved_at(tmp_path, 3)
    early = EarlyStop(2)
    early.best, early.worse = 1.5, 1
    load_training(tmp_path, small_trainer(Callback(), early))
    assert (early.best, early.worse) == (1.5, 1)


# --- another training's ---

OTHERS = {
    "rate": ({"learning_rate": 0.02}, "learning_rate of the settings was 0.01 and is 0.02"),
    "steps": ({"steps": 20}, "steps of the settings was 12 and is 20"),
    "two": ({"seed": 6, "clip": 2.0}, "clip of the settings was 1.0 and is 2.0; seed of the set"),
    "text": (
        {"batches": lambda: small_batches(documents=[*DOCUMENTS, Document("x.py", "x = 1\n")])},
        "sha256 of the text was '",
    ),
    "context": (
        {"batches": lambda: small_batches(context=17)},
        "context of the text was 16 and is 17",
    ),
    "batch size": (
        {"batches": lambda: small_batches(batch_size=2)},
        "batch_size of the text was 4 and is 2",
    ),
    "order": ({"batches": lambda: small_batches(seed=6)}, "seed of the text was 5 and is 6"),
    "mix": (
        {"batches": lambda: small_batches(mix=Mix())},
        "mix of the text was {'fim': 0.25, 'repeats': 0.1} and is {'fim': 0.0, 'repeats': 0.0}",
    ),
    "model": ({"model": lambda: small_model(num_hidden_layers=1)}, "the model's config differs"),
    "rope": ({"model": lambda: small_model(rope_theta=5e4)}, "the model's config differs"),
}


@pytest.mark.parametrize(("changes", "words"), OTHERS.values(), ids=OTHERS)
def test_another_trainings_checkpoint_is_refused_and_the_difference_told(tmp_path, changes, words):
    saved_at(tmp_path, 2)
    made = {name: value() if callable(value) else value for name, value in changes.items()}
    trainer = small_trainer(**made)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(TrainingError) as caught:
        load_training(tmp_path, trainer)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'step-000002'} belongs to another training: ")
    assert words in message
    assert trainer.step == 0  # and nothing was taken from it
    assert all(value.equal(before[name]) for name, value in trainer.model.state_dict().items())
