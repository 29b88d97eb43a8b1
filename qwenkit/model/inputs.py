"""What a model may be given: wrong input is refused with a clear error, before torch sees it."""

import torch
from jaxtyping import Bool
from torch import Tensor

from qwenkit.config import DynamicScaling, QwenConfig
from qwenkit.errors import InputError, warn


def check_input_ids(input_ids: object, config: QwenConfig, device: torch.device, past: int) -> None:
    """Refuse anything but a (B, T) tensor of this model's token ids.

    Args:
        input_ids: what was given.
        config: the model's.
        device: the model's.
        past: tokens already in the cache.

    Raises:
        InputError: a wrong type, dtype, shape, device or id; too many tokens for dynamic RoPE.
    """
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        got = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise InputError(f"input_ids is {got}; it must be an int64 tensor of shape (B, T)")
    if input_ids.dim() != 2 or 0 in input_ids.shape:
        raise InputError(
            f"input_ids has shape {tuple(input_ids.shape)}; it must be (B, T) with B, T >= 1 "
            "(one text: torch.tensor([ids]))"
        )
    if input_ids.device != device:
        raise InputError(
            f"input_ids is on {input_ids.device} and the model on {device}; "
            f"use input_ids.to({str(device)!r})"
        )
    if not input_ids.is_meta:  # a tensor on meta has no values to look at
        low, high = torch.stack(input_ids.aminmax()).tolist()  # one synchronization with the device
        if low < 0 or high >= config.vocab_size:
            raise InputError(
                f"input_ids holds {low if low < 0 else high}; ids must lie between 0 and "
                f"{config.vocab_size - 1} (is this the model's own tokenizer?)"
            )
    total = past + input_ids.shape[1]
    if total > config.max_position_embeddings:
        if isinstance(config.rope_scaling, DynamicScaling):
            raise InputError(
                f"{total} tokens are more than max_position_embeddings "
                f"({config.max_position_embeddings}); beyond, dynamic RoPE would rotate the cached "
                "keys again with each token, which qwenkit does not do; give fewer tokens"
            )
        warn(
            f"{total} tokens are more than the {config.max_position_embeddings} this model was "
            "made for; expect nonsense beyond that"
        )


def real_tokens(mask: object, input_ids: Tensor, past: int) -> Bool[Tensor, "B S"] | None:
    """Return an attention mask as booleans; None where nothing is padded.

    Args:
        mask: (B, S) 1 for real tokens, 0 for padding, the cached ones included; or None.
        input_ids: (B, T) the new tokens.
        past: tokens already in the cache; S = past + T.

    Raises:
        InputError: a wrong type, shape, device or value.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise InputError(f"attention_mask is a {type(mask).__name__}; it must be a tensor")
    need = (input_ids.shape[0], past + input_ids.shape[1])
    if tuple(mask.shape) != need:
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}; it must be (B, S) = {need}, the "
            "cached tokens included"
        )
    if mask.device != input_ids.device:
        raise InputError(f"attention_mask is on {mask.device}, input_ids on {input_ids.device}")
    if mask.is_meta:
        return mask.bool()
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError("attention_mask must hold 1 (real) and 0 (padding) alone")
    return None if bool(mask.all()) else mask.bool()
