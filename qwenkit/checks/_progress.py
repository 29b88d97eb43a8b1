"""What a reader has solved: one small JSON file, outside the repository."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from qwenkit.files import replacing

RIGHT, TRIED = "right", "not yet"


def file() -> Path:
    """Return where progress is kept: $QWENKIT_PROGRESS, or a file in the home folder."""
    named = os.environ.get("QWENKIT_PROGRESS")
    return Path(named) if named else Path.home() / ".qwenkit" / "progress.json"


def record(exercise: str, outcome: str) -> None:
    """Record an outcome; what was right once stays right, and an empty stub does not count.

    If the file cannot be read or written, the record is lost; the check works all the same.
    """
    found = solved()
    if outcome == "empty" or found.get(exercise) in (RIGHT, outcome):
        return
    with suppress(OSError):
        file().parent.mkdir(parents=True, exist_ok=True)
        with replacing(file()) as temporary:
            text = json.dumps(found | {exercise: outcome}, indent=1, sort_keys=True)
            temporary.write_text(text + "\n", encoding="utf-8")


def solved() -> dict[str, str]:
    """Return exercise -> "right" or "not yet", for the exercises that were tried."""
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(outcome) for name, outcome in found.items()}


def listed(titles: dict[str, str]) -> str:
    """Return a line per exercise (number -> title): solved, tried, or still to come."""
    found = solved()
    marks = {RIGHT: "solved", TRIED: "tried"}
    lines = [
        f"{marks.get(found.get(name, ''), '-'):<7} {name}  {title}"
        for name, title in sorted(titles.items())
    ]
    done = sum(found.get(name) == RIGHT for name in titles)
    return "\n".join([*lines, f"{done} of {len(titles)} exercises solved"])
