"""Checkpoints: a resumed training equals an uninterrupted one, and no failure breaks one."""

import copy
import errno
import functools
import itertools
import json
import operator
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import small
import torch
from interruptions import Killed, failing_at
from safetensors.torch import load_file, save_file
from small import At, Record, content, full, small_batches, small_model, small_trainer, steps_in

import qwenkit as qk
from qwenkit.checkpoint import _saving as saving
from qwenkit.errors import CheckpointError, InputError, TrainingError
from qwenkit.files import clear_leftovers
from qwenkit.train import Callback, EarlyStop, SaveTraining, load_training, save_training

FILE = sys.modules["qwenkit.train.checkpoints"]  # its function `checkpoints` has the same name
NAME = FILE._NAME.pattern


def stateful(folder):
    """Return callbacks that have a state."""
    keep = qk.train.KeepModel(folder / "model", small.tokenizer())
    return qk.train.CsvLog(folder / "metrics.csv"), EarlyStop(3), keep


@pytest.mark.parametrize(("stop", "settings"), [
    (5, {"evaluate_every": 2}), (4, {"evaluate_every": 3}),  # an epoch ends with step 4
    (8, {"accumulate": 2, "label_smoothing": 0.1, "clip": 0.0, "save_every": 3}),
    (7, {"autocast": "bfloat16", "schedule": "linear"}), (6, {"optimizer": "muon"}),
], ids=str)  # fmt: skip
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, stop, settings):
    drawn = []

    def make(folder, record, again):
        draw = At(None, lambda trainer: drawn.append(torch.rand(())))  # as a reader's own may
        callbacks = (record, draw, *stateful(folder), SaveTraining(folder / "checkpoints", keep=1))
        model = small_model(seed=99 * again)
        return small_trainer(*callbacks, model=model, evaluate=small.held_out_loss, **settings)

    whole, then = small.resumed(tmp_path, make, stop)
    assert whole.batches.epoch >= 2  # so that borders of epochs are crossed
    assert len(drawn) == 2 * 12
    assert drawn[:12] == drawn[12:]  # of the whole, and of both parts
    assert (then.tokens, then.batches.position) == (whole.tokens, whole.batches.position)


def test_the_newest_checkpoint_is_taken(tmp_path):
    small.trained(SaveTraining(tmp_path, keep=3), Record(until=3), save_every=1)
    (tmp_path / "step-000003").rename(tmp_path / "step-1000000")
    state(tmp_path / "step-1000000", "step", 1_000_000)
    assert steps_in(tmp_path) == [1, 2, 1_000_000]  # by number, not by letters
    assert load_training(tmp_path, small_trainer(save_every=1)) == 1_000_000


def test_a_training_that_has_not_begun_can_be_saved(tmp_path):
    save_training(tmp_path, small_trainer())
    trainer = small_trainer(record := Record(), model=small_model(seed=9))
    assert load_training(tmp_path, trainer) == 0
    trainer.run()
    assert record.rows == small.trained(Record()).callbacks[0].rows


def test_frozen_parameters_have_no_moments_and_need_none(tmp_path):
    def make(folder, record, again):
        model = small_model().requires_grad_(False)
        model.model.layers[1].requires_grad_(True)
        return small_trainer(record, SaveTraining(folder / "checkpoints", keep=1), model=model)

    small.resumed(tmp_path, make, 3)
    folder = tmp_path / "parts" / "checkpoints"
    names = load_file(folder / "step-000012" / "optimizer.safetensors").keys() - {"random_state"}
    assert {name.split(".")[3] for name in names} == {"1"}
    with pytest.raises(CheckpointError, match="does not fit the parameters that are trained"):
        load_training(folder, small_trainer())


def test_the_loaded_state_does_not_hold_the_files_open_and_new_callbacks_keep_theirs(tmp_path):
    save_training(tmp_path, small.trained(Record(until=3)))
    trainer = small_trainer(Callback(), early := EarlyStop(2))
    early.best, early.worse = 1.5, 1
    load_training(tmp_path, trainer)
    assert (early.best, early.worse) == (1.5, 1)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "optimizer.safetensors" not in maps.read_text()
    for path in (tmp_path / "step-000003").iterdir():
        path.write_bytes(b"")  # would end the process if they were still mapped
    trainer.train_step()
    assert trainer.step == 4


@pytest.mark.parametrize(("keep", "left"), [(1, [6]), (2, [5, 6]), (9, [1, 2, 3, 4, 5, 6])])
def test_the_newest_are_kept_and_those_that_cannot_be_deleted(tmp_path, monkeypatch, keep, left):
    small.trained(SaveTraining(tmp_path, keep), steps=6, save_every=1)
    assert steps_in(tmp_path) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{n:06}" for n in left]

    def rename(path, target, real=Path.rename):
        if "tmp" not in path.name:  # an old one on its way out
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    small.trained(SaveTraining(tmp_path / "all", keep), steps=4, save_every=1)
    assert steps_in(tmp_path / "all") == [1, 2, 3, 4]


def test_what_was_just_saved_is_never_removed_and_saving_again_changes_nothing(tmp_path):
    for step in (5, 6):
        (tmp_path / f"step-{step:06}").mkdir()
    trainer = small_trainer()
    trainer.train_step()
    assert save_training(tmp_path, trainer, keep=1) == tmp_path / "step-000001"
    assert steps_in(tmp_path) == [1, 6]
    before = content(tmp_path)
    save_training(tmp_path, trainer)
    assert content(tmp_path) == before


def test_only_what_a_killed_run_was_writing_is_removed(tmp_path):
    for name in ("step-000004.0a1b2c3d.tmp", "step-1000000.ffffffff.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    save_training(tmp_path, small.trained(Record(until=2)))
    users = {"step-000004.tmp", "step-best.0a1b2c3d.tmp", "notes.txt", "step-000004.0a1b2c3d.bak"}
    for name in users:
        (tmp_path / name).write_text("mine")
    (tmp_path / "step-000002-copy").mkdir()
    users |= {"step-000002", "step-000002-copy"}
    clear_leftovers(tmp_path, NAME)
    assert {path.name for path in tmp_path.iterdir()} == users
    assert steps_in(tmp_path) == [2]
    clear_leftovers(tmp_path / "absent", NAME)
    assert qk.train.checkpoints(tmp_path / "absent") == []


def test_a_new_training_clears_leftovers_and_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "step-000004.0a1b2c3d.tmp").mkdir()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="holds no checkpoint; begin without resuming"):
            load_training(folder, small_trainer())
    small.trained(SaveTraining(tmp_path), Record(until=2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match="of an earlier training; resume that, or take"):
        small.trained(SaveTraining(tmp_path))
    assert content(tmp_path) == before


@pytest.mark.parametrize(("where", "name", "fails"), [
    (saving, "save_file", lambda _, path, **__: full(Path(path).write_bytes(b"a part"))),
    (saving, "write_json", full),
    (FILE, "write_tensors", full), (FILE, "write_json", full), (os, "fsync", full),
    (os, "replace", full), (Path, "rename", full), (Path, "mkdir", full),
], ids=lambda one: getattr(one, "__name__", one))  # fmt: skip
def test_a_full_disk_leaves_the_older_checkpoints(tmp_path, monkeypatch, where, name, fails):
    trainer = small.trained(SaveTraining(tmp_path), Record(until=2), save_every=1)
    before = content(tmp_path)
    trainer.train_step()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fails)
        with pytest.raises(CheckpointError) as caught:
            save_training(tmp_path, trainer)
    start = re.escape(f"no checkpoint could be written to {tmp_path} (")
    end = r"; those that were there are unchanged"
    assert re.fullmatch(rf"{start}.*No space left on device.*{end}", str(caught.value))
    assert content(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2
    assert load_training(tmp_path, small_trainer(save_every=1)) == 2
    save_training(tmp_path, trainer)  # and once there is space again
    assert steps_in(tmp_path) == [2, 3]


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    """A trainer after step 3, a folder with the first two steps' checkpoints, and all three."""
    folder, all_three = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("three")
    trainer = small.trained(SaveTraining(folder), Record(until=2), save_every=1)
    trainer.train_step()
    shutil.copytree(folder, all_three, dirs_exist_ok=True)
    torch.manual_seed(1)  # its state is saved too
    save_training(all_three, trainer, keep=3)
    return trainer, folder, all_three


MORE = [(os, "fsync"), (os, "replace"), (saving, "save_file"), (Path, "touch"), (Path, "chmod")]


@pytest.mark.parametrize("fault", [
    Killed(), OSError(errno.ENOSPC, "No space left"), OSError(errno.EROFS, "Read-only file system"),
], ids=["killed", "full", "read-only"])  # fmt: skip
def test_a_save_that_fails_at_any_change_leaves_whole_ones(tmp_path, third, fault, monkeypatch):
    trainer, start, all_three = third
    want, found, failed = content(all_three), [], 0
    torch.manual_seed(1)
    while failed == len(found):
        folder = shutil.copytree(start, tmp_path / str(failed))
        failed += 1
        with monkeypatch.context() as patched, suppress(Killed, CheckpointError):
            failing_at(failed - 1, patched, fault, *MORE)
            save_training(folder, trainer)
            failed -= 1
        found.append(steps_in(folder))
        clear_leftovers(folder, NAME)
        assert content(folder).items() <= want.items()
        assert sorted(path.name for path in folder.iterdir()) == [
            f"step-{step:06}" for step in found[-1]
        ]
    assert failed > 20
    states = [step for step, _ in itertools.groupby(found)]
    assert states in ([[1, 2], [1, 2, 3], [2, 3]], [[1, 2], [2, 3]], [[1, 2], [1, 2, 3]])


def test_of_two_that_save_a_step_at_once_one_is_whole_and_nothing_is_left(tmp_path):
    trainers = [small.trained(Record(until=1), model=small_model(seed=seed)) for seed in (1, 2)]
    for number, trainer in enumerate(trainers):
        save_training(tmp_path / str(number), trainer)

    def save(trainer):
        with suppress(CheckpointError):
            save_training(tmp_path / "both", trainer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, 2 * trainers))
    assert content(tmp_path / "both") in [content(tmp_path / name) for name in ("0", "1")]
    assert len(list((tmp_path / "both").iterdir())) == 1


def test_a_disk_that_is_really_full_leaves_the_older_checkpoints(tmp_path):
    with small.small_disk(tmp_path / "disk") as disk:
        before = []
        look = At(None, lambda trainer: before.append(content(disk)))
        trainer = small_trainer(look, SaveTraining(disk, keep=9), save_every=1)
        with pytest.raises(CheckpointError, match="No space left on device"):
            trainer.run()
        assert content(disk) == before[-1]
        assert steps_in(disk) == list(range(1, trainer.step))
        assert len(list(disk.iterdir())) == trainer.step - 1 >= 2
        assert load_training(disk, small_trainer(save_every=1)) == trainer.step - 1


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files cannot be seen here")
    synced, before = [], []
    fsync, rename, link = os.fsync, Path.rename, "/proc/self/fd/{}".format
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(link(fd))) or fsync(fd))
    monkeypatch.setattr(Path, "rename", lambda p, to: before.append([*synced]) or rename(p, to))
    folder = save_training(tmp_path, small_trainer())
    weights, names = ({Path(path).name for path in paths} for paths in before)
    assert names >= {path.name for path in folder.iterdir()}
    # config and weights are written into save.RANDOM.tmp, and moved when they are on the disk
    assert weights >= {"config.json", "model.safetensors"}
    assert any(name.startswith("save.") and name.endswith(".tmp") for name in weights)
    assert any(name.startswith("step-") and name.endswith(".tmp") for name in names)  # the folder
    assert synced[-1] == str(tmp_path)  # and that it now has that name


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_none_and_a_state_that_is_not_json_are_refused_and_leave_nothing(tmp_path, keep):
    for function, *given in ((save_training, small_trainer(), keep), (SaveTraining, keep)):
        with pytest.raises(InputError, match="keep is"):
            function(tmp_path, *given)
    wrong = Callback()
    wrong.state = lambda: {"tensor": torch.zeros(1)}
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_training(tmp_path, small_trainer(wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_nan_or_infinite_are_not_saved(tmp_path, value):
    trainer = small_trainer(SaveTraining(tmp_path), steps=6, save_every=1)

    def spoil(*_):
        if trainer.step == 2:  # two are done, this is the third
            trainer.model.model.norm.weight.data[1] = value

    trainer.optimizer.register_step_post_hook(spoil)
    with pytest.raises(TrainingError, match=r"step 3: model\.norm\.weight holds NaN or infinity"):
        trainer.run()
    assert steps_in(tmp_path) == [1, 2]


def test_nothing_is_saved_after_the_numbers_are_lost(tmp_path):
    keep = qk.train.KeepModel(tmp_path / "model", small.tokenizer())
    settings = {"learning_rate": 1e9, "steps": 50, "save_every": 1}
    with pytest.raises(TrainingError, match=r"^step \d+: "):
        small.trained(keep, SaveTraining(tmp_path / "checkpoints"), **settings)
    assert not (tmp_path / "model").exists()
    for _, folder in qk.train.checkpoints(tmp_path / "checkpoints"):
        weights = load_file(folder / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
    assert load_training(tmp_path / "checkpoints", small_trainer(**settings)) >= 1


GONE = ...


def file(folder, name, damage):
    """Remove a file, cut it off, or give it another content."""
    path = folder / name
    if damage is GONE:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)


def state(folder, key, value=GONE):
    """Set a value of state.json, or take it out."""
    found = json.loads((folder / "state.json").read_text())
    *outer, last = key.split(".")
    inner = functools.reduce(operator.getitem, outer, found)
    inner[last] = value
    if value is GONE:
        del inner[last]
    (folder / "state.json").write_text(json.dumps(found))


def tensors(folder, change, name="optimizer"):
    """Rewrite the tensors of a file."""
    path = folder / f"{name}.safetensors"
    found = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(found)
    save_file(found, path)


NORM = "model.norm.weight"
KEYS = ("step", "tokens", "position", "settings", "text", "callbacks")
FILES = {
    "state.json": (GONE, b"", 200, bytes(500), b"[1, 2]", b"{}"),
    "optimizer.safetensors": (GONE, b"", 100_000, 100),
    "model.safetensors": (GONE, b"", 50_000),
    "config.json": (GONE, 100, b'{"model_type": "qwen2"}'),
}
ABSENT = [
    *KEYS, "position.epoch", "position.index", "callbacks.EarlyStop.best", "callbacks.CsvLog.sums",
]  # fmt: skip
VALUES = {
    **{key: (None, "3", [3], 3.0, True, -1) for key in KEYS},
    "position.epoch": ("one", -1), "position.index": (-4, 0.5, 10**6, 2**63),
    "callbacks.EarlyStop.best": ("low", float("nan"), float("-inf"), 10**400),
    "callbacks.EarlyStop.worse": (None, float("inf"), 2**63, -1, True),
    "callbacks.KeepModel.best": ([1],), "callbacks.KeepModel": ([1],), "callbacks.CsvLog": ("x",),
    "callbacks.CsvLog.sums": ([1.0, 2.0, 3.0], ["a", "b", "c", "d"], 1.0, False, None),
}  # fmt: skip
TENSORS = {
    "optimizer without tensors": dict.clear,
    "no moment": lambda t: t.pop(f"exp_avg.{NORM}"),
    "no step count": lambda t: t.pop(f"step.{NORM}"),
    "no random state": lambda t: t.pop("random_state"),
    "short random state": lambda t: t.update(random_state=t["random_state"][:9]),
    "random state of zeros": lambda t: t["random_state"].zero_(),
    "random state of floats": lambda t: t.update(random_state=t["random_state"].float()),
    "moment of a wrong shape": lambda t: t.update({f"exp_avg.{NORM}": torch.ones(31)}),
    "moment that broadcasts": lambda t: t.update({f"exp_avg_sq.{NORM}": torch.ones(1)}),
    "moment of a wrong dtype": lambda t: t.update({f"exp_avg.{NORM}": torch.arange(32)}),
    "step count of two": lambda t: t.update({f"step.{NORM}": torch.ones(2)}),
    "a moment of no parameter": lambda t: t.update({"exp_avg.model.extra": torch.ones(2)}),
}
DAMAGE = {
    **{f"{name}: {how!r:.20}": (file, name, how) for name in FILES for how in FILES[name]},
    **{f"no {key}": (state, key) for key in ABSENT},
    **{f"{key} is {value!r}": (state, key, value) for key in VALUES for value in VALUES[key]},
    "step of another folder": (state, "step", 4),
    **{name: (tensors, change) for name, change in TENSORS.items()},
    "weights of another shape": (tensors, lambda t: t.update({NORM: t[NORM][:-1]}), "model"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with the checkpoints of steps 2 and 3, that a test copies before it breaks them."""
    folder = tmp_path_factory.mktemp("sound") / "checkpoints"
    early = At(2, lambda trainer: save_training(folder, trainer))
    callbacks = early, *stateful(folder.parent), Record(until=3), SaveTraining(folder, keep=2)
    small.trained(*callbacks, evaluate=small.held_out_loss, evaluate_every=1)
    return folder


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_a_way_out_is_told(tmp_path, sound, damage):
    folder = shutil.copytree(sound, tmp_path / "checkpoints")
    newest, (spoil, *how) = folder / "step-000003", damage
    spoil(newest, *how)
    trainer = small_trainer(*stateful(tmp_path), evaluate_every=1)
    before = trainer.batches.position, [one.state() for one in trainer.callbacks]
    with pytest.raises(CheckpointError) as caught:
        load_training(folder, trainer)
    assert (trainer.batches.position, [one.state() for one in trainer.callbacks]) == before
    assert str(caught.value).startswith(f"{newest} is damaged (")
    assert str(caught.value).endswith("delete that folder to resume from the one before it")
    assert caught.value.__suppress_context__


def test_what_the_table_damages_is_sound_itself(tmp_path, sound):
    trainer = small_trainer(*stateful(tmp_path), evaluate_every=1)
    for step in (2, 3):
        shutil.copytree(sound / f"step-{step:06}", tmp_path / "checkpoints" / f"step-{step:06}")
        assert load_training(tmp_path / "checkpoints", trainer) == step
    bests = [callback.state().get("best") for callback in trainer.callbacks[1:]]
    assert [type(best) for best in bests] == [float] * 2


@pytest.mark.parametrize(("changes", "told"), [
    ({"learning_rate": 0.02}, "learning_rate of the settings was 0.01 and is 0.02"),
    ({"steps": 20}, "steps of the settings was 12 and is 20"),
    ({"seed": 6, "clip": 2.0}, "clip of the settings was 1.0 and is 2.0; seed of the set"),
    ({"batches": {"documents": small.DOCUMENTS[1:]}}, "sha256 of the text was '"),
    ({"batches": {"context": 17}}, "context of the text was 16 and is 17"),
    ({"batches": {"batch_size": 2}}, "batch_size of the text was 4 and is 2"),
    ({"batches": {"seed": 6}}, "seed of the text was 5 and is 6"),
    ({"batches": {"mix": qk.train.Mix()}},
     "mix of the text was {'fim': 0.25, 'repeats': 0.1, 'programs': 0.0, 'fim_lengths': "
     "'log-uniform'} and is {'fim': 0.0, 'repeats': 0.0, 'programs': 0.0, 'fim_lengths': "
     "'log-uniform'}"),
    ({"model": {"num_hidden_layers": 1}}, "the model's config differs"),
    ({"model": {"rope_theta": 5e4}}, "the model's config differs"),
])  # fmt: skip
def test_another_trainings_checkpoint_is_refused_and_the_difference_told(tmp_path, changes, told):
    save_training(tmp_path, small.trained(Record(until=2)))
    made = {"batches": small_batches, "model": small_model}
    given = {name: made[name](**v) if name in made else v for name, v in changes.items()}
    trainer = small_trainer(**given)
    before = copy.deepcopy(trainer.model)
    start = f"{tmp_path / 'step-000002'} belongs to another training: "
    with pytest.raises(TrainingError, match=f"^{re.escape(start)}.*{re.escape(told)}"):
        load_training(tmp_path, trainer)
    assert trainer.step == 0  # and nothing was taken from it
    assert small.same_weights(trainer.model, before)
