"""Store a model's matrices in int8: give it the modules of `fast.int8`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from qwenkit.device import DTYPES
from qwenkit.errors import InputError
from qwenkit.fast.int8 import Int8Embedding, Int8Linear, quantize_rows
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.fast.switch import accelerate
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage


def is_quantized(model: QwenForCausalLM) -> bool:
    """Tell whether a model's matrices are stored in int8."""
    return isinstance(model.model.embed_tokens, Int8Embedding)


@stage("Quantizing to int8")
def quantize(model: QwenForCausalLM) -> dict[str, float]:
    """Store a model's matrices in int8, the embedding and the head too.

    The model is changed in place; its float weights are released one by one. It then computes in
    bfloat16, or in float32 if its checkpoint is stored so (`config.dtype`). Norms and biases, a
    thousandth of the weights, are kept in that dtype.

    Args:
        model: on the CPU or on MPS, without LoRA.

    Returns:
        For each matrix the size of its rounding error relative to its own: the root of
        sum(error²) / sum(weight²). With the same number of bits, rows with one large value lose
        more.

    Raises:
        InputError: a model that is quantized already, has LoRA, or is being trained.
    """
    if is_quantized(model):
        raise InputError("the model is quantized already; load it again for another try")
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "the model has LoRA, which int8 would lose; call merge_lora(model) and "
            "remove_lora(model) first"
        )
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            "the model's weights are being trained (requires_grad is True) and int8 cannot be; "
            "call model.requires_grad_(False) first"
        )
    errors: dict[str, float] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            upcast = module.weight.float()
            weight, scale = quantize_rows(upcast)
            error = weight * scale.float()[:, None] - upcast
            errors[f"{name}.weight"] = float(error.norm() / upcast.norm())
            _put(model, name, weight, scale)
    _mark(model)
    accelerate(model)
    return errors


def make_room_for_int8(model: QwenForCausalLM) -> None:
    """Give a model on the meta device int8 matrices, for a quantized checkpoint to fill."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = module.weight.to(torch.int8)
            _put(model, name, weight, weight.new_empty(weight.shape[0], dtype=torch.bfloat16))
    _mark(model)


def _put(model: QwenForCausalLM, name: str, weight: Tensor, scale: Tensor) -> None:
    """Replace a module by its int8 kind; the old one's memory is free from then on."""
    old = model.get_submodule(name)
    new = (
        Int8Embedding(weight, scale)
        if isinstance(old, nn.Embedding)
        else Int8Linear(weight, scale, old.bias)  # type: ignore[arg-type]
    )
    model.set_submodule(name, new)


def _mark(model: QwenForCausalLM) -> None:
    model.config = replace(model.config, quantization="int8")
    model.to(DTYPES[model.config.dtype_with_int8])  # int8 buffers are not floats and stay
    if type(model) is QwenForCausalLM:
        model.__class__ = FastQwenForCausalLM  # its tied head can read an int8 embedding
