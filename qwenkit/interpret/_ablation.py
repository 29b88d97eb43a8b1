"""Ablate heads, or patch values from one run into another, and see what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import bar, stage
from qwenkit.trace import Edit, Trace

Metric = Callable[[Tensor], float | Tensor]
"""What is measured: a number computed from the logits (B, T, V), such as a token's probability."""
Text = Int[Tensor, "1 T"]


def ablate_heads(
    heads: Iterable[tuple[int, int]], means: Float[Tensor, "L H D"] | None = None
) -> dict[str, Edit]:
    """Return edits for a `Trace` that ablate heads.

    Args:
        heads: (layer, head) of each.
        means: what replaces a head's output, as `mean_outputs` gives it; None: zeros. With its
            mean a head keeps its usual part and loses only what it says of this text.

    >>> list(ablate_heads([(1, 2), (1, 3)]))
    ['layers.1.attn.z']
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    return {
        f"layers.{layer}.attn.z": _without(chosen, None if means is None else means[layer])
        for layer, chosen in by_layer.items()
    }


def _without(heads: list[int], means: Tensor | None) -> Edit:
    def edit(z: Tensor) -> Tensor:  # (B, H, T, D), a copy: an edit may write into it
        if not all(0 <= head < z.shape[1] for head in heads):
            raise InputError(f"heads are {heads}; they must be from 0 to {z.shape[1] - 1}")
        z[:, heads] = 0.0 if means is None else means[heads, None].to(z)
        return z

    return edit


@stage("Running the model")
@torch.no_grad()
def mean_outputs(model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "L H D"]:
    """Return each head's output (attn.z), averaged over all tokens of a typical text."""
    trace = Trace(keep=("attn.z",))
    model(input_ids, trace=trace, logits_to_keep=1)
    layers = range(model.config.num_hidden_layers)
    return torch.stack([trace[f"layers.{i}.attn.z"].float().mean(dim=(0, 2)) for i in layers])


@torch.no_grad()
def head_effects(
    model: QwenForCausalLM,
    input_ids: Int[Tensor, "B T"],
    metric: Metric,
    means: Float[Tensor, "L H D"] | None = None,
) -> Float[Tensor, "L H"]:
    """Return by how much the metric changes when each head alone is ablated.

    Args:
        model: any Qwen2 model.
        input_ids: the text.
        metric: of the logits.
        means: see `ablate_heads`.
    """
    clean = float(metric(model(input_ids)))
    effects = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads)
    with bar("Ablating heads", effects.numel(), "head") as advance:
        for layer, head in product(*map(range, effects.shape)):
            trace = Trace(keep=(), edits=ablate_heads([(layer, head)], means))
            effects[layer, head] = float(metric(model(input_ids, trace=trace))) - clean
            advance(1)
    return effects


@dataclass(frozen=True)
class Patching:
    """The metric when one value of the clean run replaces that of the corrupted run.

    Attributes:
        values: the metric, by (layer, position) or (layer, head).
        clean: the metric of the clean run.
        corrupted: the metric of the corrupted run.
    """

    values: Float[Tensor, "L X"]
    clean: float
    corrupted: float

    @property
    def recovered(self) -> Float[Tensor, "L X"]:
        """The proportion of the difference that is recovered: 0: none, 1: all."""
        return (self.values - self.corrupted) / (self.clean - self.corrupted)


@torch.no_grad()
def patch_residual(
    model: QwenForCausalLM, clean: Text, corrupted: Text, metric: Metric
) -> Patching:
    """Put the clean run's residual stream into the corrupted run, one (layer, position) at a time.

    Where much is recovered, the model keeps the difference between the two texts (Meng et al. 2022,
    "Locating and Editing Factual Associations in GPT", causal tracing).

    Args:
        model: any Qwen2 model.
        clean: a text.
        corrupted: the same with something changed, of the same number of tokens.
        metric: of the logits.

    Raises:
        InputError: texts of different lengths, or a metric that is the same for both.
    """
    return _patch(model, clean, corrupted, metric, "resid_pre")


@torch.no_grad()
def patch_heads(model: QwenForCausalLM, clean: Text, corrupted: Text, metric: Metric) -> Patching:
    """The same with one head's output (attn.z, all positions) at a time: by (layer, head)."""
    return _patch(model, clean, corrupted, metric, "attn.z")


def _patch(
    model: QwenForCausalLM, clean: Tensor, corrupted: Tensor, metric: Metric, point: str
) -> Patching:
    """Replace one slice of a point of each layer after another: positions or heads, dimension 1."""
    if clean.shape != corrupted.shape:
        raise InputError(
            f"clean has shape {tuple(clean.shape)} and corrupted {tuple(corrupted.shape)}; "
            "change tokens but keep their number"
        )
    trace = Trace(keep=(point,))
    ends = float(metric(model(clean, trace=trace))), float(metric(model(corrupted)))
    if ends[0] == ends[1]:
        raise InputError(f"the metric is {ends[0]} for both texts; choose one that differs")

    def patched(name: str, index: int) -> float:
        def edit(value: Tensor) -> Tensor:
            value[:, index] = trace[name][:, index]
            return value

        advance(1)
        return float(metric(model(corrupted, trace=Trace(keep=(), edits={name: edit}))))

    names = [f"layers.{layer}.{point}" for layer in range(model.config.num_hidden_layers)]
    count = sum(trace[name].shape[1] for name in names)
    with bar("Patching", count, "run") as advance:
        rows = [[patched(name, i) for i in range(trace[name].shape[1])] for name in names]
    return Patching(torch.tensor(rows), *ends)
