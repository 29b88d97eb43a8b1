"""A small program with its docstring and its tests, and how values are written in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Program:
    """A function, a generator or a class of a few lines, and what it must do.

    Attributes:
        family: the kind of task, as "is_even" or "count(filter(even))".
        phrasing: the wording of the docstring, as "2-check": its line in the family's table, and
            the sentence that was made of it.
        name: of the function or class.
        kind: "function", "generator" or "class".
        prompt: imports, signature and docstring.
        body: what follows the prompt.
        tests: statements that raise AssertionError where the program is wrong. Each stands alone;
            most are one assert. Their expected values come from the family's reference.
    """

    family: str
    phrasing: str
    name: str
    kind: str
    prompt: str
    body: str
    tests: tuple[str, ...]

    @property
    def code(self) -> str:
        """Return the whole source."""
        return self.prompt + self.body


@dataclass(frozen=True, slots=True)
class Text:
    """An argument that is the path of a text file, with its contents before and after the call."""

    contents: str
    path: str = "notes.txt"
    then: str | None = None

    def __repr__(self) -> str:
        return repr(self.path)

    def around(self, test: str) -> str:
        """Return a test that first writes the file, and last compares it with what it must be."""
        write = f'with open({self.path!r}, "w") as file:\n    file.write({self.contents!r})\n'
        check = f"\nwith open({self.path!r}) as file:\n    assert file.read() == {self.then!r}"
        return write + test + ("" if self.then is None else check)


class Printed(str):
    """Text that a call prints; an example shows it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self.removesuffix("\n")


def shown(value: Any) -> str:
    """Return a value's source; that of a set does not depend on the order of its elements."""
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(repr, value))) + "}" if value else "set()"
    return repr(value)


def call(name: str, arguments: tuple[Any, ...]) -> str:
    """Return the source of a call."""
    return f"{name}({', '.join(map(shown, arguments))})"


def claim(source: str, expected: Any) -> str:
    """Return an assert that an expression has a value (a float: nearly).

    >>> claim("half(3)", 1.5), claim("is_even(4)", True)
    ('assert abs(half(3) - 1.5) < 1e-6', 'assert is_even(4) is True')
    """
    if isinstance(expected, float):
        return f"assert abs({source} - {expected!r}) < 1e-6"
    same = "is" if expected is None or isinstance(expected, bool) else "=="
    return f"assert {source} {same} {shown(expected)}"


def printed(source: str, expected: str) -> str:
    """Return statements that hold where a call prints this text."""
    return (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    {source}\nassert out.getvalue() == {expected!r}"
    )


def refusal(source: str, error: Exception) -> str:
    """Return statements that hold where an expression raises an error of this type."""
    kind = type(error).__name__
    return (
        f'try:\n    {source}\nexcept {kind}:\n    pass\nelse:\n    assert False, "expected {kind}"'
    )


def outcome(
    source: str, reference: Callable[[], Any], raises: tuple[type[Exception], ...]
) -> tuple[str, Any]:
    """Return a test that an expression does what the reference does, and the value or the error.

    Only an error of the types in `raises` is an outcome; another is a fault of the reference.
    """
    try:
        expected = reference()
    except raises as error:
        return refusal(source, error), error
    return claim(source, expected), expected
