"""Adapters: the LoRA of a model in files of its own, as PEFT writes and reads them.

`adapter_model.safetensors` has A and B of each layer, a few megabytes where the model has
gigabytes; `adapter_config.json` says what they are multiplied by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from qwenkit.checkpoint import ADAPTER as CONFIG
from qwenkit.checkpoint import ADAPTER_WEIGHTS as WEIGHTS
from qwenkit.checkpoint import write_tensors
from qwenkit.errors import CheckpointError, ConfigError, InputError, warn
from qwenkit.files import expanded, read_json_object, saving, undisturbed, write_json
from qwenkit.lora._keys import check_config
from qwenkit.lora._peft import named_layers
from qwenkit.lora._saved import contents
from qwenkit.lora._tensors import AdapterTensors, alpha_text, read_tensors
from qwenkit.lora.layers import LoadedAdapter, LoRALinear
from qwenkit.lora.models import lora_layers, put_lora
from qwenkit.model import QwenForCausalLM

__all__ = ["CONFIG", "WEIGHTS", "load_adapter", "named_layers", "read_adapter", "save_adapter"]


def save_adapter(model: QwenForCausalLM, folder: str | Path) -> None:
    """Write the LoRA of a model, merged or not, and nothing else of it.

    For an adapter that was loaded, config keys, names and dtypes are kept, except what has changed
    since. Config and weights are saved in one step.

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
    config, stored = contents(model, layers)
    with saving(folder) as save:
        # The alpha is stored here too, so that files of two adapters cannot pass for one.
        alpha = alpha_text(config.get("lora_alpha", 8))
        write_tensors(save.path / WEIGHTS, stored, lora_alpha=alpha)
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
        InputError: the model has LoRA already, or int8 or int4 weights.
    """
    if lora_layers(model):
        raise InputError("the model has LoRA already; remove_lora(model) first")
    config, found = _opened(folder, model)
    loaded = LoadedAdapter(config, found.stored)

    def prepare(name: str, layer: LoRALinear) -> None:
        layer.alpha, layer.scaling = found.layers[name].alpha, found.layers[name].scaling
        layer.adapter = loaded
        for part in ("lora_A", "lora_B"):
            weight = layer.get_parameter(f"{part}.weight").requires_grad_(trainable)
            weight.detach().copy_(found.tensors[f"{name}.{part}.weight"])

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
    config, found = _opened(folder, model)
    return config, found.tensors


def _opened(folder: str | Path, model: QwenForCausalLM) -> tuple[dict[str, Any], AdapterTensors]:
    folder = expanded(folder)
    return undisturbed(folder, lambda: _open(folder, model))


def _open(folder: Path, model: QwenForCausalLM) -> tuple[dict[str, Any], AdapterTensors]:
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
