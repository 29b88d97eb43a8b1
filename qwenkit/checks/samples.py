"""Input to try a learner's function on."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed numbers, the same on each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turned(x: Tensor) -> Tensor:
    """Return the same values (B, heads, T, D), heads and tokens the other way round in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)
