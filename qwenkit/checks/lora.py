"""The checks of notebook 13, LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._lora_counts import COUNT_MISTAKES, RANK_MISTAKES, count_right, enough_by
from qwenkit.checks._lora_update import (
    FORWARD_MISTAKES,
    MERGE_MISTAKES,
    forward_of,
    merged_by,
    right_scale,
)
from qwenkit.checks._samples import HALF_B, normal
from qwenkit.config import QwenConfig

EXERCISES: dict[str, str] = {
    "13.1": "the forward of LoRA",
    "13.2": "how many parameters are trained",
    "13.3": "the merged weight",
    "13.4": "the rank that is enough",
}


def forward(learner: Callable[..., Any]) -> Verdict:
    """Check `lora_forward(x, weight, a, b, alpha)`: (..., I) -> (..., O): exercise 13.1."""

    def case(label: str, shape: tuple[int, ...], out: int, rank: int, alpha: float) -> Case:
        return Case(label, (normal(*shape), *_parts(out, shape[-1], rank), alpha))

    square = case("a weight of 4 × 4, rank 2", (3, 4), 4, 2, 6.0)
    x, weight, a, b, alpha = square.arguments
    cases = [
        square,
        case("a wide weight, rank 3, two texts", (2, 3, 6), 4, 3, 12.0),
        case("rank 1", (2, 5), 7, 1, 3.0),
        case("all sizes 4, alpha 5", (3, 4), 4, 4, 5.0),
        case("a single token", (4,), 3, 2, 1.0),
        Case("B of zeros", (x, weight, a, torch.zeros_like(b), alpha)),
        Case("a transposed tensor", (x, weight.T.contiguous().T, a, b.T.contiguous().T, alpha)),
    ]
    praise = "the frozen weight's output, plus what A and B have learned."
    return judge("13.1", learner, forward_of(right_scale), cases, FORWARD_MISTAKES, praise, LOOSE)


def count_trained(learner: Callable[..., Any]) -> Verdict:
    """Check `count_trained(config, targets, rank)`: a model's sizes -> an integer: 13.2."""
    tiny = QwenConfig(2048, 256, 704, 6, 8, 2, tie_word_embeddings=True)
    own = QwenConfig(100, 24, 40, 3, 4, 2, head_dim=16)  # 4 · 16 is not 24
    mlp = ("gate_proj", "up_proj", "down_proj")
    every = ("q_proj", "k_proj", "v_proj", "o_proj", *mlp)
    cases = [
        Case("tiny-coder, q and v, rank 8", (tiny, ("q_proj", "v_proj"), 8)),
        Case("the 0.5B, q and v, rank 8", (HALF_B, ("q_proj", "v_proj"), 8)),
        Case("k alone, rank 1", (tiny, ("k_proj",), 1)),
        Case("the MLP, rank 4", (tiny, mlp, 4)),
        Case("all seven, rank 16", (HALF_B, every, 16)),
        Case("heads that are wider than hidden / H", (own, every, 2)),
    ]
    praise = "you can say what a LoRA costs before you create it."
    return judge("13.2", learner, count_right, cases, COUNT_MISTAKES, praise)


def merged_weight(learner: Callable[..., Any]) -> Verdict:
    """Check `merged_weight(weight, a, b, alpha)`: (O, I), (r, I), (O, r) -> (O, I): 13.3."""

    def case(label: str, out: int, inner: int, rank: int, alpha: float) -> Case:
        return Case(label, (*_parts(out, inner, rank), alpha))

    plain = case("a weight of 4 × 4, rank 2", 4, 4, 2, 6.0)
    weight, a, b, alpha = plain.arguments
    cases = [
        plain,
        case("a wide weight, rank 3", 3, 8, 3, 12.0),
        case("rank 1", 5, 2, 1, 3.0),
        case("rank 2, alpha 5", 3, 6, 2, 5.0),
        case("all sizes 4", 4, 4, 4, 6.0),
        Case("B of zeros", (weight, a, torch.zeros_like(b), alpha)),
        Case("a weight in bfloat16, A and B in float32", (weight.bfloat16(), a, b, alpha)),
        Case(
            "a weight in bfloat16, two products that nearly cancel",
            (weight.bfloat16() / 100, torch.stack([1.003 * a[0], a[0]]), _OPPOSITE, alpha),
        ),
    ]
    praise = "one matrix of the old size, which no longer needs A and B."
    return judge("13.3", learner, merged_by(right_scale), cases, MERGE_MISTAKES, praise, LOOSE)


def enough_rank(learner: Callable[..., Any]) -> Verdict:
    """Check `enough_rank(values, share)`: singular values, largest first -> an integer: 13.4."""
    four, six = torch.tensor([3.0, 2.0, 1.0, 1.0]), torch.tensor([4.0, 2.0, 2.0, 2.0, 2.0, 0.0])
    cases = [
        Case("3, 2, 1 and 1, a share of 0.8", (four, 0.8)),
        Case("the first is enough", (torch.tensor([3.0, 1.0, 1.0]), 0.5)),
        Case("a share that is reached exactly", (torch.tensor([2.0, 2.0, 2.0, 2.0]), 0.75)),
        Case("six values, the first reaches it exactly", (six, 0.5)),
        Case("all of it", (six, 1.0)),
        Case("small values", (torch.full((4,), 0.25), 0.6)),
        Case("a small share", (torch.full((4,), 2.0), 0.2)),
        Case("all of it, by two of three values", (torch.tensor([2.0, 2.0, 0.0]), 1.0)),
        Case("an update of rank 1", (torch.tensor([5.0, 0.0, 0.0]), 0.99)),
        Case("nearly all of it", (torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25]), 0.99)),
    ]
    praise = "you can say how much of an update fits into a rank."
    return judge("13.4", learner, enough_by(1), cases, RANK_MISTAKES, praise)


_OPPOSITE = torch.tensor([[10.0, -10], [20, -20], [-10, 10], [5, -5]])  # a B of rank 2


def _parts(out: int, inner: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight (O, I), A (r, I) and B (O, r)."""
    return normal(out, inner, seed=1), normal(rank, inner, seed=2), normal(out, rank, seed=3)
