"""From logits to the probabilities that the next token is sampled from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit._deprecated import renamed
from qwenkit.errors import InputError

LARGEST = 1e18  # torch takes no larger integers


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token.

    Attributes:
        temperature: divides the logits; 0 always takes the most likely token (greedy).
        top_k: only the k most likely tokens; 0: all.
        top_p: only the most likely tokens that together reach this probability; 1: all
            (Holtzman et al. 2020, nucleus sampling).
        repetition_penalty: makes tokens that occurred less likely; 1: off (Keskar et al. 2019).
        min_p: only tokens with at least this fraction of the most likely token's probability; 0:
            all (Nguyen et al. 2024, min-p sampling).

    Raises:
        InputError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty", "min_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name} is {value!r}; it must be a number")
        rules = {
            "temperature": (0 <= self.temperature < LARGEST, "0 (greedy) or more"),
            "top_k": (
                type(self.top_k) is int and self.top_k >= 0,
                "an integer, 0 (off) or more",
            ),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "repetition_penalty": (0 < self.repetition_penalty < LARGEST, "above 0; 1 is off"),
            "min_p": (0 <= self.min_p <= 1, "from 0 (off) to 1"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be {rule}")

    @property
    def is_argmax(self) -> bool:
        """Whether the next token is that of the largest logit: greedy, and without a penalty."""
        return self.temperature == 0 and self.repetition_penalty == 1

    def transforms(
        self, logits: Float[Tensor, " V"], seen: Int[Tensor, " N"] | Sequence[int]
    ) -> dict[str, Float[Tensor, " V"]]:
        """Return the logits after each transform that is on, by its name, in the order applied.

        The order is that of transformers: penalty, temperature, top-k, top-p, min-p. At temperature
        0 nothing is sampled: the penalty alone is applied, and the most likely token taken.

        Args:
            logits: of one position, float32; -inf for what may not be chosen.
            seen: ids of the text so far, prompt included.
        """
        samples = self.temperature != 0
        ordered: list[tuple[str, bool, Callable[[Tensor], Tensor]]] = [
            ("repetition_penalty", self.repetition_penalty != 1,
             lambda x: penalize(x, torch.as_tensor(seen), self.repetition_penalty)),
            ("temperature", samples and self.temperature != 1,
             lambda x: divide_by_temperature(x, self.temperature)),
            ("top_k", samples and self.top_k != 0, lambda x: keep_top_k(x, self.top_k)),
            ("top_p", samples and self.top_p != 1, lambda x: keep_top_p(x, self.top_p)),
            ("min_p", samples and self.min_p != 0, lambda x: keep_min_p(x, self.min_p)),
        ]  # fmt: skip
        after = {}
        for name, is_on, transform in ordered:
            if is_on:
                logits = after[name] = transform(logits)
        return after

    def probabilities(
        self, logits: Float[Tensor, " V"], seen: Int[Tensor, " N"] | Sequence[int]
    ) -> Float[Tensor, " V"]:
        """Return the softmax of the last of `transforms`, or of the logits where none is on.

        Raises:
            InputError: the penalty makes a logit overflow float32.
        """
        after = self.transforms(logits, seen)
        probs = next(reversed(after.values()), logits).softmax(dim=-1)
        if bool(probs[0].isnan()):  # one NaN makes all of them NaN
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty!r}; with these logits it must be "
                "closer to 1 (say, 0.5 to 2), or float32 overflows"
            )
        return probs

    def choose(self, probs: Float[Tensor, " V"], generator: torch.Generator) -> int:
        """Take the most likely token if greedy, else sample one."""
        if self.temperature == 0:
            return int(probs.numpy().argmax())
        return int(torch.multinomial(probs, 1, generator=generator))


def penalize(
    logits: Float[Tensor, " V"], seen: Int[Tensor, " N"], penalty: float
) -> Float[Tensor, " V"]:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones, once each."""
    if penalty == 1 or seen.numel() == 0:
        return logits
    seen = torch.unique(seen)
    old = logits[seen]
    return logits.index_copy(0, seen, torch.where(old > 0, old / penalty, old * penalty))


def divide_by_temperature(logits: Float[Tensor, " V"], temperature: float) -> Float[Tensor, " V"]:
    """Return logits / temperature; where that would overflow, with the largest logit shifted to 0.

    >>> divide_by_temperature(torch.tensor([2.0, 4.0]), 0.5)
    tensor([4., 8.])
    """
    temperature = max(temperature, 1e-37)  # float32 has hardly a smaller number to divide by
    largest = logits.max()
    if (largest / temperature).isinf():  # a shift changes no probability; inf - inf would be NaN
        logits = logits - largest
    return logits / temperature


def keep_top_k(logits: Float[Tensor, " V"], k: int) -> Float[Tensor, " V"]:
    """Set all but the k largest logits to -inf; 0 keeps all.

    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensor([-inf, 3., 2.])
    """
    if k == 0 or k >= logits.numel():
        return logits
    smallest_kept = logits.topk(k).values[-1]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def keep_top_p(logits: Float[Tensor, " V"], p: float) -> Float[Tensor, " V"]:
    """Set to -inf all but the most likely tokens that together reach probability p; 1 keeps all."""
    if p == 1:
        return logits
    probs = logits.softmax(dim=-1)
    # Those below (1 - p) / V together have less than 1 - p, so the others reach p without them. To
    # sort a few thousand of 150,000 takes a tenth of the time.
    likely = (probs >= (1 - p) / len(probs)).nonzero()[:, 0]
    likely = likely[logits[likely].argsort(descending=True)]
    before = probs[likely].cumsum(dim=-1) - probs[likely]  # what the more likely ones reach
    reached = before >= p
    reached[0] = False  # rounding must not drop the most likely
    kept = likely[~reached]
    return torch.full_like(logits, float("-inf")).index_copy_(0, kept, logits[kept])


def keep_min_p(logits: Float[Tensor, " V"], p: float) -> Float[Tensor, " V"]:
    """Set to -inf what is less than p times as likely as the most likely token; 0 keeps all."""
    if p == 0:
        return logits
    probs = logits.softmax(dim=-1)
    return logits.masked_fill(probs < p * probs.max(), float("-inf"))


__getattr__ = renamed(__name__, penalise="penalize")
