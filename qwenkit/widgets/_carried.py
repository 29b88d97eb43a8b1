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
ROUGHLY = 0.2  # the same in bfloat16 or float16
UNKNOWN_THERE = ("rope_scaling", "use_sliding_window", "quantization")  # to the engine
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
            weights tell: with LoRA, quantized, with hooks or other code.
    """
    if model.dtype != torch.float32:
        raise _refused(f"the model is in {str(model.dtype).removeprefix('torch.')}, not in float32")
    tensors = weights(model)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        raise _refused(f"the weights take {size:,} bytes, more than {MOST_BYTES:,}")
    reason = why_not(model, input_ids)
    if reason:
        raise _refused(reason)
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


def weights(model: QwenForCausalLM) -> dict[str, torch.Tensor]:
    """Return the weights by their names in a checkpoint, in as few bytes as lose nothing."""
    return {name: smallest(one) for name, one in _held(model).items()}


def _held(model: QwenForCausalLM) -> dict[str, torch.Tensor]:
    return {without_wrappers(name): one for name, one in model.state_dict().items()}


def why_not(model: QwenForCausalLM, input_ids: torch.Tensor) -> str:
    """Return why a page would show other numbers than the model gives, or "".

    Args:
        model: the model; its logits are compared with those of a fresh one of the same config and
            weights, which a hook or a replaced part does not have.
        input_ids: (1, T) a text; without tokens there is nothing to compare.
    """
    for name in UNKNOWN_THERE:
        if getattr(model.config, name):
            return f"it has {name}, which no page computes"
    other = sorted(_held(model).keys() ^ model.config.tensor_shapes().keys())
    if other:
        names = ", ".join(other[:3])
        return (
            f"it has other weights than its config tells: {names}; merge adapters (merge_lora), "
            "and load int8 in float32"
        )
    if input_ids.shape[1] and not _same(model, input_ids):
        return "it computes otherwise than its config and weights tell (a hook, a replaced part?)"
    return ""


@torch.no_grad()
def _same(model: QwenForCausalLM, input_ids: torch.Tensor) -> bool:
    fresh = QwenForCausalLM(model.config)
    fresh.load_state_dict(_held(model))
    ids = input_ids.cpu()
    apart = (fresh.to(model.dtype)(ids) - model(input_ids).cpu()).abs().max()
    return float(apart) <= (NEAR if model.dtype == torch.float32 else ROUGHLY)
