"""Callbacks: the table, the early stop, the best model, the progress bar."""

import copy
import math
import os
import statistics
from pathlib import Path

import pytest
import small
import torch
from small import At, Record, full, held_out_loss, interrupt, rows_of, small_trainer, trained

import qwenkit as qk
from qwenkit.errors import CheckpointError, InputError, SourceError
from qwenkit.train import (
    CsvLog,
    EarlyStop,
    Evaluation,
    KeepModel,
    Metrics,
    SaveTraining,
    read_metrics,
)

COLUMNS = "step,tokens,loss,learning_rate,gradient_norm,tokens_per_second"
COLUMNS += ",evaluation_loss,evaluation_bits_per_byte"
ROWS = [COLUMNS, "2,120,4.5,0.002,1.5,150,,", "4,200,3.0,0.001,9.0,250,2.5,1.1"]
TABLE = "\n".join(ROWS) + "\n"
NO_SPACE = r" could not be written \(.*No space"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def opened(path, step=0, text=TABLE):
    """Return the lines of a metrics file after a run has begun to log at a step."""
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    trainer = small_trainer()
    trainer.step = step
    CsvLog(path).on_start(trainer)
    return path.read_text(encoding="utf-8").splitlines()


def test_rows_are_means_since_the_row_before(path):
    trainer, log = small_trainer(log_every=2, steps=5), CsvLog(path)
    log.on_start(trainer)
    for metrics in (
        (1, 60, 5.0, 0.001, 1.0, 100.0), (2, 120, 4.0, 0.002, 2.0, 300.0),
        (3, 150, 3.5, 0.003, 3.0, 200.0, Evaluation(nats=30.0, num_tokens=12, num_bytes=40)),
        (4, 200, 3.0, 0.00123456, 9.0, 250.4), (5, 260, 2.123456, 0.001, 0.5, 50.0),
    ):  # fmt: skip
        log.on_step(trainer, Metrics(*metrics))
    assert path.read_text(encoding="utf-8").splitlines() == [
        COLUMNS,
        "2,120,4.50000,0.002,1.5000,150,,",  # 1/100 s and 1/300 s per token: 2 / (4/300)
        "3,150,3.50000,0.003,3.0000,200,2.50000,1.08202",  # 30 nats / 12; 30 / ln 2 / 40
        "4,200,3.00000,0.001235,9.0000,250,,",
        "5,260,2.12346,0.001,0.5000,50,,",  # the last step always has a row
    ]


def test_the_table_says_what_the_steps_gave(tmp_path):
    record, path = Record(), tmp_path / "new" / "metrics.csv"
    trained(CsvLog(path), record, evaluate=held_out_loss, evaluate_every=4, steps=10)
    rows = rows_of(path)
    assert [int(row["step"]) for row in rows] == [3, 4, 6, 8, 9, 10]
    before = 0
    for row in rows:
        part, before = record.rows[before : int(row["step"])], int(row["step"])
        _, tokens, _, rate, _, found = part[-1]
        loss, norm = (statistics.mean(step[column] for step in part) for column in (2, 4))
        assert float(row["loss"]) == pytest.approx(loss, abs=6e-6)
        assert float(row["gradient_norm"]) == pytest.approx(norm, abs=6e-5)
        assert int(row["tokens"]) == tokens
        assert float(row["learning_rate"]) == pytest.approx(rate, rel=1e-3)
        assert row["evaluation_loss"] == (f"{found.loss:.5f}" if found else "")


def test_a_resumed_run_drops_the_rows_of_steps_that_it_does_again(tmp_path):
    settings = {"save_every": 4, "evaluate": held_out_loss, "evaluate_every": 5}
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    trained(CsvLog(whole), **settings)
    with pytest.raises(KeyboardInterrupt):
        trained(CsvLog(parts), SaveTraining(tmp_path), At(11, interrupt), **settings)
    assert [row["step"] for row in rows_of(parts)] == ["3", "5", "6", "9", "10"]
    trainer = small_trainer(CsvLog(parts), SaveTraining(tmp_path), **settings)
    assert qk.train.load_training(tmp_path, trainer) == 8
    trainer.callbacks[0].on_start(trainer)
    assert [row["step"] for row in rows_of(parts)] == ["3", "5", "6"]
    trainer.run()
    assert rows_of(parts) == rows_of(whole)


@pytest.mark.parametrize("left", [
    "", "1", "3,150,3.5", "3,150,3.5,0.003,3.0000,200,2.50000,1.08", "3,150,3.5\n",
    "\0\0\0\0\0\0\n", "\n\n", "three,1,1,1,1,1,1,1\n", "-3,1,1,1,1,1,1,1\n",
    "3,1,1,1,1,1,1,1,9,9\n", "\u00b2,1,1,1,1,1,1,1\n",
], ids=repr)  # fmt: skip
def test_a_partial_row_that_a_crash_left_is_dropped(path, left):
    assert opened(path, step=4, text=TABLE + left) == ROWS


@pytest.mark.parametrize(("step", "text"), [
    (4, b""), (4, b"\xff\xfe\x00"), (4, b"no table\n"), (4, bytes(100)), (0, None),
])  # fmt: skip
def test_a_file_that_is_not_a_table_or_of_an_earlier_training_is_replaced(path, step, text):
    assert opened(path, step, text) == opened(path) == ROWS[:1]


@pytest.mark.parametrize(("where", "name"), [(os, "replace"), (Path, "write_text")])
def test_a_full_disk_is_one_clear_error_and_leaves_the_table(path, monkeypatch, where, name):
    monkeypatch.setattr(where, name, full)
    with pytest.raises(CheckpointError, match=rf"metrics\.csv{NO_SPACE}"):
        opened(path, step=2)
    assert small.content(path.parent) == {path.name: TABLE.encode()}
    monkeypatch.undo()
    log, trainer = CsvLog(path), small_trainer(log_every=1)
    log.on_start(trainer)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=rf"metrics\.csv{NO_SPACE}"):
        log.on_step(trainer, Metrics(1, 60, 5.0, 0.001, 1.0, 100.0))


def test_columns_come_back_as_numbers(path):
    path.write_text("step,loss,evaluation_loss\n10,2.5,\n20,2.25,3.5\n")
    found = read_metrics(path)
    assert (found["step"], found["loss"]) == ([10.0, 20.0], [2.5, 2.25])
    assert math.isnan(found["evaluation_loss"][0])
    assert found["evaluation_loss"][1] == 3.5
    path.write_text("step,loss\n10,2.5\n20")  # cut short by a killed process
    assert math.isnan(read_metrics(path)["loss"][1])


@pytest.mark.parametrize("content", [b"step,loss\n10,abc\n", b"step\n\xff\n"])
def test_what_is_not_a_table_of_numbers_is_refused_and_an_absent_file(path, content):
    with pytest.raises(SourceError, match="cannot be read"):
        read_metrics(path)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="is not a table of numbers"):
        read_metrics(path)
    path.write_text("")
    assert read_metrics(path) == {}


def scripted(losses):
    """Return an evaluation that gives these losses in turn."""
    rest = iter(losses)
    return lambda model: Evaluation(next(rest) * 10, 10, 10)


LOSSES = [5.0, 4.0, 4.5, 3.0, 3.0, 3.1, 3.5, 1.0, 1.0, 1.0, 1.0, 1.0]  # the best of all comes late


@pytest.mark.parametrize(("patience", "losses", "every", "last", "best"), [
    (1, LOSSES, 1, 3, "4.0000"), (2, LOSSES, 1, 6, "3.0000"), (3, LOSSES, 1, 7, "3.0000"),
    (4, LOSSES, 1, 12, "1.0000"), (1, [], 0, 12, None),
    (1, [5.0, 4.0, 4.0], 3, 9, "4.0000"),  # steps without an evaluation do not count
    (2, [5.0, math.nan, math.nan], 1, 3, "5.0000"),  # NaN is never better
])  # fmt: skip
def test_it_stops_after_so_many_evaluations_without_better(patience, losses, every, last, best):
    trainer = trained(EarlyStop(patience), evaluate=scripted(losses), evaluate_every=every)
    message = f"the held-out loss has not fallen below {best} in {patience} evaluations"
    assert (trainer.step, trainer.stopping) == (last, message if best else None)


@pytest.mark.parametrize("at", range(1, 7))
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(tmp_path, at):
    def trainer(losses, *more):
        settings = {"evaluate": scripted(losses), "evaluate_every": 1, "save_every": 1}
        return small_trainer(EarlyStop(2), SaveTraining(tmp_path), *more, **settings)

    with pytest.raises(KeyboardInterrupt):
        trainer(LOSSES, At(at, interrupt)).run()
    then = trainer(LOSSES[at:])
    assert qk.train.load_training(tmp_path, then) == at
    then.run()
    message = "the held-out loss has not fallen below 3.0000 in 2 evaluations"
    assert (then.step, then.stopping) == (6, message)
    for patience in (0, -1):
        with pytest.raises(InputError, match="patience is"):
            EarlyStop(patience)


def copies():
    """Return a callback and the model of each step, as it keeps them."""
    models = {}
    return At(None, lambda t: models.update({t.step: copy.deepcopy(t.model)})), models


def keeping(folder, dtype=torch.float32):
    return KeepModel(folder, small.tokenizer(), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_best_model_is_kept_in_the_dtype_asked_for(tmp_path, dtype):
    copy_all, models = copies()
    losses = [5.0, 4.0, 3.0, 3.0, 3.5, math.nan]
    callbacks = keeping(tmp_path / "model", dtype), copy_all
    trainer = trained(*callbacks, evaluate=scripted(losses), evaluate_every=2)
    assert qk.Checkpoint(tmp_path / "model").dtype == dtype
    model, tokenizer = qk.load_pretrained(tmp_path / "model", dtype="float32")
    # the best is that of the third evaluation; the fourth is only as good
    assert small.same_weights(model, models[6].to(dtype).float())
    text = small.HELD_OUT[0].text
    assert tokenizer.encode(text) == small.tokenizer().encode(text)
    assert model.stop_ids == trainer.model.stop_ids
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert small.same_weights(trained().model, trainer.model)  # the training is unchanged


@pytest.mark.parametrize("settings", [{}, {"evaluate": held_out_loss, "evaluate_every": 10}])
def test_without_an_evaluation_the_last_model_is_kept_and_without_a_step_none(tmp_path, settings):
    trainer = trained(Record(until=5), keeping(tmp_path / "model"), **settings)
    assert small.same_weights(qk.load_model(tmp_path / "model", dtype="float32"), trainer.model)
    assert trainer.step == 5
    trainer = small_trainer(keeping(tmp_path / "none"))
    trainer.stopping = "stopped before it began"
    trainer.run()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("done", [1, 2])
def test_a_resumed_run_keeps_the_best_of_both_parts(tmp_path, done):
    losses = [3.0, 4.0, 3.5, 2.0]
    copy_all, models = copies()
    keep = keeping(tmp_path / "model")
    callbacks = copy_all, keep, Record(until=3 * done), SaveTraining(tmp_path)
    trained(*callbacks, evaluate=scripted(losses), evaluate_every=3)
    callbacks = copy_all, keeping(tmp_path / "model"), Record(until=9)
    then = small_trainer(*callbacks, evaluate=scripted(losses[done:]), evaluate_every=3)
    qk.train.load_training(tmp_path, then)
    for best in (3, 12):
        then.run()
        assert small.same_weights(qk.load_model(tmp_path / "model", dtype="float32"), models[best])
        then.stopping = None
        then.callbacks[2].until = 0


def full_at_the_tokenizer(source, target, replace=os.replace):
    full() if Path(target).name == "tokenizer.json" else replace(source, target)


@pytest.mark.parametrize(
    ("name", "fails", "wrong"),
    [
        ("fsync", full, r"^nothing was saved to .*model \(No space left"),
        ("replace", full, r"^nothing was saved to .*model \(No space left"),
        # Committed, but not moved into place: the next load does it.
        ("replace", full_at_the_tokenizer, r"model was saved, but its files .*\(No space left"),
    ],
)
def test_a_model_that_cannot_be_written_is_one_clear_error(
    tmp_path, monkeypatch, name, fails, wrong
):
    monkeypatch.setattr(os, name, fails)
    with pytest.raises(CheckpointError, match=wrong):
        trained(keeping(tmp_path / "model"), steps=3)
    assert not list((tmp_path / "model").glob("*.tmp"))
    monkeypatch.undo()
    (tmp_path / "tokenizer.json").mkdir()  # is in the tokenizer's way
    with pytest.raises(CheckpointError, match=r"^nothing was saved"):
        trained(keeping(tmp_path), steps=3)


def test_the_bar_shows_loss_rate_and_speed_and_begins_where_the_run_does(path, capsys):
    trained(qk.train.ProgressBar(), record := Record(), evaluate=held_out_loss, evaluate_every=6)
    last = capsys.readouterr().err.split("\r")[-1]
    *_, loss, rate, _, found = record.rows[-1]
    assert "12/12" in last
    assert f"loss={loss:.3f}, lr={rate:.1e}, tok/s=" in last
    assert f"held-out bits/byte={found.bits_per_byte:.3f}" in last
    assert last.endswith("\n")
    trainer = small_trainer(qk.train.ProgressBar(), Record(until=5))  # as if resumed
    trainer.step = 4
    trainer.run()
    shown = capsys.readouterr().err.split("\r")
    assert any("4/12" in text for text in shown)
    assert "5/12" in shown[-1]
    assert "held-out" not in shown[-1]
    with pytest.raises(KeyboardInterrupt):
        trained(qk.train.ProgressBar(), At(2, interrupt))  # an error has a line of its own
    assert capsys.readouterr().err.endswith("\n")
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.csv could not be written"):
        trained(CsvLog(path), qk.train.ProgressBar())  # not hidden before the bar opens
