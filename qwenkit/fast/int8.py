"""Weight-only int8: each weight in one byte, each row with a scale of its own.

A row of a matrix (the weights of one output) is divided by its largest value / 127 and rounded.
Half of bfloat16's bytes are left, and as decoding a token waits for weights to come from memory, it
is faster too. What is multiplied, and added up, stays bfloat16 and float32: only the stored weights
are coarser (Dettmers et al. 2022, "LLM.int8()", section 2, for rows).
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Int, Int8
from torch import Tensor, nn

from qwenkit.device import has_bfloat16_products
from qwenkit.errors import InputError
from qwenkit.fast._machine import Unchanged, watched
from qwenkit.fast.linear import (
    alike,
    by_kernel,
    is_plain,
    kernel_serves,
    upcast_in_chunks,
)

LARGEST = 127  # of an int8; -128 is left out, so that a weight and its negative round alike
PACKED_BLOCK = 32  # torch's int8 product reads whole blocks, past the end of other rows
SMALLEST = torch.finfo(torch.float32).tiny
PACKED_UP_TO = 16  # tokens; up to here torch's int8 product is faster than upcasting the weight


def quantize_rows(
    weight: Float[Tensor, "O I"],
) -> tuple[Int8[Tensor, "O I"], BFloat16[Tensor, " O"]]:
    """Return int8 weights, and the scale of each row: weight ≈ int8 × scale."""
    upcast = weight.float()
    # The scale is rounded before the weights are: they make up for what it lost.
    scale = (upcast.abs().amax(dim=1) / LARGEST).bfloat16()  # (O)
    steps = upcast / scale.float().clamp(min=SMALLEST)[:, None]  # a row of zeros stays zeros
    return steps.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


class Int8Linear(nn.Module):
    """y = x (weight × scale)ᵀ + b with int8 weights.

    Attributes:
        weight: (O, I) int8.
        weight_scale: (O) one scale per row.
        bias: (O), or None.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.weight: Tensor
        self.weight_scale: Tensor

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each token's vector by the weight.

        Raises:
            InputError: gradients are asked for; int8 has none.
        """
        refuse_gradients(x, "int8")
        return int8_reference(x, self.weight, self.weight_scale, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        out_features, in_features = self.weight.shape
        has_bias = self.bias is not None
        return f"in_features={in_features}, out_features={out_features}, bias={has_bias}"


class FastInt8Linear(Int8Linear):
    """The same by the fastest product; `accelerate` makes an `Int8Linear` one."""

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each token's vector by the weight; errors as above."""
        if not _taught:  # replaced by somebody
            return super().forward(x)
        refuse_gradients(x, "int8")
        return int8_linear(x, self.weight, self.weight_scale, self.bias)


class Int8Embedding(nn.Module):
    """Look up rows of an int8 table.

    Attributes:
        weight: (V, C) int8.
        weight_scale: (V) one scale per row.
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
        return int8_reference(x, self.weight, self.weight_scale)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        return "{}, {}".format(*self.weight.shape)


class FastInt8Embedding(Int8Embedding):
    """The same with the fastest product as its head; `accelerate` makes an `Int8Embedding` one."""

    def as_head(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Score every token: the table as a tied head."""
        if not _taught:
            return super().as_head(x)
        return int8_linear(x, self.weight, self.weight_scale)


def int8_reference(
    x: Float[Tensor, "*B I"],
    weight: Int8[Tensor, "O I"],
    scale: Float[Tensor, " O"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Return x (weight × scale)ᵀ + b, the whole weight upcast to x's dtype."""
    y = F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)  # (..., O)
    return y if bias is None else y + bias


def int8_linear(
    x: Float[Tensor, "*B I"],
    weight: Int8[Tensor, "O I"],
    scale: Float[Tensor, " O"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """The same by the fastest way: read as stored for few tokens, upcast in chunks for many."""
    if not alike(x, scale, bias) or (x.is_cpu and (watched() or not _fit(x, weight, scale, bias))):
        return int8_reference(x, weight, scale, bias)
    tokens = x.numel() // max(x.shape[-1], 1)
    if x.is_cpu and kernel_serves(tokens, weight):
        y = by_kernel(x, weight).mul_(scale)  # (..., O)
        return (y if bias is None else y.add_(bias)).to(x.dtype)
    fits = weight.shape[1] % PACKED_BLOCK == 0
    if 0 < tokens <= PACKED_UP_TO and x.dtype == torch.bfloat16 and fits:
        flat = x.reshape(-1, x.shape[-1]).contiguous()  # (N, I)
        y = torch._weight_int8pack_mm(flat, weight, scale)  # (N, O)
        y = y.view(*x.shape[:-1], weight.shape[0])  # (..., O)
    else:
        own = x.dtype == torch.bfloat16 and (x.device.type != "cpu" or has_bfloat16_products())
        y = upcast_in_chunks(x, weight, None, x.dtype if own else torch.float32)
        y = y.mul_(scale)
    return y if bias is None else y + bias


def refuse_gradients(x: Tensor, kind: str) -> None:
    """Refuse an input that asks for gradients; `kind` is what the weights are.

    Raises:
        InputError: it does.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        raise InputError(
            f"{kind} weights cannot take part in backpropagation; train the float model, or call "
            "this one under torch.no_grad()"
        )


def _fit(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> bool:
    """Tell whether all are ordinary and of fitting shapes; torch's int8 product does not ask."""
    return is_plain(x, weight, scale) and is_plain(x, weight, bias)


_taught = Unchanged(
    (Int8Linear, "forward"), (Int8Embedding, "as_head"), (F, "linear"),
    (sys.modules[__name__], "int8_reference"),
)  # fmt: skip
