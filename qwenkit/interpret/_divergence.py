"""Where two runs diverge: compared point by point, in the order of the forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.trace import POINTS, Trace


@dataclass(frozen=True)
class Divergence:
    """How far apart two runs are at a point.

    Attributes:
        name: the point, such as "layers.3.attn.q_rot".
        difference: the largest one, relative to the point's largest value; infinite where the
            shapes differ or a value is NaN.
    """

    name: str
    difference: float


@stage("Running the model")
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
        other: the second, with the same number of layers; the same model to compare two texts.
        input_ids: the first model's text.
        other_ids: the second model's; None: the same.

    Returns:
        One for each point, in the forward pass's order.

    Raises:
        InputError: models with different numbers of layers.
    """
    layers = model.config.num_hidden_layers
    if other.config.num_hidden_layers != layers:
        raise InputError(
            f"one model has {layers} layers and the other {other.config.num_hidden_layers}; "
            "both must have the same number"
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

    Arguments as for `divergences`, and `tolerance`: what still counts as rounding, relative to the
    largest value.
    """
    found = divergences(model, other, input_ids, other_ids)
    return next((one for one in found if not one.difference <= tolerance), None)


def _names(layers: int) -> list[str]:
    """Return every point's full name in the order of the forward pass."""
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
