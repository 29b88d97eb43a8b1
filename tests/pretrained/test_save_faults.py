"""A save that is killed, runs out of room, may not write or meets another: all or nothing of it."""

import importlib
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from fixtures_toy import toy_of
from forked import python_forked

import qwenkit as qk
from qwenkit.errors import CheckpointError, QwenkitError
from qwenkit.files import write_json

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
SIGKILL = -9


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints of one config: other weights, stop tokens and tokenizer; one is in shards."""
    folders = [toy_of(tmp_path_factory, seed=seed, max_shard_bytes=limit)
               for seed, limit in ((1, 10**9), (2, 100_000))]  # fmt: skip
    for number, folder in enumerate(folders):
        again = folder.parent / f"again{number}"
        model, tokenizer = qk.load_pretrained(folder, dtype="bfloat16")
        write_json(folder / "generation_config.json", {"temperature": number, "eos_token_id": 5})
        model, _ = qk.load_pretrained(folder, dtype="bfloat16")
        tokenizer.chat_template = f"template {number}"
        tokenizer.backend.add_tokens([f"token{number}"])
        qk.save_pretrained(model, again, tokenizer)
        folders[number] = again
    return folders


@pytest.fixture(scope="module")
def report(checkpoints):
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk would wait at each fsync
    with tempfile.TemporaryDirectory(dir=memory) as runs:
        script = Path(__file__).with_name("save_faults.py").read_text("utf-8")
        done = python_forked(script, *checkpoints, runs)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("pair", [0, 1])
def test_killed_at_any_step_the_folder_is_all_old_or_all_new_and_then_clean(report, pair):
    *killed, last = report["killed"][pair]
    assert len(killed) >= 20
    assert {code for code, _, _ in killed} == {SIGKILL}
    states = [state for _, state, _ in [*killed, last]]
    assert set(states) == {"old", "new"}
    assert states == sorted(states, reverse=True)  # once new, never old again
    assert all(clean for *_, clean in [*killed, last])


@pytest.mark.parametrize("fault", ["full", "read-only", "small"])
def test_without_room_or_leave_to_write_it_is_refused_and_all_is_as_it_was(report, fault):
    for rows in report[fault]:
        *failed, last = rows
        if fault == "small":
            failed.append(last)
        assert {code for code, _, _ in failed} == {3}  # our error, and no other
        # After the commit it says that the save counts, and the next load moves the files.
        states = [state for _, state, _ in failed]
        assert states == sorted(states, reverse=True)
        assert set(states) <= {"old", "new"}
        assert states[:3] == ["old"] * 3
        assert all(clean for *_, clean in rows)


def test_of_two_that_save_at_once_one_wins_whole(report):
    for codes, states in report["two"]:
        assert set(codes) <= {0, 3}
        assert 0 in codes
        assert sorted(states) == ["new", "old"]  # the one's new is the other's old


def test_a_folder_that_may_not_be_written_is_told(checkpoints, tmp_path, monkeypatch):
    model, tokenizer = qk.load_pretrained(checkpoints[0])
    (tmp_path / "locked").mkdir(mode=0o555)
    if os.access(tmp_path / "locked", os.W_OK):  # permissions do not bind root
        monkeypatch.setattr(
            os, "mkdir", lambda *_: (_ for _ in ()).throw(PermissionError(13, "No"))
        )
    for folder in (tmp_path / "locked", tmp_path / "locked" / "new"):
        with pytest.raises(CheckpointError, match="nothing was saved to"):
            qk.save_pretrained(model, folder, tokenizer)
    with pytest.raises(QwenkitError, match="names no user"):
        qk.save_pretrained(model, "~nobody-of-this-name/x")


class Once:
    """Calls a function, and before its first call saves another version; in a second way, after."""

    def __init__(self, function, save, after):
        self.function, self.save, self.after, self.calls = function, save, after, 0

    def __call__(self, *args, **options):
        self.calls += 1
        if self.calls == 1 and not self.after:
            self.save()
        try:
            return self.function(*args, **options)
        finally:
            if self.calls == 1 and self.after:
                self.save()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("where", "name"), [
    ("qwenkit.checkpoint._checkpoint", "weight_files"), ("qwenkit.checkpoint._checkpoint", "read"),
    ("qwenkit.pretrained._loading", "Tokenizer"), ("qwenkit.pretrained._loading", "remember"),
])  # fmt: skip
def test_what_is_saved_while_a_model_is_loaded_is_loaded_whole(
    checkpoints, tmp_path, monkeypatch, where, name, after
):
    old, new = (qk.load_pretrained(folder, dtype="bfloat16") for folder in checkpoints)
    qk.save_pretrained(old[0], tmp_path, old[1])
    once = Once(
        getattr(importlib.import_module(where), name),
        lambda: qk.save_pretrained(new[0], tmp_path, new[1]), after,
    )  # fmt: skip
    monkeypatch.setattr(f"{where}.{name}", once)
    model, tokenizer = qk.load_pretrained(tmp_path, dtype="bfloat16")
    assert tokenizer.chat_template == new[1].chat_template
    assert vars(model)["_loaded_from"] == vars(new[0])["_loaded_from"]
    want = new[0].state_dict()
    assert all(torch.equal(value, want[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_that_was_replaced_after_it_was_opened_is_not_read(checkpoints, tmp_path):
    (old, _), (new, tokenizer) = (qk.load_pretrained(folder) for folder in checkpoints)
    qk.save_pretrained(old, tmp_path)
    checkpoint = qk.Checkpoint(tmp_path)
    tokenizer.save(tmp_path)
    checkpoint.load()  # its own files are the same
    qk.save_pretrained(new, tmp_path, max_shard_bytes=10**9)
    with pytest.raises(CheckpointError, match="has changed since it was opened; open it again"):
        checkpoint.load()
