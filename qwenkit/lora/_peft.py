"""What adapter_config.json says: which layers have LoRA, with what rank and scaling.

PEFT's rules, as in its `check_target_module_exists` and `get_pattern_key`, so that a file gives the
same logits as in PEFT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from qwenkit.errors import CheckpointError
from qwenkit.lora._keys import value_of
from qwenkit.lora._regex import matches
from qwenkit.lora.layers import TARGETS, LoRALinear

DEFAULT_TARGETS = ("q_proj", "v_proj")  # PEFT's for Qwen2, where a config names none


class Strength(NamedTuple):
    """A layer's rank, its alpha, and the factor of B A that follows from both."""

    rank: int
    alpha: float
    scaling: float

    @classmethod
    def of(cls, layer: LoRALinear) -> Strength:
        """Return a layer's own."""
        return cls(layer.rank, layer.alpha, layer.scaling)


def named_layers(config: dict[str, Any], model: nn.Module) -> dict[str, Strength]:
    """Return the layers that a checked config names, with the strength of each.

    Raises:
        CheckpointError: it names no layer, or one without a matrix, or has an invalid expression.
    """
    names = _module_names(model)
    named = _targeted(config, names)
    wrong = [name for name in named if name.rpartition(".")[2] not in TARGETS]
    if wrong:
        raise CheckpointError(
            f"target_modules names {wrong[0]}, where qwenkit has no LoRA; it has it for "
            f"{', '.join(TARGETS)}"
        )
    if not named:
        raise CheckpointError(
            f"target_modules is {value_of(config, 'target_modules')}, which with the config's "
            "other keys names no layer of this model"
        )
    ranks = _patterned(config, "rank_pattern", named, config.get("r", 8))
    alphas = _patterned(config, "alpha_pattern", named, config.get("lora_alpha", 8))
    root = math.sqrt if config.get("use_rslora") else float
    return {
        name: Strength(rank, alpha, alpha / root(rank))
        for name, rank, alpha in zip(named, ranks, alphas, strict=True)
    }


def saved_modules(config: dict[str, Any], model: nn.Module) -> list[str]:
    """Return the model's modules whose full weights the adapter must hold."""
    wanted = tuple(config.get("modules_to_save") or ())
    return [name for name in _module_names(model) if name.endswith(wanted)]


def _module_names(model: nn.Module) -> list[str]:
    """Return the names of all modules but LoRA's own."""
    inner = tuple(f"{n}." for n, part in model.named_modules() if isinstance(part, LoRALinear))
    return [name for name, _ in model.named_modules() if name and not name.startswith(inner)]


def _targeted(config: dict[str, Any], names: list[str]) -> list[str]:
    """Return the names that target_modules selects and no other key excludes."""
    rows = _match(config, "modules_to_save", r"(^|.*\.){}($|\..*)", names)
    excluded = config.get("exclude_modules") or ()
    if isinstance(excluded, str):
        rows += _match(config, "exclude_modules", "{}", names, whole=True)
    out = {name for row in rows for name in row}
    names = [name for name in names if name not in out and not _ends(name, excluded)]
    targets = config.get("target_modules")
    if isinstance(targets, str):
        if targets.lower() == "all-linear":
            return [n for n in names if n.rpartition(".")[2] in TARGETS and n != "lm_head"]
        return [n for row in _match(config, "target_modules", "{}", names, True) for n in row]
    targets = DEFAULT_TARGETS if targets is None else targets
    picked = {name for name in names if _ends(name, targets)}
    layers = config.get("layers_to_transform")
    if layers is not None and layers != []:  # it holds for the ends of names, not for whole ones
        wanted = [layers] if isinstance(layers, int) else layers
        picked &= {name for name, index in _layer_numbers(config, names).items() if index in wanted}
    return [name for name in names if name in targets or name in picked]


def _ends(name: str, ends: Sequence[str]) -> bool:
    """Tell whether a name is one of a list, or ends in one; False for a regular expression."""
    return not isinstance(ends, str) and f".{name}".endswith(tuple(f".{end}" for end in ends))


def _layer_numbers(config: dict[str, Any], names: list[str]) -> dict[str, int]:
    """Return the number of the layer that each module is in."""
    if config.get("layers_pattern"):
        rows = _match(config, "layers_pattern", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.", names)
    else:
        found = matches(r".*?\.[^.]*\.(?P<idx>\d+)\.", [""], names)[0]
        rows = [{name: index for name, index in zip(names, found, strict=True) if index}]
    return {name: int(index) for row in reversed(rows) for name, index in row.items()}


def _patterned(config: dict[str, Any], key: str, names: list[str], default: Any) -> list[Any]:
    """Return each name's value: that of the first pattern that matches its end."""
    values = list((config.get(key) or {}).values())
    rows = _match(config, key, r"(.*\.)?({})$", names)
    pairs = list(zip(rows, values, strict=True))
    return [next((value for row, value in pairs if name in row), default) for name in names]


def _match(
    config: dict[str, Any], key: str, template: str, names: list[str], whole: bool = False
) -> list[dict[str, str]]:
    """Return, for each pattern of a key, the names it matches, with the group "idx" of each."""
    patterns = config.get(key) or ()
    try:
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        found = matches(template, listed, names, whole)
    except ValueError as error:
        raise CheckpointError(f"{key} is {value_of(config, key)}: {error}") from None
    return [
        {name: group for name, group in zip(names, row, strict=True) if group is not None}
        for row in found
    ]
