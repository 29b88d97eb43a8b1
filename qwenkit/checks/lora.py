"""The checks of notebook 13, LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import HALF_B, normal
from qwenkit.config import QwenConfig

EXERCISES: dict[str, str] = {
    "13.1": "the forward of LoRA",
    "13.2": "how many parameters are trained",
    "13.3": "the merged weight",
    "13.4": "the rank that is enough",
}
_Scale = Callable[[float, int], float]  # of alpha and the rank


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
        case("a single token", (4,), 3, 2, 1.0),
        Case("B of zeros", (x, weight, a, torch.zeros_like(b), alpha)),
        Case("a transposed tensor", (x, weight.T.contiguous().T, a, b.T.contiguous().T, alpha)),
    ]
    praise = "the frozen weight's output, plus what A and B have learned."
    return judge("13.1", learner, _forward(_right_scale), cases, _FORWARD_MISTAKES, praise, LOOSE)


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
    return judge("13.2", learner, _count_right, cases, _COUNT_MISTAKES, praise)


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
        Case("B of zeros", (weight, a, torch.zeros_like(b), alpha)),
        Case("a weight in bfloat16, A and B in float32", (weight.bfloat16(), a, b, alpha)),
    ]
    praise = "one matrix of the old size, which no longer needs A and B."
    return judge("13.3", learner, _merged(_right_scale), cases, _MERGE_MISTAKES, praise, LOOSE)


def enough_rank(learner: Callable[..., Any]) -> Verdict:
    """Check `enough_rank(values, share)`: singular values, largest first -> an integer: 13.4."""
    four = torch.tensor([3.0, 2.0, 1.0, 1.0])
    cases = [
        Case("3, 2, 1 and 1, a share of 0.8", (four, 0.8)),
        Case("the first is enough", (torch.tensor([3.0, 1.0, 1.0]), 0.5)),
        Case("a share that is reached exactly", (torch.tensor([2.0, 2.0, 2.0, 2.0]), 0.75)),
        Case("an update of rank 1", (torch.tensor([5.0, 0.0, 0.0]), 0.99)),
        Case("nearly all of it", (torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25]), 0.99)),
    ]
    praise = "you can say how much of an update fits into a rank."
    return judge("13.4", learner, _enough(1), cases, _RANK_MISTAKES, praise)


def _parts(out: int, inner: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight (O, I), A (r, I) and B (O, r)."""
    return normal(out, inner, seed=1), normal(rank, inner, seed=2), normal(out, rank, seed=3)


# --- 13.1 ---


def _right_scale(alpha: float, rank: int) -> float:
    return alpha / rank


def _forward(scale: _Scale) -> Callable[..., Tensor]:
    """Return a LoRA whose update is multiplied by `scale(alpha, rank)`."""

    def forward(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        return x @ weight.T + scale(alpha, a.shape[0]) * (x @ a.T @ b.T)

    return forward


_SCALE_MISTAKES: tuple[tuple[str, str, _Scale], ...] = (
    ("scale forgotten", "the update is added without a scale. How much it counts depends on alpha "
        "and the rank.",
        lambda alpha, rank: 1.0),
    ("not divided by the rank", "the update is multiplied by alpha. Then twice the rank would mean "
        "about twice the update: by what must alpha be divided?",
        lambda alpha, rank: alpha),
    ("divided upside down", "the update is multiplied by rank / alpha, so a larger alpha makes it "
        "weaker.",
        lambda alpha, rank: rank / alpha),
    ("only divided", "the update is divided by the rank, but where is alpha?",
        lambda alpha, rank: 1 / rank),
    ("root of the rank", "alpha / √rank is another method (rsLoRA). Plain LoRA divides by the rank "
        "itself.",
        lambda alpha, rank: alpha / rank**0.5),
)  # fmt: skip
_FORWARD_MISTAKES = [
    *(Mistake(name, hint, _forward(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake("update alone", "that is what A and B add. The frozen weight's output is needed too.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T)),
    Mistake("weight alone", "that is the frozen weight's output. What do A and B add to it?",
        lambda x, w, a, b, alpha: x @ w.T),
    Mistake("everything scaled", "the scale is only for the update; here the frozen weight's "
        "output is scaled as well.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ w.T + x @ a.T @ b.T)),
    Mistake("not transposed", "a weight is (O, I): one row per output. x @ weight uses its columns "
        "instead, which raises no error if the weight is square.",
        lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a.T @ b.T)),
    Mistake("one after the other", "A gets the frozen weight's output. Both branches start from "
        "the same x, in parallel.",
        lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ w.T @ a.T @ b.T)),
    Mistake("minus", "the update is subtracted; it must be added.",
        lambda x, w, a, b, alpha: x @ w.T - alpha / len(a) * (x @ a.T @ b.T)),
]  # fmt: skip

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
    one: Callable[[int, int, int], int],
    layers: bool = True,
    every: bool = False,
    sizes: Callable[[QwenConfig], dict[str, tuple[int, int]]] = _sizes,
) -> Callable[..., int]:
    """Return a count that adds `one(O, I, rank)` over the targets, and over the layers."""

    def count(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
        found = sizes(config)
        total = sum(one(*found[name], rank) for name in (found if every else targets))
        return total * (config.num_hidden_layers if layers else 1)

    return count


def _a_and_b(out: int, inner: int, rank: int) -> int:
    return rank * (out + inner)


def _kv_as_q(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Give k and v as many heads as q."""
    sizes = _sizes(config)
    return sizes | {"k_proj": sizes["q_proj"], "v_proj": sizes["q_proj"]}


def _hidden_as_heads(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Take the hidden size for H · D."""
    square = (config.hidden_size, config.hidden_size)
    return _sizes(config) | {"q_proj": square, "o_proj": square}


def _count_with_biases(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
    sizes = _sizes(config)
    more = sum(sizes[name][0] for name in targets if name in ("q_proj", "k_proj", "v_proj"))
    return _count_right(config, targets, rank) + more * config.num_hidden_layers


_count_right = _count(_a_and_b)
_COUNT_MISTAKES = (
    Mistake("whole matrices", "those are the parameters of the frozen weights, O · I. What is "
        "trained is A and B.",
        _count(lambda out, inner, rank: out * inner)),
    Mistake("A alone", "that counts A, rank × I. B is trained as well: how many parameters does it "
        "have?",
        _count(lambda out, inner, rank: rank * inner)),
    Mistake("B alone", "that counts B, O × rank. A is trained as well: how many parameters does it "
        "have?",
        _count(lambda out, inner, rank: rank * out)),
    Mistake("one layer", "that is the count of one layer. Every layer has matrices of these names.",
        _count(_a_and_b, layers=False)),
    Mistake("rank forgotten", "each matrix counts O + I, as for rank 1. Rank 8 has eight rows in "
        "A, eight columns in B.",
        _count(lambda out, inner, rank: out + inner)),
    Mistake("product of A and B", "the parameters of A and B are added, not multiplied.",
        _count(lambda out, inner, rank: rank * out * rank * inner)),
    Mistake("k and v as wide as q", "k_proj and v_proj are narrower than q_proj: they have KV "
        "heads, not H (notebook 06).",
        _count(_a_and_b, sizes=_kv_as_q)),
    Mistake("all matrices", "that counts all seven matrices of a layer. Only those named in "
        "targets get A and B.",
        _count(_a_and_b, every=True)),
    Mistake("biases counted", "the biases of q, k and v stay frozen; they do not count.",
        _count_with_biases),
    Mistake("hidden size for H · D", "q_proj returns H · D values, and o_proj takes as many. That "
        "is the hidden size in most models, but not in all: use heads times head_dim.",
        _count(_a_and_b, sizes=_hidden_as_heads)),
)  # fmt: skip

# --- 13.3 ---


def _merged(scale: _Scale, plus: float = 1.0) -> Callable[..., Tensor]:
    """Return a merge: `plus` times the weight, and the update times `scale(alpha, rank)`."""

    def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        update = scale(alpha, a.shape[0]) * (b @ a)
        return (plus * weight.float() + update).to(weight.dtype)

    return merged


_MERGE_MISTAKES = [
    *(Mistake(name, hint, _merged(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake("float32 comes back", "the values are right, but a weight in bfloat16 comes back in "
        "float32, and would take twice the memory. The merged weight must have the dtype of the "
        "old one.",
        lambda w, a, b, alpha: w.float() + alpha / len(a) * (b @ a)),
    Mistake("update alone", "that is the update. The merged weight is the old weight plus the "
        "update.",
        _merged(_right_scale, plus=0.0)),
    Mistake("update transposed", "the update is transposed, which raises no error if the weight is "
        "square. x meets A first: in which order are A and B in the product?",
        lambda w, a, b, alpha: (w.float() + alpha / len(a) * (a.T @ b.T)).to(w.dtype)),
    Mistake("merged twice", "the update is in the weight twice.",
        _merged(lambda alpha, rank: 2 * alpha / rank)),
    Mistake("minus", "the update is subtracted, as in unmerging; it must be added.",
        _merged(lambda alpha, rank: -alpha / rank)),
]  # fmt: skip

# --- 13.4 ---


def _enough(
    more: int,
    power: int = 2,
    at: Callable[[Tensor, float], Tensor] = torch.lt,
    order: Callable[[Tensor], Tensor] = lambda s: s,
) -> Callable[[Tensor, float], int]:
    """Return a rank: how many running sums are below the share, and so many more."""

    def enough(values: Tensor, share: float) -> int:
        powers = order(values) ** power
        return int(at(powers.cumsum(dim=0) / powers.sum(), share).sum()) + more

    return enough


_RANK_MISTAKES = (
    Mistake("not squared", "you add up the singular values themselves. The size of an update goes "
        "with their squares.",
        _enough(1, power=1)),
    Mistake("one too few", "off by one: with that many values the share is not yet reached.",
        _enough(0)),
    Mistake("one too many", "off by one: one value fewer is already enough.", _enough(2)),
    Mistake("more than the share", "if the share is reached exactly, that is enough: at least the "
        "share, not more than it.",
        _enough(1, at=torch.le)),
    Mistake("from the smallest", "you start with the smallest value. The largest ones contribute "
        "most: start with them.",
        _enough(1, order=lambda s: s.flip(0))),
    Mistake("compared with the largest", "you count the values close to the largest one. What "
        "counts is how much they make together.",
        lambda s, share: int((s >= share * s.max()).sum())),
    Mistake("all nonzero values", "that is the rank of the whole update. A smaller one may reach "
        "the share.",
        lambda s, share: int((s > 0).sum())),
)  # fmt: skip
