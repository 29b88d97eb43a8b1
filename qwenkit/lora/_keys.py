"""The keys of adapter_config.json: what each may say, and which plain LoRA cannot follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwenkit.errors import CheckpointError, InputError, shown
from qwenkit.lora.layers import check_strength

_MANY = 16_777_216  # 2^24: no rank comes near it
# Keys that leave the logits as they are, or that are read below.
_READ = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights", "bias",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "modules_to_save", "fan_in_fan_out",
    "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "task_type",
    "inference_mode", "megatron_core", "eva_config", "qalora_group_size", "runtime_config",
    "ensure_weight_tying",
}  # fmt: skip
# Initializations that leave the model's own weights as they are; PiSSA and others change them.
_INITIALIZATIONS = ("gaussian", "eva", "orthogonal")


def check_config(config: dict[str, Any]) -> None:
    """Refuse a config that asks for more than plain LoRA, or has values of the wrong type.

    Raises:
        CheckpointError: one line that names the key.
    """
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"peft_type is {value_of(config, 'peft_type')}; only LORA is read")
    more = sorted(key for key, value in config.items() if key not in _READ and _active(value))
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        more.append("bias")
    start = config.get("init_lora_weights")
    if not (start is None or start is True or start is False or start in _INITIALIZATIONS):
        more.append("init_lora_weights")
    if more:
        raise CheckpointError(
            f"{shown(more[0])[1:-1]} is {value_of(config, more[0])}, which plain LoRA does not "
            "have; the logits would be wrong without it. PEFT can load this adapter, and merge it "
            "into its model"
        )
    _require(config.get("use_rslora") in (None, True, False), config, "use_rslora", "true or false")
    rank = config.get("r", 8)
    _require(_is_rank(rank), config, "r", "an integer of at least 1")
    for key in ("rank_pattern", "alpha_pattern"):
        _require(isinstance(config.get(key) or {}, dict), config, key, "an object of name: number")
    ranks = (config.get("rank_pattern") or {}).values()
    _require(all(map(_is_rank, ranks)), config, "rank_pattern", "an object of name: integer")
    try:
        for alpha in (config.get("lora_alpha", 8), *(config.get("alpha_pattern") or {}).values()):
            check_strength(alpha, config.get("lora_dropout", 0.0))
    except InputError as error:
        raise CheckpointError(str(error)) from None
    _check_names(config)


def _check_names(config: dict[str, Any]) -> None:
    """Refuse names of modules and layers that PEFT does not take either."""
    for key in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
        value = config.get(key)
        fits = value is None or _all_of(str, value) or (
            isinstance(value, str) and key != "modules_to_save"
        )  # fmt: skip
        _require(fits, config, key, "a list of names")
    layers = config.get("layers_to_transform")
    fits = layers is None or type(layers) is int or _all_of(int, layers)
    _require(fits, config, "layers_to_transform", "a list of layer numbers")
    for key in ("layers_to_transform", "layers_pattern"):
        if isinstance(config.get("target_modules"), str) and config.get(key) is not None:
            raise CheckpointError(f"{key} needs target_modules to be a list, not one expression")
    if config.get("layers_pattern") and layers is None:
        raise CheckpointError("layers_pattern has no effect without layers_to_transform")


def _active(value: object) -> bool:
    """Tell whether an unknown key may change the logits.

    In PEFT, None, False or an empty value means off; numbers and strings only tune a feature.
    """
    return value is True or (isinstance(value, (list, dict)) and bool(value))


def _is_rank(value: object) -> bool:
    return type(value) is int and 1 <= value < _MANY


def _all_of(kind: type, value: object) -> bool:
    return isinstance(value, Sequence) and all(type(one) is kind for one in value)


def _require(fits: bool, config: dict[str, Any], key: str, rule: str) -> None:
    if not fits:
        raise CheckpointError(f"{key} is {value_of(config, key)}; it must be {rule}")


def value_of(config: dict[str, Any], key: str) -> str:
    """Return a key's value as a message shows it."""
    return shown(config.get(key), 100)
