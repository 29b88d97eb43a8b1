"""Are two answers the same? Tensors, arrays, numbers, strings, and lists or dicts of them."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Raised:
    """The answer of a function that raised an error; two errors of one type are the same answer.

    Attributes:
        kind: the type of the error.
        message: its first line.
        line: the line of the function, as it is written, in which the error came up.
        ours: a check raised it, of a class that readers never meet; its message is a sentence.
    """

    kind: str
    message: str = ""
    line: str = field(default="", compare=False)
    ours: bool = field(default=False, compare=False)


def answer(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call a function with copies of its arguments; an error is an answer too."""
    try:
        return function(*copied(arguments))
    except Exception as error:
        if isinstance(error, NotImplementedError) and "not implemented for" not in str(error):
            return ...  # a stub; PyTorch raises it for a dtype that an operation lacks
        ours = type(error).__module__.startswith("qwenkit.checks.")
        said = str(error).strip() or (type(error).__doc__ or "" if ours else "")
        first = said.split("\n")[0][:160]
        return Raised(type(error).__name__, first, _line(function, error), ours)


def _line(function: Callable[..., Any], error: Exception) -> str:
    """Return the line of a function that led to an error, or "" if it is not known."""
    file = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", None)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return (frames[-1].line or "") if frames else ""


def copied(value: Any) -> Any:
    """Copy tensors, and the lists and dicts that hold them; leave the rest as it is.

    A copy has the strides of the original: a tensor that is not contiguous stays so.
    """
    if isinstance(value, Tensor):
        fresh = torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device=value.device
        )
        return fresh.copy_(value)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: copied(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(copied(one) for one in value)
    return value


def same(one: Any, other: Any, tolerance: float) -> bool:
    """Say whether two answers agree in type, shape, dtype and, within a tolerance, in value.

    Args:
        one: an answer.
        other: an answer.
        tolerance: relative to the largest value; 256 times as much for half precision, which is
            at least that much coarser.

    >>> same([torch.ones(2), "a"], [torch.ones(2) + 1e-7, "a"], 1e-5)
    True
    >>> same(torch.ones(2), torch.ones(2, dtype=torch.float64), 1e-5)  # another dtype
    False
    """
    if isinstance(one, Raised) or isinstance(other, Raised):
        return isinstance(one, Raised) and isinstance(other, Raised) and one.kind == other.kind
    one, other = _plain(one), _plain(other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and same(_tensor(one), _tensor(other), tolerance)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and close(one, other, tolerance)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            same(one[name], other[name], tolerance) for name in one
        )
    if isinstance(one, str) or isinstance(other, str):
        return bool(type(one) is type(other) and one == other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(
            same(a, b, tolerance) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return type(one) is type(other) and bool(one == other)


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Say whether two tensors have the same shape and, within a tolerance, the same values."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point() or not other.is_floating_point():
        return torch.equal(one.cpu(), other.cpu())
    if torch.float16 in (one.dtype, other.dtype) or torch.bfloat16 in (one.dtype, other.dtype):
        tolerance *= 256
    first, second = one.detach().cpu().float(), other.detach().cpu().float()
    finite = second.isfinite()
    scale = float(second[finite].abs().max()) if finite.any() else 1.0
    return torch.allclose(first, second, rtol=0, atol=tolerance * max(scale, 1e-6), equal_nan=True)


def only_floats(got: Any, wanted: Any) -> bool:
    """Say whether an answer, or a value in it, is a float where an int is expected."""
    if isinstance(got, tuple | list) and isinstance(wanted, tuple | list):
        return any(only_floats(one, other) for one, other in zip(got, wanted, strict=True))
    return isinstance(got, float) and isinstance(wanted, int)


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _tensor(array: np.ndarray) -> Tensor:
    numbers = array.dtype.kind in "biuf"
    return torch.from_numpy(array.copy()) if numbers else torch.zeros(0)  # it may be read-only
