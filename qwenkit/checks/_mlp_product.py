"""Exercise 07.3, weights of an MLP that multiplies two channels: the right ones, and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, Tensor, Tensor]
_Made = Callable[[int, int, int, int], Weights]  # of a, b, out and channels


class InputsTransposed(ValueError):
    """Gate or up has a row per channel instead of one per unit."""


class DownTransposed(ValueError):
    """Down has a row per unit instead of one per channel."""


def applied(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return what an MLP with these weights adds to x; all that is not three tensors as it is."""

    @wraps(make)
    def output(a: int, b: int, out: int, channels: int, x: Tensor) -> Any:
        made = make(a, b, out, channels)
        three = isinstance(made, tuple | list) and len(made) == 3
        if not three or not all(isinstance(one, Tensor) for one in made):
            return made
        gate, up, down = (one.to(x.dtype) for one in made)
        if gate.shape[-1] != channels and gate.shape[0] == channels:
            raise InputsTransposed
        if down.shape[0] != channels and down.shape[-1] == channels:
            raise DownTransposed
        act = F.silu(F.linear(x, gate)) * F.linear(x, up)
        return F.linear(act, down)

    return output


def _weights(
    units: list[tuple[list[int], list[int], list[int], int, int, int]], channels: int
) -> Weights:
    """Return weights; of each unit: the channels of gate, up and down, and the three signs."""
    gate, up, down = (torch.zeros(len(units), channels) for _ in range(3))
    for unit, (gates, ups, downs, *signs) in enumerate(units):
        gate[unit, gates], up[unit, ups], down[unit, downs] = (float(sign) for sign in signs)
    return gate, up, down.T


def product_weights(a: int, b: int, out: int, channels: int) -> Weights:
    """Return (2, C), (2, C) and (C, 2): SiLU(xa) xb + SiLU(-xa) (-xb) = xa xb."""
    return _weights([([a], [b], [out], 1, 1, 1), ([a], [b], [out], -1, -1, 1)], channels)


def _second(gate: int, up: int, down: int) -> _Made:
    """Return two units, the second with these signs."""
    return lambda a, b, out, channels: _weights(
        [([a], [b], [out], 1, 1, 1), ([a], [b], [out], gate, up, down)], channels
    )


def _other(choose: Callable[[int, int, int, int], tuple[list[int], list[int], list[int]]]) -> _Made:
    """Return right signs on other channels, chosen from a, b, out and the number of channels."""

    def made(a: int, b: int, out: int, channels: int) -> Weights:
        where = choose(a, b, out, channels)
        return _weights([(*where, 1, 1, 1), (*where, -1, -1, 1)], channels)

    return made


def _transposed(inputs: bool, down: bool) -> _Made:
    def made(*given: int) -> Weights:
        gate, up, last = product_weights(*given)
        return (gate.T, up.T, last.T if down else last) if inputs else (gate, up, last.T)

    return made


_CANCEL = (
    "your two units add the same with opposite signs, so the sum is 0. Which signs must the second "
    "unit flip, and how many of them?"
)
_EVEN = (
    "the sign of the first factor is lost. Work out by hand what each unit adds for x = (-1, 1), "
    "and then which further sign of the second unit must flip."
)
_INPUTS = (
    "gate or up has one row per channel. In the file, and in `my_mlp`, it has one row per unit: "
    "(2, C)."
)
PRODUCT_MISTAKES: tuple[tuple[str, str, _Made], ...] = (
    ("one unit", "that is SiLU of one number times the other: one unit. It is nearly the product "
        "where the first number is large. What must a second unit add for the rest?",
        lambda a, b, out, channels: _weights([([a], [b], [out], 1, 1, 1)], channels)),
    ("twice the same", "your second unit does the same as the first. Its gate should be open where "
        "that of the first is closed.",
        _second(1, 1, 1)),
    ("units cancel", _CANCEL, _second(1, -1, 1)),
    ("units cancel", _CANCEL, _second(1, 1, -1)),
    ("sign lost", _EVEN, _second(-1, 1, 1)),
    ("sign lost", _EVEN, _second(-1, -1, -1)),
    ("only one factor", "both gate and up take channel a. The two factors come from two channels.",
        _other(lambda a, b, out, channels: ([a], [a], [out]))),
    ("only one factor", "both gate and up take channel b. The two factors come from two channels.",
        _other(lambda a, b, out, channels: ([b], [b], [out]))),
    ("sum in the gate", "your gate takes the sum of both channels. One factor belongs to gate, the "
        "other to up.",
        _other(lambda a, b, out, channels: ([a, b], [b], [out]))),
    ("sum in both", "gate and up take the sum of both channels. One factor belongs to gate, the "
        "other to up.",
        _other(lambda a, b, out, channels: ([a, b], [a, b], [out]))),
    ("added everywhere", "the product is right, but you add it to every channel. Down should have "
        "values in one row only.",
        _other(lambda a, b, out, channels: ([a], [b], [*range(channels)]))),
    ("another channel", "the product is right, but it is added to channel a. Which row of down "
        "belongs to `out`?",
        _other(lambda a, b, out, channels: ([a], [b], [a]))),
    ("another channel", "the product is right, but it is added to channel b. Which row of down "
        "belongs to `out`?",
        _other(lambda a, b, out, channels: ([a], [b], [b]))),
    ("another channel", "the product is right, but it is always added to the same channel. Which "
        "row of down belongs to `out`?",
        _other(lambda a, b, out, channels: ([a], [b], [0]))),
    ("fixed channels", "you always multiply channels 0 and 1. Use the arguments a and b.",
        _other(lambda a, b, out, channels: ([0], [1], [out]))),
    ("gate and up transposed", _INPUTS, _transposed(inputs=True, down=False)),
    ("gate and up transposed", _INPUTS, _transposed(inputs=True, down=True)),
    ("down transposed", "down has one row per unit. It has one row per channel and one column per "
        "unit: (C, 2).",
        _transposed(inputs=False, down=True)),
)  # fmt: skip
