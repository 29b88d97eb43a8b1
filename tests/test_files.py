"""A file is the old one or the new one, never half of either."""

import os
import re
import threading
from contextlib import suppress

import pytest
from interruptions import Killed, failing_at

import qwenkit as qk
from qwenkit.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    TokenizerError,
    few,
    printable,
    shown,
)
from qwenkit.files import (
    _together,
    clear_leftovers,
    expanded,
    read_json_object,
    replacing,
    saving,
    settle,
    temporary_name,
    undisturbed,
    write_json,
)


@pytest.mark.parametrize("fails", [False, True])
def test_the_new_file_replaces_the_old_at_the_end_unless_writing_fails(tmp_path, fails):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        if fails:
            raise KeyError
    assert path.read_text() == ("old" if fails else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_the_files_with_a_temporary_name(tmp_path):
    left = temporary_name(tmp_path / "table.csv")
    left.write_text("ne")
    (tmp_path / "mine.tmp").write_text("mine")
    clear_leftovers(tmp_path, "other")
    assert left.exists()
    clear_leftovers(tmp_path, re.escape("table.csv"))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.tmp"]


OLD = {"config": "old", "weights": "old", "stale": "old"}
NEW = {"config": "new", "weights": "new", "sub/more": "new"}


def contents(folder):
    """Every file in the folder, by name."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text() for file in found}


def save_new(folder, **options):
    with saving(folder, **options) as save:
        for name, text in NEW.items():
            (save.path / name).parent.mkdir(exist_ok=True)
            (save.path / name).write_text(text)
        save.obsolete |= {"stale", "never there"}


@pytest.fixture
def folder(tmp_path):
    for name, text in OLD.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_save_killed_at_any_step_is_the_old_folder_or_the_new_one(tmp_path, monkeypatch):
    outcomes = []
    for count in range(22):
        folder = tmp_path / str(count)
        folder.mkdir()
        for name, text in OLD.items():
            (folder / name).write_text(text)
        with monkeypatch.context() as patched, suppress(Killed):
            failing_at(count, patched, Killed)
            save_new(folder)
        settle(folder)
        outcomes.append({n: text for n, text in contents(folder).items() if ".tmp/" not in n})
        save_new(folder)
        assert contents(folder) == NEW  # nothing is left over
    committed = outcomes.index(NEW)
    assert 0 < committed < 12
    assert outcomes == [OLD] * committed + [NEW] * (22 - committed)


def test_an_error_while_saving_leaves_the_folder_as_it_was(folder):
    with suppress(KeyError), saving(folder) as save:
        (save.path / "config").write_text("new")
        raise KeyError
    assert contents(folder) == OLD


def test_a_disk_that_is_full_is_told_as_the_callers_error(folder, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenizerError, match=r"No space left.*what was there is unchanged"):
        save_new(folder, error=TokenizerError)
    assert contents(folder) == OLD


def test_a_folder_of_the_name_of_a_file_is_refused_before_anything_changes(folder):
    (folder / "sub").write_text("a file")
    with pytest.raises(CheckpointError, match=r"sub is a file"):
        save_new(folder)
    assert contents(folder) == OLD | {"sub": "a file"}
    (folder / "sub").unlink()
    (folder / "never there").mkdir()  # a name that the save makes obsolete
    with pytest.raises(CheckpointError, match=r"never there is a folder"):
        save_new(folder)
    assert contents(folder) == OLD


@pytest.mark.parametrize("name", ["save.mine.tmp", "save.mine.commit"])
def test_what_only_looks_like_a_save_is_left_alone(folder, name):
    for where in (folder / name, folder / f"{name}.txt"):
        where.mkdir()
        (where / "mine").write_text("mine")
    save_new(folder)
    settle(folder)
    mine = {f"{name}/mine": "mine", f"{name}.txt/mine": "mine"}
    assert contents(folder) == NEW | mine


def test_a_second_writer_waits_and_is_then_refused(folder):
    with saving(folder) as save:
        (save.path / "config").write_text("first")
        second = threading.Thread(target=lambda: save_new(folder))
        second.start()
        with pytest.raises(CheckpointError, match="another process is saving there"):
            save_new(folder, wait=0.05)
    second.join()
    assert contents(folder) == NEW


def test_what_cannot_be_settled_says_so(folder, monkeypatch):
    def read_only(*args):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(_together.Path, "replace", read_only)
        with pytest.raises(CheckpointError, match=r"was saved, but .*the next load or save"):
            save_new(folder)
        with pytest.raises(CheckpointError, match=r"Read-only.*make the folder writable"):
            settle(folder)
    settle(folder)
    assert contents(folder) == NEW


def test_a_lock_ends_with_its_save_though_a_forked_process_has_it_too(folder, monkeypatch):
    locked, held = _together.fcntl.flock, []

    def forked(handle, kind):
        locked(handle, kind)
        held.append(os.dup(handle))

    with monkeypatch.context() as patched:
        patched.setattr(_together.fcntl, "flock", forked)
        save_new(folder)
    save_new(folder, wait=0.05)
    for handle in held:
        os.close(handle)


# --- reading together what was saved together ---


@pytest.fixture
def versions(folder):
    """A folder, and a function that saves one more version of its two files."""
    numbers = iter(range(1, 100))

    def save(**options):
        with saving(folder, **options) as one:
            text = "x" * next(numbers)
            for name in ("a.json", "b"):
                (one.path / name).write_text(text)

    save()
    return folder, save


@pytest.mark.parametrize(("saves", "want"), [(0, 1), (1, 2), (9, 2)])
def test_what_was_saved_together_is_read_together(versions, saves, want):
    folder, save = versions
    times = iter(range(saves))

    def read():
        first = (folder / "a.json").read_text()
        if next(times, None) is not None:
            with suppress(CheckpointError):
                save(wait=0.05)  # refused from the second time on: it is being read
        return first, (folder / "b").read_text()

    assert undisturbed(folder, read) == ("x" * want, "x" * want)


@pytest.mark.parametrize("locks", [True, False])
def test_an_error_while_another_saves_is_tried_again_and_any_other_raised(
    versions, locks, monkeypatch
):
    folder, save = versions
    calls = []
    monkeypatch.setattr(_together, "fcntl", _together.fcntl if locks else None)

    def read():
        calls.append(len(calls))
        if len(calls) == 1:
            save()
        raise KeyError(len(calls))

    with pytest.raises(KeyError, match="2"):
        undisturbed(folder, read)
    with pytest.raises(CheckpointError, match="keeps changing"):
        undisturbed(folder, lambda: calls.append(0) or write_json(folder / "a.json", {"": calls}))


# --- reading JSON ---


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_json_is_read_from_a_file_of_some_size_and_from_nothing_else(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(ConfigError, match=f"{name} is not a regular file"):
            read_json_object(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(ConfigError, match="large has 200,000,000 bytes; at most 16,000,000"):
        read_json_object(tmp_path / "large")
    (tmp_path / "small").write_text('{"a": 1}')
    assert read_json_object(tmp_path / "small", most=8) == {"a": 1}
    with pytest.raises(ConfigError, match="at most 7 are read"):
        read_json_object(tmp_path / "small", most=7)


@pytest.mark.parametrize(("path", "says"), [
    ("~nobody-of-this-name/x", "names no user"), (5, "path is 5; it must be a str or a Path"),
    (None, "path is None"), (["x"], "it must be a str"),
])  # fmt: skip
def test_what_is_no_path_is_refused(path, says):
    with pytest.raises(InputError, match=says):
        expanded(path)
    for take in (qk.Checkpoint, qk.load_pretrained) if path is not None else ():
        with pytest.raises(InputError, match=says):
            take(path)


@pytest.mark.parametrize(("path", "says"), [("x" * 300, "too long"), ("x\0", "embedded null")])
def test_a_name_that_no_file_can_have_is_refused(path, says):
    for take in (qk.Checkpoint, qk.Tokenizer, save_new):
        with pytest.raises((InputError, TokenizerError), match=f"cannot be a path: .*{says}"):
            take(path)


def test_what_a_message_shows_is_short_and_one_line():
    assert shown(10**5000) == "a int too large to show"
    assert shown("\n\x1b\ud800") == r"'\n\x1b\ud800'"
    assert len(shown(["x" * 10] * 10**4)) < 530
    assert printable("面\x07\ud800") == r"面\x07\ud800"
    assert len(printable("\x00" * 10**6)) < 210
    assert few(map(str, range(10**5)), most=2) == "0, 1 and 99,998 more"


def test_json_of_a_windows_editor_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{\r\n"a": 1\r\n}')
    assert read_json_object(tmp_path / "x.json") == {"a": 1}


def test_json_is_written_as_it_was_read_even_half_of_a_surrogate_pair(tmp_path):
    data = {"面\ud800": "\udfff", "a": [1.0, None, {"b": "é"}]}
    for part in (data, {"面": 1}):
        write_json(tmp_path / "x.json", part)
        assert read_json_object(tmp_path / "x.json") == part
    assert "面" in (tmp_path / "x.json").read_text("utf-8")
