"""The training loss, and the units it is read in."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError

IGNORE = -100  # a label that counts for nothing, as in transformers


def next_token_loss(
    logits: Float[Tensor, "B T V"],
    labels: Int[Tensor, "B T"],
    *,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the next token, in nats: −log of the probability it was given.

    Args:
        logits: what the model says after each token.
        labels: the token that does follow each, so the inputs moved one to the left.
        ignore_index: positions with this label count neither in the sum nor in the mean.
        label_smoothing: this share of the target is spread evenly over the vocabulary (Szegedy et
            al. 2016, section 7); 0: the plain loss.
        reduction: "mean" over the counted positions, or their "sum".

    Raises:
        InputError: shapes that do not fit, labels that are no whole numbers or outside the
            vocabulary, nothing to count.
    """
    if logits.dim() < 2 or logits.shape[:-1] != labels.shape:
        raise InputError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "labels must have the same batch and length"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype}; they must be ids, so whole numbers")
    if not 0.0 <= label_smoothing < 1.0:
        raise InputError(f"label_smoothing is {label_smoothing}; it must be from 0 to below 1")
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
    counted = labels != ignore_index
    if not counted.any():
        raise InputError("every label is ignored; at least one must count")
    vocabulary = logits.shape[-1]
    wrong = counted & ((labels < 0) | (labels >= vocabulary))
    if wrong.any():
        raise InputError(
            f"label {int(labels[wrong][0])} is no token; labels are from 0 to {vocabulary - 1}, "
            f"or {ignore_index} where nothing counts"
        )
    return F.cross_entropy(
        logits.float().flatten(0, -2),  # (B·T, V); bfloat16 would lose the small probabilities
        labels.flatten().long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def perplexity(loss: float) -> float:
    """Return e^loss: among how many equally likely tokens the model hesitates on average.

    Args:
        loss: mean loss a token, in nats.
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return how many bits the model needs for each byte of text.

    Unlike perplexity it does not depend on the vocabulary, so models, and compressors, compare.

    Args:
        nats: the summed loss of a text's tokens.
        num_bytes: the text's length in UTF-8.

    Raises:
        InputError: no bytes.
    """
    if num_bytes < 1:
        raise InputError(f"num_bytes is {num_bytes}; a text of at least one byte is needed")
    return nats / math.log(2) / num_bytes
