"""What a rehearsal found, where in the code, and how it is told."""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

_HERE, _QWENKIT = Path(__file__).parent, Path(__file__).parents[1]
# Frames in these folders are not the reader's code: torch, other libraries, Python itself.
_FOREIGN = (
    str(Path(torch.__file__).parent),
    *(sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")),
)
_ENGINE = "_engine_run_backward"  # torch's Python function that starts the backward pass


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, at one place.

    Attributes:
        operator: torch's name of it, such as "aten::add.Tensor", or of the function called.
        kind: "dtype", "kernel", "host tensor", "generator", "numpy", "known bad"; or "sync".
        count: how often.
        where: file and line of the code that called it.
        message: what happens on MPS, and what to do.
    """

    operator: str
    kind: str
    count: int
    where: str
    message: str

    def __str__(self) -> str:
        """Return two lines: where and what; then why."""
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return f"  {self.where}: {self.operator}, {times} ({self.kind})\n      {self.message}"


@dataclass(frozen=True)
class Report:
    """Whether a computation would run on MPS.

    Attributes:
        problems: what would stop there or give wrong numbers.
        syncs: where Python waits for the device. That is slow, not wrong; reading a result back is
            one sync that nothing avoids.
        operators: how often each operator ran on the device; those on the host are not counted.
        notes: what else to know.
        torch_version: the version of torch that is meant.
    """

    problems: list[Finding]
    syncs: list[Finding]
    operators: Counter[str]
    notes: list[str]
    torch_version: str

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def __str__(self) -> str:
        """Return the findings as lines of text."""
        problems, syncs = len(self.problems), sum(sync.count for sync in self.syncs)
        would = "would run" if self.ok else f"would NOT run ({_number(problems, 'problem')})"
        lines = [
            f"{would} on MPS with torch {self.torch_version}: "
            f"{_number(len(self.operators), 'operator')}, "
            f"{_number(self.operators.total(), 'call')}, {_number(syncs, 'sync')}"
        ]
        for title, findings in (("PROBLEMS", self.problems), ("SYNCS", self.syncs)):
            if findings:
                lines += ["", title, *map(str, findings)]
        if self.notes:
            lines += ["", "NOTES", *(f"  {note}" for note in self.notes)]
        return "\n".join(lines)


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


@dataclass
class Notes:
    """Collects findings while a computation runs."""

    operators: Counter[str] = field(default_factory=Counter)
    problems: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    syncs: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    used_bfloat16: bool = False

    def problem(self, operator: str, kind: str, message: str) -> None:
        """Note what would stop on MPS, or be wrong there."""
        self.problems[operator, kind, where(), message] += 1

    def sync(self, operator: str, message: str) -> None:
        """Note that Python waits for the device."""
        self.syncs[operator, "sync", where(), message] += 1

    def report(self, torch_version: str) -> Report:
        """Return everything noted, in the order in which it was first seen."""
        remarks = list(self.remarks)
        if self.used_bfloat16:
            remarks.append("bfloat16 was used: on MPS it needs macOS 14 or newer")
        problems, syncs = (
            [Finding(name, kind, n, place, text) for (name, kind, place, text), n in found.items()]
            for found in (self.problems, self.syncs)
        )
        return Report(problems, syncs, Counter(self.operators), remarks, torch_version)


def where() -> str:
    """Return file and line of the innermost code that is the caller's or qwenkit's.

    Operators of the backward pass are called by torch's engine: there it is the line that started
    the pass, and said so.
    """
    frame = sys._getframe(1)
    backward = False
    while frame is not None:
        file = frame.f_code.co_filename
        backward = backward or frame.f_code.co_name == _ENGINE
        if _is_own(file):
            place = f"{_shown(file)}:{frame.f_lineno}"
            if "ipykernel" in file or file.startswith("<ipython"):
                place = f"a notebook cell, line {frame.f_lineno}"
            return f"in the backward pass that began at {place}" if backward else place
        frame = frame.f_back  # type: ignore[assignment]
    return "outside of any file"


def _is_own(file: str) -> bool:
    if Path(file).is_relative_to(_QWENKIT):
        return not Path(file).is_relative_to(_HERE)
    if file.startswith("<") and not file.startswith(("<ipython", "<stdin", "<string")):
        return False  # code that a library made, such as beartype's checks
    return not file.startswith(_FOREIGN)


def _shown(file: str) -> str:
    """Return a path as its reader would write it: from the package, or from where Python runs."""
    for root in (_QWENKIT.parent, Path.cwd()):
        if Path(file).is_relative_to(root):
            return Path(file).relative_to(root).as_posix()
    return file
