"""Tries edits of a format's valid files in a process of its own, and judges what comes of each.

A child process holds what a few bytes of input may do: it may use 5 seconds of processor time and
400 MB, and where it dies (by a signal of a library, a lack of memory, an endless loop) that input
is the failure, and a new child goes on. Children come from a fork server, which imports once.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import formats
import hypothesis
from edits import Edit, edited, edits

from qwenkit.errors import QwenkitError

SECONDS, MEGABYTES, LONGEST = 5, 400, 2000  # processor time, memory, characters of a message
_PATIENCE = 120  # seconds of waiting for a child: a read that never ends takes no processor time
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["engine"])


@dataclass
class Result:
    """What trying a format gave."""

    format: str
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    bad: dict[str, tuple[int, list[Edit]]] = field(default_factory=dict)  # what -> times, smallest

    def row(self) -> str:
        """Return the format's line of the table."""
        tried = sum(self.counts.values())
        numbers = [tried, *(self.counts[kind] for kind in ("same", "alone", "refused", "bad"))]
        return (
            f"{self.format:<12}"
            + "".join(f"{n:>9}" for n in numbers)
            + (f"{1000 * self.seconds / max(tried, 1):>11.0f}")
        )

    def report(self) -> str:
        """Return each kind of failure with its smallest input, which a test can take as it is."""
        return "\n".join(
            f"{self.format}: {what}\n  {count} times, as with {short(repr(found))}"
            for what, (count, found) in self.bad.items()
        )


HEAD = (
    f"{'format':<12}{'tried':>9}{'same':>9}{'alone':>9}{'refused':>9}{'bad':>9}{'s per 1000':>11}"
)


def short(text: str) -> str:
    """Write long repetitions as Python would multiply them."""
    for size in (1, 2, 3, 5):
        for start in range(len(text)):
            part = text[start : start + size]
            if text.startswith(part * 60, start):
                end = start
                while text.startswith(part, end):
                    end += size
                times = f"' + {part!r} * {(end - start) // size} + '"
                return short(text[:start] + times + text[end:])
    return text


class Judge:
    """Judges one input after another, each with a child that is alive."""

    def __init__(self, name: str) -> None:
        self.name, self.files = name, formats.files(name)
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            multiprocessing.forkserver.ensure_running()  # Python 3.11's has no path of its own
        self._child: multiprocessing.process.BaseProcess | None = None

    def __call__(self, tried: list[Edit]) -> str:
        """Return "same" (as the reference), "alone" (it refuses), "refused", or what is wrong."""
        if self._child is None:
            self._pipe, end = _SERVER.Pipe()
            self._child = _SERVER.Process(target=_serve, args=(self.name, end))
            self._child.start()
            end.close()
        self._pipe.send(edited(self.files, tried))
        first = self._answer()
        if first != "accepted":
            return first or self._death()
        return self._answer() or self._end("alone")  # the reference died

    def _answer(self) -> str:
        try:
            return self._pipe.recv() if self._pipe.poll(_PATIENCE) else ""
        except (EOFError, ConnectionError):
            return ""

    def _death(self) -> str:
        self._child.join(1)
        number = -(self._child.exitcode or 0)
        ends = {0: f"no answer in {_PATIENCE} s", 24: f"over {SECONDS} s of processor time"}
        return self._end(ends.get(number, f"the process ended by signal {number}"))

    def _end(self, what: str) -> str:
        self._child.kill()
        self._child.join()
        self._child = None
        return what

    def close(self) -> None:
        """Let the child end."""
        if self._child is not None:
            self._pipe.close()
            self._child.join()


def fuzz(name: str, examples: int, seed: int = 0) -> Result:
    """Try so many edits of a format's files; the same seed tries the same."""
    judge, result, began = Judge(name), Result(name), time.perf_counter()
    chosen = formats.FORMATS[name]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(edits(judge.files, chosen.names, chosen.hints, chosen.texts))
    def attempt(tried: list[Edit]) -> None:
        what = judge(tried)
        if what in ("same", "alone", "refused"):
            result.counts[what] += 1
            return
        result.counts["bad"] += 1
        smallest = _fewest(judge, tried, what)
        places = sorted({" ".join(map(str, _place(edit))) for edit in smallest})
        count, kept = result.bad.get(what := f"{what} [{'; '.join(places)}]", (0, smallest))
        result.bad[what] = (count + 1, min(kept, smallest, key=lambda one: len(repr(one))))

    try:
        attempt()
    finally:
        judge.close()
    result.seconds = time.perf_counter() - began
    return result


def _place(edit: Edit) -> list[str]:
    path = edit[2] if isinstance(edit[2], tuple) else ()
    return [edit[0], edit[1], *(str(part)[:20] for part in path[:3])]


def _fewest(judge: Judge, tried: list[Edit], what: str) -> list[Edit]:
    """Leave out each edit that is not needed for the same failure."""
    for edit in tried if len(tried) > 1 else []:
        fewer = [one for one in tried if one is not edit]
        if fewer and judge(fewer) == what:
            tried = fewer
    return tried


# --- in the child ---


def _serve(name: str, pipe: Connection) -> None:
    chosen = formats.FORMATS[name]
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where libraries tell of their panics
    with tempfile.TemporaryDirectory() as place:
        chosen.ready(Path(place) / "ready")
        folder = Path(place) / "model"
        while True:
            try:
                present = pipe.recv()
            except EOFError:
                return
            formats.write(folder, present)
            _allow(MEGABYTES)
            verdict, value = _judged(chosen, folder)
            if verdict in ("accepted", "refused") and formats.read(folder) != present:
                verdict = "the files are not what they were"
            pipe.send(verdict)
            if verdict == "accepted":
                _allow(4000)  # the reference may be wasteful
                pipe.send(_compared(chosen, folder, value))


def _allow(megabytes: int) -> None:
    """Bound what comes next: processor time, and memory above what is taken now."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS + 1, resource.RLIM_INFINITY))
    status = Path("/proc/self/status")
    if status.exists():  # Linux; elsewhere memory is not bounded
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmSize"))
        size = int(line.split()[1]) * 1024 + megabytes * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def _judged(chosen: formats.Format, folder: Path) -> tuple[str, object]:
    """Return "accepted" and what was read, "refused", or what is wrong."""
    try:
        return "accepted", chosen.ours(folder)
    except QwenkitError as error:
        text = str(error)
        if len(text) > LONGEST:
            return f"a message of over {LONGEST} characters: {type(error).__name__}", None
        if any(0xD800 <= ord(char) < 0xE000 for char in text):
            return f"a message that cannot be printed: {type(error).__name__}", None
        return "refused", None
    except BaseException as error:  # panics of Rust are no Exception
        return f"{type(error).__name__}{_where(error)}: {str(error)[:80]!r}", None


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [one for one in frames if "/qwenkit/" in one.filename] or frames
    return f" at {inside[-1].filename.rpartition('/qwenkit/')[2]}:{inside[-1].lineno}"


def _compared(chosen: formats.Format, folder: Path, value: object) -> str:
    try:
        return chosen.theirs(folder, value) or "same"
    except BaseException:
        return "alone"
