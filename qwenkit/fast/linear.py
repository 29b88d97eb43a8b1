"""One product with a weight, by the fastest way for its tokens, dtype and device.

`F.linear` is the reference: every way here gives what it gives (to rounding), and it serves
wherever nothing is faster. Every way reads the weight it is given, at the moment of the call.

- One token (decoding). Every weight is read once for one multiplication, so memory sets the pace:
  what counts is that there are few bytes to read, and that reading never pauses.
- A few tokens (several texts at once). The weight should still be read only once, and what counts
  is that nothing large is rearranged in memory before it is multiplied.
- Many tokens (a prompt, training). Each weight that was read serves every token: what counts is
  arithmetic, and in which dtype the processor can do it.

`python tests/bench/products.py` measures every way on your machine.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qwenkit.config import GROUP
from qwenkit.device import has_bfloat16_products
from qwenkit.fast._machine import (
    Unchanged,
    is_ordinary,
    kernels_problem,
    memory,
    watched,
)
from qwenkit.fast.team import together

KERNEL_UP_TO = 8  # tokens; more of them cost more arithmetic than reading
LARGE = 1 << 19  # values; a smaller weight is read before a choice has paid off
CHUNK = 1 << 20  # values upcast at a time: 4 MB in float32, which stay in the processor's cache
UPCAST_FROM = 4  # tokens, from which on upcasting a bfloat16 weight costs less than it saves
SLICE = 16  # rows of the weight in a slice: the products are so small that all stays in the cache
SLICES = range(4, 13)  # tokens for which many small float32 products are faster than one large
LEFT = {  # tokens for which W xᵀ is faster than x Wᵀ; beyond, transposing back costs what it saved
    torch.float32: range(13, 49),
    torch.bfloat16: range(2, 65),  # where the processor multiplies bfloat16 itself
}
LEFT_UPCAST_UP_TO = 1024  # tokens, up to which upcast chunks are multiplied from the left
_taught = Unchanged((nn.Linear, "forward"), (F, "linear"))


VECTORS = {torch.float32: np.float32, torch.bfloat16: np.uint16}  # as the kernels see them


class _Buffers(threading.local):
    """What weights are upcast into; one for each thread, as two models may compute at once."""

    def __init__(self) -> None:
        self.held: dict[tuple[torch.dtype, torch.device], Tensor] = {}


_buffers = _Buffers()


class FastLinear(nn.Linear):
    """y = x Wᵀ + b, as `nn.Linear`: the same parameters, the fastest product.

    `accelerate` makes an `nn.Linear` one by changing its class, and nothing else of it.
    """

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply each token's vector by the weight."""
        if not _taught:  # replaced by somebody
            return super().forward(x)
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Return x Wᵀ + b by the fastest way; arguments as of `F.linear`."""
    if bias is not None and weight.device.type in ("mps", "meta"):  # meta: MPS is rehearsed there
        # On an M1 with macOS 26 a product that adds the bias itself is wrong for three dimensions
        # (pytorch/pytorch #192934); one without it is right.
        y = F.linear(x, weight)
        return y + bias.to(y.dtype)  # under autocast the bias has more bits than the product
    if watched() or not is_plain(x, weight, bias) or not alike(x, weight, bias):
        return F.linear(x, weight, bias)
    tokens = x.numel() // max(x.shape[-1], 1)
    if kernel_serves(tokens, weight):
        return by_kernel(x, weight, bias)
    large = weight.numel() >= LARGE
    if weight.dtype == torch.bfloat16 and tokens == 1 and large:
        return by_vector(x, weight, bias)
    if weight.dtype == torch.bfloat16 and not has_bfloat16_products():
        if tokens < UPCAST_FROM:
            return F.linear(x, weight, bias)
        return upcast_in_chunks(x, weight, bias)
    if weight.dtype == torch.float32 and large and tokens in SLICES:
        return by_slices(x, weight, bias)
    if tokens in LEFT.get(weight.dtype, ()) and large:
        return from_the_left(x, weight, bias)
    return F.linear(x, weight, bias)


def alike(x: Tensor, *others: Tensor | None) -> bool:
    """Tell whether all are of the dtype and on the device of x; the kernels would not ask."""
    return all(one is None or (one.dtype, one.device) == (x.dtype, x.device) for one in others)


def alike_but_scale(x: Tensor, scale: Tensor, bias: Tensor | None) -> bool:
    """Tell whether all are alike; only the scale of a quantized weight may be bfloat16 for float32.

    So it is in the head, which is given float32 for logits of as many digits.
    """
    fewer = x.dtype == torch.float32 and scale.dtype == torch.bfloat16
    return alike(x, bias) and (alike(x, scale) or (fewer and x.device == scale.device))


def is_plain(x: Tensor, weight: Tensor, row: Tensor | None = None) -> bool:
    """Tell whether these are ordinary tensors on the CPU that fit, and nobody differentiates.

    Args:
        x: the tokens.
        weight: the matrix.
        row: a value for each of its rows, a bias or a scale.
    """
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    own = is_ordinary(weight) and weight.is_contiguous() and is_ordinary(x)
    fit = own and weight.dim() == 2 and x.shape[-1] == weight.shape[-1]  # if not, F.linear says so
    if fit and row is not None:
        trained = trained or (torch.is_grad_enabled() and row.requires_grad)
        fit = is_ordinary(row) and row.shape == weight.shape[:1] and row.is_contiguous()
    return fit and not trained


def kernel_serves(tokens: int, weight: Tensor) -> bool:
    """Tell whether the compiled kernel is the fastest way: for few tokens and many bytes.

    A float32 weight that stays in the cache is multiplied as fast by torch. Nor must a small
    model's first token wait until numba is imported: its head is all that would need it.
    """
    if not 0 < tokens <= KERNEL_UP_TO:
        return False
    if weight.dtype == torch.float32:
        most = 3 if weight.numel() > LARGE else 0
    elif weight.dtype == torch.bfloat16:
        most = 2 if has_bfloat16_products() else KERNEL_UP_TO
    else:  # int4 is packed into uint8
        most = KERNEL_UP_TO if weight.dtype in (torch.int8, torch.uint8) else 0
    return tokens <= most and kernels_problem() is None


def by_kernel(
    x: Float[Tensor, "*B I"],
    weight: Tensor,
    bias: Float[Tensor, " O"] | None = None,
    scale: Tensor | None = None,
    zero: UInt8[Tensor, "O G"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Multiply in compiled code, whatever the dtypes of x and weight are; return x's dtype.

    Args:
        x: the tokens.
        weight: (O, I); int4: (O, I/2) uint8.
        bias: of each row.
        scale: of each row, (O), or of each group of a row, (O, G); int8 or int4 alone.
        zero: the zero point of each group of int4.
    """
    from qwenkit.fast import kernels

    (out_features, width), groups = weight.shape, 1
    in_features = width * (1 if zero is None else 2)
    if scale is not None:
        groups = scale.numel() // max(out_features, 1)
    per_group = [one.numel() for one in (scale, zero) if one is not None]
    if (
        x.shape[-1] != in_features
        or (scale is None) != weight.is_floating_point()
        or groups == 0
        or in_features % groups
        or any(count != out_features * groups for count in per_group)
        or (bias is not None and bias.numel() != out_features)
    ):
        raise ValueError(  # compiled code would read past the end of a row
            f"x has shape {tuple(x.shape)} and the weight {tuple(weight.shape)}, which do not fit "
            "each other, or the scales, zero points or bias of its rows"
        )
    scale, bias, kind = _in_one_dtype(scale, bias)
    given = memory(x.float().reshape(-1, in_features).contiguous())  # (N, I), N tokens
    part = np.recarray(1, kernels.PART)
    places = (0 if one is None else one.data_ptr() for one in (weight, scale, zero, bias))
    part[0] = (*places, out_features, in_features, groups)
    y = x.new_empty(
        (*x.shape[:-1], out_features), dtype=x.dtype if x.dtype in VECTORS else torch.float32
    )
    room = kernels.room_for(len(given))
    job = kernels.Product(
        kernels.kinds_of(memory(weight[:0]).dtype, VECTORS[kind], VECTORS.get(x.dtype)),
        part, given, np.empty((room, in_features + in_features // GROUP), np.float32),
        memory(y).reshape(len(given), out_features),
    )  # fmt: skip
    together(kernels.lead_product, job, np.empty((1, kernels.MOST), np.int64))
    return y.to(x.dtype)  # (..., O)


def _in_one_dtype(
    scale: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, Tensor | None, torch.dtype]:
    """Return both in a dtype that the kernels read, and which; float32 where they differ."""
    dtypes = {one.dtype for one in (scale, bias) if one is not None} or {torch.float32}
    if len(dtypes) == 1 and dtypes <= VECTORS.keys():
        return scale, bias, dtypes.pop()
    both = [None if one is None else one.float() for one in (scale, bias)]
    return both[0], both[1], torch.float32


def by_slices(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply as a batch of small products, one with each slice of the weight's rows.

    The slices are views, nothing is copied. Libraries rearrange a large weight for four tokens, and
    some multiply one token on one core; a batch goes through all cores, and products as small as
    these are multiplied as they lie in memory.
    """
    out_features, in_features = weight.shape
    height = max(n for n in range(1, SLICE + 1) if out_features % n == 0)
    slices = weight.view(-1, height, in_features)  # (O/height, height, I)
    y = x.reshape(1, -1, in_features) @ slices.transpose(1, 2)  # (O/height, N, height), N tokens
    y = y.transpose(0, 1).reshape(*x.shape[:-1], out_features)  # (..., O)
    return y if bias is None else y + bias


def by_vector(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """Multiply one token as a vector: the matrix product first rearranges the weight for itself."""
    token = x.reshape(-1)  # (I)
    y = torch.mv(weight, token) if bias is None else torch.addmv(bias, weight, token)
    return y.view(*x.shape[:-1], weight.shape[0])  # (..., O)


def from_the_left(
    x: Float[Tensor, "*B I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"] | None = None,
) -> Float[Tensor, "*B O"]:
    """Multiply as (W xᵀ)ᵀ, the same numbers with the weight on the left.

    Libraries share the left matrix among the cores and rearrange the right one for themselves: of a
    few tokens and a large weight, let that be the tokens. The output is copied to its usual order.
    """
    columns = x.reshape(-1, weight.shape[1]).t()  # (I, N), N tokens
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)  # (O, N)
    y = y.t().view(*x.shape[:-1], weight.shape[0])  # (..., O)
    return y.contiguous()


def upcast_in_chunks(
    x: Float[Tensor, "*B I"],
    weight: Tensor,
    bias: Float[Tensor, " O"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*B O"]:
    """Multiply in another dtype, the weight upcast chunk by chunk into one small buffer.

    Without an instruction for it, a product of many bfloat16 tokens costs several times a float32
    one. Upcasting the weight costs a pass over it, which many tokens share.

    Args:
        x: the tokens.
        weight: (O, I) in any dtype.
        bias: added in x's dtype.
        dtype: to multiply in.
    """

    def upcast(chunk: Tensor, rows: slice) -> None:
        chunk.copy_(weight[rows])

    return in_chunks(x, weight.shape, upcast, bias, dtype)


def in_chunks(
    x: Float[Tensor, "*B I"],
    shape: Sequence[int],
    fill: Callable[[Tensor, slice], None],
    bias: Float[Tensor, " O"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "*B O"]:
    """Multiply by a weight that is made chunk by chunk in one small buffer.

    Args:
        x: the tokens.
        shape: (O, I) of the weight.
        fill: writes the rows of the weight that a slice names into a chunk of that many rows.
        bias: added in x's dtype.
        dtype: to multiply in.
    """
    out_features, in_features = shape
    tokens = x.reshape(-1, in_features).to(dtype)  # (N, I), N tokens
    step = max(CHUNK // in_features, 1)
    buffer = _buffer(step * in_features, dtype, x.device)
    # In its final order from the start: of all logits, a second copy would be the most held.
    y = x.new_empty(len(tokens), out_features)  # (N, O)
    for start in range(0, out_features, step):
        height = min(step, out_features - start)
        chunk = buffer[: height * in_features].view(height, in_features)
        fill(chunk, slice(start, start + height))
        if len(tokens) <= LEFT_UPCAST_UP_TO:
            y[:, start : start + step] = (chunk @ tokens.t()).to(x.dtype).t()
        else:
            y[:, start : start + step] = tokens @ chunk.t()
    y = y.view(*x.shape[:-1], out_features)  # (..., O)
    return y if bias is None else y + bias


def _buffer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a buffer that the next call will overwrite."""
    held = _buffers.held
    if (dtype, device) not in held or held[dtype, device].numel() < size:
        with torch.inference_mode(False):  # else it could be written in inference mode alone
            held[dtype, device] = torch.empty(size, dtype=dtype, device=device)
    return held[dtype, device][:size]
