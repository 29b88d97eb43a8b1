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
        if mode == "r":
            return io.StringIO(self[path])
        written = _Written()
        written.done = lambda text: self.update({path: text})
        return written


class _Written(io.StringIO):
    """A file that hands over its text when it is closed."""

    done: Any

    def close(self) -> None:
        if not self.closed:
            self.done(self.getvalue())
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
