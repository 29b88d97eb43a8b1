"""Adapters: the LoRA of a model in files of its own, as PEFT writes and reads them.

`adapter_model.safetensors` has A and B of each layer, a few megabytes where the model has
format_bytes; `adapter_config.json` says what they are multiplied by.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from qwenkit.checkpoint import write_tensors
from qwenkit.errors import CheckpointError, ConfigError, InputError, warn
from qwenkit.files import read_json_object, saving, settle, write_json
from qwenkit.lora._peft import Strength, check_config, named_layers
from qwenkit.lora._tensors import CONFIG, PREFIX, WEIGHTS, AdapterTensors, alpha_text, read_tensors
from qwenkit.lora.layers import LoadedAdapter, LoRALinear, lora_layers, put_lora
from qwenkit.model import QwenForCausalLM

__all__ = ["CONFIG", "PREFIX", "WEIGHTS", "load_adapter", "read_adapter", "save_adapter"]


def save_adapter(model: QwenForCausalLM, folder: str | Path) -> None:
    """Write the LoRA of a model, merged or not, and nothing else of it.

    For an adapter that was loaded, config keys and dtypes are kept, except what has changed since.
    Config and weights are saved in one step.

    Args:
        model: with LoRA.
        folder: made if absent; an adapter already there is replaced.

    Raises:
        InputError: the model has no LoRA.
        CheckpointError: a value is not finite, or writing fails.
    """
    layers = lora_layers(model)
    if not layers:
        raise InputError("the model has no LoRA to save; save_pretrained saves a whole model")
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
    dtypes = loaded.dtypes if loaded else {}
    for name, dtype in dtypes.items():  # copies of the model's own weights
        if name not in tensors and ".lora_" not in name:
            own = weights.get(name, model.model.embed_tokens.weight)  # a tied head's
            tensors[name] = own.detach().to(dtype)  # they agreed in that dtype
    stored = {f"{PREFIX}{n}": _as_stored(t, dtypes.get(n)) for n, t in tensors.items()}
    config = _config(model, layers, loaded)
    with saving(folder) as save:
        try:
            # The alpha is stored here too, so that files of two adapters cannot pass for one.
            alpha = alpha_text(config.get("lora_alpha", 8))
            write_tensors(save.path / WEIGHTS, stored, lora_alpha=alpha)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        write_json(save.path / CONFIG, config)


def load_adapter(model: QwenForCausalLM, folder: str | Path, *, trainable: bool = False) -> None:
    """Give a model the LoRA of an adapter folder, written here or by PEFT.

    Args:
        model: the base model it was trained on; without LoRA.
        folder: with adapter_config.json and adapter_model.safetensors.
        trainable: whether A and B are trained further; otherwise they are frozen too.

    Raises:
        ConfigError, CheckpointError: files that are damaged, do not fit the model, or ask for more
            than LoRA; the model is then unchanged.
        InputError: the model has LoRA already, or int8 weights.
    """
    if lora_layers(model):
        raise InputError("the model has LoRA already; remove_lora(model) first")
    config, found = _open(folder, model)
    loaded = LoadedAdapter(config, found.dtypes)

    def prepare(name: str, layer: LoRALinear) -> None:
        layer.alpha, layer.scaling = found.layers[name].alpha, found.layers[name].scaling
        layer.adapter = loaded
        with torch.no_grad():
            layer.lora_A.weight.copy_(found.tensors[f"{name}.lora_A.weight"])
            layer.lora_B.weight.copy_(found.tensors[f"{name}.lora_B.weight"])
        layer.lora_A.requires_grad_(trainable)
        layer.lora_B.requires_grad_(trainable)

    ranks = {name: strength.rank for name, strength in found.layers.items()}
    put_lora(model, ranks, config.get("lora_alpha", 8), config.get("lora_dropout", 0.0), prepare)
    if found.left_out:
        warn(
            f"{folder}: {CONFIG} does not name {found.left_out[0]} ({len(found.left_out)} such "
            "modules), so its A and B are left out, as PEFT does"
        )


def read_adapter(
    folder: str | Path, model: QwenForCausalLM
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an adapter's config, and A and B of each layer under the model's own names.

    Raises:
        ConfigError, CheckpointError: as in `load_adapter`.
    """
    config, found = _open(folder, model)
    return config, found.tensors


def _open(folder: str | Path, model: QwenForCausalLM) -> tuple[dict[str, Any], AdapterTensors]:
    folder = Path(folder).expanduser()
    settle(folder)
    _check_folder(folder)
    config = read_json_object(folder / CONFIG)
    try:
        check_config(config)
        layers = named_layers(config, model)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    return config, read_tensors(folder / WEIGHTS, model, config, layers)


def _check_folder(folder: Path) -> None:
    """Say what a folder holds if it does not hold an adapter.

    Raises:
        ConfigError: one line with what to do.
    """
    if (folder / CONFIG).exists():
        if (folder / WEIGHTS).exists() or not (folder / "adapter_model.bin").exists():
            return
        wrong = "stores its weights as adapter_model.bin, a pickle, which may run code; load it in "
        wrong += "PEFT and save it again as safetensors"
    elif (folder / "config.json").exists():
        wrong = f"holds a whole model, not an adapter ({CONFIG}); load_pretrained loads it"
    elif folder.is_file():
        wrong = f"is a file; name the folder that holds {CONFIG} and {WEIGHTS}"
    elif folder.is_dir():
        wrong = f"holds no {CONFIG}; an adapter's folder has it and {WEIGHTS}"
    else:
        wrong = f"does not exist; name a folder with {CONFIG} and {WEIGHTS}. An adapter on the "
        wrong += "Hub is downloaded first, by huggingface_hub.snapshot_download"
    raise ConfigError(f"{folder} {wrong}")


def _loaded(layers: dict[str, LoRALinear]) -> LoadedAdapter | None:
    """Return what all layers were loaded from; None: not from one adapter."""
    first = next(iter(layers.values())).adapter
    return first if all(layer.adapter is first for layer in layers.values()) else None


def _as_stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a tensor in the dtype that it was read in, unless that would round it."""
    rounded = value.to(dtype or value.dtype)
    exact = torch.equal(rounded.to(value.dtype), value)
    return (rounded if exact else value).cpu().contiguous()


def _config(
    model: QwenForCausalLM, layers: dict[str, LoRALinear], loaded: LoadedAdapter | None
) -> dict[str, Any]:
    """Return what PEFT must know about these layers: the loaded config if it still fits."""
    before = loaded.config if loaded else {}
    wanted = {name: Strength(one.rank, one.alpha, one.scaling) for name, one in layers.items()}
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
