"""Calls that gave wrong numbers on MPS, silently, in some versions of torch.

A rehearsal computes on the CPU, so it cannot see them; it can see the shapes that meet them. Each
entry names the issue of pytorch/pytorch, or the pull request that mends it, and tells when it
happens. `qwenkit.device.KNOWN_BAD_ON_MPS` lists the versions not to be used on MPS at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
# The kernel for a few queries, as in decoding, is written for these head_dims.
FEW_QUERIES, FAST_HEAD_DIMS = 8, (64, 96, 128)
LARGE_SUM = 32767  # products summed by one element of a matrix product


@dataclass(frozen=True)
class Linear:
    """A call of `F.linear`, with its parameters' names."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Attention:
    """A call of `F.scaled_dot_product_attention`, with its parameters' names."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def learns(self) -> bool:
        """Whether it will be differentiated. Then MPS takes none of the kernels with defects."""
        parts = (self.query, self.key, self.value)
        return torch.is_grad_enabled() and any(part.requires_grad for part in parts)

    @property
    def few_queries(self) -> bool:
        """Whether MPS takes the kernel for a few queries."""
        length, head_dim = self.query.shape[-2:]
        return length <= FEW_QUERIES and head_dim in FAST_HEAD_DIMS and not self.is_causal


@dataclass(frozen=True)
class MatMul:
    """A product of matrices (M, K) @ (K, N), each perhaps in a batch."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Defect:
    """What is wrong, in which versions, for which calls.

    Attributes:
        call: the class of call it concerns.
        since: first version with it, (major, minor).
        fixed: first version without; None: none yet.
        meets: whether a call meets it.
        message: what happens, and what to do.
        number: of the issue, or of the pull request that mends it.
    """

    call: type
    since: tuple[int, int]
    fixed: tuple[int, int] | None
    meets: Callable[..., bool]
    message: str
    number: int


def _strided(call: Linear) -> bool:
    return not (call.input.is_contiguous() and call.weight.is_contiguous())


def _biased(call: Linear) -> bool:
    return call.bias is not None and call.input.dim() > 2


def _varies(call: Linear) -> bool:
    return call.input.dtype in HALF and call.input.dim() > 2 and call.bias is None


def _strided_queries(call: Attention) -> bool:
    return call.few_queries and not call.query.is_contiguous()


def _strided_batch(call: Attention) -> bool:
    """Heads and length stand swapped in memory, as after a view and a transpose."""
    parts = [part for part in (call.query, call.key, call.value) if part.dim() == 4]
    swapped = any(part.stride(0) != part.shape[1] * part.stride(1) for part in parts)
    return call.few_queries and call.query.dim() == 4 and call.query.shape[0] > 1 and swapped


def _long_past(call: Attention) -> bool:
    return call.few_queries and call.query.dtype in HALF and call.key.shape[-2] >= 1024


def _causal_half(call: Attention) -> bool:
    return call.is_causal and call.query.dtype in HALF and call.query.shape[-2] > 1


def _one_mask_a_sequence(call: Attention) -> bool:
    mask = call.attn_mask
    if mask is None or mask.dim() != 4 or not call.few_queries:
        return False
    return mask.shape[0] > 1 and mask.shape[1] == 1 and call.query.shape[1] > 1


def _large_sum(call: MatMul) -> bool:
    rows, summed, columns = call.a.shape[-2], call.a.shape[-1], call.b.shape[-1]
    return summed >= LARGE_SUM and min(rows, columns) >= 16


def _large_sum_of_one(call: MatMul) -> bool:
    return call.a.dim() == 2 and _large_sum(call)


def _large_sum_in_a_batch(call: MatMul) -> bool:
    return call.a.dim() == 3 and _large_sum(call)


DEFECTS = (
    Defect(
        Linear, (2, 8), (2, 9), _strided, "F.linear reads a non-contiguous input or weight as if "
        "it were contiguous: upgrade torch, or call .contiguous() first", 161641,
    ),
    Defect(
        Linear, (2, 8), (2, 13), _varies, "on an M5, F.linear without a bias in float16 "
        "or bfloat16 varies from call to call for some shapes: upgrade torch to 2.13", 181466,
    ),
    Defect(
        Linear, (2, 13), None, _biased, "on an M1 with macOS 26, F.linear with a bias is wrong for "
        "an input of 3 or more dimensions: multiply without the bias, and add it then", 192934,
    ),
    Defect(
        Attention, (2, 8), (2, 9), _strided_queries, "attention of up to 8 queries reads "
        "non-contiguous queries as if they were contiguous: upgrade torch", 163598,
    ),
    Defect(
        Attention, (2, 8), (2, 11), _long_past, "attention of up to 8 queries to 1024 keys or "
        "more is garbage in float16 and bfloat16: upgrade torch to 2.11", 174945,
    ),
    Defect(
        Attention, (2, 8), (2, 12), _strided_batch, "attention of up to 8 queries in a batch "
        "mixes up the sequences of transposed tensors: upgrade torch to 2.12", 181151,
    ),
    Defect(
        Attention, (2, 8), (2, 13), _one_mask_a_sequence, "attention of up to 8 queries uses "
        "the first sequence's mask for all: upgrade torch to 2.13", 184180,
    ),
    Defect(
        Attention, (2, 5), (2, 13), _causal_half, "is_causal=True lets a query see up to three "
        "tokens of its future in float16 and bfloat16: upgrade torch to 2.13", 181575,
    ),
    Defect(
        MatMul, (2, 7), (2, 14), _large_sum_of_one, "on an M1 or M2, a matrix product that sums "
        "32767 terms or more reads past its operands: upgrade torch to 2.14", 183535,
    ),
    Defect(
        MatMul, (2, 7), None, _large_sum_in_a_batch, "on an M1 or M2, a batch of matrix products "
        "that sum 32767 terms or more reads past its operands: make the sums shorter", 195012,
    ),
)  # fmt: skip


def met_by(call: object, version: str) -> list[Defect]:
    """Return the defects that a call meets in a version of torch, such as "2.9.1+cpu"."""
    number = version_number(version)
    return [
        defect
        for defect in DEFECTS
        if isinstance(call, defect.call)
        and defect.since <= number
        and (defect.fixed is None or number < defect.fixed)
        and defect.meets(call)
    ]


def version_number(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    Raises:
        ValueError: it has no two numbers.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"version is {version!r}; it must begin with two numbers, such as 2.13")
    return int(match[1]), int(match[2])
