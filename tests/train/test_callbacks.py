"""Callbacks: the table, the early stop, the best model, the bar."""

import copy
import errno
import os
from pathlib import Path

import pytest
import torch
from small import (
    HELD_OUT,
    Record,
    content,
    held_out_loss,
    rows_of,
    same_weights,
    small_trainer,
    tokenizer,
)

import qwenkit as qk
from qwenkit.errors import CheckpointError, InputError
from qwenkit.train import (
    Callback,
    CsvLog,
    EarlyStop,
    Evaluation,
    KeepModel,
    Metrics,
    ProgressBar,
    SaveTraining,
    load_training,
)

COLUMNS = [
    "step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "evaluation_loss", "evaluation_bits_per_byte",
]  # fmt: skip


class Break(Callback):
    """Ends the run with an error after a step."""

    def __init__(self, after):
        self.after = after

    def on_step(self, trainer, metrics):
        if metrics.step == self.after:
            raise KeyboardInterrupt


# --- the table ---


def test_rows_are_means_since_the_row_before(tmp_path):
    path, trainer = tmp_path / "metrics.csv", small_trainer(log_every=2, steps=5)
    log = CsvLog(path)
    log.on_start(trainer)
    evaluation = Evaluation(nats=30.0, num_tokens=12, num_bytes=40)
    for metrics in (
        Metrics(1, 60, 5.0, 0.001, 1.0, 100.0),
        Metrics(2, 120, 4.0, 0.002, 2.0, 300.0),
        Metrics(3, 150, 3.5, 0.003, 3.0, 200.0, evaluation),
        Metrics(4, 200, 3.0, 0.00123456, 9.0, 250.4),
        Metrics(5, 260, 2.123456, 0.001, 0.5, 50.0),
    ):
        log.on_step(trainer, metrics)
    assert path.read_text(encoding="utf-8").splitlines() == [
        ",".join(COLUMNS),
        "2,120,4.50000,0.002,1.5000,150,,",  # 1/100 s and 1/300 s a token: 2 / (4/300)
        "3,150,3.50000,0.003,3.0000,200,2.50000,1.08202",  # 30 nats / 12; 30 / ln 2 / 40
        "4,200,3.00000,0.001235,9.0000,250,,",
        "5,260,2.12346,0.001,0.5000,50,,",  # the last step always has a row
    ]


def test_the_table_says_what_the_steps_gave(tmp_path):
    record = Record()
    small_trainer(CsvLog(tmp_path / "a" / "metrics.csv"), record, evaluate=held_out_loss,
                  evaluate_every=4, steps=10).run()  # fmt: skip
    rows = rows_of(tmp_path / "a" / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [3, 4, 6, 8, 9, 10]
    before = 0
    for row in rows:
        step = int(row["step"])
        part = record.rows[before:step]
        before = step
        assert float(row["loss"]) == pytest.approx(sum(r[2] for r in part) / len(part), abs=6e-6)
        norms = sum(r[4] for r in part) / len(part)
        assert float(row["gradient_norm"]) == pytest.approx(norms, abs=6e-5)
        assert int(row["tokens"]) == part[-1][1]
        assert float(row["learning_rate"]) == pytest.approx(part[-1][3], rel=1e-3)
        found = part[-1][5]
        assert row["evaluation_loss"] == (f"{found.loss:.5f}" if found else "")


def test_a_resumed_run_drops_the_rows_of_steps_that_it_does_again(tmp_path):
    def callbacks(run):
        return CsvLog(tmp_path / run / "metrics.csv"), SaveTraining(tmp_path / run / "steps")

    settings = {"save_every": 4, "evaluate": held_out_loss, "evaluate_every": 5}
    small_trainer(*callbacks("whole"), **settings).run()
    path = tmp_path / "parts" / "metrics.csv"
    with pytest.raises(KeyboardInterrupt):
        small_trainer(*callbacks("parts"), Break(after=11), **settings).run()
    assert [row["step"] for row in rows_of(path)] == ["3", "5", "6", "9", "10"]
    log, saving = callbacks("parts")
    trainer = small_trainer(log, saving, **settings)
    assert load_training(tmp_path / "parts" / "steps", trainer) == 8
    log.on_start(trainer)
    assert [row["step"] for row in rows_of(path)] == ["3", "5", "6"]
    trainer.run()
    assert rows_of(path) == rows_of(tmp_path / "whole" / "metrics.csv")


SOUND = [",".join(COLUMNS), "2,120,4.5,0.002,1.5,150,,", "4,200,3.0,0.001,9.0,250,2.5,1.1"]


@pytest.mark.parametrize(
    "left",
    [
        "",
        "1",
        "3,150,3.5",
        "3,150,3.5,0.003,3.0000,200,2.50000,1.08",
        "3,150,3.5\n",
        "\0\0\0\0\0\0\n",
        "\n\n",
        "three,1,1,1,1,1,1,1\n",
        "-3,1,1,1,1,1,1,1\n",
        "3,1,1,1,1,1,1,1,9,9\n",
        "\u00b2,1,1,1,1,1,1,1\n",
    ],
    ids=repr,
)
def test_half_a_row_that_a_crash_left_is_dropped(tmp_path, left):
    path, trainer = tmp_path / "metrics.csv", small_trainer()
    trainer.step = 4
    path.write_text("\n".join(SOUND) + "\n" + left, encoding="utf-8")
    CsvLog(path).on_start(trainer)
    assert path.read_text(encoding="utf-8").splitlines() == SOUND


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"no table\n", bytes(100)])
def test_a_file_that_is_no_table_begins_anew(tmp_path, text):
    path, trainer = tmp_path / "metrics.csv", small_trainer()
    trainer.step = 4
    path.write_bytes(text)
    CsvLog(path).on_start(trainer)
    assert path.read_text(encoding="utf-8").splitlines() == SOUND[:1]
    path.unlink()
    CsvLog(path).on_start(trainer)
    assert path.read_text(encoding="utf-8").splitlines() == SOUND[:1]


def test_a_new_training_replaces_the_table(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("\n".join(SOUND) + "\n", encoding="utf-8")
    CsvLog(path).on_start(small_trainer())
    assert path.read_text(encoding="utf-8").splitlines() == SOUND[:1]


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("where", "name"), [(os, "replace"), (Path, "write_text")])
def test_a_table_that_cannot_be_renewed_stays_as_it_was(tmp_path, monkeypatch, where, name):
    path, trainer = tmp_path / "metrics.csv", small_trainer()
    trainer.step = 2
    path.write_text("\n".join(SOUND) + "\n", encoding="utf-8")
    before = content(tmp_path)
    monkeypatch.setattr(where, name, full)
    with pytest.raises(CheckpointError, match=r"metrics\.csv could not be written \(.*No space"):
        CsvLog(path).on_start(trainer)
    assert content(tmp_path) == before


def test_a_row_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    log, trainer = CsvLog(tmp_path / "metrics.csv"), small_trainer(log_every=1)
    log.on_start(trainer)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"metrics\.csv could not be written \(.*No space"):
        log.on_step(trainer, Metrics(1, 60, 5.0, 0.001, 1.0, 100.0))


# --- the early stop ---


def scripted(losses):
    """Return an evaluation that gives these losses in turn; count how many were asked for."""
    rest = iter(losses)
    return lambda model: Evaluation(next(rest) * 10, 10, 10)


LOSSES = [5.0, 4.0, 4.5, 3.0, 3.0, 3.1, 3.5, 1.0, 1.0, 1.0, 1.0, 1.0]  # the best of all comes late


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 6), (3, 7), (4, 12)])
def test_it_stops_after_so_many_evaluations_without_a_better_one(patience, last):
    stop = EarlyStop(patience)
    trainer = small_trainer(stop, evaluate=scripted(LOSSES), evaluate_every=1)
    trainer.run()
    assert trainer.step == last
    if last < 12:
        best = min(LOSSES[:last])
        assert trainer.stopping == (
            f"the held-out loss has not fallen below {best:.4f} in {patience} evaluations"
        )


def test_steps_without_an_evaluation_do_not_count():
    trainer = small_trainer(EarlyStop(1), evaluate=scripted([5.0, 4.0, 4.0]), evaluate_every=3)
    trainer.run()
    assert trainer.step == 9
    trainer = small_trainer(EarlyStop(1))
    trainer.run()
    assert (trainer.step, trainer.stopping) == (12, None)


def test_a_loss_that_is_no_number_is_never_better():
    nan = float("nan")
    trainer = small_trainer(EarlyStop(2), evaluate=scripted([5.0, nan, nan]), evaluate_every=1)
    trainer.run()
    assert trainer.step == 3
    assert "below 5.0000" in trainer.stopping


@pytest.mark.parametrize("at", range(1, 7))
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(tmp_path, at):
    settings = {"evaluate_every": 1, "save_every": 1}
    first = small_trainer(
        EarlyStop(2), SaveTraining(tmp_path), Break(after=at), evaluate=scripted(LOSSES), **settings
    )
    with pytest.raises(KeyboardInterrupt):
        first.run()
    trainer = small_trainer(
        EarlyStop(2), SaveTraining(tmp_path), evaluate=scripted(LOSSES[at:]), **settings
    )
    assert load_training(tmp_path, trainer) == at
    trainer.run()
    assert trainer.step == 6
    assert trainer.stopping == "the held-out loss has not fallen below 3.0000 in 2 evaluations"


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_below_one_is_refused(patience):
    with pytest.raises(InputError, match="patience is"):
        EarlyStop(patience)


# --- the best model ---


class Copies(Callback):
    """Keeps the model of each step."""

    def __init__(self):
        self.models = {}

    def on_step(self, trainer, metrics):
        self.models[metrics.step] = copy.deepcopy(trainer.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_best_model_is_kept_in_the_dtype_asked_for(tmp_path, dtype):
    copies = Copies()
    keep = KeepModel(tmp_path / "model", tokenizer(), dtype)
    losses = [5.0, 4.0, 3.0, 3.0, 3.5, float("nan")]
    trainer = small_trainer(keep, copies, evaluate=scripted(losses), evaluate_every=2)
    trainer.run()
    assert qk.Checkpoint(tmp_path / "model").dtype == dtype
    model, words = qk.load_pretrained(tmp_path / "model", dtype="float32")
    best = copies.models[6]  # of the third evaluation; the fourth is only as good
    assert same_weights(model, best.to(dtype).float())
    text = HELD_OUT[0].text
    assert words.encode(text) == tokenizer().encode(text)
    assert model.stop_ids == trainer.model.stop_ids
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    other = small_trainer()
    other.run()
    assert same_weights(other.model, trainer.model)  # keeping models changes nothing in training


@pytest.mark.parametrize("settings", [{}, {"evaluate": held_out_loss, "evaluate_every": 10}])
def test_without_an_evaluation_the_last_model_is_kept(tmp_path, settings):
    trainer = small_trainer(Record(until=5), KeepModel(tmp_path, tokenizer()), **settings)
    trainer.run()
    model, _ = qk.load_pretrained(tmp_path, dtype="float32")
    assert same_weights(model, trainer.model)
    assert trainer.step == 5


def test_a_run_without_a_step_keeps_no_model(tmp_path):
    trainer = small_trainer(KeepModel(tmp_path / "model", tokenizer()))
    trainer.stopping = "stopped before it began"
    trainer.run()
    assert not (tmp_path / "model").exists()


def test_a_resumed_run_keeps_the_best_of_both_parts(tmp_path):
    losses = [3.0, 4.0, 3.5, 2.0]
    for done in (1, 2):
        copies = Copies()
        folder = tmp_path / str(done)
        first = small_trainer(
            copies, KeepModel(folder / "model", tokenizer()), Record(until=3 * done),
            SaveTraining(folder), evaluate=scripted(losses), evaluate_every=3,
        )  # fmt: skip
        first.run()
        then = small_trainer(
            copies, KeepModel(folder / "model", tokenizer()), Record(until=9),
            evaluate=scripted(losses[done:]), evaluate_every=3,
        )  # fmt: skip
        load_training(folder, then)
        then.run()
        kept, _ = qk.load_pretrained(folder / "model", dtype="float32")
        assert same_weights(kept, copies.models[3])
        then.stopping = None
        then.callbacks[2].until = 0
        then.run()
        kept, _ = qk.load_pretrained(folder / "model", dtype="float32")
        assert same_weights(kept, copies.models[12])


@pytest.mark.parametrize(("where", "name"), [(os, "fsync"), (os, "replace")])
def test_a_model_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch, where, name):
    trainer = small_trainer(KeepModel(tmp_path / "model", tokenizer()), steps=3)
    monkeypatch.setattr(where, name, full)
    with pytest.raises(CheckpointError, match=r"model could not be written \(.*No space left"):
        trainer.run()


def test_a_tokenizer_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "tokenizer.json").mkdir()  # stands in its way
    trainer = small_trainer(KeepModel(tmp_path, tokenizer()), steps=3)
    with pytest.raises(CheckpointError, match="could not be written"):
        trainer.run()


def test_a_tokenizer_that_the_full_disk_stops_is_one_clear_error(tmp_path, monkeypatch):
    replace = os.replace

    def full_at_the_tokenizer(source, target):
        full() if Path(target).name == "tokenizer.json" else replace(source, target)

    trainer = small_trainer(KeepModel(tmp_path / "model", tokenizer()), steps=3)
    monkeypatch.setattr(os, "replace", full_at_the_tokenizer)
    with pytest.raises(CheckpointError, match=r"model could not be written \(.*No space left"):
        trainer.run()
    assert not list((tmp_path / "model").glob("*.tmp"))


# --- the bar ---


def test_the_bar_shows_loss_rate_and_speed(capsys):
    record = Record()
    trainer = small_trainer(ProgressBar(), record, evaluate=held_out_loss, evaluate_every=6)
    trainer.run()
    last = capsys.readouterr().err.split("\r")[-1]
    loss, rate = record.rows[-1][2:4]
    bits = record.rows[-1][5].bits_per_byte
    assert "12/12" in last
    assert f"loss={loss:.3f}, lr={rate:.1e}, tok/s=" in last
    assert f"held-out bits/byte={bits:.3f}" in last
    assert last.endswith("\n")


def test_the_bar_of_a_resumed_run_begins_where_that_does(capsys):
    trainer = small_trainer(ProgressBar(), Record(until=5))
    trainer.step = 4
    trainer.run()
    shown = capsys.readouterr().err.split("\r")
    assert any("4/12" in text for text in shown)
    assert "5/12" in shown[-1]
    assert "held-out" not in shown[-1]


def test_an_error_stands_on_a_line_of_its_own(capsys):
    with pytest.raises(KeyboardInterrupt):
        small_trainer(ProgressBar(), Break(after=2)).run()
    assert capsys.readouterr().err.endswith("\n")


def test_an_error_before_the_bar_opens_is_not_hidden(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.csv could not be written"):
        small_trainer(CsvLog(tmp_path / "metrics.csv"), ProgressBar()).run()
