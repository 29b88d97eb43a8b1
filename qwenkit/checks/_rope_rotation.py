"""Exercise 04.3: the rotation of queries or keys, and its wrong versions."""

from __future__ import annotations

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.model import apply_rope


def _with(x: Tensor, cos: Tensor, sin: Tensor, other: Tensor) -> Tensor:
    """Rotate x with another idea of what sin is multiplied by."""
    return x * cos[:, None] + other * sin[:, None]


def _halves(x: Tensor, first: int, second: int, dim: int = -1) -> Tensor:
    """Swap the halves of x and give each a sign."""
    a, b = x.chunk(2, dim=dim)
    return torch.cat([first * b, second * a], dim=dim)


def _neighbors(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def _interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x[2i] with x[2i + 1] by the angle of pair i."""
    half = x.shape[-1] // 2
    cos, sin = (table[..., :half].repeat_interleave(2, dim=-1) for table in (cos, sin))
    return _with(x, cos, sin, _neighbors(x))


def _one_after_the_other(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a = apply_rope(x, cos, sin)[..., :half]  # the new one
    return torch.cat([a, apply_rope(torch.cat([a, x[..., half:]], -1), cos, sin)[..., half:]], -1)


_INTERLEAVED = (
    "this is the interleaved rotation, which pairs 2i with 2i + 1. Qwen pairs i with i + D/2: cut "
    "the head in the middle."
)
ROTATION_MISTAKES = (
    Mistake("interleaved", _INTERLEAVED, _interleaved),
    Mistake("interleaved", _INTERLEAVED, lambda x, cos, sin: _with(x, cos, sin, _neighbors(x))),
    Mistake("other direction", "you rotate in the other direction. Take the pair (1, 0) and a "
        "quarter turn: it becomes (0, 1).",
        lambda x, cos, sin: apply_rope(x, cos, -sin)),
    Mistake("no minus", "you only add, so lengths change. Which of the two lines of a rotation has "
        "a minus?",
        lambda x, cos, sin: _with(x, cos, sin, _halves(x, 1, 1))),
    Mistake("swapped", "cos and sin are swapped. At angle 0, cos is 1, sin is 0, and x should stay "
        "unchanged.",
        lambda x, cos, sin: apply_rope(x, sin, cos)),
    Mistake("halves not swapped", "each value is mixed with itself. In a rotation a takes some of "
        "b, and b some of a.",
        lambda x, cos, sin: _with(x, cos, sin, _halves(_halves(x, 1, 1), -1, 1))),
    Mistake("only cos", "that is x · cos alone: the part with sin is missing.",
        lambda x, cos, sin: x * cos[:, None]),
    Mistake("only sin", "that is the part with sin alone: x · cos is missing.",
        lambda x, cos, sin: _halves(x, -1, 1) * sin[:, None]),
    Mistake("one after the other", "you compute the new a and use it for the new b. Both need the "
        "old a.",
        _one_after_the_other),
    Mistake("angle by head", "the angles run along the heads. The tables are (B, T, D): at which "
        "position does x have one axis more?",
        lambda x, cos, sin: x * cos.unsqueeze(2) + _halves(x, -1, 1) * sin.unsqueeze(2)),
    Mistake("no axis for the heads", "the tables are (B, T, D), x is (B, H, T, D). That works for "
        "a batch of one; with more texts, the angles of a text meet the heads of another. Give the "
        "tables an axis for the heads.",
        lambda x, cos, sin: x * cos + _halves(x, -1, 1) * sin),
    Mistake("over the tokens", "you cut the tokens into two halves. Which axis of (B, H, T, D) "
        "holds the values of a head?",
        lambda x, cos, sin: _with(x, cos, sin, _halves(x, -1, 1, dim=-2))),
)  # fmt: skip
