"""Loading a model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qwenkit.checkpoint import Checkpoint
from qwenkit.config import warn_of_tokens, without_row
from qwenkit.device import DTYPES, free_memory, pick_dtype
from qwenkit.errors import CheckpointError, InputError, shown
from qwenkit.fast import accelerate, make_room, quantize
from qwenkit.files import read_json_object, undisturbed
from qwenkit.gguf import generation_dict
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained._memory import refuse_what_cannot_fit
from qwenkit.pretrained._saving import GENERATION, Origin, remember
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
        source: None: $QWENKIT_MODEL, else the embedded model; a folder; a GGUF file, as of Ollama,
            LM Studio or llama.cpp; or a Hub id such as "Qwen/Qwen2.5-Coder-0.5B", downloaded once
            and then read from the local cache.
        device: "auto": MPS if there is one and it computes correctly, else the CPU.
        dtype: "auto": what the device computes fastest in; else "float32", "bfloat16", "float16",
            or "int8" or "int4": `quantize` it. A checkpoint stored so is detected.

    Raises:
        SourceError: the source was not found.
        InputError: no such device or dtype, or another dtype for a checkpoint stored in int8 or
            int4.
        ConfigError, CheckpointError, TokenizerError: invalid files.
        MemoryForecastError: it would not fit into the free memory.
    """
    folder = resolve(source)
    name = str(source or folder)
    return undisturbed(folder, lambda: _load_both(folder, device, dtype, name))


def _load_both(
    folder: Path, device: str | torch.device, dtype: str | torch.dtype, name: str
) -> tuple[QwenForCausalLM, Tokenizer]:
    checkpoint = Checkpoint(folder)
    plan = _plan(checkpoint, device, dtype, name)
    tokenizer = Tokenizer(folder)  # before the weights, which take longer to read
    size = checkpoint.config.vocab_size
    # A token that was added only to the tokenizer does no harm until a text contains it.
    if tokenizer.backend.get_vocab_size(with_added_tokens=False) > size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.num_tokens} tokens, and the model's "
            f"vocabulary only {size}; they do not belong together"
        )
    model = _load(checkpoint, *plan)
    model.num_tokens = min(tokenizer.num_tokens, size)
    tokenizer.rows = size if tokenizer.num_tokens > size else None
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
        dtype: as in `load_pretrained`; None: each tensor as stored; of a GGUF file, all in the
            dtype that most are stored in, or bfloat16 where those are quantized.

    Raises:
        QwenkitError: as in `load_pretrained`, except for the tokenizer.
    """
    if isinstance(source, Checkpoint):
        return _load_alone(source, device, dtype, str(source.folder))
    folder = resolve(source)
    name = str(source or folder)
    return undisturbed(folder, lambda: _load_alone(Checkpoint(folder), device, dtype, name))


def _load_alone(
    checkpoint: Checkpoint, device: str | torch.device, dtype: str | torch.dtype | None, name: str
) -> QwenForCausalLM:
    if dtype is not None:
        return _load(checkpoint, *_plan(checkpoint, device, dtype, name))
    stored = checkpoint.config.quantization or checkpoint.dtype
    where, _, kind = _plan(checkpoint, device, stored, name)
    return _load(checkpoint, where, None, kind)


def _plan(
    checkpoint: Checkpoint, device: str | torch.device, dtype: str | torch.dtype, name: str
) -> tuple[torch.device, torch.dtype, str | None]:
    """Return device, dtype, and "int8" or "int4" or None; refuse what cannot be loaded, unread."""
    checkpoint.validate()
    stored, computes_in = checkpoint.config.quantization, checkpoint.config.dtype_with_int8
    if stored and dtype not in ("auto", stored):
        raise InputError(
            f"dtype is {dtype!r} and {checkpoint.folder} is stored in {stored}, which computes in "
            f'{computes_in}; use dtype="auto", or load the float checkpoint it was made from'
        )
    kind = dtype if dtype in ("int8", "int4") else stored
    wanted = DTYPES[computes_in] if kind else dtype
    where = trusted_device(device, wanted)
    if where.type == "meta":
        raise InputError("device is 'meta', which holds no values; use 'auto' or 'cpu'")
    computed = pick_dtype(wanted, where)
    size = kind or str(computed).removeprefix("torch.")
    refuse_what_cannot_fit(checkpoint.config, size, free_memory(), name)
    return where, computed, kind


@torch.inference_mode(False)  # weights made in that mode could never be trained
def _load(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None, kind: str | None
) -> QwenForCausalLM:
    """Build a model without storage, and give it the checkpoint's tensors."""
    stored = checkpoint.config.quantization
    with torch.device("meta"), _SkipInit():  # shapes alone: nothing is allocated
        model = QwenForCausalLM(checkpoint.config)
        if stored:
            make_room(model)
    generation = _generation_config(checkpoint)
    model.stop_ids = _stop_ids(checkpoint, generation)
    remember(model, Origin(checkpoint.layout, generation, model.stop_ids))
    model.load_state_dict(checkpoint.load(dtype, device), strict=True, assign=True)
    model.eval().requires_grad_(False)
    if kind and not stored:
        quantize(model, kind)
    accelerate(model)
    return model


class _SkipInit(TorchFunctionMode):
    """Skip `torch.nn.init`: the file replaces all initial values.

    On meta they would cost a second and 80 MB, because torch loads its compiler for them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _generation_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return what generation_config.json, or a GGUF file, says; None: there is no such file."""
    if checkpoint.gguf is not None:
        return generation_dict(checkpoint.gguf)
    path = checkpoint.folder / GENERATION
    return read_json_object(path) if path.exists() else None


def _stop_ids(checkpoint: Checkpoint, generation: dict[str, Any] | None) -> tuple[int, ...]:
    """Return what stops generation: generation_config.json has more stop tokens than config.json.

    An empty list there means that nothing stops it.
    """
    found = (generation or {}).get("eos_token_id")
    if found in (None, -1):  # older tools write -1 for none
        return checkpoint.config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    path = checkpoint.folder if checkpoint.gguf else checkpoint.folder / GENERATION
    size = checkpoint.config.vocab_size
    if not all(type(i) is int and i >= 0 for i in ids):
        raise CheckpointError(f"{path}: eos_token_id is {shown(found)}; it must be token ids")
    lost = without_row({"eos_token_id": ids, "vocab_size": size})
    warn_of_tokens(lost, size, str(path))
    return tuple(i for i in ids if i not in lost)
