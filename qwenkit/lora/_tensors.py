"""The tensors of an adapter: A and B of each layer, and copies of the model's own weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwenkit.checkpoint import ADAPTER as CONFIG
from qwenkit.checkpoint import FLOATS, TensorInfo, read_header
from qwenkit.errors import CheckpointError, printable
from qwenkit.lora._peft import Strength, saved_modules
from qwenkit.lora.layers import TARGETS, Stored
from qwenkit.model import QwenForCausalLM

PREFIX = "base_model.model."  # PEFT wraps the model twice before it names its parts
_PART = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
# What PEFT's versions, or torch.compile, put into the name of a weight.
_INSIDE = re.compile(r"_orig_mod\.|base_layer\.|original_module\.|modules_to_save\.(default\.)?")


class AdapterTensors(NamedTuple):
    """What an adapter's file holds, once it fits the model and the config."""

    tensors: dict[str, Tensor]  # A and B, under the model's own names
    layers: dict[str, Strength]
    stored: dict[str, Stored]  # A, B and the copies of the model's own weights
    left_out: list[str]  # modules with A and B that the config does not name


def read_tensors(
    path: Path, model: QwenForCausalLM, config: dict[str, Any], layers: dict[str, Strength]
) -> AdapterTensors:
    """Read A and B of each layer, once everything in the file fits model and config.

    Raises:
        CheckpointError: one line that names the first thing that does not.
    """
    infos = read_header(path)
    names = _own_names(list(infos))
    parts = {names[n]: info for n, info in infos.items() if _PART.fullmatch(names[n])}
    problem = _misfit(infos, names, parts, model) or _unlike(parts, config, layers, model, names)
    found: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            want = alpha_text(config.get("lora_alpha", 8))
            alpha = (file.metadata() or {}).get("lora_alpha", want)
            if alpha != want:
                problem = problem or f"its alpha is {alpha}, and {CONFIG} has {want}"
            if not problem:
                found = {names[n]: file.get_tensor(n).clone() for n in infos if names[n] in parts}
                for name in (n for n in infos if names[n] not in parts):
                    problem = problem or _trained(file.get_tensor(name), names[name], model)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        problem = problem or "it holds values that are not finite"
    if problem:
        raise CheckpointError(f"{path} does not fit this model or its {CONFIG}: {problem}")
    named = {n: t for n, t in found.items() if n.rpartition(".lora_")[0] in layers}
    others = sorted({n.rpartition(".lora_")[0] for n in found} - layers.keys())
    stored = {names[n]: Stored(n, FLOATS[info.dtype]) for n, info in infos.items()}
    return AdapterTensors(named, layers, stored, others)


def alpha_text(alpha: float) -> str:
    """Return an alpha as the file's metadata has it."""
    return f"{alpha:g}"


def _own_names(stored: list[str]) -> dict[str, str]:
    """Return the model's own name of each tensor; names without PEFT's prefix only if none has."""
    plain = {name: _INSIDE.sub("", name) for name in stored}
    prefix = PREFIX if any(name.startswith(PREFIX) for name in plain.values()) else ""
    own = {}
    for name, short in plain.items():
        found = _PART.fullmatch(short)
        short = f"{found[1]}.lora_{found[2]}.weight" if found else short
        own[name] = short.removeprefix(prefix) if short.startswith(prefix) else f"?{short}"
    return own


def _misfit(
    infos: dict[str, TensorInfo],
    names: dict[str, str],
    parts: dict[str, TensorInfo],
    model: QwenForCausalLM,
) -> str | None:
    """Say which tensor does not fit the model by name or shape; None: all do."""
    modules, shapes = dict(model.named_modules()), _weights(model)
    if len(set(names.values())) < len(names):
        return "two of its names refer to the same tensor"
    for name, info in infos.items():
        own, found = names[name], _PART.fullmatch(names[name])
        if own.startswith("?") or (not found and own not in shapes):
            return f"{printable(name)!r} is not an A or B of LoRA, nor a weight of this model"
        if found and (found[1] not in modules or found[1].rpartition(".")[2] not in TARGETS):
            return f"the model has no {printable(found[1])}"
        if not found and info.shape != shapes[own].shape:
            return (
                f"{name!r} is not an A or B of LoRA but a whole weight, of {info.shape} where the "
                f"model has {tuple(shapes[own].shape)}"
            )
        if info.dtype not in FLOATS:
            return f"{printable(name)} is {info.dtype}; it must be {', '.join(FLOATS)}"
    for module in dict.fromkeys(name.rpartition(".lora_")[0] for name in parts):
        first, second = (parts.get(f"{module}.lora_{letter}.weight") for letter in "AB")
        if first is None or second is None:
            return f"{module} has only one of A and B"
        weight = modules[module].weight
        assert isinstance(weight, Tensor)
        out_features, in_features = weight.shape
        rank = first.shape[0] if first.shape else 0
        if rank < 1 or (first.shape, second.shape) != ((rank, in_features), (out_features, rank)):
            return (
                f"{module} has A {first.shape} and B {second.shape}; a weight of {out_features} × "
                f"{in_features} needs (rank, {in_features}) and ({out_features}, rank)"
            )
    return None if infos else "it holds no tensor"


def _unlike(
    parts: dict[str, TensorInfo],
    config: dict[str, Any],
    layers: dict[str, Strength],
    model: QwenForCausalLM,
    names: dict[str, str],
) -> str | None:
    """Say what the config names and the file lacks; None: nothing."""
    ranks = {name: parts.get(f"{name}.lora_A.weight") for name in layers}
    missing = [name for name, info in ranks.items() if info is None]
    if missing:
        return f"{CONFIG} names {missing[0]}, and it holds no A and B for it"
    found = {name: info.shape[0] for name, info in ranks.items() if info is not None}
    wrong = [name for name in layers if layers[name].rank != found[name]]
    if wrong:
        theirs = ", ".join(map(str, sorted({layers[name].rank for name in wrong})))
        return f"its ranks are {sorted({found[n] for n in wrong})}, and {CONFIG} has {theirs}"
    whole = saved_modules(config, model)
    for name in _weights(model):
        of = [module for module in whole if name.startswith(f"{module}.")]
        if of and name not in names.values():
            return f"{CONFIG} has {of[0]} in modules_to_save, and it holds no {name}"
    return None


def _weights(model: QwenForCausalLM) -> dict[str, Tensor]:
    """Return the model's own weights by name, including a tied head's."""
    own: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if ".lora_" not in n}
    if model.lm_head is None:
        own["lm_head.weight"] = model.model.embed_tokens.weight
    return own


def _trained(stored: Tensor, name: str, model: QwenForCausalLM) -> str | None:
    """Say that a stored weight differs from the model's; None: equal in the coarser dtype."""
    own = _weights(model)[name].detach().cpu()
    coarse = stored.dtype if stored.dtype.itemsize <= own.dtype.itemsize else own.dtype
    if torch.equal(stored.to(coarse), own.to(coarse)):
        return None
    return (
        f"{name!r} is not an A or B of LoRA but a whole weight, and differs from the model's: it "
        "was trained too. PEFT can load this adapter, and merge it into its model"
    )
