"""Paths, and files that are complete or absent: written under a temporary name, then renamed.

A process that is killed while it writes leaves at most a file whose name ends in eight hexadecimal
digits and `.tmp`; nothing reads it, and `clear_leftovers` removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenkit.errors import InputError, shown


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


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself (`os.fsync`)."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def format_bytes(count: float) -> str:
    """Write bytes in decimal units, with three digits.

    >>> format_bytes(12_288_000), format_bytes(2e10)
    ('12.3 MB', '20 GB')
    """
    # What would be rounded to 1000 of a unit is 1 of the next.
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
    unit, name = next((pair for pair in units if count >= 0.9995 * pair[0]), units[-1])
    return f"{count / unit:.3g} {name}"
