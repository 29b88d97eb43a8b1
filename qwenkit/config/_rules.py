"""The rules for single values, and the messages where one is broken."""

from __future__ import annotations

import sys
from typing import Any

from qwenkit.errors import shown

_LARGEST = 2**63 - 1  # of an integer in torch


def make_floats(values: object, *names: str) -> None:
    """Convert positive integers to floats, except those too large for a float."""
    for name in names:
        value = getattr(values, name)
        if type(value) is int and 0 < value <= sys.float_info.max:
            object.__setattr__(values, name, float(value))


def wrong(name: str, value: Any, rule: str) -> str:
    return f"{name} is {shown(value)}; it must be {rule}"


def wrong_int(name: str, value: Any, least: int = 1) -> str:
    """Say what is wrong with a size; an empty string when nothing is."""
    if isinstance(value, bool) or not isinstance(value, int):
        return wrong(name, value, "an integer")
    if value > _LARGEST:
        return wrong(name, value, f"at most {_LARGEST} (64 bits)")
    return wrong(name, value, f"at least {least}") if value < least else ""


def wrong_float(name: str, value: Any) -> str:
    """Say what is wrong with a positive number; an empty string when nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return wrong(name, value, "a number")
    valid = 0 < value <= sys.float_info.max
    return "" if valid else wrong(name, value, "greater than 0 and finite")
