"""Weight-only int4: each weight in four bits, each group of a row with a scale and a zero point.

In a group, 64 neighboring weights of a row, weight ≈ (q - zero) × scale with integers q and zero
from 0 to 15. Sixteen steps are few: the zero point lets them cover the group's own range, from its
smallest to its largest value; 0 always is one of the steps (Jacob et al. 2018, section 2.1). With a
scale in bfloat16 and a zero point of one byte, a weight takes 4.375 bits.

Which q is stored is decided by rounding to nearest (`quantize_groups`), or by a method that runs
the model on a text: `fast.awq`, `fast.gptq`. All of them store the same three tensors. Of Python
code, Qwen2.5-Coder-0.5B needs 0.624 bits per byte in bfloat16, 0.646 rounded to nearest, and 0.641
by GPTQ.

A tied embedding, which is the head too, stays int8 in a model whose other matrices are int4.
Qwen2.5-Coder-0.5B takes 332 MB instead of 271 MB so, and loses 0.022 bits per byte of Python code
instead of 0.025. Larger models, from 7B on, have a head of their own; there both are int4.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Int, UInt8
from torch import Tensor, nn

from qwenkit.config import GROUP
from qwenkit.device import has_bfloat16_products
from qwenkit.errors import InputError
from qwenkit.fast._machine import Unchanged, is_ordinary, watched
from qwenkit.fast.int8 import SMALLEST, refuse_gradients
from qwenkit.fast.linear import alike_but_scale, by_kernel, in_chunks, kernel_serves

TOP = 15  # of four bits; the smallest is 0
MIDDLE = 8  # the zero point of symmetric steps, of which seven lie above it and seven below


def quantize_groups(
    weight: Float[Tensor, "O I"], group: int = GROUP, symmetric: bool = False
) -> tuple[UInt8[Tensor, "O I2"], BFloat16[Tensor, "O G"], UInt8[Tensor, "O G"]]:
    """Round each weight to the nearest of its group's sixteen steps.

    Args:
        weight: (O, I) in any float dtype.
        group: neighboring weights of a row that share a scale; even, and a divisor of I.
        symmetric: the zero point is 8 in each group, so that the steps lie evenly around 0.

    Returns:
        packed (O, I/2), scale (O, I/group) and zero (O, I/group); `dequantize` restores the weight.

    Raises:
        InputError: groups do not fill the rows. Padding them would store, and multiply, weights
            that do not exist; every published Qwen2.5 has rows of whole groups of 64.
    """
    check_group(weight.shape[1], group)
    grouped = weight.float().reshape(len(weight), -1, group)  # (O, G, group)
    scale, zero = steps_of(grouped, symmetric)  # 2 × (O, G)
    steps = to_steps(grouped, scale[..., None], zero[..., None])
    return pack(steps), scale.bfloat16(), zero.to(torch.uint8)


def check_group(in_features: int, group: int) -> None:
    """Refuse a size of groups that do not fill a row.

    Raises:
        InputError: with the sizes.
    """
    if group < 2 or group % 2 or in_features % group:
        raise InputError(
            f"group is {group}; it must be even, and divide a matrix's in_features of {in_features}"
        )


def steps_of(
    grouped: Float[Tensor, "*B group"], symmetric: bool = False
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """Return the scale and the zero point of each group, in float32.

    The scale is rounded to bfloat16, as it is stored, before the weights are: they make up for what
    it lost.
    """
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)  # 2 × (...)
    span = torch.maximum(high, -low) / (TOP - MIDDLE) if symmetric else (high - low) / TOP
    scale = span.bfloat16().float()
    zero = (-low / scale.clamp(min=SMALLEST)).round().clamp(0, TOP)
    return scale, torch.full_like(zero, MIDDLE) if symmetric else zero


def to_steps(
    weight: Float[Tensor, "*B"], scale: Float[Tensor, "*#B"], zero: Float[Tensor, "*#B"]
) -> Float[Tensor, "*B"]:
    """Return the nearest step of each weight, an integer from 0 to 15 as a float."""
    return (weight / scale.clamp(min=SMALLEST) + zero).round().clamp(0, TOP)


def pack(steps: Float[Tensor, "O G group"]) -> UInt8[Tensor, "O I2"]:
    """Store two steps per byte: within a group, byte i holds value i and value i + group / 2.

    So the lower four bits of neighboring bytes are neighboring weights, and the upper four bits
    too: a processor that handles several bytes at once need not rearrange them.
    """
    low, high = steps.to(torch.uint8).chunk(2, dim=-1)  # 2 × (O, G, group/2)
    return (low | (high << 4)).flatten(1)  # (O, I/2)


def unpack(packed: UInt8[Tensor, "O I2"], groups: int) -> UInt8[Tensor, "O G group"]:
    """Return the steps of each group, the inverse of `pack`."""
    grouped = torch.unflatten(packed, 1, (groups, -1))  # (O, G, group/2)
    return torch.cat([grouped & TOP, grouped >> 4], dim=-1)  # (O, G, group)


def dequantize(
    packed: UInt8[Tensor, "O I2"], scale: Float[Tensor, "O G"], zero: UInt8[Tensor, "O G"]
) -> Float[Tensor, "O I"]:
    """Return (q - zero) × scale in float32."""
    steps = unpack(packed, scale.shape[1]).float()  # (O, G, group)
    return ((steps - zero[..., None]) * scale.float()[..., None]).flatten(1)  # (O, I)


class Int4Linear(nn.Module):
    """y = x Wᵀ + b with int4 weights, W = (q - zero) × scale.

    Attributes:
        weight: (O, I/2) uint8, two steps q per byte.
        weight_scale: (O, I/group) one scale per group.
        weight_zero: (O, I/group) uint8, the step that stands for 0.
        bias: (O), or None.
    """

    def __init__(
        self,
        weight: Tensor,
        weight_scale: Tensor,
        weight_zero: Tensor,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("weight_zero", weight_zero)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.weight_zero: Tensor

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each token's vector by the weight.

        Raises:
            InputError: gradients are asked for; int4 has none.
        """
        refuse_gradients(x, "int4")
        return int4_reference(x, self.weight, self.weight_scale, self.weight_zero, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        (out_features, bytes_of_row), groups = self.weight.shape, self.weight_scale.shape[1]
        in_features, has_bias = 2 * bytes_of_row, self.bias is not None
        sizes = f"in_features={in_features}, out_features={out_features}, bias={has_bias}"
        return f"{sizes}, group={in_features // groups}"


class FastInt4Linear(Int4Linear):
    """The same by the fastest product; `accelerate` makes an `Int4Linear` one."""

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each token's vector by the weight; errors as above."""
        if not _taught:  # replaced by somebody
            return super().forward(x)
        refuse_gradients(x, "int4")
        return int4_linear(x, self.weight, self.weight_scale, self.weight_zero, self.bias)


class Int4Embedding(nn.Module):
    """Look up rows of an int4 table.

    Attributes:
        weight: (V, C/2) uint8, two steps q per byte.
        weight_scale: (V, C/group) one scale per group.
        weight_zero: (V, C/group) uint8, the step that stands for 0.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor, weight_zero: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("weight_zero", weight_zero)
        self.weight: Tensor
        self.weight_scale: Tensor
        self.weight_zero: Tensor

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return each token's vector."""
        packed, scale, zero = (
            F.embedding(ids.flatten(), table)  # (B × T, ...)
            for table in (self.weight, self.weight_scale, self.weight_zero)
        )
        rows = dequantize(packed, scale, zero).to(scale.dtype)  # (B × T, C)
        return rows.view(*ids.shape, rows.shape[1])  # (B, T, C)

    def extra_repr(self) -> str:
        """Show the sizes in `print(model)`."""
        rows, bytes_of_row = self.weight.shape
        return f"{rows}, {2 * bytes_of_row}, group={2 * bytes_of_row // self.weight_scale.shape[1]}"


def int4_reference(
    x: Float[Tensor, "*B I"],
    packed: UInt8[Tensor, "O I2"],
    scale: Float[Tensor, "O G"],
    zero: UInt8[Tensor, "O G"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Return x Wᵀ + b, the whole weight dequantized in x's dtype."""
    y = F.linear(x, dequantize(packed, scale, zero).to(x.dtype))  # (..., O)
    return y if bias is None else y + bias


def int4_linear(
    x: Float[Tensor, "*B I"],
    packed: UInt8[Tensor, "O I2"],
    scale: Float[Tensor, "O G"],
    zero: UInt8[Tensor, "O G"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """The same by the fastest way: as stored for few tokens, dequantized in chunks for many."""
    if not alike_but_scale(x, scale, bias) or (
        x.is_cpu and (watched() or not _fit(x, packed, scale, zero, bias))
    ):
        return int4_reference(x, packed, scale, zero, bias)
    tokens = x.numel() // max(x.shape[-1], 1)
    if x.is_cpu and kernel_serves(tokens, packed):
        return by_kernel(x, packed, bias, scale, zero)
    own = x.dtype == torch.bfloat16 and (x.device.type != "cpu" or has_bfloat16_products())
    groups = scale.shape[1]

    def fill(chunk: Tensor, rows: slice) -> None:
        """Write (q - zero) × scale of these rows into a chunk, without a copy of the steps."""
        halves = chunk.view(len(chunk), groups, 2, -1)  # (rows, G, 2, group/2)
        stored = packed[rows].view(len(chunk), groups, -1)  # (rows, G, group/2)
        halves[:, :, 0].copy_(stored & TOP)
        halves[:, :, 1].copy_(stored >> 4)
        grouped = chunk.view(len(chunk), groups, -1)  # (rows, G, group)
        grouped.sub_(zero[rows, :, None]).mul_(scale[rows, :, None])

    shape = packed.shape[0], 2 * packed.shape[1]
    return in_chunks(x, shape, fill, bias, x.dtype if own else torch.float32)


def _fit(x: Tensor, packed: Tensor, scale: Tensor, zero: Tensor, bias: Tensor | None) -> bool:
    """Tell whether all are ordinary and of fitting shapes; compiled code does not ask."""
    stored = [packed, scale, zero] if bias is None else [packed, scale, zero, bias]
    if not all(is_ordinary(one) and one.is_contiguous() for one in stored) or scale.dim() != 2:
        return False
    (out_features, groups), in_features = scale.shape, x.shape[-1]
    fits = (
        packed.shape == (out_features, in_features // 2)
        and zero.shape == scale.shape
        and (bias is None or bias.shape == (out_features,))
    )
    whole = groups > 0 and in_features % (2 * groups) == 0
    return is_ordinary(x) and fits and whole and packed.dtype == zero.dtype == torch.uint8


_taught = Unchanged(
    (Int4Linear, "forward"), (F, "linear"), (sys.modules[__name__], "int4_reference"),
    (sys.modules[__name__], "dequantize"), (sys.modules[__name__], "unpack"),
)  # fmt: skip
