"""The mistakes of exercise 05.4, attention in blocks of keys, and a limit on its memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qwenkit.checks._judge import Mistake
from qwenkit.model import eager_attention, fused_attention

Blocks = Callable[[Tensor, Tensor, Tensor, int], Tensor]
_NEVER = float("-inf")


def in_blocks(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Return attention; a right answer computes it block by block."""
    return eager_attention(q, k, v)


def _in_one_kernel(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return fused_attention(q, k, v)  # which needs a mask for new tokens


# --- the limit ---


class TooManyScores(Exception):
    """A function made a tensor that has a value for every key."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stop a function that computes the scores of more keys than a block has."""

    def __init__(self, q: Tensor, keys: int, block: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        (self.queries, self.width), self.keys, self.block = q.shape[2:], keys, block
        self.all_scores = math.prod(q.shape[:3]) * keys if q.shape[2] > q.shape[3] else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and self.keys > self.block and self._too_many(found):
            raise TooManyScores("a tensor has a value for every key, not for a block of them")
        return found

    def _too_many(self, x: Tensor) -> bool:
        if not x.is_floating_point() and x.dtype != torch.bool:
            return False  # positions
        if self.all_scores is not None and x.dim() > 0 and x.shape[-1] <= self.block:
            return x.numel() >= self.all_scores  # all blocks together
        rows, keys = x.shape[-2:] if x.dim() > 1 else (0, 0)
        of_queries = rows in (1, self.queries) and keys != self.width  # not q itself
        return of_queries and keys >= self.keys


def within_a_block(function: Blocks) -> Blocks:
    """Return a function that raises TooManyScores where it makes scores of more than a block."""

    @wraps(function)
    def watched(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        with _Watch(q, k.shape[2], block):
            return function(q, k, v, block)

    return watched


# --- the mistakes ---


def _by_blocks(
    maximum: str = "running",
    start: float = _NEVER,
    rescaled: tuple[bool, bool] = (True, True),  # the sum, the output
    inverse: bool = False,
    divided: str = "at the end",
    mask: str = "right",
    scale: Callable[[int], float] = math.sqrt,
    rest: bool = True,
    kept: bool = True,
    wide: bool = False,
) -> Blocks:
    """Return attention in blocks that is wrong in one respect."""

    def attend(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        dtype = q.dtype
        q, k, v = q.float(), k.float(), v.float()
        tokens, keys = q.shape[2], k.shape[2]
        largest = torch.full_like(q[..., :1], start)  # (B, H, T, 1)
        total, z = torch.zeros_like(largest), torch.zeros_like(q)
        for first in range(0, keys if rest else keys // block * block, block):
            part = slice(first, first + block)
            scores = q @ k[:, :, part].transpose(-2, -1) / scale(q.shape[-1])
            place = torch.arange(keys)[part] - (first if mask == "block" else 0)
            at = torch.arange(tokens)[:, None] + (0 if mask == "no offset" else keys - tokens)
            seen = place <= at + (mask == "next")
            if mask != "none":
                scores = scores.masked_fill(~seen, _NEVER)
            own = scores.amax(dim=-1, keepdim=True)
            if maximum == "none":
                own = torch.zeros_like(own)
            elif maximum == "of all":
                own = torch.maximum(scores.max(), largest.max()).expand_as(own)
            elif maximum == "running":
                own = torch.maximum(largest, own)
            factor = (own - largest if inverse else largest - own).exp()
            factor = factor.nan_to_num() if maximum == "of all" else factor
            powers = (scores - own).exp()
            new = powers.sum(dim=-1, keepdim=True)
            total = (total * (factor if rescaled[0] else 1) if kept else 0) + new
            if divided == "each block alone":
                z = z + powers @ v[:, :, part] / new
                largest = own
                continue
            z = (z * (factor if rescaled[1] else 1) if kept else 0) + powers @ v[:, :, part]
            z = z / total if divided == "in each block" else z
            largest = own
        z = z / total if divided == "at the end" else z
        return z if wide else z.to(dtype)

    return attend


def _mean_of_blocks(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Attend to each block alone, and average: the softmax of a block does not know the others."""
    z = _by_blocks("of the block", divided="each block alone")(q, k, v, block)
    return z / math.ceil(k.shape[2] / block)


_ALONE = (
    "you take the softmax of each block alone, so every block gets a weight of 1, even one that "
    "lies wholly in the future. Keep the sum of the exponentials over all blocks, and divide once, "
    "at the end."
)
_OVERFLOW = (
    "right for small scores. For large ones, e to the power of a score is infinite, or 0 for a "
    "whole row. Subtract the largest score that the row has seen so far."
)
_RESCALE = (
    "what you added up before was computed with a smaller maximum. When a block raises the "
    "maximum, what happens to the old {}?"
)
_FUTURE_BLOCK = (
    "a block that lies wholly in the future has only scores of minus infinity, and minus infinity "
    "minus itself is not a number. Keep the *running* maximum: the larger of the old one and the "
    "block's."
)
BLOCK_MISTAKES = (
    *(Mistake("all scores at once", "you compute scores (or a mask) for all keys at once. The "
        "point is the memory: inside the loop, take one block of keys and of values, and make the "
        "mask from the positions in that block.",
        within_a_block(function)) for function in (in_blocks, _in_one_kernel)),
    Mistake("no mask", "the future is not masked. Which positions do the keys of a block have, and "
        "which the queries?",
        _by_blocks(mask="none")),
    Mistake("mask of the block", "you count the keys of each block from 0 again. A block that "
        "starts at `first` has the positions first, first + 1, ...",
        _by_blocks(mask="block")),
    Mistake("no offset", "right for a whole text. With earlier tokens, query row 0 is not at "
        "position 0. How many keys come before it?",
        _by_blocks(mask="no offset")),
    Mistake("sees the next token", "each token sees one token too many. May a query attend to the "
        "key at its own position? And to the next?",
        _by_blocks(mask="next")),
    Mistake("last block missing", "the last keys are missing where S is not a multiple of the "
        "block. A slice may reach over the end; let the loop begin one more block.",
        _by_blocks(rest=False)),
    Mistake("each block alone", _ALONE, _by_blocks("of the block", divided="each block alone")),
    Mistake("each block alone", _ALONE, _mean_of_blocks),
    Mistake("sum not rescaled", _RESCALE.format("sum"), _by_blocks(rescaled=(False, True))),
    Mistake("output not rescaled", _RESCALE.format("output"), _by_blocks(rescaled=(True, False))),
    Mistake("nothing rescaled", _RESCALE.format("sum and the old output"),
        _by_blocks(rescaled=(False, False))),
    Mistake("rescaled the wrong way", "you rescale with e to the power of new minus old maximum. "
        "The new one is larger: must the old sum grow or shrink?",
        _by_blocks(inverse=True)),
    Mistake("no maximum", _OVERFLOW, _by_blocks(maximum="none")),
    Mistake("one maximum for all rows", "you take one maximum over all rows, heads and texts. A "
        "row whose scores lie far below it has only zeros left. Take the maximum along the keys.",
        _by_blocks(maximum="of all")),
    Mistake("maximum starts at 0", "your running maximum starts at 0, and a row whose scores lie "
        "far below 0 has only zeros left. Which start is below every score?",
        _by_blocks(start=0.0)),
    Mistake("maximum of the block", _FUTURE_BLOCK, _by_blocks(maximum="of the block")),
    Mistake("divided in each block", "you divide the output by the sum in every block, so earlier "
        "blocks are divided again and again. Once is enough: after the loop.",
        _by_blocks(divided="in each block")),
    Mistake("not divided", "the weights do not sum to 1: divide the output by the sum of the "
        "exponentials, after the loop.",
        _by_blocks(divided="never")),
    *(Mistake("last block only", "only the last block is in your result. Does the loop add to what "
        "is there, or replace it?",
        _by_blocks(maximum, kept=False)) for maximum in ("running", "of the block")),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _by_blocks(scale=lambda size: 1)),
    Mistake("divided by D", "you divide the scores by D itself, not by its square root.",
        _by_blocks(scale=lambda size: size)),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Compute in "
        "float32 if you like, and return the dtype of the input.",
        _by_blocks(wide=True)),
)  # fmt: skip
