"""The checks of notebook 08, decoder layer: its wiring, its tensors, a logit's parts, the lens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._layer_tensors import TENSOR_MISTAKES, layer_with
from qwenkit.checks._layer_wiring import LAYER_MISTAKES, wired_layer
from qwenkit.checks._logit_parts import LOGIT_MISTAKES, logit_parts
from qwenkit.checks._samples import Part, norm_of, normal
from qwenkit.checks._whole_model import random_weights
from qwenkit.config import QwenConfig

EXERCISES = {
    "08.1": "wire a layer",
    "08.2": "a layer from the file's tensors",
    "08.3": "what each part adds to a logit",
    "08.4": "the logit lens",
}


def decoder_layer(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, norm1, attention, norm2, mlp)`: the stream after the layer, (B, T, C)."""
    wide = normal(2, 4, 6, seed=8)
    cases = [
        Case("one text of three tokens", (normal(1, 3, 4, seed=8), *_parts(4))),
        Case("two texts", (wide, *_parts(6))),
        Case("a single token", (normal(1, 1, 4, seed=8), *_parts(4))),
        Case("a large stream", (50 * normal(1, 3, 4, seed=8), *_parts(4))),
        Case("not contiguous", (wide.transpose(0, 1), *_parts(6))),
        Case("bfloat16", (wide.bfloat16(), *_parts(6))),
    ]
    praise = "two branches read a normalized copy, and the stream itself is only added to."
    return judge("08.1", learner, wired_layer, cases, LAYER_MISTAKES, praise, LOOSE)


def from_tensors(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, tensors, number, config)`: the stream after a layer, (B, T, C)."""

    def case(label: str, number: int, shape: tuple[int, int] = (1, 7), **sizes: Any) -> Case:
        config = QwenConfig(**{**_SIZES, **sizes})
        x = normal(*shape, config.hidden_size, seed=number)
        return Case(label, (x, random_weights(config), number, config))

    cases = [
        case("layer 0", 0),
        case("layer 2", 2),
        case("two texts, all heads on one kv head", 1, (2, 4), num_key_value_heads=1),
        case("head_dim is not C / H", 0, head_dim=10),
        case("another theta", 1, rope_theta=300.0),
        case("another eps", 0, rms_norm_eps=0.05),
        case("a single token", 1, (1, 1)),
    ]
    praise = "with this function and a file of weights you can run any Qwen2 layer."
    right = layer_with()
    return judge("08.2", learner, right, cases, TENSOR_MISTAKES, praise, LOOSE)


def parts(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(parts, weight, eps, row)`: (P, C), (C), number, (C) -> (P)."""

    def case(label: str, count: int, width: int, eps: float = 1e-6, scale: float = 1.0) -> Case:
        given = normal(count, width, seed=50) * scale * (1 + torch.arange(count))[:, None]
        return Case(label, (given, 1 + 0.5 * normal(width, seed=51), eps, normal(width, seed=52)))

    cases = [
        case("three parts", 3, 4),
        case("as many parts as channels", 5, 5),
        case("another eps", 4, 6, eps=0.5),
        case("one part", 1, 4),
        case("small parts", 6, 8, scale=0.01, eps=1e-3),
    ]
    praise = "the norm's divisor is shared, so the parts of a logit add up to it."
    return judge("08.3", learner, logit_parts, cases, LOGIT_MISTAKES, praise)


def lens(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(streams, norm, head)`: logits of the last token after each layer, (N+1, V)."""

    def case(label: str, layers: int, tokens: int, scale: float = 1.0) -> Case:
        streams = scale * normal(layers + 1, tokens, 6, seed=8).cumsum(dim=0)
        matrix = normal(6, 9, seed=8).flip(0)
        return Case(label, (streams, norm_of(6, 3), lambda x: x @ matrix))

    cases = [
        case("three layers, four tokens", 3, 4),
        case("one layer", 1, 5),
        case("a single token", 4, 1),
        case("as many tokens as streams", 2, 3),
        case("a large stream", 3, 4, 100.0),
    ]
    praise = "last norm, then head: any stream can be read early and says what it predicts."
    return judge("08.4", learner, _lens, cases, _LENS_MISTAKES, praise, LOOSE)


_SIZES: dict[str, Any] = {
    "vocab_size": 3, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    "rope_theta": 10_000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 97,
}  # fmt: skip


def _parts(width: int, seed: int = 0) -> tuple[Part, Part, Part, Part]:
    """Return norm1, attention, norm2 and mlp: small, and all different."""
    across, up, down = (normal(width, width, seed=seed + n) for n in (10, 20, 30))

    def attention(x: Tensor) -> Tensor:
        """Return the mean of the tokens so far."""
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x.cumsum(dim=1) / count @ across.to(x.dtype)

    def mlp(x: Tensor) -> Tensor:
        return F.silu(x @ up.to(x.dtype)) @ down.to(x.dtype)

    return norm_of(width, seed + 40), attention, norm_of(width, seed + 50), mlp


# --- 08.4 ---


def _lens(streams: Tensor, norm: Part, head: Part) -> Tensor:
    return head(norm(streams[:, -1]))


_LENS_MISTAKES = (
    Mistake("no norm", "the head reads the raw stream. In the model the last norm comes before it, "
        "and its weights change which token wins.",
        lambda streams, norm, head: head(streams[:, -1])),
    Mistake("first position", "you read the first token's stream. Which position predicts what "
        "comes after the text?",
        lambda streams, norm, head: head(norm(streams[:, 0]))),
    Mistake("last stream only", "that is what the model predicts in the end. The lens reads all "
        "streams, the early ones too.",
        lambda streams, norm, head: head(norm(streams[-1, -1]))),
    Mistake("all positions of the last stream", "you took the last stream, at every position. "
        "Which axis counts the layers, and which the tokens?",
        lambda streams, norm, head: head(norm(streams[-1]))),
    Mistake("all positions", "you read every position of every stream. Only that of the last token "
        "is needed.",
        lambda streams, norm, head: head(norm(streams))),
    Mistake("what each layer added", "you read only what each layer added. The stream is the sum "
        "of all that: read the whole sum.",
        lambda streams, norm, head:
            _lens(torch.cat([streams[:1], streams.diff(dim=0)]), norm, head)),
    Mistake("summed again", "you add the streams up. Each of them already contains everything "
        "before it.",
        lambda streams, norm, head: _lens(streams.cumsum(dim=0), norm, head)),
    Mistake("probabilities", "these are probabilities. Logits come straight from the head, before "
        "any softmax.",
        lambda streams, norm, head: _lens(streams, norm, head).softmax(dim=-1)),
    Mistake("probabilities", "these are logarithms of probabilities. Logits come straight from the "
        "head.",
        lambda streams, norm, head: _lens(streams, norm, head).log_softmax(dim=-1)),
    Mistake("no head", "the head is missing: these are normalized streams of C values.",
        lambda streams, norm, head: norm(streams[:, -1])),
    Mistake("a list", "you return a list. Return one tensor, (N + 1, V): stack the rows.",
        lambda streams, norm, head: list(_lens(streams, norm, head))),
    Mistake("axis kept", "the axis of the tokens is still there, with size 1. Index it with a "
        "number, not with a slice.",
        lambda streams, norm, head: head(norm(streams[:, -1:]))),
    Mistake("token before the last", "you read the token before the last one. Which position "
        "predicts what comes after the text?",
        lambda streams, norm, head: head(norm(streams[:, -2]))),
    Mistake("last layer left out", "one row is missing: the stream after the last layer counts, "
        "too.",
        lambda streams, norm, head: _lens(streams[:-1], norm, head)),
    Mistake("averaged over tokens", "you average over the tokens. Only the last one predicts what "
        "comes after the text.",
        lambda streams, norm, head: head(norm(streams.mean(dim=1)))),
    Mistake("averaged over tokens", "you average over the tokens. Only the last one predicts what "
        "comes after the text.",
        lambda streams, norm, head: head(norm(streams)).mean(dim=1)),
    Mistake("first stream only", "you read only the embedding. The lens reads all streams.",
        lambda streams, norm, head: head(norm(streams[0, -1]))),
    Mistake("first stream only", "you took the embedding, at every position. Which axis counts the "
        "layers, and which the tokens?",
        lambda streams, norm, head: head(norm(streams[0]))),
    Mistake("token ids", "these are the ids of the most likely tokens. Return the logits: the "
        "caller can then choose.",
        lambda streams, norm, head: _lens(streams, norm, head).argmax(dim=-1)),
    Mistake("embedding left out", "one row is missing: streams[0] is the embedding, before any "
        "layer, and it counts.",
        lambda streams, norm, head: _lens(streams[1:], norm, head)),
)  # fmt: skip
