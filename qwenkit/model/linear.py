"""Multiply by a weight: one product, by the way that is quickest for its rows, dtype and device.

`F.linear` is the reference: every way here gives what it gives (to rounding), and it serves
wherever nothing is faster. `x` has one row for each token.

- One row (decoding a token). Every weight is read once for one multiplication, so the processor
  waits for memory: what counts is that all cores read, and that there are few bytes to read.
- Many rows (a prompt, training). Each weight that was read serves every row: what counts is
  arithmetic, and in which dtype the processor can do it.

`python tests/bench/products.py` measures every way on your machine.
"""

import functools
import threading

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 1 << 20  # weights below this many values are read before other cores have woken up
PIECE = 1 << 20  # values widened at a time: 4 MB in float32, which stay in the processor's cache
FEW_ROWS = 4  # from here on widening a bfloat16 weight costs less than it saves


class _Buffers(threading.local):
    """What weights are widened into; one for each thread, as two models may compute at once."""

    def __init__(self) -> None:
        self.held: dict[tuple[torch.dtype, torch.device], Tensor] = {}


_buffers = _Buffers()


class Linear(nn.Linear):
    """y = x Wᵀ + b, as `nn.Linear`: the same parameters, the quickest product."""

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each row of x by the weight."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Return x Wᵀ + b by the quickest way there is for it; arguments as of `F.linear`."""
    rows = x.numel() // max(x.shape[-1], 1)
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    plain = x.dtype == weight.dtype and weight.is_contiguous()
    if weight.device.type != "cpu" or trained or not plain or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if weight.dtype == torch.float32 and rows == 1 and weight.numel() >= LARGE:
        return by_slices(x, weight, bias)
    if weight.dtype == torch.bfloat16 and rows == 1:
        return by_vector(x, weight, bias)
    if weight.dtype == torch.bfloat16 and rows >= FEW_ROWS and not has_bfloat16_products():
        return widened(x, weight, bias)
    return F.linear(x, weight, bias)


def by_slices(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply one row as a batch of products, one with each slice of the weight's rows.

    The slices are views, nothing is copied. Some libraries multiply a single float32 row on a
    single core, but go through a batch on all of them.
    """
    inner = weight.shape[1]
    cores = torch.get_num_threads()
    parts = max(n for n in range(1, cores + 1) if weight.shape[0] % n == 0)
    slices = weight.view(parts, -1, inner)  # (parts, O/parts, I)
    y = x.reshape(1, 1, inner) @ slices.transpose(1, 2)  # (parts, 1, O/parts)
    y = y.reshape(*x.shape[:-1], weight.shape[0])  # (..., O)
    return y if bias is None else y + bias


def by_vector(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply one row as a vector: the many-row product first arranges the weight for itself."""
    row = x.reshape(-1)  # (I)
    y = torch.mv(weight, row) if bias is None else torch.addmv(bias, weight, row)
    return y.view(*x.shape[:-1], weight.shape[0])  # (..., O)


def widened(
    x: Float[Tensor, "*B I"],
    weight: Tensor,
    bias: Float[Tensor, " O"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*B O"]:
    """Multiply in another dtype, the weight widened piece by piece into one small buffer.

    Without an instruction for it, a product of many bfloat16 rows costs several times a float32
    one. Widening the weight costs a pass over it, which many rows share.

    Args:
        x: the rows.
        weight: (O, I) in any dtype, int8 too.
        bias: added in x's dtype.
        dtype: to multiply in.
    """
    outer, inner = weight.shape
    wide = x.to(dtype)
    step = max(PIECE // inner, 1)
    buffer = _buffer(step * inner, dtype, weight.device)
    y = x.new_empty(*x.shape[:-1], outer)  # (..., O)
    for start in range(0, outer, step):
        rows = weight[start : start + step]
        piece = buffer[: rows.numel()].view(rows.shape).copy_(rows)
        y[..., start : start + step] = F.linear(wide, piece)
    return y if bias is None else y + bias


@functools.cache
def has_bfloat16_products() -> bool:
    """Tell whether this processor multiplies bfloat16 by instructions of its own."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _buffer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a buffer that the next call will overwrite."""
    held = _buffers.held
    if (dtype, device) not in held or held[dtype, device].numel() < size:
        held[dtype, device] = torch.empty(size, dtype=dtype, device=device)
    return held[dtype, device][:size]
