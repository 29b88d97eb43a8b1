"""Run a program and its tests in a separate process, with limits."""

from __future__ import annotations

import ast
import contextlib
import functools
import marshal
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from qwenkit.errors import InputError, QwenkitError, shown

_KERNEL = sys.platform == "linux"  # whether the system itself encloses the process; see _linux.py
_START = 30.0  # seconds that Python may take to start on a busy machine
_MEMORY = 64_000_000, 10**12  # bytes, least and most; Python itself takes some 30 MB of addresses
# What the new process runs: the code and the job come through its standard input.
_BOOT = """
import marshal, sys
*parts, job = marshal.load(sys.stdin.buffer)
space = {"__name__": "child"}
for part in parts:
    exec(part, space)
space["main"](job, space.get("enclose"))
"""


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
        memory: bytes of address space (on macOS: of resident memory, looked at 20 times a second).
        output: bytes that may be printed.

    Raises:
        InputError: tests without an assert, or limits out of range.
        QwenkitError: no Python process could be started.

    >>> run("def double(x): return 2 * x", "assert double(4) == 8").passed
    True
    >>> run("def double(x): return x + x + 1", "assert double(4) == 8").detail
    'assert double(4) == 8 (line 1 of the tests)'
    """
    return _Run(code, tests, seconds, memory, output).outcome(threading.Event())


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
    runs = [_Run(code, tests, seconds, memory, output) for code, tests in pairs]
    stop = threading.Event()
    with ThreadPoolExecutor(min(workers or _cores(), len(runs) or 1)) as pool:
        try:
            return list(pool.map(lambda one: one.outcome(stop), runs))
        except BaseException:  # Ctrl-C
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(usable(0)) if usable else os.cpu_count() or 1


@dataclass
class _Run:
    """One program, its tests, and its limits, which are checked at once."""

    code: str
    tests: str
    seconds: float
    memory: int
    output: int
    job: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if os.name != "posix":
            raise QwenkitError("programs run on Linux and macOS only; on Windows, use WSL")
        if not 0 < self.seconds <= 3600:
            raise InputError(f"seconds is {self.seconds}; it must be above 0 and at most 3600")
        if not _MEMORY[0] <= self.memory <= _MEMORY[1]:
            least, most = _MEMORY
            raise InputError(f"memory is {self.memory}; it must be {least:,} to {most:,} bytes")
        if self.output < 0:
            raise InputError(f"output is {self.output}; it must be a number of bytes")
        self.job = {
            "code": self.code, "tests": _compiled(self.tests), "lines": self.tests.split("\n"),
            "token": secrets.token_bytes(16), "kernel": _KERNEL, "memory": self.memory,
            "cpu_seconds": math.ceil(self.seconds) + 1,  # the wall-clock limit comes first
        }  # fmt: skip

    def outcome(self, stop: threading.Event) -> Outcome:
        """Run the program; end it early if `stop` is set."""
        with (
            tempfile.TemporaryDirectory(prefix="qwenkit-", ignore_cleanup_errors=True) as folder,
            _started(self.job, folder) as (process, report),
        ):
            watch = _Watch(process, report, self, stop)
            ended = watch.until_end()
            _kill(process)
            reason, detail = ended or watch.verdict(process.returncode)
            text = bytes(watch.printed[: self.output]).decode("utf-8", "replace")
            if watch.since is None:
                raise QwenkitError(f"{sys.executable} could not run a program: {shown(text)}")
            return Outcome(reason, detail, text, round(watch.elapsed(), 3))


class _Watch:
    """Reads what a process prints and reports, until it ends or meets a limit.

    Attributes:
        printed: the output so far, a little over the limit at most.
        since: when the program started; None: Python has not yet.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], report: int, limits: _Run, stop: threading.Event
    ) -> None:
        assert process.stdout
        self._output, self._report = process.stdout.fileno(), report
        self._process, self._limits, self._stop = process, limits, stop
        self.printed, self._reported = bytearray(), bytearray()
        self.since: float | None = None
        self._started = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - (self.since or self._started)

    def until_end(self) -> tuple[str, str] | None:
        """Return the limit that was met, as reason and detail; None: the process ended."""
        with selectors.DefaultSelector() as selector:
            for source in (self._output, self._report):
                selector.register(source, selectors.EVENT_READ)
            while selector.get_map():
                limit = self._limits.seconds if self.since else _START
                left = limit - self.elapsed()
                if left <= 0 or self._stop.is_set():
                    return "time", f"more than {limit:g} seconds"
                for key, _ in selector.select(min(left, 0.05)):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if len(self.printed) > self._limits.output:
                    return "output", f"more than {self._limits.output:,} bytes"
                if not _KERNEL and _resident(self._process.pid) > self._limits.memory:
                    return "memory", f"more than {self._limits.memory:,} bytes"
        return None

    def _read(self, source: int) -> bool:
        """Read once; tell whether more may come."""
        data = os.read(source, 65_536)
        if source == self._output:
            self.printed += data
        elif len(self._reported) < 10_000:  # more comes only from a program that found the pipe
            self._reported += data
            if self._limits.job["token"] in self._reported:
                _kill(self._process)  # and with it what it may have started
        if source == self._report and data and self.since is None:
            self.since = time.monotonic()
        return bool(data)

    def verdict(self, status: int) -> tuple[str, str]:
        """Return reason and detail of a process that has ended."""
        _, found, message = self._reported.partition(self._limits.job["token"])
        if found:
            reason, _, detail = message.decode("utf-8", "replace").partition(" ")
            return reason, detail
        if status in (-signal.SIGXCPU, -signal.SIGALRM):
            return "time", ""
        if status < 0:
            return "crash", f"ended by signal {-status}: {signal.strsignal(-status)}"
        return "exit", f"ended with status {status} before its tests"


@functools.cache
def _parts() -> list[Any]:
    """Return the compiled code of the files that run in the process."""
    names = ["_child.py"] + ["_linux.py"] * _KERNEL
    paths = [Path(__file__).with_name(name) for name in names]
    return [compile(path.read_text("utf-8"), path.name, "exec") for path in paths]


@contextlib.contextmanager
def _started(job: dict[str, Any], folder: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the process, and yield it with the pipe on which it reports; kill it at the end."""
    report, end = os.pipe()
    try:
        with tempfile.TemporaryFile() as sent:
            marshal.dump((*_parts(), {**job, "report": end}), sent)
            sent.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-W", "ignore", "-X", "utf8", "-c", _BOOT],
                stdin=sent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env={},
                pass_fds=[end], start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        os.close(report)
        raise QwenkitError(f"no Python process could be started: {error.strerror}") from None
    finally:
        os.close(end)
    try:
        yield process, report
    finally:
        _kill(process)
        os.close(report)
        assert process.stdout
        process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, if it has not ended; wait until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _resident(process: int) -> int:
    """Return a process's resident memory in bytes."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(process).memory_info().rss)
    return 0


class _Counted(ast.NodeTransformer):
    """Lets each assert's condition go through `__test__`, which counts."""

    count = 0

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        self.count += 1
        name = ast.Name("__test__", ast.Load())
        node.test = ast.Call(name, [node.test], [])
        return node


@functools.lru_cache(1024)
def _compiled(tests: str) -> Any:
    """Return the tests' code; each assert is counted."""
    try:
        tree, counted = ast.parse(tests), _Counted()
        counted.visit(tree)
        code = compile(ast.fix_missing_locations(tree), "<tests>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"tests is {shown(tests, 60)}; it is not Python: {error}") from None
    if not counted.count:
        raise InputError(f"tests is {shown(tests, 60)}; it must hold at least one assert")
    return code
