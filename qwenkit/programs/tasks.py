"""Tasks: the beginning of a function, and the tests that it must pass."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

from qwenkit.errors import InputError, SourceError, shown
from qwenkit.files import expanded
from qwenkit.programs._job import compiled
from qwenkit.programs.generator import generate

_MOST = 1_000_000  # tasks


@dataclass(frozen=True)
class Task:
    """A function to write.

    Attributes:
        prompt: its beginning: imports, signature, docstring.
        tests: statements with asserts; see `run`.
        family: the kind of task, for the table of a `Score`.
        solution: a body that passes; only `overlap` reads it.

    Raises:
        InputError: not text, no prompt, or tests without an assert.
    """

    prompt: str
    tests: str
    family: str = "all"
    solution: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, str):
                raise InputError(f"{one.name} is {shown(value, 60)}; it must be text")
        if not self.prompt:
            raise InputError("prompt is ''; it must be the beginning of a function")
        compiled(self.tests)


def generate_tasks(
    count: int, split: str = "phrasing", seed: int = 0, families: Collection[str] | None = None
) -> list[Task]:
    """Return tasks from generated programs; their solutions are the programs' bodies.

    Args:
        count: how many.
        split: see `generate`; what a model was trained on is "train".
        seed: an integer.
        families: see `generate`.

    Raises:
        InputError: a count out of range, or as `generate`.

    >>> generate_tasks(1, families=["is_even"])[0].family
    'is_even'
    """
    if not 1 <= count <= _MOST:
        raise InputError(f"count is {count}; it must be 1 to {_MOST:,}")
    drawn = islice(generate(seed, split, families), count)
    return [Task(one.prompt, "\n".join(one.tests), one.family, one.body) for one in drawn]


def read_tasks(path: str | Path) -> list[Task]:
    r"""Read tasks from a file of JSON lines: an object per line, with the attributes of a `Task`.

    A line may hold more, which is ignored. An example:
    `{"prompt": "def double(x):\n", "tests": "assert double(4) == 8", "family": "numbers"}`

    Raises:
        SourceError: no such file, or one that is not UTF-8.
        InputError: a line that is not a task, by its number; or no tasks.
    """
    path = expanded(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start})") from None
    tasks = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            tasks.append(_task(line))
        except (InputError, ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    if not tasks:
        raise InputError(f"{path} holds no tasks; it must hold a JSON object per line")
    return tasks


def _task(line: str) -> Task:
    row = json.loads(line)
    if not isinstance(row, dict) or not {"prompt", "tests"} <= row.keys():
        raise InputError(f"{shown(row, 60)} is not a task; it must have prompt and tests")
    return Task(**{one.name: row[one.name] for one in fields(Task) if one.name in row})
