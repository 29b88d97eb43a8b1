"""Adapters: the LoRA of a model in files of its own, as PEFT writes and reads them.

`adapter_model.safetensors` has A and B of each layer, a few megabytes where the model has
format_bytes; `adapter_config.json` says what they are multiplied by.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwenkit.checkpoint import TensorInfo, read_header, write_tensors
from qwenkit.errors import CheckpointError, InputError
from qwenkit.files import read_json_object, replacing, write_json
from qwenkit.lora.layers import TARGETS, LoRALinear, check_strength, lora_layers, put_lora
from qwenkit.model import QwenForCausalLM

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # PEFT wraps the model twice before it names its parts
_KEY = "_loaded_adapter"  # of what the config would say after loading, and what it said
# PEFT's keys about where the adapter came from or which layers have one: the tensors show that.
_HARMLESS = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights", "bias",
    "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "task_type",
    "inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "megatron_core", "eva_config", "qalora_group_size", "runtime_config",
}  # fmt: skip
# Initializations that leave the model's own weights as they are; PiSSA and others change them.
_INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


def save_adapter(model: QwenForCausalLM, folder: str | Path) -> None:
    """Write the LoRA of a model, merged or not, and nothing else of it.

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
            tensors[f"{PREFIX}{name}.{part}.weight"] = value.detach().cpu().contiguous()
    folder = Path(folder).expanduser()
    config = _config(model, layers)
    loaded = vars(next(iter(layers.values()))).get(_KEY)
    if loaded is not None and loaded[0] == config:  # nothing was changed: what was read stays
        config = loaded[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as temporary:
            # The alpha is stored here too, so that files of two adapters cannot pass for one.
            write_tensors(temporary, tensors, lora_alpha=_text(config["lora_alpha"]))
        write_json(folder / CONFIG, config)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"no adapter could be written to {folder} ({error})") from None


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
    config, tensors = read_adapter(folder, model)
    names = sorted({name.rpartition(".lora_")[0] for name in tensors})
    ranks = {name: tensors[f"{name}.lora_A.weight"].shape[0] for name in names}
    put_lora(model, ranks, config["lora_alpha"], config.get("lora_dropout", 0.0))
    for name, layer in lora_layers(model).items():
        if config.get("use_rslora"):
            layer.scaling = layer.alpha / math.sqrt(layer.rank)
        with torch.no_grad():
            layer.lora_A.weight.copy_(tensors[f"{name}.lora_A.weight"])
            layer.lora_B.weight.copy_(tensors[f"{name}.lora_B.weight"])
        layer.lora_A.requires_grad_(trainable)
        layer.lora_B.requires_grad_(trainable)
    layers = lora_layers(model)
    # With a layer, so that `remove_lora` forgets it and `copy.deepcopy` keeps it.
    vars(next(iter(layers.values())))[_KEY] = (_config(model, layers), config)


def read_adapter(
    folder: str | Path, model: QwenForCausalLM
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an adapter's config, and A and B of each layer under the model's own names.

    Raises:
        ConfigError, CheckpointError: as in `load_adapter`.
    """
    folder = Path(folder).expanduser()
    config = _checked(folder / CONFIG, read_json_object(folder / CONFIG))
    return config, _read(folder / WEIGHTS, model, config)


def _config(model: QwenForCausalLM, layers: dict[str, LoRALinear]) -> dict[str, Any]:
    """Return what PEFT must know about these layers."""
    kinds = {name.rpartition(".")[2] for name in layers}
    of_a_kind = {n for n, _ in model.named_modules() if n.rpartition(".")[2] in kinds}
    first = next(iter(layers.values()))
    ranks = {name: layer.rank for name, layer in layers.items() if layer.rank != first.rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout.p,
        "use_rslora": first.scaling != first.alpha / first.rank,
        "target_modules": sorted(kinds if of_a_kind == layers.keys() else layers),
        "rank_pattern": ranks,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _checked(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Refuse a config that asks for more than A, B and their scale."""
    if config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{path}: peft_type is {config.get('peft_type')!r}; only LORA is read"
        )
    more = sorted(key for key, value in config.items() if value and key not in _HARMLESS)
    if config.get("bias", "none") != "none":
        more.append("bias")
    if config.get("init_lora_weights") not in _INITIALIZATIONS:
        more.append("init_lora_weights")
    if more:
        raise CheckpointError(
            f"{path}: {more[0]} is {config[more[0]]!r}, which plain LoRA does not have; the logits "
            "would be wrong without it. PEFT can load this adapter, and merge it into its model"
        )
    try:
        check_strength(config.get("lora_alpha"), config.get("lora_dropout", 0.0))
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def _read(path: Path, model: QwenForCausalLM, config: dict[str, Any]) -> dict[str, Tensor]:
    """Read A and B of each layer, under the model's own names, once all of them fit it."""
    infos = read_header(path)
    problem = _misfit(infos, model)
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            alpha = (file.metadata() or {}).get("lora_alpha")
            if not problem:
                tensors = {n.removeprefix(PREFIX): file.get_tensor(n).clone() for n in infos}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith("lora_A.weight")}
    if alpha not in (None, _text(config["lora_alpha"])):
        problem = problem or f"its alpha is {alpha}, and {CONFIG} has {config['lora_alpha']}"
    if not config.get("rank_pattern") and ranks - {config.get("r")}:
        problem = problem or f"its ranks are {sorted(ranks)}, and {CONFIG} has {config.get('r')}"
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        problem = problem or "it holds values that are not finite"
    if problem:
        raise CheckpointError(f"{path} does not fit this model or its {CONFIG}: {problem}")
    return tensors


def _misfit(infos: dict[str, TensorInfo], model: QwenForCausalLM) -> str | None:
    """Say which tensor does not fit the model by name or shape; None: all do."""
    parts = dict(model.named_modules())
    modules = {}
    for name, info in infos.items():
        module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
        if not name.startswith(PREFIX) or part not in ("A.weight", "B.weight"):
            return f"{name!r} is not an A or B of LoRA"
        if module not in parts or module.rpartition(".")[2] not in TARGETS:
            return f"the model has no {module}"
        if info.dtype not in ("F32", "BF16", "F16"):
            return f"{name} is {info.dtype}; it must hold floats"
        modules[module] = [infos.get(f"{PREFIX}{module}.lora_{letter}.weight") for letter in "AB"]
    for module, (first, second) in modules.items():
        if first is None or second is None:
            return f"{module} has only one of A and B"
        weight = parts[module].weight
        assert isinstance(weight, Tensor)
        out_features, in_features = weight.shape
        rank = first.shape[0] if first.shape else 0
        if rank < 1 or (first.shape, second.shape) != ((rank, in_features), (out_features, rank)):
            return (
                f"{module} has A {first.shape} and B {second.shape}; a weight of {out_features} × "
                f"{in_features} needs (rank, {in_features}) and ({out_features}, rank)"
            )
    return None if infos else "it holds no tensor"


def _text(alpha: float) -> str:
    return f"{alpha:g}"
