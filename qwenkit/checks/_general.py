"""Mistakes that any exercise can meet, each known by what would make the answers right.

A diagnosis here is a fact about the values: if every wrong answer becomes right once it is
converted to the dtype, reshaped, negated or divided by one number, that alone was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwenkit.checks._differs import Found, dtype, kind, shown, why
from qwenkit.checks._same import Raised, same

Inputs = Sequence[tuple[Any, ...]]  # the arguments of each case


def general(
    got: Sequence[Any], wanted: Sequence[Any], arguments: Inputs, tolerance: float
) -> Found | None:
    """Return a mistake that explains all wrong answers, if one does."""
    if any(one is None or isinstance(one, Raised) for one in (*got, *wanted)):
        return None
    pairs = list(zip(got, wanted, strict=True))
    words = {"got": kind(got[0]), "wanted": kind(wanted[0])}
    number, one, other = _first_wrong(got[0], wanted[0], tolerance)
    if isinstance(one, Tensor | np.ndarray) and isinstance(other, Tensor | np.ndarray):
        words |= {"shape": str(tuple(one.shape)), "wanted_shape": str(tuple(other.shape))}
        words |= {"dtype": dtype(one), "wanted_dtype": dtype(other)}
        words["wanted_dtype"] += why(other.dtype, arguments[0])
    for name, fact, advice, repaired in _REPAIRS:
        if all(_fits(repaired, *pair, tolerance) for pair in pairs):
            return name, number + fact.format(**words), advice
    return _pattern(got, wanted, arguments, tolerance)


def _first_wrong(got: Any, wanted: Any, tolerance: float) -> tuple[str, Any, Any]:
    """Return which of several values is wrong ("value 2 of 3: "), and it and the expected one."""
    if _several(got, wanted):
        for number, (one, other) in enumerate(zip(got, wanted, strict=True), start=1):
            if not same(one, other, tolerance):
                return f"value {number} of {len(got)}: ", one, other
    return "", got, wanted


def _several(got: Any, wanted: Any) -> bool:
    """Say whether an answer is as many tensors as expected."""
    both = isinstance(got, tuple | list) and isinstance(wanted, tuple | list)
    return both and len(got) == len(wanted) and any(isinstance(one, Tensor) for one in wanted)


def _fits(repaired: Callable[[Any, Any], Any], got: Any, wanted: Any, tolerance: float) -> bool:
    """Say whether a repair makes an answer right, or each of several tensors that is wrong."""
    try:
        if same(repaired(got, wanted), wanted, tolerance):
            return True
    except Exception:  # a repair for another type of value
        pass
    return _several(got, wanted) and all(
        same(one, other, tolerance) or _fits(repaired, one, other, tolerance)
        for one, other in zip(got, wanted, strict=True)
    )


# --- one repair for every answer ---


def _to_dtype(got: Any, wanted: Any) -> Any:
    if isinstance(got, np.ndarray):
        return got.astype(wanted.dtype)
    return got.to(wanted.dtype)


def _to_tensor(got: Any, wanted: Any) -> Any:
    if isinstance(got, list | tuple) and any(isinstance(one, Tensor) for one in got):
        return torch.stack([*got]).to(wanted.dtype)
    return torch.as_tensor(got).to(wanted.dtype)


def _to_array(got: Any, wanted: np.ndarray) -> Any:
    return np.asarray(got).astype(wanted.dtype) if not isinstance(got, np.ndarray) else got


def _to_python(got: Any, wanted: Any) -> Any:
    return got.tolist() if isinstance(got, Tensor | np.ndarray) else got


def _with_ones(got: Any, wanted: Any) -> Any:
    """Return a tensor with the expected dimensions of size 1, if only those differ."""
    if [n for n in got.shape if n != 1] != [n for n in wanted.shape if n != 1]:
        return got
    return got.reshape(wanted.shape)


def _permuted(got: Any, wanted: Any) -> Any:
    """Return a tensor with its dimensions in the order that makes it right, if there is one."""
    orders = permutations(range(got.dim())) if got.dim() < 5 else ()
    for order in orders:
        if same(got.permute(order), wanted, 1e-5):
            return got.permute(order)
    return got


_RIGHT = "the values are right, but "
_SHAPE = _RIGHT + "the shape is {shape}; expected {wanted_shape}"
_KIND = _RIGHT + "it returns {got}; expected {wanted}"
_REPAIRS: tuple[tuple[str, str, str, Callable[[Any, Any], Any]], ...] = (
    ("dtype: values right", _RIGHT + "the dtype is {dtype}; expected {wanted_dtype}", "",
        _to_dtype),
    ("kind: not a tensor", _KIND, "Convert the result to a tensor.", _to_tensor),
    ("kind: not an array", _KIND, "Convert the result to an array.", _to_array),
    ("kind: a tensor", _KIND, "item() turns a tensor into a number, tolist() into a list.",
        _to_python),
    ("kind: in a list", "the value is right, but it is inside {got}", "Return the value itself.",
        lambda got, wanted: got[0] if isinstance(got, tuple | list) and len(got) == 1 else got),
    ("kind: not in a list", _KIND, "Return a list, even of one value.", lambda got, wanted: [got]),
    ("kind: text", _KIND, "Return the number itself.",
        lambda got, wanted: type(wanted)(got) if isinstance(got, str) else got),
    ("kind: one string", _KIND, "Return the parts as a list, not joined.",
        lambda got, wanted: wanted if got in ("".join(wanted), " ".join(wanted)) else got),
    ("kind: strings apart", _KIND, "Join the parts.",
        lambda got, wanted: "".join(got) if isinstance(got, list | tuple) else got),
    ("shape: dimensions of size 1", _SHAPE, "A dimension of size 1 is missing or too many: see "
        "keepdim, unsqueeze and squeeze.",
        _with_ones),
    ("shape: dimensions swapped", _SHAPE, "The dimensions are in another order: where do you "
        "transpose?",
        _permuted),
    ("shape: reshaped", _SHAPE, "The order of the values is right: reshape them.",
        lambda got, wanted: got.reshape(wanted.shape)),
    ("values: sign", "every value has the wrong sign", "", lambda got, wanted: -got),
    ("values: reversed", _RIGHT + "their order is reversed", "",
        lambda got, wanted: type(got)(reversed(got))),
    ("values: another order", _RIGHT + "they are in another order", "",
        lambda got, wanted:
            wanted if not isinstance(got, dict) and sorted(got) == sorted(wanted) else got),
    ("values: spaces", "only spaces or line ends at the start or the end are wrong", "",
        lambda got, wanted: wanted if got.strip() == wanted.strip() else got),
)  # fmt: skip


# --- one pattern in all answers ---


def _pattern(
    got: Sequence[Any], wanted: Sequence[Any], arguments: Inputs, tolerance: float
) -> Found | None:
    """Return what all wrong answers have in common: an argument unchanged, a factor, a distance."""
    for place, given in enumerate(zip(*arguments, strict=True)):
        if all(same(*pair, tolerance) for pair in zip(got, given, strict=True)):
            return "values: unchanged", f"it returns argument {place + 1} unchanged", ""
    differ = any(not same(one, wanted[0], tolerance) for one in wanted)
    if len(got) > 2 and differ and all(same(one, got[0], tolerance) for one in got):
        fact = f"for every input it returns {shown(got[0])}"
        advice = "Does it use its arguments, or variables of the notebook?"
        return "values: always the same", fact, advice
    pairs = [_numbers(*pair) for pair in zip(got, wanted, strict=True)]
    if not all(pairs) or sum(first.numel() for first, _ in filter(None, pairs)) < 3:
        return None
    first, second = (torch.cat(side).double() for side in zip(*filter(None, pairs), strict=True))
    usable = first.isfinite() & second.isfinite()
    first, second = first[usable], second[usable]
    factor = float((first * second).sum() / (second * second).sum().clamp(min=1e-30))
    plus = float((first - second).mean()) if len(first) else 0.0

    def all_are(changed: Callable[[Tensor], Tensor]) -> bool:
        both = [(one, changed(other.double()).to(one.dtype)) for one, other in filter(None, pairs)]
        return all(same(one, other, tolerance) for one, other in both)

    if abs(factor) > 1e-6 and all_are(lambda x: factor * x):
        return "values: times a constant", f"every value is {factor:.4g} times the expected one", ""
    if abs(plus) > 1e-6 and all_are(lambda x: x + plus):
        side = "too large" if plus > 0 else "too small"
        return "values: plus a constant", f"every value is {abs(plus):.4g} {side}", ""
    return None


def _numbers(got: Any, wanted: Any) -> tuple[Tensor, Tensor] | None:
    """Return an answer and the expected one as rows of numbers, if they are numbers of a shape."""
    plain = [isinstance(x, int | float) and not isinstance(x, bool) for x in (got, wanted)]
    if all(plain):
        got, wanted = torch.tensor(got).double(), torch.tensor(wanted).double()
    if not isinstance(got, Tensor) or not isinstance(wanted, Tensor):
        return None
    if got.shape != wanted.shape or got.dtype != wanted.dtype or got.dtype == torch.bool:
        return None
    return got.detach().flatten(), wanted.detach().flatten()
