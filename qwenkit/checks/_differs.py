"""How a wrong answer differs from the expected one, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwenkit.checks._errors import explained
from qwenkit.checks._same import Raised, same

Found = tuple[str, str, str]  # the name, what is wrong, advice
_LONGEST = 60  # characters of a value in a message


def difference(got: Any, wanted: Any, arguments: tuple[Any, ...], tolerance: float) -> Found:
    """Return the kind of error, how an answer differs from the expected one, and advice or ""."""
    if isinstance(got, Raised):
        return explained(got)
    if isinstance(wanted, Raised):
        return "error", f"it should raise {wanted.kind} here, but returns {shown(got)}", ""
    if got is None:
        return "no return", "it returns None", "Every path through the function needs a return."
    lists = isinstance(got, tuple | list) and isinstance(wanted, tuple | list)
    if not (lists and len(got) == len(wanted)) and kind(got) != kind(wanted):
        return "kind", f"it returns {shown(got)}; expected {shown(wanted)}", ""
    if lists and any(isinstance(one, Tensor) for one in wanted):
        for number, (one, other) in enumerate(zip(got, wanted, strict=True), start=1):
            if not same(one, other, tolerance):
                name, fact, advice = difference(one, other, arguments, tolerance)
                return name, f"value {number} of {len(got)}: {fact}", advice
    if isinstance(got, Mapping) and got.keys() != wanted.keys():
        return "values", f"its keys are {_cut(list(got))}; expected {_cut(list(wanted))}", ""
    if isinstance(got, Mapping) and isinstance(wanted, Mapping):
        for key, one in got.items():
            if not same(one, wanted[key], tolerance):
                name, fact, advice = difference(one, wanted[key], arguments, tolerance)
                return name, f"{key}: {fact}", advice
    if not isinstance(got, Tensor | np.ndarray):
        return "values", f"it returns {shown(got)}; expected {shown(wanted)}", ""
    if tuple(got.shape) != tuple(wanted.shape):
        return "shape", f"the shape is {tuple(got.shape)}; expected {tuple(wanted.shape)}", ""
    if got.dtype != wanted.dtype:
        expected = f"expected {dtype(wanted)}{why(wanted.dtype, arguments)}"
        return "dtype", f"the dtype is {dtype(got)}; {expected}", ""
    return _values(torch.as_tensor(got), torch.as_tensor(wanted))


def _values(got: Tensor, wanted: Tensor) -> Found:
    """Return where a tensor of the right shape and dtype is farthest from the expected one."""
    first, second = got.detach().double(), wanted.detach().double()
    off = torch.where(first == second, 0.0, (first - second).abs())
    off = torch.where(first.isnan() & second.isnan(), 0.0, off).nan_to_num(nan=torch.inf)
    place = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
    digits = next((n for n in (4, 6, 9) if f"{first[place]:.{n}g}" != f"{second[place]:.{n}g}"), 17)
    at = f"at {list(place)} it has" if place else "it is"
    message = f"{at} {first[place]:.{digits}g}, expected {second[place]:.{digits}g}"
    if first[place].isnan():
        return "values: nan", message, "nan (not a number) comes from 0 / 0 or from inf − inf."
    if first[place].isinf() and second.isfinite().all():
        advice = "A value was too large for its dtype, or it was divided by 0."
        return "values: infinite", message, advice
    return "values", f"the shape is right, the values are not: {message}", ""


def why(kind: torch.dtype | np.dtype[Any], arguments: tuple[Any, ...]) -> str:
    """Say why a dtype is expected, where the arguments tell: it came in, or was asked for."""
    if any(isinstance(one, torch.dtype) and one == kind for one in arguments):
        return ", as was asked for"
    came_in = {one.dtype for one in arguments if isinstance(one, Tensor) and one.dtype == kind}
    return ", the dtype that came in" if came_in else ""


def kind(value: Any) -> str:
    """Return what a value is: "an int", "a list of 2 values", "a Tensor"."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} value{'s' * (len(value) != 1)}"
    name = {"Tensor": "tensor", "ndarray": "array"}.get(type(value).__name__, type(value).__name__)
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def shown(value: Any) -> str:
    """Return what a value is and, as far as it is short, the value itself."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim == 0:
            return f"{kind(value)}, {_cut(value.tolist())}"
        return f"{kind(value)} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value):
        return f"{kind(value)} ({', '.join(type(one).__name__ for one in value)})"
    if isinstance(value, Mapping) or type(value).__module__ != "builtins":
        return kind(value)
    if isinstance(value, tuple | list | str | bytes):
        return f"{kind(value)}, {_cut(value)}"
    return _cut(value)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def dtype(value: Any) -> str:
    """Return the name of a dtype as it is printed: "float32"."""
    return str(value.dtype).removeprefix("torch.")
