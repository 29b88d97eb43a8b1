"""Weight-only int8: each weight in one byte, each group of a row with a scale of its own.

64 neighboring weights of a row (the weights of one output) are divided by the largest of them / 127
and rounded. Half of bfloat16's bytes are left, and as decoding a token waits for weights to come
from memory, it is faster too. Only the stored weights are coarser (Dettmers et al. 2022,
"LLM.int8()", section 2, for whole rows): they are multiplied with tokens of bfloat16 or float32, or
in the kernels with tokens of 16-bit integers, which lose less than bfloat16 does (`fast.kernels`).

Where 64 does not divide the rows, a whole row is one group: one large weight then makes the steps
of its whole row coarse. Qwen2.5-Coder-0.5B chose the same most likely token as in float32 at 97.8 %
of 2,555 positions of this package's code with groups of 64, and at 96.8 % with whole rows; with
logits in float32 (see `fast.model`) at 98.2 %.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from qwenkit.device import has_bfloat16_products
from qwenkit.errors import InputError
from qwenkit.fast._machine import Unchanged, is_ordinary, watched
from qwenkit.fast.linear import alike_but_scale, by_kernel, in_chunks, is_plain, kernel_serves

LARGEST = 127  # of an int8; -128 is left out, so that a weight and its negative round alike
PACKED_BLOCK = 32  # torch's int8 product reads whole blocks, past the end of other rows
PACKED_UP_TO = 16  # tokens; up to here torch's int8 product is faster than dequantizing the weight
SMALLEST = torch.finfo(torch.float32).tiny


def quantize_rows(
    weight: Float[Tensor, "O I"], group: int | None = None
) -> tuple[Int8[Tensor, "O I"], Tensor]:
    """Return int8 weights, and the bfloat16 scale of each row, or of each group of a row.

    Args:
        weight: (O, I) in any float dtype.
        group: neighboring weights of a row that share a scale, a divisor of I; None: all of them.

    Returns:
        int8 (O, I), and the scales, (O) or (O, I/group); `dequantize_rows` restores the weight.
    """
    grouped = torch.unflatten(weight.float(), 1, (-1, group or weight.shape[1]))  # (O, G, group)
    # The scale is rounded before the weights are: they make up for what it lost.
    scale = (grouped.abs().amax(-1) / LARGEST).bfloat16()  # (O, G)
    steps = grouped / scale.float().clamp(min=SMALLEST)[..., None]  # zeros alone stay zeros
    small = steps.round().clamp(-LARGEST, LARGEST).to(torch.int8).flatten(1)  # (O, I)
    return small, scale if group else scale[:, 0]


def dequantize_rows(weight: Int8[Tensor, "O I"], scale: Tensor) -> Float[Tensor, "O I"]:
    """Return weight × scale in the dtype of the scale, which is (O) or (O, G)."""
    groups = by_group(scale)  # (O, G)
    grouped = torch.unflatten(weight.to(scale.dtype), 1, (groups.shape[1], -1))  # (O, G, group)
    return (grouped * groups[..., None]).flatten(1)  # (O, I)


def by_group(scale: Tensor) -> Tensor:
    """Return a view of the scales as (O, G); G is 1 for a scale per row."""
    return scale[:, None] if scale.dim() == 1 else scale


class Int8Linear(nn.Module):
    """y = x (weight × scale)ᵀ + b with int8 weights.

    Attributes:
        weight: (O, I) int8.
        weight_scale: (O, I/group) one scale per group, or (O) one per row.
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
        (out_features, in_features), has_bias = self.weight.shape, self.bias is not None
        sizes = f"in_features={in_features}, out_features={out_features}, bias={has_bias}"
        return f"{sizes}, group={in_features // by_group(self.weight_scale).shape[1]}"


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
        weight_scale: (V, C/group) one scale per group, or (V) one per row.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.weight: Tensor
        self.weight_scale: Tensor

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """Return each token's vector."""
        flat = ids.flatten()  # (B × T)
        scale = F.embedding(flat, by_group(self.weight_scale))  # (B × T, G)
        rows = dequantize_rows(F.embedding(flat, self.weight), scale)  # (B × T, C)
        return rows.view(*ids.shape, rows.shape[1])  # (B, T, C)

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
    scale: Tensor,
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Return x (weight × scale)ᵀ + b, the whole weight dequantized in x's dtype."""
    y = F.linear(x, dequantize_rows(weight, scale.to(x.dtype)))  # (..., O)
    return y if bias is None else y + bias


def int8_linear(
    x: Float[Tensor, "*B I"],
    weight: Int8[Tensor, "O I"],
    scale: Tensor,
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """The same by the fastest way: as stored for few tokens, dequantized in chunks for many."""
    if not alike_but_scale(x, scale, bias) or (
        x.is_cpu and (watched() or not _fit(x, weight, scale, bias))
    ):
        return int8_reference(x, weight, scale, bias)
    tokens, groups = x.numel() // max(x.shape[-1], 1), by_group(scale)  # (O, G)
    if x.is_cpu and kernel_serves(tokens, weight):
        return by_kernel(x, weight, bias, scale)
    rows_alone = scale.dim() == 1 and weight.shape[1] % PACKED_BLOCK == 0
    if rows_alone and 0 < tokens <= PACKED_UP_TO and x.dtype == torch.bfloat16:
        flat = x.reshape(-1, x.shape[-1]).contiguous()  # (N, I)
        y = torch._weight_int8pack_mm(flat, weight, scale)  # (N, O)
        y = y.view(*x.shape[:-1], weight.shape[0])  # (..., O)
        return y if bias is None else y + bias
    own = x.dtype == torch.bfloat16 and (x.device.type != "cpu" or has_bfloat16_products())

    def fill(chunk: Tensor, rows: slice) -> None:
        """Write weight × scale of these rows into a chunk."""
        grouped = chunk.copy_(weight[rows]).view(len(chunk), groups.shape[1], -1)
        grouped.mul_(groups[rows, :, None])

    return in_chunks(x, weight.shape, fill, bias, x.dtype if own else torch.float32)


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
    """Tell whether all are ordinary and of fitting shapes; nothing below asks."""
    if not is_plain(x, weight, bias) or scale.dim() not in (1, 2) or not is_ordinary(scale):
        return False
    trained = torch.is_grad_enabled() and scale.requires_grad
    count = by_group(scale).shape[1]
    whole = count > 0 and weight.shape[1] % count == 0 and len(scale) == len(weight)
    return whole and scale.is_contiguous() and not trained


_taught = Unchanged(
    (Int8Linear, "forward"), (Int8Embedding, "as_head"), (F, "linear"),
    (sys.modules[__name__], "int8_reference"), (sys.modules[__name__], "dequantize_rows"),
    (sys.modules[__name__], "by_group"),
)  # fmt: skip
