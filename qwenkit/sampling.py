"""From logits to the probabilities that the next token is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest token (greedy).
        top_k: only the k likeliest tokens; 0: all.
        top_p: only the likeliest tokens that together reach this probability; 1: all
            (Holtzman et al. 2020, nucleus sampling).
        repetition_penalty: makes tokens that occurred less likely; 1: off (Keskar et al. 2019).

    Raises:
        InputError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name} is {value!r}; it must be a number")
        rules = {
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or more"),
            "top_k": (
                type(self.top_k) is int and self.top_k >= 0,
                "a whole number, 0 (off) or more",
            ),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0; 1 is off"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be {rule}")

    def probabilities(
        self, logits: Float[Tensor, " V"], seen: Int[Tensor, " N"]
    ) -> Float[Tensor, " V"]:
        """Apply penalty, temperature, top-k and top-p, in transformers' order.

        Args:
            logits: of one position, float32; -inf for what may not be chosen.
            seen: ids of the text so far, prompt included.
        """
        logits = penalise(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return logits.softmax(dim=-1)
        # Subtracting the largest first keeps a tiny temperature from overflowing to inf - inf.
        # float32 has no number below 1e-38 that it could divide by.
        logits = (logits - logits.max()) / max(self.temperature, 1e-37)
        return keep_top_p(keep_top_k(logits, self.top_k), self.top_p).softmax(dim=-1)

    def choose(self, probs: Float[Tensor, " V"], generator: torch.Generator) -> int:
        """Take the likeliest token if greedy, else draw one."""
        if self.temperature == 0:
            return int(probs.argmax())
        return int(torch.multinomial(probs, 1, generator=generator))


def penalise(
    logits: Float[Tensor, " V"], seen: Int[Tensor, " N"], penalty: float
) -> Float[Tensor, " V"]:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones, once each."""
    if penalty == 1 or seen.numel() == 0:
        return logits
    seen = torch.unique(seen)
    old = logits[seen]
    return logits.index_copy(0, seen, torch.where(old > 0, old / penalty, old * penalty))


def keep_top_k(logits: Float[Tensor, " V"], k: int) -> Float[Tensor, " V"]:
    """Set all but the k largest logits to -inf; 0 keeps all."""
    if k == 0 or k >= logits.numel():
        return logits
    smallest_kept = logits.topk(k).values[-1]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def keep_top_p(logits: Float[Tensor, " V"], p: float) -> Float[Tensor, " V"]:
    """Set to -inf what is not among the likeliest tokens that together reach probability p."""
    if p == 1:
        return logits
    ordered, order = logits.sort(descending=True)
    probs = ordered.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs  # what the likelier ones reach without this one
    dropped = before >= p
    dropped[0] = False  # rounding must not drop the likeliest
    return logits.masked_fill(dropped.scatter(0, order, dropped), float("-inf"))
