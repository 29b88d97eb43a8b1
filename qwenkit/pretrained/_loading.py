"""Loading a model with its tokenizer, and saving it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qwenkit.checkpoint import Checkpoint, save_checkpoint
from qwenkit.device import free_memory, pick_dtype
from qwenkit.errors import CheckpointError, InputError
from qwenkit.fast import accelerate, make_room_for_int8, quantize
from qwenkit.files import read_json_object, write_json
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained._memory import refuse_what_cannot_fit
from qwenkit.pretrained.compare import trusted_device
from qwenkit.pretrained.hub import resolve
from qwenkit.tokenizer import Tokenizer


def load_pretrained(
    source: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> tuple[QwenForCausalLM, Tokenizer]:
    """Load a model and its tokenizer, ready to run.

    The weights are frozen (`requires_grad` is False), so that nothing needs `torch.no_grad()`;
    `model.requires_grad_(True)` unfreezes them for training.

    Args:
        source: None: $QWENKIT_MODEL, else the embedded model; a folder; or a Hub id such as
            "Qwen/Qwen2.5-Coder-0.5B", downloaded once and then read from the local cache.
        device: "auto": MPS if there is one and it computes correctly, else the CPU.
        dtype: "auto": what the device computes fastest in; else "float32", "bfloat16", "float16",
            or "int8": `quantize` it. A checkpoint stored in int8 is detected.

    Raises:
        SourceError: the source was not found.
        InputError: no such device or dtype, or a float dtype for a checkpoint stored in int8.
        ConfigError, CheckpointError, TokenizerError: invalid files.
        MemoryForecastError: it would not fit into the free memory.
    """
    folder = resolve(source)
    checkpoint = Checkpoint(folder)
    plan = _plan(checkpoint, device, dtype, str(source or folder))
    tokenizer = Tokenizer(folder)  # before the weights, which take longer to read
    size = checkpoint.config.vocab_size
    if tokenizer.num_tokens > size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.num_tokens} tokens, and the model's "
            f"vocabulary only {size}; they do not belong together"
        )
    model = _load(checkpoint, *plan)
    model.num_tokens = tokenizer.num_tokens
    return model, tokenizer


def load_model(
    source: str | Path | Checkpoint | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = "auto",
) -> QwenForCausalLM:
    """Load a model alone, from a folder that needs no tokenizer.

    The whole vocabulary then counts as tokens (`model.num_tokens`), padding included.

    Args:
        source: as in `load_pretrained`, or an opened `Checkpoint`.
        device: as in `load_pretrained`.
        dtype: as in `load_pretrained`; None: each tensor as stored.

    Raises:
        QwenkitError: as in `load_pretrained`, except for the tokenizer.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(resolve(source))
    name = str(source if isinstance(source, str | Path) else checkpoint.folder)
    if dtype is not None:
        return _load(checkpoint, *_plan(checkpoint, device, dtype, name))
    stored = "int8" if checkpoint.config.quantization else checkpoint.dtype
    where, _, int8 = _plan(checkpoint, device, stored, name)
    return _load(checkpoint, where, None, int8)


def _plan(
    checkpoint: Checkpoint, device: str | torch.device, dtype: str | torch.dtype, name: str
) -> tuple[torch.device, torch.dtype, bool]:
    """Return device, dtype, and whether it is int8; refuse what cannot be loaded, unread."""
    stored_int8 = checkpoint.config.quantization == "int8"
    if stored_int8 and dtype not in ("auto", "int8"):
        raise InputError(
            f"dtype is {dtype!r} and {checkpoint.folder} is stored in int8, which computes in "
            'bfloat16; use dtype="auto", or load the float checkpoint it was made from'
        )
    int8 = stored_int8 or dtype == "int8"
    wanted = torch.bfloat16 if int8 else dtype
    where = trusted_device(device, wanted)
    computed = pick_dtype(wanted, where)
    size = "int8" if int8 else str(computed).removeprefix("torch.")
    refuse_what_cannot_fit(checkpoint.config, size, free_memory(), name)
    return where, computed, int8


@torch.inference_mode(False)  # weights made in that mode could never be trained
def _load(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None, int8: bool
) -> QwenForCausalLM:
    """Build a model without storage, and give it the checkpoint's tensors."""
    stored_int8 = checkpoint.config.quantization == "int8"
    with torch.device("meta"), _SkipInit():  # shapes alone: nothing is allocated
        model = QwenForCausalLM(checkpoint.config)
        if stored_int8:
            make_room_for_int8(model)
    model.stop_ids = _stop_ids(checkpoint)
    model.load_state_dict(checkpoint.load(dtype, device), strict=True, assign=True)
    model.eval().requires_grad_(False)
    if int8 and not stored_int8:
        quantize(model)
    accelerate(model)
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
        tokenizer: saved next to it.
        max_shard_bytes: the weights are split into files of at most this size.

    Raises:
        CheckpointError: writing fails; the folder is then unchanged.
        InputError: the model has LoRA.
    """
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "a model with LoRA is not a plain checkpoint; save_adapter(model, folder) saves what "
            "was learned, or merge_lora(model) and remove_lora(model) make one weight of both"
        )
    folder = Path(folder).expanduser()
    save_checkpoint(folder, model.config, model.state_dict(), max_shard_bytes)
    if model.stop_ids:
        write_json(folder / "generation_config.json", {"eos_token_id": list(model.stop_ids)})
    if tokenizer is not None:
        tokenizer.save(folder)


class _SkipInit(TorchFunctionMode):
    """Skip `torch.nn.init`: the file replaces all initial values.

    On meta they would cost a second and 80 MB, because torch loads its compiler for them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _stop_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Read what stops generation: generation_config.json has more stop tokens than config.json."""
    path = checkpoint.folder / "generation_config.json"
    found = read_json_object(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        return checkpoint.config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    if not all(type(i) is int and 0 <= i < checkpoint.config.vocab_size for i in ids):
        raise CheckpointError(f"{path}: eos_token_id is {found!r}; it must be token ids")
    return tuple(ids)
