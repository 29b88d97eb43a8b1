"""Files that belong together, such as a config and its weights: saved in one step, read as saved.

`saving` writes to a staging folder, commits by one rename, and moves the files into place;
`settle` finishes what a killed process left; `undisturbed` reads while others may save.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from qwenkit.errors import CheckpointError, QwenkitError
from qwenkit.files._paths import expanded, to_disk

try:
    import fcntl
except ImportError:  # Windows: no lock between processes that save into one folder
    fcntl = None  # type: ignore[assignment]

_RANDOM = "[0-9a-f]" * 8
_STAGING, _COMMITTED = "save.{}.tmp", f"save.{_RANDOM}.commit"
_OBSOLETE = ".obsolete.json"
_TRIES = 5  # to read a folder that others save into

T = TypeVar("T")


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
