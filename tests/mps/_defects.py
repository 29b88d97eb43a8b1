"""Which calls meet a defect of MPS that `qwenkit.device` lists.

A rehearsal computes on the CPU, so it cannot see wrong numbers; it can see the shapes that meet
them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qwenkit.device import LONGEST_SUM_ON_MPS, Defect, known_defects

HALF = (torch.float16, torch.bfloat16)


class Linear(NamedTuple):
    """A call of `F.linear`, with its parameters' names."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None


class Attention(NamedTuple):
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
        return torch.is_grad_enabled() and any(part.requires_grad for part in self[:3])

    @property
    def few_queries(self) -> bool:
        """Whether MPS takes its kernel for few queries, as in decoding."""
        length, head_dim = self.query.shape[-2:]
        return length <= 8 and head_dim in (64, 96, 128) and not self.is_causal

    @property
    def mixes_sequences(self) -> bool:
        """Whether heads and length are transposed in memory, as after a view and a transpose."""
        parts = [part for part in self[:3] if part.dim() == 4]
        transposed = any(part.stride(0) != part.shape[1] * part.stride(1) for part in parts)
        return self.few_queries and self.query.dim() == 4 and len(self.query) > 1 and transposed

    @property
    def one_mask_per_sequence(self) -> bool:
        """Whether sequences have masks of their own, and their heads do not."""
        mask = self.attn_mask
        if mask is None or mask.dim() != 4 or not self.few_queries:
            return False
        return mask.shape[0] > 1 and mask.shape[1] == 1 and self.query.shape[1] > 1


class MatMul(NamedTuple):
    """A product of matrices (M, K) @ (K, N), perhaps a batch of them."""

    a: Tensor
    b: Tensor

    @property
    def large_sum(self) -> bool:
        """Whether each element is a sum of too many products."""
        shortest = min(self.a.shape[-2], self.b.shape[-1])
        return self.a.shape[-1] > LONGEST_SUM_ON_MPS and shortest >= 16


# The number of the defect's issue: the class of call, and whether one meets it.
MEETS: dict[int, tuple[type, Callable[..., bool]]] = {
    161641: (Linear, lambda c: not (c.input.is_contiguous() and c.weight.is_contiguous())),
    181466: (Linear, lambda c: c.input.dtype in HALF and c.input.dim() > 2 and c.bias is None),
    192934: (Linear, lambda c: c.input.dim() > 2 and c.bias is not None),
    163598: (Attention, lambda c: c.few_queries and not c.query.is_contiguous()),
    174945: (
        Attention,
        lambda c: c.few_queries and c.query.dtype in HALF and c.key.shape[-2] >= 1024,
    ),
    181151: (Attention, lambda c: c.mixes_sequences),
    184180: (Attention, lambda c: c.one_mask_per_sequence),
    181575: (
        Attention,
        lambda c: c.is_causal and c.query.dtype in HALF and c.query.shape[-2] > 1,
    ),
    183535: (MatMul, lambda c: c.a.dim() == 2 and c.large_sum),
    195012: (MatMul, lambda c: c.a.dim() == 3 and c.large_sum),
}


def met_by(call: NamedTuple, version: str) -> list[Defect]:
    """Return the defects that a call meets in a version of torch, such as "2.9.1+cpu"."""
    found = []
    for defect in known_defects(torch.device("mps"), version):
        kind, meets = MEETS[defect.issue]
        if isinstance(call, kind) and meets(call):
            found.append(defect)
    return found
