"""The checks of notebook 04, RoPE: frequencies, tables, the rotation, the order of the pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._rope_angles import (
    FREQUENCY_MISTAKES,
    TABLE_MISTAKES,
    Two,
    frequencies_of,
    tables_of,
)
from qwenkit.checks._rope_pairs import PAIR_MISTAKES, Tensors, converted
from qwenkit.checks._rope_pairs import cases as checkpoints
from qwenkit.checks._rope_rotation import ROTATION_MISTAKES
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import apply_rope

EXERCISES = {
    "04.1": "the frequency of each pair",
    "04.2": "the cos and sin tables",
    "04.3": "rotate the pairs",
    "04.4": "convert a checkpoint to half-split pairs",
}


def frequencies(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(head_dim, theta)`: radians per position of each pair, (D/2,)."""
    cases = [
        Case("head_dim 8, theta 10,000", (8, 10_000.0)),
        Case("head_dim 64, theta 1,000,000", (64, 1_000_000.0)),
        Case("head_dim 6, theta 500", (6, 500.0)),
        Case("a single pair", (2, 10_000.0)),
    ]
    praise = "the first pair rotates by one radian per position, each later one more slowly."
    return judge("04.1", learner, frequencies_of, cases, FREQUENCY_MISTAKES, praise)


def tables(learner: Callable[..., Two]) -> Verdict:
    """Check `learner(positions, frequencies, dtype)`: cos and sin, (T, D) each."""
    speeds = frequencies_of(8, 10_000.0)
    cases = [
        Case("positions 0 to 4", (torch.arange(5), speeds, torch.float32)),
        Case("positions 5, 6 and 7", (torch.arange(5, 8), speeds, torch.float32)),
        Case("position 9 alone", (torch.tensor([9]), speeds, torch.float32)),
        Case("positions 3, 0 and 11", (torch.tensor([3, 0, 11]), speeds, torch.float32)),
        Case("bfloat16, far into a text", (torch.arange(1000, 1006), speeds, torch.bfloat16)),
    ]
    praise = "one row per position, both halves alike, and no angle loses its digits."
    return judge("04.2", learner, tables_of, cases, TABLE_MISTAKES, praise, LOOSE)


def rotate(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, cos, sin)`: x, (B, H, T, D), rotated by tables of (B, T, D)."""

    def case(label: str, shape: tuple[int, ...], starts: tuple[int, ...], scale: float = 1) -> Case:
        positions = torch.tensor(starts)[:, None] + torch.arange(shape[2])  # (B, T)
        cos, sin = tables_of(positions, frequencies_of(shape[3], 100.0))
        return Case(label, (scale * normal(*shape, seed=4), cos, sin))

    two = case("two texts, two heads", (2, 2, 5, 8), (1, 9))
    x, cos, sin = two.arguments
    cases = [
        case("one text, two heads, three tokens", (1, 2, 3, 8), (1,)),
        two,
        case("as many heads as tokens", (1, 4, 4, 8), (2,)),
        case("a single token", (1, 3, 1, 4), (6,)),
        in_bfloat16(x, cos, sin),
        Case("not contiguous", (*not_contiguous(x).arguments, cos, sin)),
        case("large values", (1, 2, 3, 8), (3,), 1e4),
    ]
    praise = "each token is rotated by its own angle, in every head alike."
    return judge(
        "04.3", learner, apply_rope, cases, ROTATION_MISTAKES, praise, LOOSE, ("apply_rope",)
    )


def to_half_split(learner: Callable[..., Tensors]) -> Verdict:
    """Check `learner(tensors, head_dim)`: name -> tensor, interleaved pairs made half-split."""
    praise = (
        "with half-split RoPE, the converted weights give the same scores as the original ones "
        "with interleaved RoPE."
    )
    return judge("04.4", learner, converted, checkpoints(), PAIR_MISTAKES, praise)
