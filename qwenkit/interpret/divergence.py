"""Where two runs part: compared point by point, in the order in which they are computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import POINTS, Trace


@dataclass(frozen=True)
class Divergence:
    """How far two runs are apart at a point.

    Attributes:
        name: the point, such as "layers.3.attn.q_rot".
        difference: the largest one, as a share of the point's largest value; infinite where the
            shapes differ or a value is no number.
    """

    name: str
    difference: float


@torch.no_grad()
def divergences(
    model: QwenForCausalLM,
    other: QwenForCausalLM,
    input_ids: Int[Tensor, "B T"],
    other_ids: Int[Tensor, "B T"] | None = None,
) -> list[Divergence]:
    """Compare two models on one text, or one model on two texts, at every point.

    Args:
        model: the first.
        other: the second, with as many layers; the same one to compare two texts.
        input_ids: the first's text.
        other_ids: the second's; None: the same.

    Returns:
        One for each point, in the forward pass's order.

    Raises:
        InputError: models of different depth.
    """
    layers = model.config.num_hidden_layers
    if other.config.num_hidden_layers != layers:
        raise InputError(
            f"one model has {layers} layers and the other {other.config.num_hidden_layers}; "
            "they must have as many"
        )
    traces = Trace(), Trace()
    model(input_ids, trace=traces[0])
    other(input_ids if other_ids is None else other_ids, trace=traces[1])
    return [
        Divergence(name, _difference(traces[0][name], traces[1][name])) for name in _names(layers)
    ]


def first_divergence(
    model: QwenForCausalLM,
    other: QwenForCausalLM,
    input_ids: Int[Tensor, "B T"],
    other_ids: Int[Tensor, "B T"] | None = None,
    *,
    tolerance: float = 1e-4,
) -> Divergence | None:
    """Return the first point at which two runs differ by more than rounding; None: they agree.

    Args:
        model: see `divergences`.
        other: see `divergences`.
        input_ids: see `divergences`.
        other_ids: see `divergences`.
        tolerance: what still counts as rounding, as a share of the largest value.
    """
    found = divergences(model, other, input_ids, other_ids)
    return next((one for one in found if not one.difference <= tolerance), None)


def _names(layers: int) -> list[str]:
    """Return every point's full name in the order in which a forward pass comes by."""
    inside = [point.name for point in POINTS if point.in_layer]
    outside = [point.name for point in POINTS if not point.in_layer]
    deep = [f"layers.{layer}.{name}" for layer in range(layers) for name in inside]
    return [outside[0], *deep, *outside[1:]]


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    one, other = one.float(), other.float().to(one.device)
    found = float((one - other).abs().max() / one.abs().max().clamp(min=1e-30))
    return found if found == found else float("inf")
