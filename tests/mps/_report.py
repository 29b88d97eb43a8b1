"""What a rehearsal found, where in the code, and how it is printed."""

import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

import qwenkit

_HERE, _QWENKIT = Path(__file__).parent, Path(qwenkit.__file__).parent
# Frames in these folders are not the reader's code: torch, other libraries, Python itself.
_FOREIGN = (
    str(Path(torch.__file__).parent),
    *(sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, in one place."""

    operator: str  # torch's name of it, such as "aten::add.Tensor", or of the function called
    kind: str  # "dtype", "kernel", "host tensor", "generator", "numpy", "known bad"; or "sync"
    where: str  # file and line of the code that called it
    message: str  # what happens on MPS, and what to do
    count: int

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return f"  {self.where}: {self.operator}, {times} ({self.kind})\n      {self.message}"


@dataclass
class Report:
    """Whether a computation would run on MPS; filled while it runs."""

    torch_version: str  # the version that is meant
    notes: list[str]  # what else to know
    operators: Counter[str] = field(default_factory=Counter)  # calls of each on the device
    _found: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    @property
    def problems(self) -> list[Finding]:
        """What would stop there or give wrong numbers."""
        return [Finding(*seen, n) for seen, n in self._found.items() if seen[1] != "sync"]

    @property
    def syncs(self) -> list[Finding]:
        """Where Python waits for the device: slow, not wrong. Reading a result back needs one."""
        return [Finding(*seen, n) for seen, n in self._found.items() if seen[1] == "sync"]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def add(self, operator: str, kind: str, message: str) -> None:
        """Count a finding."""
        self._found[operator, kind, _where(), message] += 1

    def __str__(self) -> str:
        problems, syncs = self.problems, self.syncs
        would = f"would NOT run ({_count(len(problems), 'problem')})" if problems else "would run"
        counts = (
            _count(len(self.operators), "operator"),
            _count(self.operators.total(), "call"),
            _count(sum(sync.count for sync in syncs), "sync"),
        )
        lines = [f"{would} on MPS with torch {self.torch_version}: {', '.join(counts)}"]
        notes = [f"  {note}" for note in self.notes]
        for title, found in (("PROBLEMS", problems), ("SYNCS", syncs), ("NOTES", notes)):
            lines += ["", title, *map(str, found)] if found else []
        return "\n".join(lines)


def _count(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _where() -> str:
    """Return file and line of the innermost code that is the caller's or qwenkit's.

    torch's engine calls the operators of the backward pass: there, the line that started the pass.
    """
    frame, backward = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward":
            backward = "in the backward pass that began at "
        if _is_own(file):
            place = f"{_shown(Path(file))}:{frame.f_lineno}"
            if "ipykernel" in file or file.startswith("<ipython"):
                place = f"a notebook cell, line {frame.f_lineno}"
            return backward + place
        frame = frame.f_back
    return "outside of any file"


def _is_own(file: str) -> bool:
    if Path(file).parent == _HERE:
        return not Path(file).name.startswith("_")  # not the rehearsal itself
    if file.startswith("<") and not file.startswith(("<ipython", "<stdin", "<string")):
        return False  # code that a library made, such as beartype's checks
    return Path(file).is_relative_to(_QWENKIT) or not file.startswith(_FOREIGN)


def _shown(file: Path) -> str:
    """Return a path as its reader would write it: from the package, or from where Python runs."""
    roots = [root for root in (_QWENKIT.parent, Path.cwd()) if file.is_relative_to(root)]
    return file.relative_to(roots[0]).as_posix() if roots else str(file)
