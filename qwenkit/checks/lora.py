"""The checks of notebook 13, LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._lora_counts import COUNT_MISTAKES, RANK_MISTAKES, count_right, enough_by
from qwenkit.checks._lora_module import MODULE_MISTAKES
from qwenkit.checks._lora_module import measured as measured_module
from qwenkit.checks._lora_module import module as built
from qwenkit.checks._lora_training import KNOWN as TRAINING_KNOWN
from qwenkit.checks._lora_training import measured as measured_training
from qwenkit.checks._lora_training import trainer
from qwenkit.checks._samples import HALF_B, normal
from qwenkit.config import QwenConfig

EXERCISES: dict[str, str] = {
    "13.1": "how many parameters are trained",
    "13.2": "a LoRA module",
    "13.3": "LoRA, trained and merged",
    "13.4": "the rank that is enough",
}


def count_trained(learner: Callable[..., Any]) -> Verdict:
    """Check `count_trained(config, targets, rank)`: a model's sizes -> an integer: 13.1."""
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
    return judge("13.1", learner, count_right, cases, COUNT_MISTAKES, praise)


def module(learner: Callable[..., Any]) -> Verdict:
    """Check `LoRA(base, rank, alpha)`, a class with A and B; (..., I) -> (..., O): 13.2."""

    def case(
        label: str, shape: tuple[int, ...], out: int, rank: int, alpha: float, **more: Any
    ) -> Case:
        settings = {"bias": True, "dtype": torch.float32, **more}
        return Case(label, (normal(*shape), out, rank, alpha, *settings.values()))

    cases = [
        case("a weight of 4 × 4, rank 2", (3, 4), 4, 2, 6.0),
        case("a wide weight, rank 3, two texts", (2, 3, 6), 4, 3, 12.0),
        case("no bias, rank 1", (2, 5), 7, 1, 3.0, bias=False),
        case("all sizes 4, alpha 5", (3, 4), 4, 4, 5.0),
        case("a single token", (4,), 3, 2, 1.0),
        case("alpha 5, rank 2", (2, 6), 5, 2, 5.0),
        case("a base in bfloat16", (2, 4), 3, 2, 6.0, dtype=torch.bfloat16),
    ]
    learner = measured_module(learner) if callable(learner) else learner
    praise = "it starts as the layer that it wraps, and only A and B can learn."
    return judge("13.2", learner, built(), cases, MODULE_MISTAKES, praise, LOOSE)


def train(learner: Callable[..., Any]) -> Verdict:
    """Check `train_lora(model, batches, rank, alpha, rate, start)`: the losses: 13.3."""
    cases = [
        Case("two layers, three steps", (2, 3, 2, 3.0, 0.05)),
        Case("one layer, four steps, rank 3", (1, 4, 3, 6.0, 0.02)),
    ]
    learner = measured_training(learner) if callable(learner) else learner
    praise = "frozen, trained, merged: a plain model that has learned, and no other tensor moved."
    right = measured_training(trainer())
    return judge("13.3", learner, right, cases, TRAINING_KNOWN, praise, LOOSE, _DONE_FOR_YOU)


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


_DONE_FOR_YOU = ("add_lora", "merge_lora", "remove_lora", "LoRALinear")
