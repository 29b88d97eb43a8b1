"""Files that are complete or absent: written under a temporary name, then renamed.

A process that is killed while it writes leaves at most a file whose name ends in eight hexadecimal
digits and `.tmp`; nothing reads it, and `clear_leftovers` removes it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qwenkit.errors import ConfigError


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


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        ConfigError: the file is absent, is not UTF-8 JSON, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        wrong = f"does not exist; a checkpoint folder needs a {path.name}"
    except OSError as error:
        wrong = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        wrong = f"is not UTF-8 text (byte {error.start}); it may be damaged, fetch it again"
    except json.JSONDecodeError as error:
        wrong = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
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
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")


def format_bytes(count: float) -> str:
    """Write bytes in decimal units, with three digits.

    >>> format_bytes(12_288_000), format_bytes(2e10)
    ('12.3 MB', '20 GB')
    """
    # What would be rounded to 1000 of a unit is 1 of the next.
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
    unit, name = next((pair for pair in units if count >= 0.9995 * pair[0]), units[-1])
    return f"{count / unit:.3g} {name}"
