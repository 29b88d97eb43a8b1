"""Multiply by a weight: one product, by the way that is quickest for its rows, dtype and device.

`F.linear` is the reference: every way here gives what it gives (to rounding), and it serves
wherever nothing is faster. `x` has one row for each token.

- One row (decoding a token). Every weight is read once for one multiplication, so the processor
  waits for memory: what counts is that there are few bytes to read, and that reading never pauses.
- A few rows (several texts at once). The weight should still be read but once, and what counts is
  that nothing large is arranged anew in memory before it is multiplied.
- Many rows (a prompt, training). Each weight that was read serves every row: what counts is
  arithmetic, and in which dtype the processor can do it.

`python tests/bench/products.py` measures every way on your machine.
"""

import threading
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from qwenkit.device import has_bfloat16_products
from qwenkit.model.reading import compiled_loop, reading

LOOP_UP_TO = 8  # rows; more of them cost more arithmetic than reading
LARGE = 1 << 19  # weights below this many values are read before a choice has paid
PIECE = 1 << 20  # values widened at a time: 4 MB in float32, which stay in the processor's cache
WIDEN_FROM = 4  # rows, from which on widening a bfloat16 weight costs less than it saves
SLICE = 16  # rows of the weight in a slice: the products are so small that all stays in the cache
SLICES = range(4, 13)  # rows of x for which many small float32 products are quicker than one large
LEFT = {  # rows for which W xᵀ is quicker than x Wᵀ; beyond, turning the result costs what it saved
    torch.float32: range(13, 49),
    torch.bfloat16: range(2, 65),  # where the processor multiplies bfloat16 itself
}
TURNED = range(192, 1025)  # rows for which W xᵀ is quicker than x Wᵀ, if the result may stay turned


class _Buffers(threading.local):
    """What weights are widened into; one for each thread, as two models may compute at once."""

    def __init__(self) -> None:
        self.held: dict[tuple[torch.dtype, torch.device], Tensor] = {}


_buffers = _Buffers()


class Linear(nn.Linear):
    """y = x Wᵀ + b, as `nn.Linear`: the same parameters, the quickest product.

    Args:
        inner: I.
        outer: O.
        bias: whether it has one.
        may_turn: whether the output may lie in memory column by column. What is done with it value
            by value, or by a product, is as quick then; what views it in another shape must copy.
    """

    is_plain = True  # the output is the product and the bias, nothing more
    may_turn = False

    def __init__(
        self, inner: int, outer: int, bias: bool = True, *, may_turn: bool = False
    ) -> None:
        super().__init__(inner, outer, bias)
        self.may_turn = may_turn

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each row of x by the weight."""
        return linear(x, self.weight, self.bias, self.may_turn)


def linear(
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None = None,
    may_turn: bool = False,
) -> Float[Tensor, "*B O"]:
    """Return x Wᵀ + b by the quickest way there is for it; arguments as of `F.linear`.

    `may_turn`: as of `Linear`.
    """
    values = loop_reads(x, weight)
    if values is not None:
        return by_loop(x, values, bias)
    if bias is not None and weight.device.type in ("mps", "meta"):  # meta: MPS is rehearsed there
        # On an M1 with macOS 26 a product that adds the bias itself is wrong for three dimensions
        # (pytorch/pytorch #192934); one without it is right.
        y = F.linear(x, weight)
        return y + bias.to(y.dtype)  # under autocast the bias is wider than the product
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    fit = x.shape[-1] == weight.shape[-1]  # if not, F.linear says so
    plain = fit and x.dtype == weight.dtype and weight.is_contiguous()
    if not weight.is_cpu or trained or not plain or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    rows = x.numel() // max(x.shape[-1], 1)
    large = weight.numel() >= LARGE
    turned = may_turn and large and rows in TURNED
    if weight.dtype == torch.float32 and turned:
        return from_the_left(x, weight, bias, turned)
    if weight.dtype == torch.float32 and large and rows in SLICES:
        return by_slices(x, weight, bias)
    if weight.dtype == torch.bfloat16 and rows == 1 and large:
        return by_vector(x, weight, bias)
    if weight.dtype == torch.bfloat16 and not has_bfloat16_products():
        if rows < WIDEN_FROM:
            return F.linear(x, weight, bias)
        return widened(x, weight, bias, turned=turned)
    if rows in LEFT.get(weight.dtype, ()) and large:
        return from_the_left(x, weight, bias)
    return F.linear(x, weight, bias)


def by_loop(
    x: Float[Tensor, "*B I"], weight: NDArray[Any], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply in a compiled loop, `few_rows`, that adds up in float32 whatever it reads.

    Args:
        x: the rows.
        weight: (O, I) what is read, as `reading` gives it.
        bias: added in float32.
    """
    y = float32_by_loop(x, weight)
    return (y if bias is None else y.add_(bias)).to(x.dtype)  # (..., O)


def float32_by_loop(x: Float[Tensor, "*B I"], weight: NDArray[Any]) -> Float[Tensor, "*B O"]:
    """Return x Wᵀ in float32, whatever x is; `weight` as `reading` gives it."""
    multiply = compiled_loop()
    assert multiply is not None, "`reading` gives arrays only where there is the loop"
    rows = x.detach().float().numpy()  # (..., I)
    y = multiply(rows.reshape(-1, rows.shape[-1]), weight, torch.get_num_threads())  # (N, O)
    return torch.from_numpy(y.reshape(*rows.shape[:-1], -1))  # (..., O)


def loop_reads(x: Float[Tensor, "*B I"], weight: Tensor) -> NDArray[Any] | None:
    """Return what the loop reads for a weight; None where it is not the quickest way."""
    inner = x.shape[-1]
    if not 0 < x.numel() <= LOOP_UP_TO * inner:
        return None
    values = reading(weight)  # None but in a large model
    if values is None or inner != weight.shape[1] or x.device != weight.device:
        return None
    if x.dtype != weight.dtype and weight.dtype != torch.int8:
        return None
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if trained or torch.is_autocast_enabled("cpu"):
        return None
    return values if x.numel() <= few(values.dtype.itemsize, x.dtype) * inner else None


def few(bytes_read: int, dtype: torch.dtype) -> int:
    """Return the number of rows up to which the loop is quicker than all else.

    Args:
        bytes_read: for one value of the weight.
        dtype: of the rows, in which the other ways multiply.
    """
    if bytes_read == 2 and (dtype == torch.float32 or not has_bfloat16_products()):
        return LOOP_UP_TO
    return 3 if bytes_read == 4 else 2


def by_slices(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply as a batch of small products, one with each slice of the weight's rows.

    The slices are views, nothing is copied. Libraries arrange a large weight anew for four rows,
    and some multiply one row on one core; a batch goes through all cores, and products as small as
    these are multiplied as they lie.
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
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None = None,
    turned: bool = False,
) -> Float[Tensor, "*B O"]:
    """Multiply as (W xᵀ)ᵀ, the same numbers with the weight on the left.

    Libraries share the left matrix out among the cores and arrange the right one anew for
    themselves: of a few tokens and a large weight, let it be the tokens. Unless the output may
    stay turned, it is copied into its usual order.
    """
    columns = x.reshape(-1, weight.shape[1]).t()  # (I, N), N tokens
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)  # (O, N)
    y = y.t().view(*x.shape[:-1], weight.shape[0])  # (..., O)
    return y if turned else y.contiguous()


def widened(
    x: Float[Tensor, "*B I"],
    weight: Tensor,
    bias: Float[Tensor, " O"] | None = None,
    dtype: torch.dtype = torch.float32,
    turned: bool = False,
) -> Float[Tensor, "*B O"]:
    """Multiply in another dtype, the weight widened piece by piece into one small buffer.

    Without an instruction for it, a product of many bfloat16 rows costs several times a float32
    one. Widening the weight costs a pass over it, which many rows share.

    Args:
        x: the rows.
        weight: (O, I) in any dtype, int8 too.
        bias: added in x's dtype.
        dtype: to multiply in.
        turned: whether the output is left to lie column by column.
    """
    outer, inner = weight.shape
    tokens = x.reshape(-1, inner).to(dtype)  # (N, I), N tokens
    step = max(PIECE // inner, 1)
    buffer = _buffer(step * inner, dtype, weight.device)
    # Where it shall stay: of all logits, a second copy in another order would be the most held.
    y = x.new_empty(outer, len(tokens)).t() if turned else x.new_empty(len(tokens), outer)  # (N, O)
    for start in range(0, outer, step):
        rows = weight[start : start + step]
        piece = buffer[: rows.numel()].view(rows.shape).copy_(rows)
        if len(tokens) < TURNED.stop:
            y[:, start : start + step] = (piece @ tokens.t()).to(x.dtype).t()
        else:
            y[:, start : start + step] = tokens @ piece.t()
    y = y.view(*x.shape[:-1], outer)  # (..., O)
    return y if bias is None else y + bias


def _buffer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a buffer that the next call will overwrite."""
    held = _buffers.held
    if (dtype, device) not in held or held[dtype, device].numel() < size:
        held[dtype, device] = torch.empty(size, dtype=dtype, device=device)
    return held[dtype, device][:size]
