"""What runs inside the separate process of `run`: the limits, the program, and its tests.

The parent sends this file's code, and then a job, through standard input; see `running.py`. It
imports the standard library alone, and little of that, because each program waits for it.
"""

import os
import resource
import sys
from _signal import ITIMER_REAL, setitimer  # type: ignore[import-not-found]  # signal loads more
from collections.abc import Callable
from typing import Any

_FILES, _FILE_BYTES, _OPEN = 100, 1_000_000, 64  # changes of files, bytes of each, open at once
# Audit events (docs.python.org/3/library/audit_events.html) that are refused, by their beginning.
_REFUSED = (
    "ctypes.", "os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system",
    "pty.", "resource.prlimit", "resource.setrlimit", "signal.pthread_kill", "socket.bind",
    "socket.connect", "socket.get", "socket.send", "subprocess.",
)  # fmt: skip
# Events that change files: allowed within the program's own folder.
_CHANGES = {
    "os.chflags", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr",
    "os.rename", "os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime",
    "shutil.rmtree", "sqlite3.connect",
}  # fmt: skip


def limit(job: dict[str, Any]) -> None:
    """Set the limits that the system keeps: CPU time, memory, and files."""
    limits = {
        "RLIMIT_CPU": job["cpu_seconds"], "RLIMIT_AS": job["memory"], "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": _FILE_BYTES, "RLIMIT_NOFILE": _OPEN,
    }  # fmt: skip
    if not job["kernel"]:
        limits["RLIMIT_NPROC"] = 0  # on Linux this would refuse threads as well
    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError):
            pass  # macOS has no limit of the address space; the parent watches the memory
    # Ends the program even if the parent was killed and nobody watches.
    setitimer(ITIMER_REAL, job["cpu_seconds"])


def guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that refuses processes, network, and changes outside a folder."""
    changes, writing = 0, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def within(path: object, where: str) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a number: a file that is open already
        return f"{os.path.realpath(os.fsdecode(path))}/".startswith(f"{where}/")

    def inside(path: object) -> bool:
        named = isinstance(path, str | bytes | os.PathLike)
        return not named or within(path, folder) or within(path, os.devnull)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal changes
        if event == "open":
            path, mode, flags = values
            # os.open, which has no mode, opens folders as well: files in them could be removed. In
            # /proc lie the environments of other processes.
            if not (mode is None or flags & writing or within(path, "/proc")):
                return
            values = (path,)
        elif event.startswith(_REFUSED):
            raise PermissionError(f"{event} is refused here")
        elif event not in _CHANGES:
            return
        changes += 1
        if not all(map(inside, values)):
            raise PermissionError(f"{event} outside the program's folder is refused here")
        if changes > _FILES:
            raise PermissionError(f"more than {_FILES} changes of files are refused here")

    return hook


def judge(code: str, tests: Any, lines: list[str]) -> tuple[str, str]:
    """Run a program, then its tests in the same module.

    Args:
        code: its source.
        tests: compiled; the condition of each assert goes through a function `__test__`.
        lines: of their source.

    Returns:
        A reason of `Outcome`, and its detail.
    """
    ran = 0

    def counted(condition: object) -> object:
        nonlocal ran
        ran += 1
        return condition

    module = type(sys)("program")
    sys.modules["program"] = module
    try:
        compiled = compile(code, "<program>", "exec")
    except BaseException as error:
        line = getattr(error, "lineno", None)
        return "syntax", _described(error, getattr(error, "msg", None)) + _place("program", line)
    try:
        exec(compiled, module.__dict__)
        module.__dict__["__test__"] = counted
        exec(tests, module.__dict__)
    except SystemExit as error:
        return "exit", _described(error)
    except MemoryError:
        return "memory", "MemoryError"
    except BaseException as error:
        file, line = _last_line(error)
        if isinstance(error, AssertionError) and file == "tests":
            return "failed", f"{lines[line - 1].strip()[:300]}{_place(file, line)}"
        return "error", _described(error) + _place(file, line)
    return ("passed", "") if ran else ("failed", "no assert was reached")


def _described(error: BaseException, message: object = None) -> str:
    """Return the last line of a traceback; `traceback` itself takes long to import."""
    try:
        text = str(error if message is None else message)
    except BaseException:  # the program's own class
        text = ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _place(file: str, line: int | None) -> str:
    return f" (line {line} of the {file})" if file and line else ""


def _last_line(error: BaseException) -> tuple[str, int]:
    """Return where in the program or in the tests an exception was raised."""
    found, step = ("", 0), error.__traceback__
    while step:
        name = step.tb_frame.f_code.co_filename
        if name in ("<program>", "<tests>"):
            found = name[1:-1], step.tb_lineno
        step = step.tb_next
    return found


def main(job: dict[str, Any], enclose: Callable[[str], None]) -> None:
    """Run one job, report how it ended, and end, whatever threads the program left.

    Args:
        job: what `running.py` sends.
        enclose: lets the system itself restrict the process to a folder.
    """
    folder, report = os.path.realpath(os.getcwd()), job["report"]
    write, leave = os.write, os._exit  # the program may replace them
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.set_inheritable(report, False)
    limit(job)
    if job["kernel"]:
        enclose(folder)
    sys.addaudithook(guard(folder))
    write(report, b"\n")  # from now on the seconds count
    reason, detail = judge(job["code"], job["tests"], job["lines"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        pass  # the program put something else there
    write(report, job["token"] + f"{reason} {detail}".encode("utf-8", "backslashreplace"))
    leave(0)
