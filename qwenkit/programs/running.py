"""Run a program and its tests in a separate process, with limits."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qwenkit.errors import InputError, QwenkitError, shown
from qwenkit.programs._job import Job
from qwenkit.programs._process import Watch, kill, started


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        reason: "passed": all tests passed. "failed": an assert of the tests did not hold, or none
            was reached. "error": an exception. "syntax": it is not Python. "time", "memory",
            "output": a limit. "exit": the program ended before its tests had. "crash": the
            interpreter did, by a signal.
        detail: the assert that failed, or the last line of the traceback, and where; may be empty.
        output: what was printed, up to the limit; what is not UTF-8 became U+FFFD.
        seconds: of wall-clock time, without Python's start.
    """

    reason: str
    detail: str = ""
    output: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.reason == "passed"


def run(
    code: str,
    tests: str,
    seconds: float = 2.0,
    memory: int = 256_000_000,
    output: int = 100_000,
) -> Outcome:
    """Run a program and then its tests, in a separate process with limits.

    The process is a Python without site packages (only the standard library can be imported),
    without environment variables, with an empty standard input, in an empty temporary folder that
    is removed. It may not start processes, use the network, change files outside its folder, or
    send signals to others. It may make 100 changes of files, of up to 1 MB each. When it ends or
    meets a limit, it is killed.

    This contains the mistakes of a model, not an attacker. On Linux the kernel refuses (seccomp on
    x86-64 and ARM; Landlock from 5.13 on, which also hides all files but the standard library and
    the system's), and so does an audit hook within Python. On macOS, and where Linux lacks these,
    only the audit hook and the resource limits do: a program that wants to can get around them, and
    can read the files, and on Linux the environment, of your processes. Nothing hides the names of
    files, nor that the program shares the processor. Run what you distrust in a virtual machine.

    Nor are the tests safe from the program, since both run in one interpreter. Printing "passed"
    or leaving early does not pass: a secret token must arrive on a pipe of its own. But a program
    can look for the token, replace built-in functions, or return objects that equal everything
    (`__eq__`), and training on rewards finds such ways. Compare types in the tests, too.

    Args:
        code: the program, a module named "program".
        tests: statements with at least one assert, run after the program in the same module.
        seconds: of wall-clock time for both, without Python's start.
        memory: bytes of address space (macOS: of resident memory, read 20 times per second).
        output: bytes that may be printed.

    Raises:
        InputError: tests without an assert, or limits out of range.
        QwenkitError: no Python process could be started.

    >>> run("def double(x): return 2 * x", "assert double(4) == 8").passed
    True
    >>> run("def double(x): return x + x + 1", "assert double(4) == 8").detail
    'assert double(4) == 8 (line 1 of the tests)'
    """
    return _outcome(Job(code, tests, seconds, memory, output), threading.Event())


def run_many(
    pairs: Sequence[Sequence[str]],
    workers: int | None = None,
    seconds: float = 2.0,
    memory: int = 256_000_000,
    output: int = 100_000,
) -> list[Outcome]:
    """Run several programs at once, as `run` does each.

    Args:
        pairs: of code and tests.
        workers: how many at once; None: as many as the machine has cores for this process.
        seconds: as for `run`; so are the others.
        memory: bytes.
        output: bytes.

    Returns:
        The outcomes, in the order of the pairs.

    Raises:
        InputError: as `run`, before any program runs.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1")
    if any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
        raise InputError("pairs must be a list of pairs, each of a program and its tests")
    jobs = [Job(code, tests, seconds, memory, output) for code, tests in pairs]
    stop = threading.Event()
    with ThreadPoolExecutor(min(workers or _cores(), len(jobs) or 1)) as pool:
        try:
            return list(pool.map(lambda job: _outcome(job, stop), jobs))
        except BaseException:  # Ctrl-C
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(usable(0)) if usable else os.cpu_count() or 1


def _outcome(job: Job, stop: threading.Event) -> Outcome:
    """Run a program; end it early if `stop` is set."""
    with (
        tempfile.TemporaryDirectory(prefix="qwenkit-", ignore_cleanup_errors=True) as folder,
        started(job, folder) as (process, report),
    ):
        watch = Watch(process, report, job, stop)
        limit = watch.until_end()
        kill(process)
        reason, detail = limit or watch.verdict(process.returncode)
        text = bytes(watch.printed[: job.output]).decode("utf-8", "replace")
        if watch.since is None:
            raise QwenkitError(f"{sys.executable} could not run a program: {shown(text)}")
        return Outcome(reason, detail, text, round(watch.elapsed(), 3))
