"""Which calls meet a defect of MPS that `qwenkit.device` lists, by the number of its issue.

A rehearsal computes on the CPU: it cannot see wrong numbers, but it sees the shapes that meet them.
Each function has the parameters of the call that it judges.
"""

import torch
from torch import Tensor

from qwenkit.device import LONGEST_SUM_ON_MPS

HALF = (torch.float16, torch.bfloat16)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> dict[int, bool]:
    """Judge a call of `F.linear`."""
    matrix, half = input.dim() <= 2, input.dtype in HALF
    return {
        161641: not (input.is_contiguous() and weight.is_contiguous()),
        181466: half and not matrix and bias is None,
        192934: not matrix and bias is not None,
    }


def fused(query, key, value, attn_mask=None, dropout_p=0.0, *_, **__) -> bool:
    """Tell whether MPS computes this attention by a kernel, not by matmul, softmax and matmul."""
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    return not learns and not dropout_p


def attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> dict[int, bool]:
    """Judge a call of `F.scaled_dot_product_attention` for which MPS takes a kernel."""
    length, head_dim = query.shape[-2:]
    # MPS has a kernel for few queries, as in decoding.
    few, half = length <= 8 and head_dim in (64, 96, 128) and not is_causal, query.dtype in HALF
    batch = query.dim() == 4 and len(query) > 1
    # As a view and a transpose leave it: heads and length are transposed in memory.
    transposed = any(x.stride(0) != x.shape[1] * x.stride(1) for x in (query, key, value))
    shape = () if attn_mask is None else attn_mask.shape  # (B, H, T, S)
    return {
        163598: few and not query.is_contiguous(),
        174945: few and half and key.shape[-2] >= 1024,
        181151: few and batch and transposed,
        184180: few and len(shape) == 4 and shape[0] > 1 and shape[1] == 1 < query.shape[1],
        181575: is_causal and half and length > 1,
    }


def matmul(a: Tensor, b: Tensor) -> dict[int, bool]:
    """Judge a product of matrices (M, K) @ (K, N), perhaps a batch of them."""
    large = a.shape[-1] > LONGEST_SUM_ON_MPS and min(a.shape[-2], b.shape[-1]) >= 16
    return {183535: large and a.dim() == 2, 195012: large and a.dim() == 3}
