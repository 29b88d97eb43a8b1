"""What is asked of a program's process: the program, its tests, and its limits."""

from __future__ import annotations

import ast
import functools
import math
import os
import secrets
from dataclasses import dataclass, field
from typing import Any

from qwenkit.errors import InputError, QwenkitError, shown

_MEMORY = 64_000_000, 10**12  # bytes, least and most; Python itself takes some 30 MB of addresses


@dataclass
class Job:
    """One program, its tests, and its limits, which are checked at once.

    Attributes:
        token: what the process must report at the end; a program does not know it.
    """

    code: str
    tests: str
    seconds: float
    memory: int
    output: int
    token: bytes = field(default_factory=lambda: secrets.token_bytes(16))

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
        compiled(self.tests)

    def sent(self) -> dict[str, Any]:
        """Return what the process gets, for `marshal`."""
        return {
            "code": self.code, "tests": compiled(self.tests), "lines": self.tests.split("\n"),
            "token": self.token, "memory": self.memory,
            "cpu_seconds": math.ceil(self.seconds) + 1,  # the wall-clock limit comes first
        }  # fmt: skip


class _Counted(ast.NodeTransformer):
    """Lets each assert's condition go through `__test__`, which counts."""

    count = 0

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        self.count += 1
        name = ast.Name("__test__", ast.Load())
        node.test = ast.Call(name, [node.test], [])
        return node


@functools.lru_cache(1024)
def compiled(tests: str) -> Any:
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
