"""Refusing, in words, what a widget cannot show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qwenkit.errors import InputError


def check_names(state: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is no part of a widget's state."""
    known = list(known)
    for name in state:
        if name not in known:
            raise InputError(f"{name!r} cannot be chosen; {', '.join(known)} can")


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is no whole number from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
