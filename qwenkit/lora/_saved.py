"""What an adapter's two files are to hold, so that PEFT gives the logits that the model gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qwenkit.errors import CheckpointError
from qwenkit.lora._peft import Strength, named_layers
from qwenkit.lora._tensors import PREFIX
from qwenkit.lora.layers import LoadedAdapter, LoRALinear, Stored
from qwenkit.model import QwenForCausalLM


def contents(
    model: QwenForCausalLM, layers: dict[str, LoRALinear]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the tensors to save: what was loaded keeps its names and dtypes.

    Raises:
        CheckpointError: a value is not finite.
    """
    loaded = _loaded(layers)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for part in ("lora_A", "lora_B"):
            value = layer.get_submodule(part).weight
            assert isinstance(value, Tensor)
            if not bool(value.isfinite().all()):
                raise CheckpointError(
                    f"{name}.{part} holds values that are not finite; nothing was saved. The "
                    "learning rate was probably too large"
                )
            tensors[f"{name}.{part}.weight"] = value.detach()
    weights = dict(model.named_parameters())
    before = loaded.stored if loaded else {}
    for name, (_, dtype) in before.items():  # copies of the model's own weights
        if name not in tensors and ".lora_" not in name:
            own = weights.get(name, model.model.embed_tokens.weight)  # a tied head's
            tensors[name] = own.detach().to(dtype, copy=True)  # they agreed in that dtype
    saved = {}
    for name, value in tensors.items():
        stored = before.get(name) or Stored(f"{PREFIX}{name}", value.dtype)
        saved[stored.name] = _as_stored(value, stored.dtype)
    return _config(model, layers, loaded), saved


def _loaded(layers: dict[str, LoRALinear]) -> LoadedAdapter | None:
    """Return what all layers were loaded from; None: not from one adapter."""
    first = next(iter(layers.values())).adapter
    return first if all(layer.adapter is first for layer in layers.values()) else None


def _as_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in the dtype that it was read in, unless that would round it."""
    rounded = value.to(dtype)
    exact = torch.equal(rounded.to(value.dtype), value)
    return (rounded if exact else value).cpu().contiguous()


def _config(
    model: QwenForCausalLM, layers: dict[str, LoRALinear], loaded: LoadedAdapter | None
) -> dict[str, Any]:
    """Return what PEFT must know about these layers: the loaded config if it still fits."""
    before = loaded.config if loaded else {}
    wanted = {name: Strength.of(layer) for name, layer in layers.items()}
    dropout = next(iter(layers.values())).dropout.p
    if loaded and before.get("lora_dropout", 0.0) == dropout:
        if named_layers(before, model) == wanted:
            return before
    return {**_origin(), **before, **_strengths(model, layers), "lora_dropout": dropout}


def _origin() -> dict[str, Any]:
    """Return the config keys of a new adapter that do not depend on its layers."""
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
        "inference_mode": True, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
    }  # fmt: skip


def _strengths(model: QwenForCausalLM, layers: dict[str, LoRALinear]) -> dict[str, Any]:
    """Return the keys that name these layers, their ranks and their strengths."""
    kinds = {name.rpartition(".")[2] for name in layers}
    of_a_kind = {n for n, _ in model.named_modules() if n.rpartition(".")[2] in kinds}
    plain = all(_is(one.scaling, one.alpha / one.rank) for one in layers.values())
    roots = all(_is(one.scaling, one.alpha / math.sqrt(one.rank)) for one in layers.values())
    root = math.sqrt if roots and not plain else float
    # An alpha that gives the scaling, whatever it was set to.
    alphas = {
        name: one.alpha if plain or roots else one.scaling * one.rank
        for name, one in layers.items()
    }
    first = next(iter(layers))
    rank, alpha = layers[first].rank, alphas[first]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": root is math.sqrt,
        "target_modules": sorted(kinds if of_a_kind == layers.keys() else layers),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {name: one.rank for name, one in layers.items() if one.rank != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }


def _is(scaling: float, formula: float) -> bool:
    return math.isclose(scaling, formula, rel_tol=1e-12)
