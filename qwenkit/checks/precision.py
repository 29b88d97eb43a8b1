"""The checks of notebook 17, precision and memory: rounding to bfloat16, int8 and int4."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._precision_int4 import INT4_MISTAKES, Int4, int4_cases
from qwenkit.checks._precision_int4 import measured as measured_int4
from qwenkit.checks._samples import normal

EXERCISES = {
    "17.1": "round to bfloat16",
    "17.2": "int8 by groups",
    "17.3": "a matrix in four bits",
}
_TOP = 127  # of an int8 whose steps lie evenly around 0
_SMALLEST = torch.finfo(torch.float32).tiny


def to_bfloat16(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(bits)`: a float32 by its bits, rounded to bfloat16, as integers: 17.1."""
    cases = [
        Case("1.0, which bfloat16 has", (0x3F80_0000,)),
        Case("0.1, nearer to the number above", (0x3DCC_CCCD,)),
        Case("nearer to the number below", (0x3F80_1234,)),
        Case("just below the middle", (0x3F81_7FFF,)),
        Case("just above the middle", (0x3F80_8001,)),
        Case("in the middle, the even number is below", (0x3F80_8000,)),
        Case("in the middle, the even number is above", (0x3F81_8000,)),
        Case("257, in the middle between 256 and 258", (0x4380_8000,)),
        Case("just below 2, where rounding changes the exponent", (0x3FFF_FFFF,)),
        Case("-0.1", (0xBDCC_CCCD,)),
        Case("-1.01171875, in the middle", (0xBF81_8000,)),
        Case("0", (0,)),
        Case("the largest float32, which becomes infinite", (0x7F7F_FFFF,)),
    ]
    praise = "that is how PyTorch rounds each value that becomes a bfloat16."
    return judge("17.1", learner, _nearest_even, cases, _ROUND_MISTAKES, praise)


def int8(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(weight, group)`: int8 values (O, I) and float32 scales (O, I/group): 17.2."""
    rows = [[0.3, -1.0, 0.25, 0.1], [2.0, 0.5, -0.7, 0.45]]
    signs = [[-0.8, 0.3, 0.1, 0.6], [0.2, -0.9, -0.31, 0.11]]
    spoiled = normal(3, 16, seed=1)
    spoiled[1, 5] = 40.0
    cases = [
        Case("two rows of two groups", (torch.tensor(rows), 2)),
        Case("a group is the whole row", (torch.tensor(signs), 4)),
        Case("six rows of three groups", (normal(6, 24, seed=2), 8)),
        Case("a large weight in one group", (spoiled, 4)),
        Case("more groups than rows", (0.01 * normal(2, 32, seed=3), 4)),
        Case("a group of zeros", (torch.tensor([[0.0, 0.0, 0.7, -0.2]]), 2)),
    ]
    praise = "a large weight now harms only its own group."
    return judge("17.2", learner, _grouped(), cases, _INT8_MISTAKES, praise)


def int4(learner: Callable[..., Any]) -> Verdict:
    """Check the class `learner(weight, group)` with packed, scale, zero and restore: 17.3."""
    praise = "half a byte per weight, and back, in the package's order of bytes."
    learner = measured_int4(learner) if callable(learner) else learner
    return judge("17.3", learner, measured_int4(Int4), int4_cases(), INT4_MISTAKES, praise)


# --- 17.1 ---


def _nearest_even(bits: int) -> int:
    odd = (bits >> 16) & 1
    return (bits + 0x7FFF + odd) >> 16


def _without_carry(bits: int) -> int:
    """Round the mantissa alone."""
    return (bits >> 16) & 0xFF80 | _nearest_even(bits) & 0x7F


_ROUND_MISTAKES = (
    Mistake("cut off", "you cut the lower half off, which always rounds toward 0. Where the lower "
        "half is more than half of a step, the number above is nearer.",
        lambda bits: bits >> 16),
    Mistake("the middle always up", "a number exactly in the middle is always rounded up here. Of "
        "the two neighbors, take the one whose last bit is 0.",
        lambda bits: (bits + 0x8000) >> 16),
    Mistake("the middle always down", "a number exactly in the middle is always rounded down here. "
        "Of the two neighbors, take the one whose last bit is 0.",
        lambda bits: (bits + 0x7FFF) >> 16),
    Mistake("to the odd neighbor", "a number in the middle goes to the neighbor whose last bit is "
        "1 here. Take the even one, whose last bit is 0.",
        lambda bits: (bits + 0x7FFF + (1 - (bits >> 16 & 1))) >> 16),
    Mistake("always up", "everything that is not exact is rounded up here. Below the middle, the "
        "number below is nearer.",
        lambda bits: (bits + 0xFFFF) >> 16),
    Mistake("even in any case", "the rule of the even neighbor is for the exact middle only. Above "
        "the middle, the number above is nearer, odd or even.",
        lambda bits: (bits >> 16) + ((bits >> 15) & (bits >> 16) & 1)),
    Mistake("no carry", "where the mantissa is full, rounding up must raise the exponent: the "
        "number after 1.9921875 is 2. Add to the whole integer.",
        _without_carry),
    Mistake("not shifted", "the number is rounded, but it still has 32 bits. Shift it: sixteen "
        "are left.",
        lambda bits: _nearest_even(bits) << 16),
    Mistake("the lower half", "these are the lower sixteen bits. The sign, the exponent and the "
        "first bits of the mantissa are in the upper half.",
        lambda bits: bits & 0xFFFF),
    Mistake("shifted by a byte", "you shift by eight bits. Half of a float32 are sixteen.",
        lambda bits: bits >> 8),
    Mistake("sign lost", "the first of the sixteen bits is the sign. It is lost here.",
        lambda bits: _nearest_even(bits) & 0x7FFF),
    Mistake("a float", "you return the number itself. Return its sixteen bits, as an integer.",
        lambda bits: struct.unpack("<f", (_nearest_even(bits) << 16).to_bytes(4, "little"))[0]),
)  # fmt: skip


# --- 17.2 ---


def _grouped(
    size: Callable[[Tensor], Tensor] = lambda grouped: grouped.abs().amax(-1),
    top: int = _TOP,
    rounded: Callable[[Tensor], Tensor] = torch.round,
    least: int | None = -_TOP,
    result: Callable[[Tensor, Tensor], Any] = lambda q, scale: (q, scale),
) -> Callable[[Tensor, int], Any]:
    """Return a quantizer; the arguments are what can go wrong in it.

    Args:
        size: (O, G, group) -> (O, G), what is divided by `top` to give the scale.
        top: as above.
        rounded: makes integers of quotients.
        least: the values are limited to it and 127; None: they are not.
        result: what is returned, of q (O, I) and scale (O, G).
    """

    def quantize(weight: Tensor, group: int) -> Any:
        grouped = weight.reshape(len(weight), -1, group)  # (O, G, group)
        scale = size(grouped) / top  # (O, G)
        q = rounded(grouped / scale.clamp(min=_SMALLEST)[..., None])
        q = q if least is None else q.clamp(least, _TOP)
        return result(q.to(torch.int8).flatten(1), scale)

    return quantize


def _by_row(shape: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Any]:
    """Return a quantizer with a scale per row, in one of the shapes it may have."""

    def quantize(weight: Tensor, group: int) -> Any:
        q, scale = _grouped()(weight, weight.shape[1])  # (O, I) and (O, 1)
        return q, shape(scale.expand(-1, weight.shape[1] // group))

    return quantize


def _transposed(weight: Tensor, group: int) -> Any:
    q, scale = _grouped()(weight.t(), len(weight))
    return q.t(), scale[:, 0]


def _whole(weight: Tensor, group: int) -> Any:
    scale = weight.abs().max() / _TOP
    return (weight / scale).round().to(torch.int8), scale


def _whole_by_group(weight: Tensor, group: int) -> Any:
    q, scale = _whole(weight, group)
    return q, scale.expand(len(weight), weight.shape[1] // group)


def _strided(weight: Tensor, group: int) -> Any:
    """Return groups of weights that lie a stride apart."""
    grouped = weight.reshape(len(weight), group, -1).transpose(1, 2)  # (O, G, group)
    q, scale = _grouped()(grouped.flatten(1), group)
    return q.view_as(grouped).transpose(1, 2).flatten(1), scale


_ONE = "this is one scale for the whole matrix. Each group needs its own."
_DOWN = (
    "the quotients are rounded down. Take the nearest integer: else all errors have the same sign."
)
_PER_ROW = "this is one scale per row. Each group of the row needs its own."
_LARGEST = (
    "the scale follows from the largest weight. A negative weight can be farther from 0: take the "
    "largest absolute value."
)
_INT8_MISTAKES = (
    Mistake("largest instead of absolute", _LARGEST,
        _grouped(size=lambda grouped: grouped.amax(-1), least=None)),
    Mistake("largest instead of absolute", _LARGEST,
        _grouped(size=lambda grouped: grouped.amax(-1))),
    Mistake("one scale for all", _ONE, _whole),
    Mistake("one scale for all", _ONE, _whole_by_group),
    Mistake("one scale per row", _PER_ROW, _by_row(lambda scale: scale)),
    Mistake("one scale per row", _PER_ROW, _by_row(lambda scale: scale[:, :1])),
    Mistake("one scale per row", _PER_ROW, _by_row(lambda scale: scale[:, 0])),
    Mistake("one scale per column", "this is one scale per column. A group consists of neighbors "
        "within a row: reduce over the last dimension.",
        _transposed),
    Mistake("not neighbors", "the weights of a group must be neighbors in the row. In your shape "
        "they lie apart: the group's size comes last.",
        _strided),
    Mistake("cut off", "the quotients are cut off, not rounded: converting to int8 drops what "
        "comes after the point.",
        _grouped(rounded=torch.trunc)),
    Mistake("rounded down", _DOWN, _grouped(rounded=torch.floor, least=None)),
    Mistake("rounded down", _DOWN, _grouped(rounded=torch.floor)),
    Mistake("128 steps", "you divide by 128, but int8 ends at 127: the largest weight of a group "
        "does not fit.",
        _grouped(top=128, least=None)),
    Mistake("128 steps", "you divide by 128, so the largest weight becomes 128 steps, and int8 "
        "ends at 127. Divide by 127.",
        _grouped(top=128)),
    Mistake("the span over 255", "the scale follows from the span of the group here. With steps "
        "on both sides of 0 and no zero point, it is the largest absolute value / 127.",
        _grouped(size=lambda grouped: grouped.amax(-1) - grouped.amin(-1), top=255, least=None)),
    Mistake("scale upside down", "a weight is restored as value × scale, so the scale is the size "
        "of a step: divide the largest absolute value by 127.",
        _grouped(result=lambda q, scale: (q, 1 / scale))),
    Mistake("restored", "these are the restored weights. Return the integers that are stored.",
        _grouped(result=lambda q, scale:
            ((q.view(*scale.shape, -1) * scale[..., None]).flatten(1), scale))),
    Mistake("scale first", "the values are right, and in the wrong order: integers, then scales.",
        _grouped(result=lambda q, scale: (scale, q))),
    Mistake("only the integers", "you return the integers alone. Nobody can restore the weights "
        "without the scales.",
        _grouped(result=lambda q, scale: q)),
)  # fmt: skip
