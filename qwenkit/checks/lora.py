"""The checks of notebook 13, LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal
from qwenkit.config import QwenConfig

EXERCISES: dict[str, str] = {
    "13.1": "the forward of LoRA",
    "13.2": "how many numbers are trained",
    "13.3": "the merged weight",
    "13.4": "the rank that is enough",
}
ROUGH = 1e-4  # of bfloat16 that is a few in the last digit, so any order of rounding passes
Scale = Callable[[float, int], float]  # of alpha and the rank


def forward(learner: Callable[..., Any]) -> Verdict:
    """Judge `lora_forward(x, weight, a, b, alpha)`: x is (..., I), the answer (..., O)."""
    return judge(
        "13.1", learner, _forward(_right_scale), _forward_cases(), _FORWARD_MISTAKES,
        "the frozen weight's answer, and beside it what A and B have learned.", ROUGH,
    )  # fmt: skip


def count_trained(learner: Callable[..., Any]) -> Verdict:
    """Judge `count_trained(config, targets, rank)`: a model's sizes -> a whole number."""
    return judge(
        "13.2", learner, _count_right, _count_cases(), _COUNT_MISTAKES,
        "you can say what a LoRA costs before you make it.",
    )  # fmt: skip


def merged_weight(learner: Callable[..., Any]) -> Verdict:
    """Judge `merged_weight(weight, a, b, alpha)`: (O, I), (r, I), (O, r) -> (O, I)."""
    return judge(
        "13.3", learner, _merged(_right_scale), _merge_cases(), _MERGE_MISTAKES,
        "one matrix of the old size, which needs neither A nor B any more.", ROUGH,
    )  # fmt: skip


def enough_rank(learner: Callable[..., Any]) -> Verdict:
    """Judge `enough_rank(values, share)`: singular values, the largest first -> a whole number."""
    cases = [
        Case(
            "3, 2, 1 and 1, of which 0.8 is to be kept", (torch.tensor([3.0, 2.0, 1.0, 1.0]), 0.8)
        ),
        Case("the first is enough", (torch.tensor([3.0, 1.0, 1.0]), 0.5)),
        Case("a share that is met exactly", (torch.tensor([2.0, 2.0, 2.0, 2.0]), 0.75)),
        Case("an update of rank 1", (torch.tensor([5.0, 0.0, 0.0]), 0.99)),
        Case("nearly all of it", (torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25]), 0.99)),
    ]
    return judge(
        "13.4", learner, _enough, cases, _RANK_MISTAKES,
        "you can say how much of an update fits into a rank.",
    )  # fmt: skip


# --- 13.1 ---


def _right_scale(alpha: float, rank: int) -> float:
    return alpha / rank


def _forward_cases() -> list[Case]:
    def case(words: str, shape: tuple[int, ...], out: int, rank: int, alpha: float) -> Case:
        inner = shape[-1]
        parts = (normal(out, inner, seed=1), normal(rank, inner, seed=2), normal(out, rank, seed=3))
        return Case(words, (normal(*shape), *parts, alpha))

    square = case("a weight of 4 × 4, rank 2", (3, 4), 4, 2, 6.0)
    x, weight, a, b, alpha = square.arguments
    return [
        square,
        case("a wide weight, rank 3, two texts", (2, 3, 6), 4, 3, 12.0),
        case("rank 1", (2, 5), 7, 1, 3.0),
        case("a single token", (4,), 3, 2, 1.0),
        Case("B of zeros", (x, weight, a, torch.zeros_like(b), alpha)),
        Case("a transposed tensor", (x, weight.T.contiguous().T, a, b.T.contiguous().T, alpha)),
    ]


def _forward(scale: Scale) -> Callable[..., Tensor]:
    """Return a LoRA whose update counts `scale(alpha, rank)` times."""

    def forward(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        return x @ weight.T + scale(alpha, a.shape[0]) * (x @ a.T @ b.T)

    return forward


_SCALE_MISTAKES: list[tuple[str, str, Scale]] = [
    (
        "scale forgotten",
        "the update is added as it is. How strongly it counts depends on alpha and the rank.",
        lambda alpha, rank: 1.0,
    ),
    (
        "not divided by the rank",
        "the update counts alpha times. Then twice the rank would be about twice the step: "
        "what must alpha be divided by?",
        lambda alpha, rank: alpha,
    ),
    (
        "divided upside down",
        "the update counts rank / alpha times, so a larger alpha makes it weaker.",
        lambda alpha, rank: rank / alpha,
    ),
    (
        "only divided",
        "the update is divided by the rank; where is alpha?",
        lambda alpha, rank: 1 / rank,
    ),
    (
        "root of the rank",
        "alpha / √rank is another method (rsLoRA). Plain LoRA divides by the rank itself.",
        lambda alpha, rank: alpha / rank**0.5,
    ),
]
_FORWARD_MISTAKES = [
    *(Mistake(name, hint, _forward(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake(
        "update alone",
        "that is what A and B add. The frozen weight must answer, too.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T),
    ),
    Mistake(
        "weight alone",
        "that is the frozen weight's answer. What do A and B add to it?",
        lambda x, w, a, b, alpha: x @ w.T,
    ),
    Mistake(
        "all is scaled",
        "the scale is for the update alone; here the frozen weight's answer is scaled as well.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ w.T + x @ a.T @ b.T),
    ),
    Mistake(
        "not transposed",
        "a weight is (O, I): one row for each output. x @ weight takes its columns instead, "
        "which no error shows as long as it is square.",
        lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a.T @ b.T),
    ),
    Mistake(
        "one after the other",
        "A gets the frozen weight's output. Both ways begin at the same x, side by side.",
        lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ w.T @ a.T @ b.T),
    ),
    Mistake(
        "minus",
        "the update is taken away; it must be added.",
        lambda x, w, a, b, alpha: x @ w.T - alpha / len(a) * (x @ a.T @ b.T),
    ),
]

# --- 13.2 ---


def _sizes(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Return the (O, I) of each matrix of one layer."""
    wide = config.num_attention_heads * config.head_dim
    narrow = config.num_key_value_heads * config.head_dim
    hidden, units = config.hidden_size, config.intermediate_size
    return {
        "q_proj": (wide, hidden),
        "k_proj": (narrow, hidden),
        "v_proj": (narrow, hidden),
        "o_proj": (hidden, wide),
        "gate_proj": (units, hidden),
        "up_proj": (units, hidden),
        "down_proj": (hidden, units),
    }


def _count(
    one: Callable[[int, int, int], int], layers: bool = True, every: bool = False
) -> Callable[..., int]:
    """Return a count that adds `one(O, I, rank)` over the targets, and over the layers."""

    def count(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
        sizes = _sizes(config)
        total = sum(one(*sizes[name], rank) for name in (sizes if every else targets))
        return total * (config.num_hidden_layers if layers else 1)

    return count


def _count_as_q(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
    """Count k and v as if they had as many heads as q."""
    sizes = _sizes(config)
    wrong = sizes | {"k_proj": sizes["q_proj"], "v_proj": sizes["q_proj"]}
    total = sum(rank * sum(wrong[name]) for name in targets)
    return total * config.num_hidden_layers


def _count_hidden(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
    """Count q and o as if H · D were the hidden size."""
    hidden = config.hidden_size
    wrong = _sizes(config) | {"q_proj": (hidden, hidden), "o_proj": (hidden, hidden)}
    return sum(rank * sum(wrong[name]) for name in targets) * config.num_hidden_layers


def _count_with_biases(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
    sizes = _sizes(config)
    more = sum(sizes[name][0] for name in targets if name in ("q_proj", "k_proj", "v_proj"))
    return _count_right(config, targets, rank) + more * config.num_hidden_layers


def _count_cases() -> list[Case]:
    tiny = QwenConfig(2048, 256, 704, 6, 8, 2, tie_word_embeddings=True)
    half = QwenConfig(151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True)
    own = QwenConfig(100, 24, 40, 3, 4, 2, head_dim=16)  # 4 · 16 is not 24
    mlp = ("gate_proj", "up_proj", "down_proj")
    every = ("q_proj", "k_proj", "v_proj", "o_proj", *mlp)
    return [
        Case("tiny-coder, q and v, rank 8", (tiny, ("q_proj", "v_proj"), 8)),
        Case("the 0.5B, q and v, rank 8", (half, ("q_proj", "v_proj"), 8)),
        Case("k alone, rank 1", (tiny, ("k_proj",), 1)),
        Case("the MLP, rank 4", (tiny, mlp, 4)),
        Case("all seven, rank 16", (half, every, 16)),
        Case("heads that are wider than hidden / H", (own, every, 2)),
    ]


_count_right = _count(lambda outer, inner, rank: rank * (outer + inner))
_COUNT_MISTAKES = [
    Mistake(
        "whole matrices",
        "those are the frozen weights' own numbers, O · I. What is trained is A and B.",
        _count(lambda outer, inner, rank: outer * inner),
    ),
    Mistake(
        "A alone",
        "that counts A, rank × I. B is trained as well: how many numbers has it?",
        _count(lambda outer, inner, rank: rank * inner),
    ),
    Mistake(
        "B alone",
        "that counts B, O × rank. A is trained as well: how many numbers has it?",
        _count(lambda outer, inner, rank: rank * outer),
    ),
    Mistake(
        "one layer",
        "that is one layer's count. Every layer has matrices of these names.",
        _count(lambda outer, inner, rank: rank * (outer + inner), layers=False),
    ),
    Mistake(
        "rank forgotten",
        "each matrix counts O + I, as for rank 1. Rank 8 has eight rows in A, eight columns in B.",
        _count(lambda outer, inner, rank: outer + inner),
    ),
    Mistake(
        "product of A and B",
        "A's and B's numbers are added, not multiplied.",
        _count(lambda outer, inner, rank: rank * outer * rank * inner),
    ),
    Mistake(
        "k and v as wide as q",
        "k_proj and v_proj are narrower than q_proj: they have KV heads, not H (notebook 06).",
        _count_as_q,
    ),
    Mistake(
        "all matrices",
        "that counts all seven matrices of a layer. Only those named in targets get A and B.",
        _count(lambda outer, inner, rank: rank * (outer + inner), every=True),
    ),
    Mistake(
        "biases counted",
        "the biases of q, k and v stay frozen; they do not count.",
        _count_with_biases,
    ),
    Mistake(
        "H · D taken for the hidden size",
        "q_proj gives H · D numbers, and o_proj takes as many. That is the hidden size in most "
        "models, but not in all: take heads times head_dim.",
        _count_hidden,
    ),
]

# --- 13.3 ---


def _merge_cases() -> list[Case]:
    def case(words: str, out: int, inner: int, rank: int, alpha: float) -> Case:
        parts = (normal(out, inner, seed=1), normal(rank, inner, seed=2), normal(out, rank, seed=3))
        return Case(words, (*parts, alpha))

    plain = case("a weight of 4 × 4, rank 2", 4, 4, 2, 6.0)
    weight, a, b, alpha = plain.arguments
    return [
        plain,
        case("a wide weight, rank 3", 3, 8, 3, 12.0),
        case("rank 1", 5, 2, 1, 3.0),
        Case("B of zeros", (weight, a, torch.zeros_like(b), alpha)),
        Case("a weight in bfloat16, A and B in float32", (weight.bfloat16(), a, b, alpha)),
    ]


def _merged(scale: Scale) -> Callable[..., Tensor]:
    """Return a merging whose update counts `scale(alpha, rank)` times."""

    def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        return (weight.float() + scale(alpha, a.shape[0]) * (b @ a)).to(weight.dtype)

    return merged


_MERGE_MISTAKES = [
    *(Mistake(name, hint, _merged(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake(
        "float32 comes back",
        "the values are right, but a weight in bfloat16 comes back in float32, and would take "
        "twice the memory. The merged weight must have the dtype of the old one.",
        lambda w, a, b, alpha: w.float() + alpha / len(a) * (b @ a),
    ),
    Mistake(
        "update alone",
        "that is the update. The merged weight is the old one with the update in it.",
        lambda w, a, b, alpha: (alpha / len(a) * (b @ a)).to(w.dtype),
    ),
    Mistake(
        "update transposed",
        "the update is transposed, which no error shows as long as the weight is square. "
        "A comes first to x: in which order do A and B then stand in the product?",
        lambda w, a, b, alpha: (w.float() + alpha / len(a) * (a.T @ b.T)).to(w.dtype),
    ),
    Mistake(
        "merged twice",
        "the update is in the weight twice.",
        lambda w, a, b, alpha: (w.float() + 2 * alpha / len(a) * (b @ a)).to(w.dtype),
    ),
    Mistake(
        "minus",
        "the update is taken away, as in unmerging; it must be added.",
        lambda w, a, b, alpha: (w.float() - alpha / len(a) * (b @ a)).to(w.dtype),
    ),
]

# --- 13.4 ---


def _shares(values: Tensor, power: int = 2) -> Tensor:
    powers = values**power
    return powers.cumsum(dim=0) / powers.sum()


def _enough(values: Tensor, share: float) -> int:
    return int((_shares(values) < share).sum()) + 1


_RANK_MISTAKES = [
    Mistake(
        "not squared",
        "you added the singular values themselves. The size of an update goes with their squares.",
        lambda s, share: int((_shares(s, 1) < share).sum()) + 1,
    ),
    Mistake(
        "one too few",
        "off by one: with so many values the share is not yet reached.",
        lambda s, share: int((_shares(s) < share).sum()),
    ),
    Mistake(
        "one too many",
        "off by one: one value fewer is enough already.",
        lambda s, share: int((_shares(s) < share).sum()) + 2,
    ),
    Mistake(
        "must be more",
        "where the share is met exactly, that is enough: at least the share, not more than it.",
        lambda s, share: int((_shares(s) <= share).sum()) + 1,
    ),
    Mistake(
        "from the smallest",
        "you began with the smallest value. The largest ones carry most: begin with them.",
        lambda s, share: int((_shares(s.flip(0)) < share).sum()) + 1,
    ),
    Mistake(
        "compared with the largest",
        "you counted the values near the largest. What counts is how much they make together.",
        lambda s, share: int((s >= share * s.max()).sum()),
    ),
    Mistake(
        "all that are not zero",
        "that is the rank of the whole update. A smaller one may keep the share.",
        lambda s, share: int((s > 0).sum()),
    ),
]
