"""The checks of notebook 09, the whole model: its wiring, its tensors, and a class of your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._forward import FORWARD_MISTAKES, run_parts
from qwenkit.checks._judge import LOOSE, Case, Verdict, judge
from qwenkit.checks._samples import Part, norm_of, normal
from qwenkit.checks._untied import EMBEDDING, HEAD, UNTIED_MISTAKES, Tensors, with_own_head
from qwenkit.checks._whole_mistakes import WHOLE_MISTAKES
from qwenkit.checks._whole_model import as_function, package_logits, random_weights
from qwenkit.config import QwenConfig

EXERCISES = {
    "09.1": "from ids to logits",
    "09.2": "untie and upcast",
    "09.3": "a whole model of your own",
}


def forward(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(ids, embed, layers, norm, head)`: the logits, (B, T, V)."""

    def case(label: str, layers: int, shape: tuple[int, int], scale: float = 1.0) -> Case:
        table, matrix = scale * normal(7, 4, seed=1), normal(4, 7, seed=2)
        functions = [_toy_layer(seed) for seed in range(layers)]
        ids = torch.randint(7, shape, generator=torch.Generator().manual_seed(3))
        parts = (lambda i: table[i], functions, norm_of(4, 4), lambda x: x @ matrix)
        return Case(label, (ids, *parts))

    cases = [
        case("three layers, one text", 3, (1, 4)),
        case("two texts", 2, (2, 3)),
        case("a single token", 3, (1, 1)),
        case("a single layer", 1, (1, 4)),
        case("no layer at all", 0, (1, 4)),
        case("small embeddings", 3, (1, 4), 0.01),
    ]
    praise = "embedding, all layers in order, one last norm, the head: a language model."
    return judge("09.1", learner, run_parts, cases, FORWARD_MISTAKES, praise, LOOSE)


def untied(learner: Callable[..., Tensors]) -> Verdict:
    """Check `learner(tensors)`: all of them in float32, and a head where there was none."""

    def case(label: str, dtype: torch.dtype, rows: int = 5) -> Case:
        tensors = {
            EMBEDDING: normal(rows, 4, seed=9),
            "model.layers.0.self_attn.q_proj.bias": normal(4, seed=5),
            "model.norm.weight": normal(4, seed=6),
        }
        return Case(label, ({name: one.to(dtype) for name, one in tensors.items()},))

    names = (EMBEDDING, HEAD)  # the head of an untied file is not its embedding
    other = {name: normal(5, 4, seed=20 + n).bfloat16() for n, name in enumerate(names)}
    cases = [
        case("a tied file in bfloat16", torch.bfloat16),
        case("a tied file in float32", torch.float32),
        case("a square embedding", torch.bfloat16, 4),
        Case("an untied file in bfloat16", (other,)),
    ]
    praise = "every model with a head of its own can now load this file, tied or not."
    return judge("09.2", learner, with_own_head, cases, UNTIED_MISTAKES, praise)


def whole(learner: Callable[..., Any]) -> Verdict:
    """Check a model: a class, or a function `learner(config, tensors, ids)`; logits (B, T, V).

    A class is called with only the config. It then gets the tensors by `load_state_dict`, which
    compares the names, and is called with the ids.
    """

    def case(label: str, shape: tuple[int, int] = (1, 9), **sizes: Any) -> Case:
        config = QwenConfig(**{**_SIZES, **sizes})
        ids = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(9))
        return Case(label, (config, random_weights(config), ids))

    cases = [
        case("a tied head"),
        case("an untied head", tie_word_embeddings=False),
        case("another theta", rope_theta=300.0),
        case("another eps", rms_norm_eps=0.02),
        case("head_dim is not C / H", head_dim=16),
        case("two texts, all heads on one kv head", (2, 5), num_key_value_heads=1),
        case("a single token", (1, 1), num_hidden_layers=2),
    ]
    praise = "names, config and arithmetic are right: any Qwen2 checkpoint loads into your class."
    return judge("09.3", as_function(learner), package_logits, cases, WHOLE_MISTAKES, praise, LOOSE)


_SIZES: dict[str, Any] = {
    "vocab_size": 29, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 97,
}  # fmt: skip


def _toy_layer(seed: int) -> Part:
    matrix = 0.5 * normal(4, 4, seed=10 + seed)
    return lambda x: x + torch.tanh(x.cumsum(dim=1) @ matrix)
