"""Checks of values that settings, schedules and functions share; each raises InputError."""

import sys
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from qwenkit.errors import InputError
from qwenkit.files import shown


def require(fits: bool, name: str, value: object, rule: str) -> None:
    """Refuse a value that does not fit, and name the rule."""
    if not fits:
        raise InputError(f"{name} is {shown(value)}; it must be {rule}")


def is_number(value: object) -> bool:
    """Tell whether a value is a finite float, or an integer that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


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
            if fits and abs(value) >= 2**63:
                rule, fits = "below 2^63", False
        elif field.type is float:
            rule, fits = "a finite number", is_number(value)
        elif field.type is bool:
            rule, fits = "true or false", type(value) is bool
        elif field.type is str:
            rule, fits = "a string", isinstance(value, str)
        else:
            rule, fits = "a list of strings", isinstance(value, tuple)
            fits = fits and all(isinstance(one, str) for one in value)
        require(fits, f"{prefix}{field.name}", value, rule)
