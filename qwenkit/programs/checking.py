"""Whether a generated program passes its own tests, in this process.

The programs are ours and end by themselves; what a model wrote goes through `run` instead.
"""

import io
from typing import Any

from qwenkit.programs.program import Program


class _Files(dict[str, str]):
    """Text files in memory: what `open` gives the programs, so that they touch no folder."""

    def open(self, path: str, mode: str = "r") -> io.StringIO:
        """Open a file to read ("r") or write ("w")."""
        return io.StringIO(self[path]) if mode == "r" else _Written(self, path)


class _Written(io.StringIO):
    """A file that is among the others once it is closed."""

    def __init__(self, files: _Files, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._files[self._path] = self.getvalue()
        super().close()


def passes(program: Program) -> bool:
    """Return whether a program runs and passes all of its tests.

    >>> from qwenkit.programs import generate
    >>> passes(next(generate(0)))
    True
    """
    space: dict[str, Any] = {"__name__": program.name, "open": _Files().open}
    try:
        exec(program.code, space)
        for test in program.tests:
            exec(test, dict(space))
    except Exception:
        return False
    return True
