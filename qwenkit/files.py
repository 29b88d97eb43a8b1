"""Files that are whole or not there: written under a temporary name, then renamed.

Whatever is killed while it writes leaves at most a name that ends in eight hexadecimal digits and
`.tmp`, which nobody reads and `clear_leftovers` removes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that nothing has yet, for what is to become `path`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name; the file written there replaces `path` in one step at the end.

    If the writing fails, `path` stays as it was and the temporary file is removed.
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
        folder: where; may be absent.
        names: regular expression of what was being written, without its temporary ending.
    """
    for path in Path(folder).glob("*.tmp"):
        if re.fullmatch(rf"({names})\.[0-9a-f]{{8}}\.tmp", path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
