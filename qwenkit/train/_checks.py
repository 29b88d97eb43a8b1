"""Checks of values that settings, schedules and functions share; each raises InputError."""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from qwenkit.errors import InputError


def require(fits: bool, name: str, value: object, rule: str) -> None:
    """Refuse a value that does not fit, and name the rule."""
    if not fits:
        raise InputError(f"{name} is {value!r}; it must be {rule}")


def at_least(low: int, **values: float) -> None:
    """Refuse values below `low`."""
    for name, value in values.items():
        require(value >= low, name, value, f"at least {low}")


def one_of(choices: Iterable[str], **values: str) -> None:
    """Refuse values that are not among the choices."""
    for name, value in values.items():
        require(value in choices, name, value, f"one of {', '.join(choices)}")


def check_types(settings: Any, prefix: str = "") -> None:
    """Refuse "100" for 100, True for 1, 0.5 for an integer, and NaN, in a dataclass's fields."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.type is int:
            rule, fits = "an integer", type(value) is int
        elif field.type is float:
            rule, fits = "a finite number", type(value) in (int, float) and math.isfinite(value)
        elif field.type is str:
            rule, fits = "a string", isinstance(value, str)
        else:
            rule, fits = "a list of strings", isinstance(value, tuple)
            fits = fits and all(isinstance(one, str) for one in value)
        require(fits, f"{prefix}{field.name}", value, rule)
