"""What a training stores of its model: all weights, or with LoRA the adapter alone."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from qwenkit.checkpoint import Checkpoint, save_checkpoint
from qwenkit.files import read_json_object, write_json
from qwenkit.lora import lora_layers, read_adapter, save_adapter
from qwenkit.lora.adapter import CONFIG as ADAPTER
from qwenkit.model import QwenForCausalLM

BASE = "base.json"  # which frozen weights an adapter belongs to


def save_weights(folder: Path, model: QwenForCausalLM) -> list[Path]:
    """Write what is trained of a model, and return the files besides the tensors' own.

    Raises:
        CheckpointError: writing fails.
    """
    if not lora_layers(model):
        save_checkpoint(folder, model.config, model.state_dict())
        return [folder / "config.json"]
    save_adapter(model, folder)
    write_json(folder / BASE, {"checksum": frozen_checksum(model)})
    return [folder / ADAPTER, folder / BASE]


def read_weights(folder: Path, model: QwenForCausalLM) -> tuple[dict[str, Tensor], list[str]]:
    """Return name -> tensor of what was trained, and in what the saved model is another one.

    Raises:
        ConfigError, CheckpointError: damaged files.
    """
    layers = lora_layers(model)
    if (folder / ADAPTER).exists() != bool(layers):
        kinds = ("all weights", "LoRA") if layers else ("LoRA", "all weights")
        return {}, ["it trained {}, this one trains {}".format(*kinds)]
    if not layers:
        checkpoint = Checkpoint(folder)
        checkpoint.validate()
        if replace(checkpoint.config, dtype=model.config.dtype) != model.config:
            return {}, ["the model's config is another"]
        return checkpoint.load(torch.float32, model.device), []
    config, tensors = read_adapter(folder, model)
    state = model.state_dict()
    present = {name: value.shape for name, value in state.items() if ".lora_" in name}
    alphas = {layer.alpha for layer in layers.values()}
    different = []
    if {n: t.shape for n, t in tensors.items()} != present or alphas != {config["lora_alpha"]}:
        different.append("its LoRA has other targets, another rank or another alpha")
    if read_json_object(folder / BASE).get("checksum") != frozen_checksum(model):
        different.append("its LoRA stands beside other frozen weights")
    return tensors, different


def frozen_checksum(model: QwenForCausalLM) -> str:
    """Return a number that any other frozen weights would most likely not have."""
    total = 0
    for name, weight in sorted(model.named_parameters()):
        if ".lora_" not in name:
            values = weight.detach().cpu().contiguous().view(-1).view(torch.uint8)
            total = zlib.crc32(values.numpy().data, total)
    return f"{total:08x}"
