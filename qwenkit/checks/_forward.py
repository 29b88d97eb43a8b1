"""The mistakes of exercise 09.1: from ids to logits, part after part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.checks._samples import Part, run_all


def run_parts(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    return head(norm(run_all(embed(ids), layers)))


def _added(layer: Part) -> Part:
    return lambda x: x + layer(x)


def _norm_in_all(
    ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part
) -> Tensor:
    x = embed(ids)
    for layer in layers:
        x = norm(layer(x))
    return head(x if layers else norm(x))


def _after_first(
    ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part
) -> Tensor | None:
    return run_parts(ids, embed, layers[:1], norm, head) if layers else None


def _scaled(ids: Tensor, embed: Part, layers: Sequence[Part], norm: Part, head: Part) -> Tensor:
    return run_parts(ids, lambda i: embed(i) * math.sqrt(embed(i).shape[-1]), layers, norm, head)


REVERSED = "the layers run from the last to the first. Which of them should see the embedding?"
LAST_MISSING = "the last layer never runs. Where does your range end?"
SCALED = "your embedding is too large by a factor of √C. Gemma's models do that; Qwen's do not."
SOFTMAX = (
    "these are probabilities. A model returns logits; whoever wants to choose applies softmax."
)
LAST_FLAT = (
    "you return only the last position, and its axis is gone. Every position predicts its next "
    "token."
)
ADDED_AGAIN = (
    "you add each layer's result to x. A layer returns the whole stream: x is already in it."
)
NORM_IN_ALL = (
    "you normalize the stream after every layer, and so it loses its length. This norm occurs once "
    "in a model."
)
NO_HEAD = "the head is missing: you return the stream, C values per position, not logits."
LOG_SOFTMAX = (
    "these are logarithms of probabilities. A model returns the logits as the head gives them."
)
FORWARD_MISTAKES = (
    Mistake("no last norm", "the head reads the raw stream. One part of the drawing is between the "
        "last layer and the head.",
        lambda ids, embed, layers, norm, head: head(run_all(embed(ids), layers))),
    Mistake("norm before the layers", "your norm is before the layers. They have norms of their "
        "own; where does this one belong?",
        lambda ids, embed, layers, norm, head: head(run_all(norm(embed(ids)), layers))),
    Mistake("norm at both ends", "you normalize the embeddings, too. The stream starts as the "
        "embedding itself.",
        lambda ids, embed, layers, norm, head: head(norm(run_all(norm(embed(ids)), layers)))),
    Mistake("norm after each layer", NORM_IN_ALL, _norm_in_all),
    Mistake("layers in reverse", REVERSED,
        lambda ids, embed, layers, norm, head: run_parts(ids, embed, layers[::-1], norm, head)),
    Mistake("one layer for all", "the first layer runs every time. The list holds others: does "
        "your loop use them?",
        lambda ids, embed, layers, norm, head:
            run_parts(ids, embed, layers[:1] * len(layers), norm, head)),
    Mistake("last layer missing", LAST_MISSING,
        lambda ids, embed, layers, norm, head: run_parts(ids, embed, layers[:-1], norm, head)),
    Mistake("first layer missing", "the first layer never runs. Where does your range start?",
        lambda ids, embed, layers, norm, head: run_parts(ids, embed, layers[1:], norm, head)),
    Mistake("not passed on", "every layer reads the embedding, and only the last one counts. What "
        "should a layer read?",
        lambda ids, embed, layers, norm, head: run_parts(ids, embed, layers[-1:], norm, head)),
    Mistake("return inside the loop", "only the first layer runs. Do you return inside the loop?",
        _after_first),
    Mistake("result not kept", "no layer's result is kept. Assign it: x = layer(x).",
        lambda ids, embed, layers, norm, head: head(norm(embed(ids)))),
    Mistake("fixed number of layers", "you always run three layers. Loop over `layers`: the list "
        "can have any length.",
        lambda ids, embed, layers, norm, head:
            run_parts(ids, embed, [layers[i] for i in range(3)], norm, head)),
    Mistake("no head", NO_HEAD,
        lambda ids, embed, layers, norm, head: norm(run_all(embed(ids), layers))),
    Mistake("token ids", "these are the ids of the most likely tokens. Return the logits: the "
        "caller can then choose.",
        lambda *parts: run_parts(*parts).argmax(dim=-1)),
    Mistake("added once more", ADDED_AGAIN,
        lambda ids, embed, layers, norm, head:
            run_parts(ids, embed, [_added(layer) for layer in layers], norm, head)),
    Mistake("embedding scaled", SCALED, _scaled),
    Mistake("softmax inside", SOFTMAX, lambda *parts: run_parts(*parts).softmax(dim=-1)),
    Mistake("log-softmax inside", LOG_SOFTMAX,
        lambda *parts: run_parts(*parts).log_softmax(dim=-1)),
    Mistake("last position only", "you return only the last position. Every position predicts its "
        "next token, and training needs them all.",
        lambda *parts: run_parts(*parts)[:, -1:]),
    Mistake("last position only", LAST_FLAT, lambda *parts: run_parts(*parts)[:, -1]),
)  # fmt: skip
