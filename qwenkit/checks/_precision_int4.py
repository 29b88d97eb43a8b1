"""Exercise 17.3, a matrix in four bits: packed and restored, right and with common mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal

_SMALLEST = torch.finfo(torch.float32).tiny


class Int4:
    """A matrix in four bits; the arguments after the group are what can go wrong in it.

    Args:
        weight: (O, I).
        group: neighboring weights of a row that share a scale and a zero point.
        gaps: between the smallest and the largest step.
        with_zero: whether 0 is in the range even if all weights of a group have one sign.
        symmetric: the zero point is 8, and the scale follows from the largest absolute value.
        rounded: makes integers of steps.
        zero_rounded: makes an integer of the zero point.
        limited: whether steps are limited to 0 to 15.
        by_row: whether the groups of a row share scale and zero point.
        pairs: which two steps share a byte, "halves" of a group, "neighbors", "halves of the row".
        low_first: whether the first of the two is in the lower four bits.
        restored_pairs: how `restore` puts them back; None: as they were packed.
        masked: whether `restore` removes the upper bits from the lower ones.
        formula: of `restore`: steps, zero point and scale -> weights.
    """

    def __init__(
        self,
        weight: Tensor,
        group: int,
        gaps: int = 15,
        with_zero: bool = True,
        symmetric: bool = False,
        rounded: Callable[[Tensor], Tensor] = torch.round,
        zero_rounded: Callable[[Tensor], Tensor] = torch.round,
        limited: bool = True,
        by_row: bool = False,
        pairs: str = "halves",
        low_first: bool = True,
        restored_pairs: str | None = None,
        masked: bool = True,
        formula: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda q, zero, scale:
            (q - zero) * scale,
    ) -> None:  # fmt: skip
        self._group, self._low_first, self._masked = group, low_first, masked
        self._pairs, self._formula = restored_pairs or pairs, formula
        shape = len(weight), weight.shape[1] // group
        together = weight.shape[1] if by_row else group
        grouped = weight.reshape(len(weight), -1, together)  # (O, G, group)
        low, high = grouped.amin(-1), grouped.amax(-1)  # 2 × (O, G)
        if with_zero:
            low, high = low.clamp(max=0), high.clamp(min=0)
        scale = torch.maximum(high, -low) / 7 if symmetric else (high - low) / gaps
        zero = zero_rounded(-low / scale.clamp(min=_SMALLEST)).clamp(0, 15)
        zero = torch.full_like(zero, 8) if symmetric else zero
        steps = rounded(grouped / scale.clamp(min=_SMALLEST)[..., None] + zero[..., None])
        steps = steps.clamp(0, 15) if limited else steps
        self.scale, self.zero = scale.expand(shape), zero.to(torch.uint8).expand(shape)
        whole = steps.flatten(1).to(torch.int16)  # (O, I)
        first, second = whole[:, self._places(pairs)].chunk(2, dim=1)  # 2 × (O, I/2)
        first, second = (first, second) if low_first else (second, first)
        self.packed = (first | (second << 4)).to(torch.uint8)

    def _places(self, pairs: str) -> Tensor:
        """Return the columns in the order of the bytes: the first ones, then the second ones."""
        columns = torch.arange(self.scale.shape[1] * self._group)
        if pairs == "neighbors":
            return torch.cat([columns[0::2], columns[1::2]])
        if pairs == "halves of the row":
            return columns
        grouped = columns.view(-1, 2, self._group // 2)  # (G, 2, group/2)
        return grouped.transpose(0, 1).flatten()

    def restore(self) -> Tensor:
        """Return the weights (O, I) as far as they were stored."""
        first = self.packed & 15 if self._masked else self.packed
        second = self.packed >> 4
        first, second = (first, second) if self._low_first else (second, first)
        steps = torch.empty(len(first), 2 * first.shape[1])
        steps[:, self._places(self._pairs)] = torch.cat([first, second], dim=1).float()
        grouped = steps.view(*self.scale.shape, -1)  # (O, G, group)
        restored = self._formula(grouped, self.zero.float()[..., None], self.scale[..., None])
        return restored.flatten(1)


class _Kept(Int4):
    """Returns the weights it was made of."""

    def __init__(self, weight: Tensor, group: int) -> None:
        super().__init__(weight, group)
        self._weight = weight.clone()

    def restore(self) -> Tensor:
        return self._weight


def int4_cases() -> list[Case]:
    """Return matrices and sizes of groups."""
    one = torch.tensor([[-0.3, 0.12, 1.2, 0.5]])
    edge = torch.tensor([[-1.5, 13.5, 0.2, 4.1]])  # step 15.5 of the largest would round to 16
    positive = torch.tensor([[0.5, 0.9, 0.77, 1.45], [-0.6, -0.2, -0.31, -1.5]])
    return [
        Case("one group of four", (one, 4)),
        Case("two rows of two groups", (normal(2, 8, seed=1), 4)),
        Case("six rows of three groups", (normal(6, 48, seed=2), 16)),
        Case("groups of two", (normal(3, 6, seed=3), 2)),
        Case("weights of one sign", (positive, 4)),
        Case("the largest weight lies between two steps", (edge, 4)),
        Case("small weights", (0.01 * normal(4, 32, seed=4) + 0.003, 8)),
        Case("a group of zeros", (torch.tensor([[0.0, 0.0, 0.7, -0.2]]), 2)),
    ]


def measured(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's class into a function: packed, scale, zero and the restored weights."""

    @wraps(kind, updated=())
    def run(weight: Tensor, group: int) -> Any:
        made = kind(weight, group)
        if made is None or made is ...:
            return made
        stored = [getattr(made, name, None) for name in ("packed", "scale", "zero")]
        restored = made.restore() if hasattr(made, "restore") else None
        if all(one is None for one in (*stored, restored)):
            return None  # the stub
        return (*stored, restored)

    return run


_MISTAKES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("sixteen gaps", "sixteen steps have fifteen gaps between them: divide the span by 15.",
        {"gaps": 16}),
    ("0 outside", "where all weights of a group have one sign, the range must still reach to 0. "
        "Else the zero point lies outside of 0 to 15.",
        {"with_zero": False}),
    ("symmetric", "these steps lie evenly around 0. Here the range of a group goes from its "
        "smallest to its largest weight.",
        {"symmetric": True}),
    ("cut off", "the steps are rounded down. Take the nearest one: else all errors have the same "
        "sign.",
        {"rounded": torch.floor}),
    ("zero point cut off", "the zero point is cut off, not rounded: converting to an integer "
        "drops what comes after the point.",
        {"zero_rounded": torch.floor}),
    ("not limited", "a step can round to 16, which has five bits and changes the other step of "
        "its byte. Limit the steps to 0 to 15.",
        {"limited": False}),
    ("one scale per row", "the groups of a row share scale and zero point here. Each group needs "
        "its own.",
        {"by_row": True}),
    ("four bits swapped", "the two steps of a byte are swapped: the first half of the group "
        "belongs into the lower four bits.",
        {"low_first": False}),
    ("neighbors packed", "you pack neighbors. Byte i of a group holds the steps i and "
        "i + group / 2.",
        {"pairs": "neighbors"}),
    ("halves of the row", "you pack the first half of the row with the second. Split each group "
        "into halves.",
        {"pairs": "halves of the row"}),
    ("restored as neighbors", "the bytes are right, but restore puts their two steps next to each "
        "other. They are half a group apart.",
        {"restored_pairs": "neighbors"}),
    ("restored as halves of the row", "the bytes are right, but restore puts the upper four bits "
        "of all groups after the lower ones. Put each group together by itself.",
        {"restored_pairs": "halves of the row"}),
    ("upper bits not removed", "the bytes are right, but restore takes the whole byte as the "
        "first step. Keep only its lower four bits.",
        {"masked": False}),
    ("zero point forgotten", "the bytes are right, but restore does not subtract the zero point.",
        {"formula": lambda q, zero, scale: q * scale}),
    ("zero point added", "the bytes are right, but restore adds the zero point. Subtract it.",
        {"formula": lambda q, zero, scale: (q + zero) * scale}),
    ("scaled too early", "the bytes are right, but restore subtracts the zero point after "
        "scaling. The zero point counts steps: subtract it first.",
        {"formula": lambda q, zero, scale: q * scale - zero}),
    ("restored by dividing", "the bytes are right, but restore divides by the scale, which is "
        "the size of a step.",
        {"formula": lambda q, zero, scale: (q - zero) / scale}),
)  # fmt: skip


def _matrix(**changes: Any) -> Callable[..., Any]:
    return measured(lambda weight, group: Int4(weight, group, **changes))


INT4_MISTAKES = (
    *(Mistake(name, hint, _matrix(**changes)) for name, hint, changes in _MISTAKES),
    Mistake("not from the bytes", "restore returns the weights as they came. Compute them from "
        "packed, scale and zero: nothing else is stored.",
        measured(_Kept)),
)  # fmt: skip
