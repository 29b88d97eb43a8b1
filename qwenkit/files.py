"""Files that are complete or absent: written under a temporary name, then renamed.

A process that is killed while it writes leaves at most a file whose name ends in eight hexadecimal
digits and `.tmp`; nothing reads it, and `clear_leftovers` removes it.

Files that belong together (a config and its weights) are saved together, by `saving`, and read
together, by `undisturbed`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qwenkit.errors import CheckpointError, ConfigError, InputError, QwenkitError, shown

try:
    import fcntl
except ImportError:  # Windows: no lock between processes that save into one folder
    fcntl = None  # type: ignore[assignment]

_RANDOM = "[0-9a-f]" * 8
_STAGING, _COMMITTED = "save.{}.tmp", f"save.{_RANDOM}.commit"
_OBSOLETE = ".obsolete.json"
_TRIES = 5  # to read a folder that others save into

T = TypeVar("T")


def expanded(path: str | os.PathLike[str], *, possible: bool = True) -> Path:
    """Return a path with a leading `~` replaced by the home folder.

    Raises:
        InputError: not a path, the home of an unknown user, or, if it must be `possible`, a name
            that no file can have.
    """
    try:
        found = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            if possible:
                found.lstat()
        return found
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{shown(str(path), 80)} cannot be a path: {why}") from None
    except TypeError:
        raise InputError(f"path is {shown(path)}; it must be a str or a Path") from None
    except RuntimeError:
        raise InputError(f"{path} begins with ~ and names no user of this machine") from None


def temporary_name(path: Path) -> Path:
    """Return an unused name next to `path`, for what is to become `path`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name; at the end the file written there replaces `path` in one step.

    If writing fails, `path` stays as it was and the temporary file is removed.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: str | Path, names: str) -> None:
    """Remove what a killed process was still writing, and nothing else.

    Args:
        folder: may be absent.
        names: regular expression of what was being written, without the temporary ending.
    """
    for path in Path(folder).glob("*.tmp"):
        if re.fullmatch(rf"({names})\.[0-9a-f]{{8}}\.tmp", path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


@dataclass
class Save:
    """Files on their way into a folder: write them into `path`, and name what they make obsolete.

    Attributes:
        path: a folder whose contents, subfolders too, become the target's at the end.
        obsolete: names in the target that are removed at the end.
    """

    path: Path
    obsolete: set[str] = field(default_factory=set)


@contextmanager
def saving(
    folder: str | Path, error: type[QwenkitError] = CheckpointError, wait: float = 30.0
) -> Iterator[Save]:
    """Save several files into a folder in one step: all of them, or none.

    They are written to a staging folder inside `folder`. Renaming it commits the save; then its
    files are moved into place. If the process is killed in between, the next `saving` or `settle`
    moves the rest.

    Args:
        folder: made if absent.
        error: what to raise if writing fails.
        wait: seconds to wait while another process saves into the same folder.

    Raises:
        QwenkitError: `error`, if writing fails; what was there is then unchanged.
    """
    folder = expanded(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, wait):
            _complete(folder)
            for left in folder.glob(_STAGING.format(_RANDOM)):
                shutil.rmtree(left, ignore_errors=True)
            save = Save(folder / _STAGING.format(secrets.token_hex(4)))
            save.path.mkdir()
            try:
                yield save
                committed = _commit(save)
            except BaseException:
                shutil.rmtree(save.path, ignore_errors=True)
                raise
            _move(committed)
    except OSError as wrong:
        if isinstance(wrong, QwenkitError):
            raise
        reason = wrong.strerror or str(wrong)
        if any(folder.glob(_COMMITTED)):
            raise error(
                f"{folder} was saved, but its files could not be moved into place ({reason}); "
                "the next load or save does it"
            ) from None
        raise error(
            f"nothing was saved to {folder} ({reason}); what was there is unchanged"
        ) from None


def settle(folder: str | Path) -> None:
    """Finish a save that was interrupted after its commit; call this before reading a folder.

    Raises:
        CheckpointError: its files cannot be moved, for example in a read-only folder.
    """
    folder = expanded(folder)
    if not any(folder.glob(_COMMITTED)):
        return
    try:
        with _locked(folder, 30.0) as locked:
            if not locked:
                time.sleep(1.0)  # it may be moved at this moment
            _complete(folder)
    except OSError as wrong:
        raise CheckpointError(
            f"a save into {folder} was interrupted, and its files cannot be moved into place "
            f"({wrong.strerror}); make the folder writable, then load again"
        ) from None


def undisturbed(folder: str | Path, read: Callable[[], T]) -> T:
    """Read files that belong together; where another process saves meanwhile, read them again.

    The first time nothing is locked; after that, whoever saves there waits until they are read.

    Args:
        folder: what is read; it may be read-only.
        read: reads it.

    Raises:
        CheckpointError: others change its files all the time.
    """
    folder = expanded(folder)
    for number in range(_TRIES):
        settle(folder)
        with ExitStack() as stack:
            if number:
                with suppress(OSError):  # without the lock it is tried again, too
                    stack.enter_context(_locked(folder, 10.0, shared=True))
            before = _settled(folder)
            try:
                found = read()
            except Exception:
                if before is None or before != _settled(folder):
                    continue
                raise
            if before is not None and before == _settled(folder):
                return found
    raise CheckpointError(f"another process keeps changing {folder}; load it again later")


def _settled(folder: Path) -> dict[str, tuple[int, int, int] | None] | None:
    """Return the versions of the JSON files, of which each save has one; None: one is moving."""
    found = {path.name: version(path) for path in folder.glob("*.json")}
    return None if any(folder.glob(_COMMITTED)) else found


def version(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None: there is no such file."""
    with suppress(OSError):
        found = path.stat()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _commit(save: Save) -> Path:
    """Rename the staging folder once all of it is on the disk; this commits the save."""
    (save.path / _OBSOLETE).write_text(json.dumps(sorted(save.obsolete)), "utf-8")
    for path in save.path.rglob("*"):
        target = save.path.parent / path.relative_to(save.path)
        if target.exists() and target.is_dir() != path.is_dir():
            raise OSError(f"{target} is {'a folder' if target.is_dir() else 'a file'}")
        to_disk(path)
    for target in (save.path.parent / name for name in save.obsolete):
        if target.is_dir():
            raise OSError(f"{target} is a folder")
    committed = save.path.with_suffix(".commit")
    to_disk(save.path)
    save.path.rename(committed)
    to_disk(save.path.parent)
    return committed


def _move(committed: Path) -> None:
    """Move a committed save's files into the folder around it, or those that are still to move."""
    folder, listed = committed.parent, committed / _OBSOLETE
    # The list goes last: without it, everything has been moved.
    for path in sorted(committed.rglob("*")) if listed.exists() else ():
        target = folder / path.relative_to(committed)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path != listed:
            path.replace(target)
    for name in json.loads(listed.read_text("utf-8")) if listed.exists() else ():
        (folder / name).unlink(missing_ok=True)
    to_disk(folder)
    listed.unlink(missing_ok=True)
    shutil.rmtree(committed)


def _complete(folder: Path) -> None:
    """Finish what killed processes had committed; the caller holds the folder's lock."""
    for committed in folder.glob(_COMMITTED):
        _move(committed)


@contextmanager
def _locked(folder: Path, wait: float, *, shared: bool = False) -> Iterator[bool]:
    """Let one process at a time, and one thread of it, save into a folder; or several read it.

    The lock is on the folder itself, so that no file is left; the system releases it when the
    process ends, however it ends. Yields False where there are no locks.
    """
    if fcntl is None:
        yield False
        return
    handle, limit = os.open(folder, os.O_RDONLY), time.monotonic() + wait
    try:
        while True:
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise OSError("another process is saving there; try again later") from None
                time.sleep(0.02)
                continue
            except OSError:  # a file system that has no locks
                yield False
                return
            break
        yield True
    finally:
        with suppress(OSError):  # a process forked meanwhile has the lock, too, unless it is undone
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself (`os.fsync`)."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json_object(path: Path, most: int = 16_000_000) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: the file.
        most: bytes; a larger file is refused unread, as is a pipe or a device.

    Raises:
        ConfigError: the file is absent, is not UTF-8 JSON, or holds something else.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a regular file; it must hold JSON")
        if status.st_size > most:
            raise ConfigError(f"{path} has {status.st_size:,} bytes; at most {most:,} are read")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        wrong = f"does not exist; a checkpoint folder needs a {path.name}"
    except OSError as error:
        wrong = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        wrong = f"is not UTF-8 text (byte {error.start}); it may be damaged, fetch it again"
    except json.JSONDecodeError as error:
        wrong = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except ConfigError:
        raise
    except ValueError as error:  # a number of thousands of digits
        wrong = f"is not valid JSON: {error}"
    except RecursionError:
        wrong = "is nested too deeply to be a config; it may be damaged, fetch it again"
    else:
        if isinstance(data, dict):
            return data
        wrong = f"holds a JSON {type(data).__name__}; it must hold an object ({{...}})"
    raise ConfigError(f"{path} {wrong}")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON to a temporary name, then replace `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(as_json(data))


def as_json(data: Mapping[str, Any]) -> bytes:
    r"""Return JSON as transformers writes it; escape an unpaired surrogate, which UTF-8 lacks.

    >>> as_json({"name": "é"}).decode()
    '{\n  "name": "é"\n}\n'
    """
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:
        return (json.dumps(data, indent=2) + "\n").encode("ascii")


def format_bytes(count: float) -> str:
    """Write bytes in decimal units, with three digits.

    >>> format_bytes(12_288_000), format_bytes(2e10)
    ('12.3 MB', '20 GB')
    """
    # What would be rounded to 1000 of a unit is 1 of the next.
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
    unit, name = next((pair for pair in units if count >= 0.9995 * pair[0]), units[-1])
    return f"{count / unit:.3g} {name}"
