"""Small JSON files of the reader's own: read if they can be, written in one step if possible."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qwenkit.files import replacing


def read(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where it is absent, damaged or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object. If the file cannot be written, that is lost, and all works the same."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            text = json.dumps(values, indent=1, sort_keys=True)
            temporary.write_text(text + "\n", encoding="utf-8")
