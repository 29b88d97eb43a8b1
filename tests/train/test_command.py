"""`qwenkit train` as a person types it."""

import re
import signal
import subprocess
import sys
import time

import pytest
from small import content, rows_of, write_recipe

import qwenkit as qk
from qwenkit.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished training: its folder, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    recipe, texts = write_recipe(folder, evaluate_every=6)
    command = [sys.executable, "-m", "qwenkit.cli.main", "train", str(recipe), "--text", str(texts)]
    done = subprocess.run(
        [*command, "--out", str(folder / "out")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_it_trains_and_says_where_the_results_are(trained):
    folder, done = trained
    assert "ended at step 12 of 12: all done" in done.stdout
    assert f"model    {folder / 'out' / 'model'}" in done.stdout
    assert "tok/s=" in done.stderr  # the bar
    assert "held-out bits/byte=" in done.stderr
    assert [row["step"] for row in rows_of(folder / "out" / "metrics.csv")] == ["3", "6", "9", "12"]


def test_the_command_it_suggests_writes_with_the_new_model(trained, capsys):
    folder, done = trained
    suggested = re.search(r"^ +qwenkit (generate '.*' --model .*)$", done.stdout, re.MULTILINE)[1]
    assert suggested == f"generate 'def main():' --model {folder / 'out' / 'model'}"
    model = str(folder / "out" / "model")
    assert main(["generate", "def main():", "--max-new-tokens", "9", "--model", model]) == 0
    assert capsys.readouterr().out.startswith("def main():")
    assert qk.Checkpoint(folder / "out" / "model").problems() == []


def test_ctrl_c_saves_and_the_command_it_names_goes_on(trained, tmp_path):
    finished, _ = trained
    recipe, texts = write_recipe(tmp_path / "a folder", evaluate_every=6)
    out = tmp_path / "a folder" / "out"
    # A step that takes its time, so that the signal falls between the first and the last.
    slow = (
        "import sys, time; from qwenkit import cli; from qwenkit.train import Trainer; "
        "step = Trainer.train_step; "
        "Trainer.train_step = lambda self: (time.sleep(0.3), step(self))[1]; "
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", str(recipe), "--text", str(texts), "--out", str(out)]
    running = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (out / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    step = int(re.search(r"stopped by SIGINT after step (\d+) of 12; all is saved", printed)[1])
    assert 1 <= step < 12
    named = printed.strip().splitlines()[-1].strip()
    assert named.startswith("qwenkit train ")
    again = subprocess.run(
        f"{sys.executable} -m qwenkit.cli.main {named.removeprefix('qwenkit ')}",
        shell=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    weights = "model/model.safetensors"
    assert content(out)[weights] == content(finished / "out")[weights]
    assert rows_of(out / "metrics.csv") == rows_of(finished / "out" / "metrics.csv")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--resume"], "holds no checkpoint to resume"),
        (["--text", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, capsys, change, words):
    recipe, texts = write_recipe(tmp_path)
    arguments = ["train", str(recipe), "--text", str(texts), "--out", str(tmp_path / "out")]
    assert main([*arguments, *change]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_second_training_in_the_same_folder_is_refused(trained, capsys):
    folder, _ = trained
    before = content(folder / "out")
    arguments = [str(folder / "recipe.toml"), "--text", str(folder / "texts")]
    assert main(["train", *arguments, "--out", str(folder / "out")]) == 1
    assert "--resume" in capsys.readouterr().err
    assert content(folder / "out") == before
