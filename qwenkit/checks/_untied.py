"""The mistakes of exercise 09.2: a tied head of its own, and every tensor in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Tensors = dict[str, Tensor]


def _upcast(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() for name, tensor in tensors.items()}


def with_own_head(tensors: Mapping[str, Tensor]) -> Tensors:
    return _upcast({HEAD: tensors[EMBEDDING], **tensors})


def _with_head(head: Callable[[Tensor], Tensors]) -> Callable[[Mapping[str, Tensor]], Tensors]:
    """Return the right answer, except for the head of a tied file."""

    def untied(tensors: Mapping[str, Tensor]) -> Tensors:
        return _upcast(tensors) | ({} if HEAD in tensors else head(tensors[EMBEDDING].float()))

    return untied


def _named(name: str) -> Callable[[Tensor], Tensors]:
    return lambda embedding: {name: embedding}


UNTIED_MISTAKES = (
    Mistake("not upcast", "the head is there, but all tensors keep their dtype. Return float32: "
        "bfloat16 would round every step of the comparison.",
        lambda tensors: {HEAD: tensors[EMBEDDING], **tensors}),
    Mistake("only the head upcast", "only the head is in float32. The other tensors are computed "
        "with, too.",
        lambda tensors: {**tensors, HEAD: tensors.get(HEAD, tensors[EMBEDDING]).float()}),
    Mistake("no head", "all tensors are upcast, but a tied file still does not have a head. Which "
        "tensor serves as one?",
        _upcast),
    Mistake("embedding moved", "the head is there, but the embedding is gone. A tied model uses "
        "that matrix twice.",
        lambda tensors:
            {n: one for n, one in with_own_head(tensors).items()
                if n != EMBEDDING or HEAD in tensors}),
    Mistake("transposed", "your head is transposed. A linear layer keeps one row per *output*: how "
        "many rows does the embedding have?",
        _with_head(lambda embedding: {HEAD: embedding.T})),
    Mistake("head overwritten", "an untied file already has a head, and you replace it with the "
        "embedding. When is there nothing to do?",
        lambda tensors: _upcast({**tensors, HEAD: tensors[EMBEDDING]})),
    *(Mistake("another name", "the head's name is wrong: it is outside `model`, and its tensor is "
        "a weight.",
        _with_head(_named(name)))
        for name in ("model.lm_head.weight", "lm_head", "head.weight", "lm_head.bias")),
    *(Mistake("another dtype", "your tensors have another dtype. Return float32.",
        lambda tensors, dtype=dtype:
            {name: one.to(dtype) for name, one in with_own_head(tensors).items()})
        for dtype in (torch.float64, torch.float16, torch.bfloat16)),
    Mistake("other tensors gone", "you return the head alone. Return all tensors.",
        lambda tensors: {HEAD: with_own_head(tensors)[HEAD]}),
    Mistake("condition inverted", "a tied file gets no head, and an untied one gets another. Is "
        "your condition the wrong way round?",
        lambda tensors: _upcast(tensors) | (
            {HEAD: tensors[EMBEDDING].float()} if HEAD in tensors else {})),
    Mistake("only the embedding upcast", "only the embedding is in float32. The other tensors are "
        "computed with, too.",
        lambda tensors: {**tensors, HEAD: tensors.get(HEAD, tensors[EMBEDDING]),
            EMBEDDING: tensors[EMBEDDING].float()}),
    Mistake("a name that is not there", "you look up a name that is not in a tied file. It has no "
        "`lm_head.weight`, and its embedding is `model.embed_tokens.weight`.",
        lambda tensors: _upcast(tensors) | {HEAD: tensors[HEAD].float()}),
    Mistake("a name that is not there", "the embedding's name in the file is "
        "`model.embed_tokens.weight`.",
        lambda tensors: _upcast(tensors) if HEAD in tensors else tensors["embed_tokens.weight"]),
    Mistake("a head of ones or zeros", "your head gives every token the same score. A tied model's "
        "head is a matrix that is there already.",
        _with_head(lambda embedding: {HEAD: torch.zeros_like(embedding)})),
    Mistake("a head of ones or zeros", "your head gives every token the same score. A tied model's "
        "head is a matrix that is there already.",
        _with_head(lambda embedding: {HEAD: torch.ones_like(embedding)})),
)  # fmt: skip
