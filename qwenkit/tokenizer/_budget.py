"""Limits on the output and the running time of a chat template."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

_SECONDS = 3.0
_CHARACTERS = 20_000_000  # at least; more for longer messages
_TIMES = 50  # the size of the messages
_NODE = 20  # characters that each member of a list counts as, for its memory
_BITS = 20_000  # of an integer; 2**20000 has 6,000 digits
_PERCENT = re.compile(r"%[^a-zA-Z%]*")
_BRACES = re.compile(r"\{[^{}]*:([^{}]*)\}")


class Budget:
    """The characters and seconds that a template has left.

    Args:
        characters: how many may be produced in total.
    """

    def __init__(self, characters: int = _CHARACTERS) -> None:
        self.left = self.most = characters
        self.until = time.monotonic() + _SECONDS

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> Budget:
        """Return the budget for a template that is given these variables."""
        return cls(_CHARACTERS + _TIMES * cls(2**62).measure(dict(variables)))

    def tick(self) -> None:
        """Check the time, once per iteration or call."""
        self.spend(1)

    def spend(self, amount: int) -> None:
        """Subtract an amount.

        Raises:
            TemplateError: nothing is left.
        """
        self.left -= amount
        if self.left < 0:
            raise jinja2.TemplateError(f"it produces more than {self.most:,} characters")
        if time.monotonic() > self.until:
            raise jinja2.TemplateError(f"it takes more than {_SECONDS:g} seconds")

    def made(self, value: Any) -> Any:
        """Subtract the size of a value, and return the value."""
        self.spend(self.measure(value))
        return value

    def measure(self, value: Any, depth: int = 0) -> int:
        """Return the size of a value, with all nested levels.

        Raises:
            TemplateError: more than is left.
        """
        if isinstance(value, str | bytes):
            return len(value)
        if isinstance(value, int):
            if value.bit_length() > _BITS:
                raise jinja2.TemplateError(f"an integer has {value.bit_length():,} bits")
            return 1
        if not isinstance(value, list | tuple | dict) or depth > 200:
            return 1
        members = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        total = 1
        for member in members:
            total += _NODE + self.measure(member, depth + 1)
            if total > self.left or not total % 1024:
                self.spend(0 if total <= self.left else total)
        return total


def forecast(name: str, values: Sequence[Any], options: Mapping[str, Any] | None = None) -> int:
    """Estimate how many characters an operation produces, where its arguments determine that.

    Args:
        name: of an operator, a method or a filter.
        values: its arguments; the value it works on first.
        options: by name.
    """
    own, *rest = values or [None]
    given = [*rest, *(options or {}).values()]
    widths = sum(abs(n) for n in given if isinstance(n, int))
    sizes = sum(len(t) for t in given if isinstance(t, str | bytes))
    text = own if isinstance(own, str) else ""
    if name in ("**", "*"):
        return _power(own, rest[0]) if name == "**" else _product(own, rest[0])
    if name in ("%", "format", "format_map"):
        return _formatted(text, given, percent=name == "%" or "%" in text)
    if name in ("center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice", "round"):
        return widths
    if name in ("indent", "expandtabs"):
        return (text.count("\n") + text.count("\t") + 1) * (widths + sizes)
    if name == "translate":
        return len(text) * max((len(str(new)) for new in _members(given)), default=0)
    if name == "replace":
        old, new = [*(str(g) for g in given), "", ""][:2]
        return text.count(old) * len(new)
    if name == "join":
        return _joined(own, rest) if isinstance(own, str) and rest else _joined(sizes * " ", [own])
    if name in ("wordwrap", "urlize", "striptags", "xmlattr", "tojson"):
        return (len(text) // 100 + 1) * sizes + _levels(own) * (widths + sizes)
    return 0


def _members(tables: Sequence[Any]) -> list[Any]:
    return [new for table in tables if isinstance(table, dict) for new in table.values()]


def _levels(value: Any, depth: int = 1) -> int:
    """Return the sum of all members' levels: each is indented by its level."""
    if not isinstance(value, list | tuple | dict) or depth > 200:
        return depth
    members = value.values() if isinstance(value, dict) else value
    return depth + sum(_levels(member, depth + 1) for member in members)


def _joined(between: str, lists: Sequence[Any]) -> int:
    count = len(lists[0]) if hasattr(lists[0], "__len__") else 100_000  # as range allows
    return count * len(between)


def _product(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _bits(left.bit_length() + right.bit_length())
    times, other = (left, right) if isinstance(left, int) else (right, left)
    size = len(other) if hasattr(other, "__len__") else 1
    return max(0, times) * size if isinstance(times, int) else 0


def _power(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return _bits(left.bit_length() * abs(right))
    return 0


def _bits(count: int) -> int:
    if count > _BITS:
        raise jinja2.TemplateError(f"an integer would have {count:,} bits")
    return 1


def _formatted(text: str, given: Sequence[Any], percent: bool) -> int:
    """Return the sum of the widths in a format."""
    fields = _PERCENT.findall(text) if percent else _BRACES.findall(text)
    if not percent and re.search(r"\{[^{}]*\{", text.replace("{{", "")):
        raise jinja2.TemplateError("a format nested in a format")
    if percent and any("*" in field for field in fields):
        raise jinja2.TemplateError("a format whose width is an argument")
    return sum(int(digits[:18]) for field in fields for digits in re.findall(r"\d+", field))
