"""Saving a model, its tokenizer and its settings in one step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenkit.checkpoint import Layout, refuse_to_save, without_wrappers, write_checkpoint
from qwenkit.errors import InputError
from qwenkit.files import saving, write_json
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer

GENERATION = "generation_config.json"
_KEY = "_loaded_from"


@dataclass(frozen=True)
class Origin:
    """What a loaded model's folder has in addition to config and weights, to save it again.

    Attributes:
        layout: how the weights were divided into files.
        generation: what generation_config.json says; None: there is none.
        stop_ids: the model's stop tokens when it was loaded.
    """

    layout: Layout
    generation: dict[str, Any] | None
    stop_ids: tuple[int, ...]


def remember(model: QwenForCausalLM, origin: Origin) -> None:
    """Keep with a model where it came from; `copy.deepcopy` copies it too."""
    vars(model)[_KEY] = origin


@stage("Saving the model")
def save_pretrained(
    model: QwenForCausalLM,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Write a model, and its tokenizer, as a Hugging Face checkpoint that transformers reads too.

    What was read and not changed is written as it was: config.json and generation_config.json key
    by key, the division into shards, the notes in their headers and in the index. All files are
    replaced in one step.

    Args:
        model: its weights are written in the dtype they have. May be wrapped by `torch.compile`.
        folder: made if absent; a checkpoint already there is replaced, never left half written.
        tokenizer: saved next to it.
        max_shard_bytes: the weights are split into files of at most this size. None: into the
            shards that they were loaded from, if there were any, else of at most 5 GB.

    Raises:
        CheckpointError: writing fails, or the folder holds another model; it is then unchanged.
        InputError: the model has LoRA.
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "a model with LoRA is not a plain checkpoint; save_adapter(model, folder) saves what "
            "was learned, or merge_lora(model) and remove_lora(model) make one weight of both"
        )
    tensors = {without_wrappers(name): tensor for name, tensor in model.state_dict().items()}
    origin = vars(model).get(_KEY)
    layout = origin.layout if isinstance(origin, Origin) else None
    refuse_to_save(folder, model.config, tensors, max_shard_bytes)
    with saving(folder) as save:
        write_checkpoint(save, model.config, tensors, max_shard_bytes, layout)
        generation = _generation_config(model, origin)
        if generation is None:
            save.obsolete.add(GENERATION)
        else:
            write_json(save.path / GENERATION, generation)
        if tokenizer is not None:
            save.obsolete |= tokenizer._write(save.path)


def _generation_config(model: QwenForCausalLM, origin: Origin | None) -> dict[str, Any] | None:
    """Return what generation_config.json must say; None: there is no need for one."""
    stops = tuple(model.stop_ids)
    if origin is not None and stops == origin.stop_ids:
        return origin.generation
    if origin is None and not stops and not model.config.eos_token_id:
        return None
    return {**((origin and origin.generation) or {}), "eos_token_id": list(stops)}
