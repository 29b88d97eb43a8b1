"""The training loss, and the units it is reported in."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.train._checks import at_least, one_of, require

IGNORE = -100  # a label that is not counted, as in transformers


def next_token_loss(
    logits: Float[Tensor, "B T V"],
    labels: Int[Tensor, "B T"],
    *,
    ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the next token, in nats: −log of its predicted probability.

    >>> knows_nothing, labels = torch.zeros(1, 3, 50), torch.tensor([[7, 8, IGNORE]])
    >>> round(next_token_loss(knows_nothing, labels).item(), 2), round(math.log(50), 2)
    (3.91, 3.91)

    Args:
        logits: the model's prediction at each position.
        labels: the token that follows each position: the inputs moved one to the left.
        ignore_index: positions with this label count neither in the sum nor in the mean.
        label_smoothing: this fraction of the target is spread evenly over the vocabulary (Szegedy
            et al. 2016, section 7); 0: the plain loss.
        reduction: "mean" over the counted positions, or their "sum".

    Raises:
        InputError: shapes that do not fit, labels that are not integers or not in the vocabulary,
            or nothing to count.
    """
    if logits.dim() < 2 or logits.shape[:-1] != labels.shape:
        raise InputError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "labels must have the same batch and length"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype}; they must be token ids, so integers")
    fits = 0.0 <= label_smoothing < 1.0
    require(fits, "label_smoothing", label_smoothing, "from 0 to below 1")
    one_of(("mean", "sum"), reduction=reduction)
    counted = labels != ignore_index
    if not counted.any():
        raise InputError("every label is ignored; at least one must count")
    vocabulary = logits.shape[-1]
    wrong = counted & ((labels < 0) | (labels >= vocabulary))
    if wrong.any():
        raise InputError(
            f"label {int(labels[wrong][0])} is not a token id; labels are from 0 to "
            f"{vocabulary - 1}, or {ignore_index} where nothing counts"
        )
    return F.cross_entropy(
        logits.float().flatten(0, -2),  # (B·T, V); bfloat16 would lose the small probabilities
        labels.flatten().long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )


def perplexity(loss: float) -> float:
    """Return e^loss, of a mean loss per token in nats.

    A model with this perplexity is on average as unsure as among so many equally likely tokens.
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return how many bits the model needs per byte of text.

    Unlike perplexity it does not depend on the vocabulary, so that models, and compressors, can be
    compared.

    >>> round(bits_per_byte(nats=10 * math.log(256), num_bytes=10), 6)  # any byte may come next
    8.0

    Args:
        nats: the summed loss of a text's tokens.
        num_bytes: the text's length in UTF-8.

    Raises:
        InputError: no bytes.
    """
    at_least(1, num_bytes=num_bytes)
    return nats / math.log(2) / num_bytes
