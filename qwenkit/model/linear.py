"""Multiply by a weight: one product, by the way that is quickest for its rows, dtype and device.

`F.linear` is the reference: every way here gives what it gives (to rounding), and it serves
wherever nothing is faster. `x` has one row for each token.

- One row (decoding a token). Every weight is read once for one multiplication, so the processor
  waits for memory: what counts is that all cores read, and that there are few bytes to read.
- A few rows (several texts at once). The weight should still be read but once, and what counts is
  that nothing large is arranged anew in memory before it is multiplied.
- Many rows (a prompt, training). Each weight that was read serves every row: what counts is
  arithmetic, and in which dtype the processor can do it.

`python tests/bench/products.py` measures every way on your machine.
"""

import functools
import itertools
import math
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LARGE = 1 << 19  # weights below this many values are read before a choice has paid
PIECE = 1 << 20  # values widened at a time: 4 MB in float32, which stay in the processor's cache
WIDEN_FROM = 4  # rows, from which on widening a bfloat16 weight costs less than it saves
SLICE = 16  # rows of the weight in a slice: the products are so small that all stays in the cache
SLICES = range(4, 13)  # rows of x for which many small float32 products are quicker than one large
LEFT_FROM = {torch.float32: 13, torch.bfloat16: 2}  # rows, from which on W xᵀ is quicker than x Wᵀ
LEFT_UP_TO = 64  # rows; beyond, turning the result costs what was saved


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
    large = weight.numel() >= LARGE
    if weight.dtype == torch.float32 and large:
        if rows in SLICES or (0 < rows < SLICES.start and leaves_cores_idle()):
            return by_slices(x, weight, bias)
    if weight.dtype == torch.bfloat16 and rows == 1:
        return by_vector(x, weight, bias)
    if weight.dtype == torch.bfloat16 and rows >= WIDEN_FROM and not has_bfloat16_products():
        return widened(x, weight, bias)
    if LEFT_FROM.get(weight.dtype, math.inf) <= rows <= LEFT_UP_TO and large:
        return from_the_left(x, weight, bias)
    return F.linear(x, weight, bias)


def by_slices(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply as a batch of small products, one with each slice of the weight's rows.

    The slices are views, nothing is copied. Some libraries multiply one float32 row on one core,
    and arrange a large weight anew for four rows; a batch goes through all cores, and products as
    small as these are multiplied as they lie.
    """
    outer, inner = weight.shape
    height = max(n for n in range(1, SLICE + 1) if outer % n == 0)
    slices = weight.view(-1, height, inner)  # (O/height, height, I)
    y = x.reshape(1, -1, inner) @ slices.transpose(1, 2)  # (O/height, N, height), N tokens
    y = y.transpose(0, 1).reshape(*x.shape[:-1], outer)  # (..., O)
    return y if bias is None else y + bias


def by_vector(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply one row as a vector: the many-row product first arranges the weight for itself."""
    row = x.reshape(-1)  # (I)
    y = torch.mv(weight, row) if bias is None else torch.addmv(bias, weight, row)
    return y.view(*x.shape[:-1], weight.shape[0])  # (..., O)


def from_the_left(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply as (W xᵀ)ᵀ, the same numbers with the weight on the left.

    Libraries share the left matrix out among the cores and arrange the right one anew for
    themselves: of a few tokens and a large weight, let it be the tokens.
    """
    columns = x.reshape(-1, weight.shape[1]).t()  # (I, N), N tokens
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)  # (O, N)
    return y.t().reshape(*x.shape[:-1], weight.shape[0]).contiguous()  # (..., O)


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
def leaves_cores_idle() -> bool:
    """Tell whether `F.linear` multiplies a float32 row on one core where slices use more.

    No library tells, so both are timed, once. (From MKL the numbers are the same either way.)
    """
    x = torch.ones(1, 1024, dtype=torch.float32, device="cpu")
    weight = torch.ones(4096, 1024, dtype=torch.float32, device="cpu")  # 16 MB, so it is fetched

    def shortest(way: Callable[[Tensor, Tensor], Tensor]) -> float:
        moments = [time.perf_counter()]
        for _ in range(6):
            way(x, weight)
            moments.append(time.perf_counter())
        return min(after - before for before, after in itertools.pairwise(moments))

    return shortest(by_slices) < 0.8 * shortest(F.linear)


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
