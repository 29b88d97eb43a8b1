"""`qwenkit grpo`: what it prints, what it writes, and what it refuses."""

import csv

import pytest
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.cli import _grpo, main
from qwenkit.programs import families_of, run_many

SMALL = "--steps 2 --prompts 2 --group-size 2 --max-new-tokens 3 --count 3"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_toy_checkpoint(tmp_path_factory.mktemp("toy")))


def grpo(capsys, flags):
    code = main(["grpo", *flags.split()])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("lora", ["", "--lora 2"])
def test_it_measures_learns_and_saves(capsys, folder, tmp_path, lora):
    out = tmp_path / "out"
    flags = f"--families is_even --model {folder} {SMALL} --out {out} {lora}"
    code, said, _ = grpo(capsys, flags)
    assert code == 0
    lines = said.splitlines()
    assert lines[0].endswith("tasks to learn from; 3 others to measure by")
    assert [line.split(":")[0] for line in lines[1:7]] == [
        "before", "before", "step   1", "step   2", "after", "after"
    ]  # fmt: skip
    assert "0.0% pass, 100% of the groups are silent, 3 tokens" in lines[3]
    with (out / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    model, _ = qk.load_pretrained(folder, dtype="float32")
    if lora:
        qk.load_adapter(model, out / "model")
    else:
        saved = qk.load_pretrained(out / "model", dtype="float32")[0]
        for name, value in model.state_dict().items():  # no reward, and so nothing learned
            assert saved.state_dict()[name].equal(value)


def test_what_is_saved_is_what_was_learned(capsys, folder, tmp_path, monkeypatch):
    trainers = []

    class Rewarded(_grpo.GrpoTrainer):
        def __init__(self, *args):
            super().__init__(*args, reward=lambda task, texts: [*range(len(texts))])
            trainers.append(self)

    monkeypatch.setattr(_grpo, "GrpoTrainer", Rewarded)
    out = tmp_path / "out"
    assert grpo(capsys, f"--families is_even --model {folder} {SMALL} --out {out}")[0] == 0
    start, saved = (qk.load_pretrained(one, dtype="float32")[0] for one in (folder, out / "model"))
    changed = 0
    for name, value in saved.state_dict().items():
        assert value.equal(trainers[0].model.state_dict()[name]), name
        changed += not value.equal(start.state_dict()[name])
    assert changed > 5


def test_metrics_that_cannot_be_written_are_named(capsys, folder, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_grpo, "replacing", full)
    out = tmp_path / "out"
    code, _, err = grpo(capsys, f"--families is_even --model {folder} {SMALL} --out {out}")
    assert code == 1
    assert f"{out / 'metrics.csv'} cannot be written: No space left on device" in err


def test_ctrl_c_keeps_what_was_learned(capsys, folder, tmp_path, monkeypatch):
    class Stopped(_grpo.GrpoTrainer):
        def train_step(self):
            if self.step == 1:
                raise KeyboardInterrupt
            return super().train_step()

    monkeypatch.setattr(_grpo, "GrpoTrainer", Stopped)
    out = tmp_path / "out"
    assert grpo(capsys, f"--families is_even --model {folder} {SMALL} --out {out}")[0] == 130
    assert (out / "model" / "config.json").is_file()
    with (out / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1"]


@pytest.mark.parametrize(("flags", "message"), [
    ("--families is_even --out pyproject.toml", "pyproject.toml is there already; choose another"),
    ("--families no_such --out new", "no_such: no such family in the split 'family'"),
    ("--families is_even --out new --learning-rate 0", "learning_rate is 0.0; it must be above 0"),
    ("--families is_even --out new --steps 0", "steps is 0; it must be at least 1"),
])  # fmt: skip
def test_it_refuses_before_anything_is_loaded(capsys, flags, message):
    code, out, err = grpo(capsys, flags)
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize("split", ["train", "family"])
def test_tasks_are_told_what_to_do_and_none_is_learned_and_measured(split):
    family = next(one.name for one in families_of(split))
    learned, held_out, others = _grpo._tasks([family], 10, seed=3)
    assert {task.family for task in learned + held_out} == {family}
    assert family not in {task.family for task in others}
    assert all('"""' in task.prompt for task in learned)
    assert {task.prompt for task in learned}.isdisjoint(task.prompt for task in held_out)
    assert (len(held_out), len(others)) == (10, 10)
    some = learned[:5] + held_out[:5]
    assert all(one.passed for one in run_many([(t.prompt + t.solution, t.tests) for t in some]))
