"""Exercise 10.4, positions and mask with a cache and padding: right answers and wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.model import causal_mask

Offsets = tuple[Tensor, Tensor]


def right_offsets(real: Tensor, new: int) -> Offsets:
    """Return the positions (B, T) of the new tokens, and their mask (B, T, S)."""
    return _positions(real, new), _mask(real, new)


def _positions(real: Tensor, new: int) -> Tensor:
    return (real.long().cumsum(dim=-1) - 1)[:, real.shape[1] - new :]  # (B, T)


def _mask(real: Tensor, new: int) -> Tensor:
    return _causal(real, new) & real[:, None, :]  # (B, T, S)


def _causal(real: Tensor, new: int) -> Tensor:
    return causal_mask(new, _past(real, new)).expand(len(real), -1, -1)  # (B, T, S)


def _lower(real: Tensor, new: int, diagonal: int) -> Tensor:
    return torch.ones(len(real), new, real.shape[1], dtype=torch.bool).tril(diagonal)


def _columns(real: Tensor) -> Tensor:
    return torch.arange(real.shape[1])  # (S)


def _counted(real: Tensor, start: int, new: int) -> Tensor:
    return torch.arange(start, start + new).expand(len(real), -1)  # (B, T)


def _past(real: Tensor, new: int) -> int:
    return real.shape[1] - new


def _with_mask(mask: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Offsets]:
    return lambda real, new: (_positions(real, new), mask(real, new))


def _with_positions(positions: Callable[[Tensor, int], Tensor]) -> Callable[..., Offsets]:
    return lambda real, new: (positions(real, new), _mask(real, new))


OFFSET_MISTAKES = (
    Mistake("padding ignored", "right without padding. You do not use `real` at all: padding gets "
        "positions, and is attended to.",
        lambda real, new: (_counted(real, _past(real, new), new), _causal(real, new))),
    Mistake("padding counted", "the mask is right. Your positions count the padding: a padded text "
        "would be further to the right than the same text alone. How many *real* tokens come "
        "before each?",
        _with_positions(lambda real, new: _counted(real, _past(real, new), new))),
    Mistake("positions from 0", "your new tokens start at position 0, where the first cached "
        "tokens are already.",
        _with_positions(lambda real, new: _counted(real, 0, new))),
    Mistake("counted from 1", "each position is too large by one: the first real token is at 0. On "
        "its own that would not matter, but the cached tokens were counted from 0.",
        _with_positions(lambda real, new: _positions(real, new) + 1)),
    Mistake("all positions", "you return the positions of all tokens. Only the new ones are "
        "rotated.",
        _with_positions(lambda real, new: real.long().cumsum(dim=-1) - 1)),
    Mistake("mask without offset", "the positions are right. Your triangle starts at the left: the "
        "first new token sees only the first cached one. At which position is query row 0?",
        _with_mask(lambda real, new: _lower(real, new, 0) & real[:, None])),
    Mistake("padding visible", "the positions are right. Your mask lets tokens attend to padding.",
        _with_mask(_causal)),
    Mistake("sees the future", "the positions are right. In your mask each new token sees all real "
        "tokens, including later ones.",
        _with_mask(lambda real, new: real[:, None].expand(-1, new, -1))),
    Mistake("not itself", "the positions are right. In your mask a token stops one position before "
        "itself.",
        _with_mask(lambda real, new: _lower(real, new, _past(real, new) - 1) & real[:, None])),
    Mistake("columns compared with positions", "the positions are right. Your mask compares "
        "columns with positions. Positions do not count the padding, columns do: compare columns "
        "with columns.",
        _with_mask(lambda real, new:
            (_columns(real) <= _positions(real, new)[..., None]) & real[:, None])),
    Mistake("columns compared with positions", "the positions are right. Your mask compares "
        "columns with positions, and does not use `real`. Positions do not count the padding, "
        "columns do.",
        _with_mask(lambda real, new: _columns(real) <= _positions(real, new)[..., None])),
    Mistake("only later tokens", "the positions are right. Your mask shows each new token itself "
        "and what comes after it. It should show itself and what comes before.",
        _with_mask(lambda real, new: ~_lower(real, new, _past(real, new) - 1) & real[:, None])),
    Mistake("padding instead of tokens", "the positions are right. Your mask keeps the padding and "
        "hides the tokens: `real` is True for tokens.",
        _with_mask(lambda real, new: _causal(real, new) & ~real[:, None])),
    Mistake("the first text's padding", "you use the first row of `real` for all texts. Each has "
        "its own padding.",
        lambda real, new: tuple(
            x.expand(len(real), *x.shape[1:]) for x in right_offsets(real[:1], new))),
    Mistake("the first text's padding", "the positions are right. Your mask uses the first row of "
        "`real` for all texts. Each has its own padding.",
        _with_mask(lambda real, new: _causal(real, new) & real[:1, None])),
    Mistake("positions of the first columns", "you return the positions of the first columns. The "
        "new tokens are in the last ones.",
        _with_positions(lambda real, new: (real.long().cumsum(dim=-1) - 1)[:, :new])),
    Mistake("scores instead of True", "the positions are right. Your mask holds 0 and minus "
        "infinity, to be added to scores. Return True and False.",
        _with_mask(lambda real, new:
            torch.zeros(len(real), new, real.shape[1]).masked_fill(~_mask(real, new), -math.inf))),
    Mistake("0 and 1", "the positions are right. Your mask holds integers: return True and False, "
        "so combine the conditions with &.",
        _with_mask(lambda real, new: _mask(real, new).long())),
    Mistake("0 and 1", "the positions are right. Your mask holds floats: return True and False, "
        "so combine the conditions with &.",
        _with_mask(lambda real, new: _mask(real, new).float())),
    Mistake("positions as floats", "the mask is right. Your positions are floats: they count "
        "tokens, so return integers.",
        _with_positions(lambda real, new: _positions(real, new).float())),
    Mistake("mask first", "return the positions first, then the mask.",
        lambda real, new: (_mask(real, new), _positions(real, new))),
    Mistake("a mask with heads", "the positions are right. Your mask has a dimension for heads; "
        "here it is (B, T, S).",
        _with_mask(lambda real, new: _mask(real, new)[:, None])),
    Mistake("inverted", "your mask is True where a token may *not* attend. True should mean that "
        "it may.",
        _with_mask(lambda real, new: ~_mask(real, new))),
)  # fmt: skip
