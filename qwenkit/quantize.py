"""Weight-only int8: each weight in one byte, each row with a scale of its own.

A row of a matrix (one output's weights) is divided by its largest value / 127 and rounded. Half of
bfloat16's bytes are left, and as decoding a token waits for weights to come from memory, it is
quicker too. What is multiplied, and added up, stays bfloat16 and float32: only the stored weights
are coarser (Dettmers et al. 2022, "LLM.int8()", section 2, for rows).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Int, Int8
from torch import Tensor, nn

from qwenkit.device import has_bfloat16_products
from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.model.linear import TURNED, float32_by_loop, loop_reads, widened
from qwenkit.model.reading import prepare

LARGEST = 127  # of an int8; -128 is left out, so that a weight and its negative round alike
SMALLEST = torch.finfo(torch.float32).tiny
FEW_ROWS = 16  # up to here the int8 product is quicker than widening the weight


def quantize_rows(
    weight: Float[Tensor, "O I"],
) -> tuple[Int8[Tensor, "O I"], BFloat16[Tensor, " O"]]:
    """Return int8 weights, and the scale of each row: weight ≈ int8 × scale."""
    wide = weight.float()
    # The scale is rounded before the weights are: they make up for what it lost.
    scale = (wide.abs().amax(dim=1) / LARGEST).bfloat16()  # (O)
    steps = wide / scale.float().clamp(min=SMALLEST)[:, None]  # a row of zeros stays zeros
    return steps.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


class Int8Linear(nn.Module):
    """y = x (weight × scale)ᵀ + b with int8 weights.

    Attributes:
        weight: (O, I) int8.
        weight_scale: (O) one scale a row.
        bias: (O), or None.
        may_turn: as of `Linear`.
    """

    is_plain = True  # as of `Linear`

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        bias: Tensor | None = None,
        may_turn: bool = False,
    ) -> None:
        super().__init__()
        self.may_turn = may_turn
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.weight: Tensor
        self.weight_scale: Tensor

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each row of x by the weight.

        Raises:
            InputError: gradients are asked for; the kernels have none.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            raise InputError(
                "int8 weights cannot take part in backpropagation; train the float model, or call "
                "this one under torch.no_grad()"
            )
        return int8_linear(x, self.weight, self.weight_scale, self.bias, self.may_turn)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        outer, inner = self.weight.shape
        return f"in_features={inner}, out_features={outer}, bias={self.bias is not None}"


class Int8Embedding(nn.Module):
    """Look up rows of an int8 table.

    Attributes:
        weight: (V, C) int8.
        weight_scale: (V) one scale a row.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.weight: Tensor
        self.weight_scale: Tensor

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return each token's vector."""
        scale = F.embedding(ids, self.weight_scale[:, None])  # (B, T, 1)
        return F.embedding(ids, self.weight).to(scale.dtype) * scale

    def as_head(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Score every token: the table as a tied head."""
        return int8_linear(x, self.weight, self.weight_scale)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        return "{}, {}".format(*self.weight.shape)


def int8_linear(
    x: Float[Tensor, "*B I"],
    weight: Int8[Tensor, "O I"],
    scale: Float[Tensor, " O"],
    bias: Float[Tensor, " O"] | None = None,
    may_turn: bool = False,
) -> Float[Tensor, "*B O"]:
    """Return x (weight × scale)ᵀ + b: read as it lies for few rows, widened for many."""
    rows = x.numel() // max(x.shape[-1], 1)
    values = loop_reads(x, weight)
    if values is not None:
        y = float32_by_loop(x, values).mul_(scale)  # (..., O)
        return (y if bias is None else y.add_(bias)).to(x.dtype)
    if 0 < rows <= FEW_ROWS and x.dtype == torch.bfloat16:
        flat = x.reshape(-1, x.shape[-1]).contiguous()  # (rows, I)
        y = torch._weight_int8pack_mm(flat, weight, scale)  # (rows, O)
        y = y.view(*x.shape[:-1], weight.shape[0])  # (..., O)
    else:
        narrow = x.dtype == torch.bfloat16 and (x.device.type != "cpu" or has_bfloat16_products())
        turned = may_turn and rows in TURNED
        y = widened(x, weight, None, x.dtype if narrow else torch.float32, turned).mul_(scale)
    return y if bias is None else y + bias


def quantize(model: QwenForCausalLM) -> dict[str, float]:
    """Store a model's matrices in int8, the embedding and the head too, and compute in bfloat16.

    The model is changed in place; its float weights are let go one by one. Norms and biases, a
    thousandth of the weights, stay bfloat16.

    Args:
        model: on the CPU or on MPS, without LoRA.

    Returns:
        For each matrix the size of its rounding error beside its own: the root of
        sum(error²) / sum(weight²). Equal numbers of bits lose more on rows with one large value.

    Raises:
        InputError: a model that is quantized already, has LoRA, or is being trained.
    """
    if is_quantized(model):
        raise InputError("the model is quantized already; load it anew for another try")
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
            wide = module.weight.float()
            weight, scale = quantize_rows(wide)
            error = weight * scale.float()[:, None] - wide
            errors[f"{name}.weight"] = float(error.norm() / wide.norm())
            _put(model, name, weight, scale)
    _call_it_quantized(model)
    prepare(model)
    return errors


def is_quantized(model: QwenForCausalLM) -> bool:
    """Tell whether `quantize` was here."""
    return isinstance(model.model.embed_tokens, Int8Embedding)


def make_room_for_int8(model: QwenForCausalLM) -> None:
    """Give a model on the meta device int8 matrices, for a quantized checkpoint to fill."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = module.weight.to(torch.int8)
            _put(model, name, weight, weight.new_empty(weight.shape[0], dtype=torch.bfloat16))
    _call_it_quantized(model)


def _put(model: QwenForCausalLM, name: str, weight: Tensor, scale: Tensor) -> None:
    """Replace a module by its int8 kind; the old one's memory is free from then on."""
    old = model.get_submodule(name)
    parent, _, child = name.rpartition(".")
    new = (
        Int8Embedding(weight, scale)
        if isinstance(old, nn.Embedding)
        else Int8Linear(weight, scale, old.bias, old.may_turn)  # type: ignore[arg-type]
    )
    setattr(model.get_submodule(parent), child, new)


def _call_it_quantized(model: QwenForCausalLM) -> None:
    model.config = replace(model.config, quantization="int8")
    model.to(torch.bfloat16)  # int8 buffers are no floats and stay
