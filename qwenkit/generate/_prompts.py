"""Prompts as token ids, checked, in the shape that the model takes; and a cache for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.arguments import fits
from qwenkit.device import free_memory
from qwenkit.errors import InputError, MemoryForecastError
from qwenkit.fast import Int8Cache, stored_dtype
from qwenkit.files import format_bytes
from qwenkit.generate.config import check_count
from qwenkit.model import KVCache, QwenForCausalLM, check_input_ids


def one_prompt(model: QwenForCausalLM, input_ids: Tensor | Sequence[int]) -> Int[Tensor, "1 T"]:
    """Return one prompt's ids as the (1, T) tensor that the model takes, or refuse them.

    Args:
        model: gives vocabulary and device.
        input_ids: (1, T) or (T,) ids, at least one.
    """
    ids = as_ids(input_ids)
    if ids.dim() != 2 or ids.shape[0] != 1 or ids.shape[1] == 0:
        raise InputError(
            f"input_ids has shape {tuple(ids.shape)} and dtype {ids.dtype}; it must be one prompt "
            "of at least one id, (1, T) or (T,) int64"
        )
    check_input_ids(ids, model.config, ids.device, past=0)
    return ids.to(model.device)


def as_ids(input_ids: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
    """Return ids as a tensor of integers, a bare list of them as one row."""
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"input_ids is {input_ids!r}; it must be ids, (1, T) or (T,), as tokenizer(text) "
            "gives them"
        ) from None
    if ids.numel() and ids.dtype not in (torch.int64, torch.int32):
        raise InputError(f"input_ids has dtype {ids.dtype}; ids are integers, int64")
    return ids[None] if ids.dim() == 1 else ids


def cache_for(
    model: QwenForCausalLM, batch_size: int, max_length: int, cache_dtype: str = "auto"
) -> KVCache:
    """Return a cache for a model, unless it would not fit in memory.

    Args:
        model: a language model.
        batch_size: number of sequences.
        max_length: tokens there is room for.
        cache_dtype: "auto": a `KVCache` in the model's dtype; "int8": an `Int8Cache`.

    Raises:
        InputError: a size below 1, an unknown dtype, or not a model.
        MemoryForecastError: the buffers would not fit; nothing is allocated.
    """
    if not fits(model, QwenForCausalLM):
        raise InputError(f"model is a {type(model).__name__}; it must be a QwenForCausalLM")
    check_count("batch_size", batch_size)
    check_count("max_length", max_length)
    dtype = stored_dtype(cache_dtype, str(model.dtype).removeprefix("torch."))
    kind = Int8Cache if dtype == "int8" else KVCache
    need = batch_size * max_length * model.config.kv_bytes_per_token(dtype)
    free = free_memory()
    if need > free and model.device.type == "cpu":
        raise MemoryForecastError(
            f"a cache for {batch_size} × {max_length:,} tokens needs {format_bytes(need)} and "
            f"{format_bytes(free)} is free; ask for fewer max_new_tokens, or a smaller max_length"
        )
    return kind(model.config, batch_size, max_length)
