"""A program's own process: its start, what it prints and reports, and its end."""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from qwenkit.errors import QwenkitError
from qwenkit.programs._job import Job

_KERNEL = sys.platform == "linux"  # whether the system itself encloses the process; see _linux.py
_START = 30.0  # seconds that Python may take to start on a busy machine
# What the new process runs: the code and the job come through its standard input.
_BOOT = """
import marshal, sys
*parts, job = marshal.load(sys.stdin.buffer)
space = {"__name__": "child"}
for part in parts:
    exec(part, space)
space["main"](job, space.get("enclose"))
"""


class Watch:
    """Reads what a process prints and reports, until it ends or meets a limit.

    Attributes:
        printed: the output so far, a little over the limit at most.
        since: when the program started; None: Python has not yet.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], report: int, job: Job, stop: threading.Event
    ) -> None:
        assert process.stdout
        self._output, self._report = process.stdout.fileno(), report
        self._process, self._job, self._stop = process, job, stop
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
                limit = self._job.seconds if self.since else _START
                left = limit - self.elapsed()
                if left <= 0 or self._stop.is_set():
                    return "time", f"more than {limit:g} seconds"
                for key, _ in selector.select(min(left, 0.05)):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if len(self.printed) > self._job.output:
                    return "output", f"more than {self._job.output:,} bytes"
                if not _KERNEL and _resident(self._process.pid) > self._job.memory:
                    return "memory", f"more than {self._job.memory:,} bytes"
        return None

    def _read(self, source: int) -> bool:
        """Read once; tell whether more may come."""
        data = os.read(source, 65_536)
        if source == self._output:
            self.printed += data
        elif len(self._reported) < 10_000:  # more comes only from a program that found the pipe
            self._reported += data
            if self._job.token in self._reported:
                kill(self._process)  # and with it what it may have started
        if source == self._report and data and self.since is None:
            self.since = time.monotonic()
        return bool(data)

    def verdict(self, status: int) -> tuple[str, str]:
        """Return reason and detail of a process that has ended."""
        _, found, message = self._reported.partition(self._job.token)
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
def started(job: Job, folder: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the process, and yield it with the pipe on which it reports; kill it at the end."""
    report, end = os.pipe()
    try:
        with tempfile.TemporaryFile() as sent:
            marshal.dump((*_parts(), {**job.sent(), "kernel": _KERNEL, "report": end}), sent)
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
        kill(process)
        os.close(report)
        assert process.stdout
        process.stdout.close()


def kill(process: subprocess.Popen[bytes]) -> None:
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
