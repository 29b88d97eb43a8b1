"""`qwenkit train` as a user types it."""

import contextlib
import io
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from train.small import content, rows_of, write_recipe

import qwenkit as qk
from qwenkit.cli import main

# Steps that take their time, so that a signal falls between the first and the last.
SLOW = """
import sys, time, torch
from qwenkit.cli import main
from qwenkit.train import Trainer
torch.set_num_threads(1)
step = Trainer.train_step
Trainer.train_step = lambda self: (time.sleep(0.3), step(self))[1]
sys.exit(main(sys.argv[1:]))
"""


def command(folder, **settings):
    recipe, texts = write_recipe(folder, **settings)
    return ["train", str(recipe), "--text", str(texts), "--out", str(folder / "out")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_thread):
    """A finished training: its folder, what was printed, and its progress bar."""
    folder, printed, bar = tmp_path_factory.mktemp("trained"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(bar):
        assert main(command(folder, evaluate_every=6)) == 0
    return folder / "out", printed.getvalue(), bar.getvalue()


def test_it_trains_and_the_command_it_suggests_writes_with_the_new_model(trained, capsys):
    out, printed, bar = trained
    assert "ended at step 12 of 12: all done" in printed
    assert f"model    {out / 'model'}" in printed
    assert "tok/s=" in bar
    assert "held-out bits/byte=" in bar
    assert [row["step"] for row in rows_of(out / "metrics.csv")] == ["3", "6", "9", "12"]
    suggested = re.search(r"^ +qwenkit (generate '.*' --model .*)$", printed, re.MULTILINE)[1]
    assert suggested == f"generate 'def main():' --model {out / 'model'}"
    assert main([*shlex.split(suggested), "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().out.startswith("def main():")
    assert qk.Checkpoint(out / "model").problems() == []


def test_ctrl_c_saves_and_the_command_it_names_resumes(trained, tmp_path):
    out = tmp_path / "a folder" / "out"
    given = [sys.executable, "-c", SLOW, *command(out.parent, evaluate_every=6)]
    running = subprocess.Popen(given, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    step = int(re.search(r"stopped by SIGINT after step (\d+) of 12; all is saved", printed)[1])
    assert 1 <= step < 12
    qwenkit, *named = shlex.split(printed.strip().splitlines()[-1])
    assert (qwenkit, named[0]) == ("qwenkit", "train")
    assert main(named) == 0
    weights = "model/model.safetensors"
    assert content(out)[weights] == content(trained[0])[weights]
    assert rows_of(out / "metrics.csv") == rows_of(trained[0] / "metrics.csv")


@pytest.mark.parametrize(("change", "message"), [
    (["--resume"], "holds no checkpoint to resume"),
    (["--text", "nowhere"], "nowhere is not a folder"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(trained, tmp_path, capsys, change, message):
    out, before = trained[0], content(trained[0])
    for given, said in (
        ([*command(tmp_path), *change], message),
        (command(out.parent), "--resume"),
    ):
        assert main(given) == 1
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert content(out) == before  # a second training in the same folder is refused
