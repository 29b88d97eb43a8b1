"""A small model as an exported page carries it, for the engine in JavaScript that runs it there."""

from __future__ import annotations

import json
import zlib
from typing import Any

import torch
from safetensors.torch import save

from qwenkit.checkpoint import without_wrappers
from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer

MOST_BYTES = 16_000_000  # of weights; a page of more would open too slowly
NEAR = 1e-3  # by which logits may differ that are computed in another order
_LEVEL = 6


def carried(
    model: QwenForCausalLM, tokenizer: Tokenizer, input_ids: torch.Tensor
) -> dict[str, Any]:
    """Return what the engine reads: config, tokenizer, and the weights as they are now.

    Weights that bfloat16 holds exactly are written in it, which halves them.

    Args:
        model: any model in float32.
        tokenizer: the model's.
        input_ids: (1, T) a text on which the carried model is compared with the model itself.

    Raises:
        InputError: a model that is too large, or that computes otherwise than its config and
            weights tell: with LoRA, in int8, with hooks or other code.
    """
    if model.dtype != torch.float32:
        raise _refused(f"the model is in {str(model.dtype).removeprefix('torch.')}, not in float32")
    tensors = {without_wrappers(name): smallest(one) for name, one in model.state_dict().items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        raise _refused(f"the weights take {size:,} bytes, more than {MOST_BYTES:,}")
    if model.config.rope_scaling is not None or model.config.use_sliding_window:
        raise _refused("RoPE scaling and sliding windows are not supported there")
    _compare(model, tensors, input_ids)
    return packed(model, tokenizer, tensors)


def packed(
    model: QwenForCausalLM, tokenizer: Tokenizer, tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Return what the engine reads: config, tokenizer, and weights by their names, compressed."""
    return {
        "config": model.config.to_dict(),
        "tokenizer": json.loads(tokenizer.backend.to_str()),
        "weights": zlib.compress(save(tensors), _LEVEL),
    }


def _refused(why: str) -> InputError:
    return InputError(f"this page cannot carry its model: {why}; call to_html without live=True")


def smallest(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in bfloat16 if that loses nothing, else in float32."""
    tensor = tensor.detach().float().cpu().contiguous()
    halved = tensor.to(torch.bfloat16)
    return halved if torch.equal(halved.float(), tensor) else tensor


@torch.no_grad()
def _compare(
    model: QwenForCausalLM, tensors: dict[str, torch.Tensor], input_ids: torch.Tensor
) -> None:
    """Refuse a model whose logits are not those of a fresh one with the same config and weights."""
    fresh = QwenForCausalLM(model.config)
    try:
        fresh.load_state_dict(tensors)
    except RuntimeError:
        names = ", ".join(sorted(tensors.keys() ^ fresh.state_dict().keys())[:3])
        raise _refused(f"it has other weights than its config tells: {names}") from None
    ids = input_ids.cpu()
    apart = (fresh.float()(ids) - model(input_ids).cpu()).abs().max()
    if not float(apart) <= NEAR:
        raise _refused("it computes otherwise than its config and weights tell (a hook?)")
