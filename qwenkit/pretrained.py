"""Loading a model with its tokenizer, and saving it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from qwenkit.checkpoint import Checkpoint
from qwenkit.compare import trusted_device
from qwenkit.config_json import read_json_object, write_json
from qwenkit.device import free_memory, pick_dtype
from qwenkit.errors import CheckpointError, InputError
from qwenkit.hub import resolve
from qwenkit.memory import refuse_what_cannot_fit
from qwenkit.model import QwenForCausalLM
from qwenkit.model.reading import prepare
from qwenkit.quantize import make_room_for_int8, quantize
from qwenkit.saving import save_checkpoint
from qwenkit.tokenizer import Tokenizer


def load_pretrained(
    source: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> tuple[QwenForCausalLM, Tokenizer]:
    """Load a model and its tokenizer, ready to run.

    The weights are frozen (`requires_grad` is False), so that nothing needs `torch.no_grad()`;
    `model.requires_grad_(True)` thaws them for training.

    Args:
        source: None: $QWENKIT_MODEL, else the embedded model; a folder; or a Hub id such as
            "Qwen/Qwen2.5-Coder-0.5B", downloaded once and then read from the local cache.
        device: "auto": MPS where there is one and its numbers are right, else the CPU.
        dtype: "auto": what the device computes fastest in; else "float32", "bfloat16", "float16",
            or "int8": `quantize` it. A checkpoint stored in int8 needs no word.

    Raises:
        SourceError: the source is not to be found.
        InputError: no such device or dtype, or a float dtype for a checkpoint stored in int8.
        ConfigError, CheckpointError, TokenizerError: its files are wrong.
        MemoryForecastError: it would not fit into the free memory.
    """
    folder = resolve(source)
    checkpoint = Checkpoint(folder)
    stored_int8 = checkpoint.config.quantization == "int8"
    if stored_int8 and dtype not in ("auto", "int8"):
        raise InputError(
            f"dtype is {dtype!r} and {folder} is stored in int8, which computes in bfloat16; "
            'use dtype="auto", or load the float checkpoint it was made from'
        )
    int8 = stored_int8 or dtype == "int8"
    computed = torch.bfloat16 if int8 else dtype
    where = trusted_device(device, computed)
    wanted = pick_dtype(computed, where)
    name = "int8" if int8 else str(wanted).removeprefix("torch.")
    refuse_what_cannot_fit(checkpoint.config, name, free_memory(), str(source or folder))
    tokenizer = Tokenizer(folder)
    model = load_model(checkpoint, wanted, where)
    if tokenizer.num_tokens > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.num_tokens} tokens and the model only "
            f"{model.config.vocab_size} rows; they do not belong together"
        )
    model.num_tokens = tokenizer.num_tokens
    if int8 and not stored_int8:
        quantize(model)
    return model, tokenizer


def load_model(
    checkpoint: Checkpoint, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> QwenForCausalLM:
    """Build a model without memory of its own and give it the checkpoint's tensors.

    Args:
        checkpoint: an opened checkpoint.
        dtype: None: as stored.
        device: where the weights go.
    """
    with torch.device("meta"), _SkipInit():  # shapes without storage: nothing is allocated
        model = QwenForCausalLM(checkpoint.config)
        if checkpoint.config.quantization:
            make_room_for_int8(model)
    model.load_state_dict(checkpoint.load(dtype, device), strict=True, assign=True)
    model.stop_ids = _stop_ids(checkpoint)
    model.eval().requires_grad_(False)
    prepare(model, _stored(checkpoint) if model.dtype == torch.float32 else None)
    return model


def save_pretrained(
    model: QwenForCausalLM,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a model, and its tokenizer, as a Hugging Face checkpoint that transformers reads too.

    Args:
        model: its weights are written in the dtype they have.
        folder: made if absent; a checkpoint already there is replaced, never left half written.
        tokenizer: saved beside it.
        max_shard_bytes: the weights are split into files of at most this size.

    Raises:
        CheckpointError: writing fails; what was there is then unchanged.
        InputError: the model has LoRA.
    """
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "a model with LoRA is no plain checkpoint; save_adapter(model, folder) saves what was "
            "learned, or merge_lora(model) and remove_lora(model) make one weight of both"
        )
    folder = Path(folder).expanduser()
    save_checkpoint(folder, model.config, model.state_dict(), max_shard_bytes)
    if model.stop_ids:
        write_json(folder / "generation_config.json", {"eos_token_id": list(model.stop_ids)})
    if tokenizer is not None:
        tokenizer.save(folder)


def _stored(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return what of a checkpoint is stored in bfloat16: half the bytes of float32 to read.

    It is mapped: memory that the system takes back when it runs short. Where it does not fit in
    beside the model from the start, it would come from the disk at each token, so then nothing.
    """
    if free_memory() < checkpoint.nbytes:
        return {}
    mapped = checkpoint.mapped()
    return {name: tensor for name, tensor in mapped.items() if tensor.dtype == torch.bfloat16}


class _SkipInit(TorchFunctionMode):
    """Leave out `torch.nn.init`: the file replaces all initial values.

    On meta they would cost a second and 80 MB, because torch loads its compiler for them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]  # type: ignore[no-any-return]
        return func(*args, **kwargs)  # type: ignore[no-any-return]


def _stop_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Read what ends a text: generation_config.json knows more ends than config.json."""
    path = checkpoint.folder / "generation_config.json"
    if not path.is_file():
        return checkpoint.config.eos_token_id
    found = read_json_object(path).get("eos_token_id")
    if found is None:
        return checkpoint.config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    if not all(type(i) is int and 0 <= i < checkpoint.config.vocab_size for i in ids):
        raise CheckpointError(f"{path}: eos_token_id is {found!r}; it must be token ids")
    return tuple(ids)
