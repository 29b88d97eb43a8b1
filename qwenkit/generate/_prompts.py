"""Prompts as token ids: checked, and given the shape that the model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM, check_input_ids


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
