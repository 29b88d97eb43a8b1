"""Type checks for the arguments of public functions, taken from their annotations.

A public function is wrapped where its package exports it, so that its own code need not check.
"""

import functools
import inspect
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import FunctionType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import nn

from qwenkit.errors import InputError, shown

P = ParamSpec("P")
R = TypeVar("R")


def check_public(space: dict[str, Any], names: Iterable[str], only: Collection[str] = ()) -> None:
    """Let functions of a module refuse arguments of wrong types; see `checked`."""
    for name in names:
        if isinstance(space[name], FunctionType):  # a class checks for itself
            space[name] = checked(space[name], only)


def checked(function: Callable[P, R], only: Collection[str] = ()) -> Callable[P, R]:
    """Refuse arguments that do not match a function's annotations, before it runs.

    Shapes and ranges are left to the function.

    Args:
        function: the function to wrap.
        only: names of the arguments to check; empty: all.

    Raises:
        InputError: naming the argument, its value and the annotation.

    >>> @checked
    ... def twice(values: Sequence[int]) -> list[int]:
    ...     return [2 * one for one in values]
    >>> twice([3, "x"])
    Traceback (most recent call last):
    qwenkit.errors.InputError: values is [3, 'x']; it must be Sequence[int]
    """
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, Any]:
        return get_type_hints(function)

    @functools.wraps(function)
    def called(*given: P.args, **named: P.kwargs) -> R:
        for name, value in signature.bind(*given, **named).arguments.items():
            parameter = signature.parameters[name]
            if (only and name not in only) or parameter.kind is parameter.VAR_KEYWORD:
                continue
            if fits(value, kinds().get(name, Any)):
                continue
            words = inspect.formatannotation(parameter.annotation).strip("'")
            words = words.replace("collections.abc.", "").replace(" | ", " or ")
            raise InputError(f"{name} is {shown(value, 60)}; it must be {words}")
        return function(*given, **named)

    return called


def fits(value: object, kind: Any) -> bool:
    """Tell whether a value matches an annotation."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin in (int, float):
        number = isinstance(value, numbers.Integral if origin is int else numbers.Real)
        return (number or getattr(value, "shape", None) == ()) and not isinstance(value, bool)
    if hasattr(origin, "array_type"):  # jaxtyping's: shapes are checked in tests only
        return isinstance(value, origin.array_type)
    if origin is Callable or not isinstance(origin, type):
        return origin is not Callable or callable(value)
    if issubclass(origin, nn.Module) and isinstance(value, nn.Module):
        return isinstance(value, origin) or hasattr(value, "config")  # wrapped, as by torch.compile
    if issubclass(origin, Mapping):
        inside = isinstance(value, Mapping) and [*value.items()]
        return inside is not False and all(all(map(fits, pair, parts)) for pair in inside)
    if origin in (Sequence, list, tuple):
        listed = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        same = Any if origin is tuple or not parts else parts[0]
        return listed and not isinstance(value, Mapping) and all(fits(one, same) for one in value)  # type: ignore[attr-defined]
    text = isinstance(value, str) and issubclass(origin, Iterable) and origin is not str
    return isinstance(value, origin) and not text
