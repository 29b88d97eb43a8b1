"""What a checkpoint stores: all weights, or with LoRA the adapter alone; and the optimizer's state.

Raises CheckpointError or ConfigError where files are damaged or cannot be written.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from qwenkit.checkpoint import Checkpoint, save_checkpoint
from qwenkit.errors import CheckpointError, TrainingError
from qwenkit.files import read_json_object, write_json
from qwenkit.lora import lora_layers, read_adapter, save_adapter
from qwenkit.lora.adapter import CONFIG as ADAPTER
from qwenkit.lora.adapter import named_layers
from qwenkit.model import QwenForCausalLM
from qwenkit.train.loop import Trainer
from qwenkit.train.optimizer import remembered, stepped

_BASE = "base.json"  # which frozen weights an adapter belongs to
_MASTER = "master"  # the float32 copy of a half-precision weight


def save_weights(folder: Path, model: QwenForCausalLM) -> None:
    """Write what is trained of a model."""
    if lora_layers(model):
        save_adapter(model, folder)
        write_json(folder / _BASE, {"checksum": _frozen_checksum(model)})
    else:
        save_checkpoint(folder, model.config, model.state_dict())


def read_weights(folder: Path, model: QwenForCausalLM) -> tuple[dict[str, Tensor], list[str]]:
    """Return name -> tensor of what was trained, and how the saved model differs from this one."""
    layers = lora_layers(model)
    if (folder / ADAPTER).exists() != bool(layers):
        kinds = ("all weights", "LoRA") if layers else ("LoRA", "all weights")
        return {}, ["it trained {}, this one trains {}".format(*kinds)]
    if not layers:
        checkpoint = Checkpoint(folder)
        checkpoint.validate()
        if replace(checkpoint.config, dtype=model.config.dtype) != model.config:
            return {}, ["the model's config differs"]
        return checkpoint.load(torch.float32, model.device), []
    config, tensors = read_adapter(folder, model)
    before = named_layers(config, model)
    state = model.state_dict()
    present = {name: value.shape for name, value in state.items() if ".lora_" in name}
    different = []
    if {n: t.shape for n, t in tensors.items()} != present or not all(
        math.isclose(layer.scaling, before[name].scaling) for name, layer in layers.items()
    ):
        different.append("its LoRA has other targets, another rank or another alpha")
    if read_json_object(folder / _BASE).get("checksum") != _frozen_checksum(model):
        different.append("its LoRA belongs to other frozen weights")
    return tensors, different


def _frozen_checksum(model: QwenForCausalLM) -> str:
    """Return a checksum of the frozen weights."""
    total = 0
    for name, weight in sorted(model.named_parameters()):
        if ".lora_" not in name:
            values = weight.detach().cpu().contiguous().view(-1).view(torch.uint8)
            total = zlib.crc32(values.numpy().data, total)
    return f"{total:08x}"


def optimizer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return each parameter's moments, and the state of the random numbers."""
    tensors = {"random_state": torch.get_rng_state()}
    for name, parameter in trainer.model.named_parameters():
        master = stepped(trainer.optimizer, parameter)
        for moment, value in trainer.optimizer.state.get(master, {}).items():
            tensors[f"{moment}.{name}"] = value.cpu().contiguous()
        if master is not parameter:
            tensors[f"{_MASTER}.{name}"] = master.detach().cpu().contiguous()
    return tensors


def check_optimizer(trainer: Trainer, tensors: dict[str, Tensor], step: int) -> None:
    """Refuse moments that are not exactly those of the trained parameters."""
    random_state = torch.get_rng_state()
    expected = {"random_state": (random_state.shape, random_state.dtype)}
    for name, parameter in trainer.model.named_parameters():
        master = stepped(trainer.optimizer, parameter)
        like = (master.shape, master.dtype)
        if parameter.requires_grad and step:  # a training saved before its first step has none
            for moment in remembered(trainer.optimizer, master):
                count = (torch.Size(), torch.float32)
                expected[f"{moment}.{name}"] = count if moment == "step" else like
        if master is not parameter:
            expected[f"{_MASTER}.{name}"] = like
    found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    names = expected.keys() | found.keys()
    wrong = sorted(name for name in names if expected.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            f"optimizer.safetensors does not fit the parameters that are trained: {wrong[0]} is "
            f"missing, not expected, or of a wrong shape or dtype ({len(wrong)} such in all)"
        )


def load_optimizer(trainer: Trainer, tensors: dict[str, Tensor]) -> None:
    """Hand each parameter its moments, copied: the file's are memory-mapped and keep it open."""
    trainer.optimizer.state.clear()
    for name, parameter in trainer.model.named_parameters():
        master = stepped(trainer.optimizer, parameter)
        if f"{_MASTER}.{name}" in tensors:
            with torch.no_grad():
                master.copy_(tensors[f"{_MASTER}.{name}"])
        names = remembered(trainer.optimizer, master)
        if f"{names[0]}.{name}" in tensors:
            trainer.optimizer.state[master] = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device, copy=True)
                for moment in names
            }


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what writing raises into one CheckpointError that names what could not be written."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error) is Exception:  # the latter from tokenizers
            raise CheckpointError(f"{path} could not be written ({error})") from None
        raise


def refuse_broken_weights(trainer: Trainer) -> None:
    """Raise TrainingError before NaN or infinite weights replace good ones on the disk."""
    for name, weight in trainer.model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise TrainingError(
                f"step {trainer.step}: {name} holds NaN or infinity, and is not saved; "
                "the learning rate is probably too large, or the warm-up too short"
            )
