"""JSON files: read within limits, written in one step."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenkit.errors import ConfigError
from qwenkit.files._paths import replacing


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
