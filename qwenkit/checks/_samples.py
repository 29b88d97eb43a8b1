"""Inputs to try a learner's function on, and small parts that several checks build them from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwenkit.checks._judge import Case
from qwenkit.config import QwenConfig

Part = Callable[[Tensor], Tensor]  # a layer, a norm, a head
# vocabulary, hidden, intermediate, layers, heads, kv heads, head_dim if it is not hidden / heads
HALF_B = QwenConfig(151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True)
SEVEN_B = QwenConfig(152_064, 3584, 18_944, 28, 28, 4)
WIDE_HEADS = QwenConfig(1000, 96, 200, 3, 6, 2, 40)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed values, the same on each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def not_contiguous(*tensors: Tensor) -> Case:
    """Return the case of tensors (B, H, T, D) whose heads and tokens are transposed in memory."""
    strided = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors)
    return Case("not contiguous", tuple(strided))


def in_bfloat16(*tensors: Tensor, label: str = "bfloat16") -> Case:
    """Return the case of tensors in bfloat16."""
    return Case(label, tuple(x.bfloat16() for x in tensors))


def run_all(x: Tensor, layers: Sequence[Part]) -> Tensor:
    """Return the stream after one layer after another."""
    for layer in layers:
        x = layer(x)
    return x


def norm_of(width: int, seed: int) -> Part:
    """Return an RMSNorm with a weight of its own."""
    weight = 1 + 0.5 * normal(width, seed=seed)

    def norm(x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
        return weight.to(x.dtype) * normed.to(x.dtype)

    return norm
