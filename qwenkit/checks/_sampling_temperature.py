"""Exercise 11.1, softmax with a temperature: the right answer, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from qwenkit.checks._judge import Mistake


def right_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return the softmax of the logits divided by the temperature."""
    return (logits / temperature).softmax(dim=-1)


def _by_hand(logits: Tensor, temperature: float) -> Tensor:
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def _sum_without_keepdim(scaled: Tensor) -> Tensor:
    return scaled.exp() / scaled.exp().sum(dim=-1)


def _one_sum(logits: Tensor, temperature: float) -> Tensor:
    powers = ((logits - logits.max()) / temperature).exp()
    return powers / powers.sum()


_TOO_LARGE = (
    "right for small logits. e to the power of a thousand is infinite, and of minus five thousand "
    "it is 0 everywhere. Adding a constant to all logits changes nothing: which one helps here?"
)
_NO_SUM = "these are powers of e, and they do not sum to 1. By what must each row be divided?"
_KEEPDIM = (
    "right for a single row. In a batch, a sum or a maximum without keepdim is (B), and PyTorch "
    "takes its values for columns: keep the dimension."
)
_SCALED: tuple[tuple[str, str, Callable[[Tensor, float], Tensor]], ...] = (
    ("multiplied", "you multiply by the temperature, so a low one makes the choice more random. "
        "What must happen to the differences between logits when it is 0.5?",
        lambda logits, temperature: logits * temperature),
    ("temperature forgotten", "these are the probabilities at temperature 1, whatever the argument "
        "is. If you divide probabilities and make them sum to 1 again, the temperature cancels.",
        lambda logits, temperature: logits),
    ("root of the temperature", "you divide by the square root of the temperature. The square root "
        "is for attention scores; here, divide by the temperature itself.",
        lambda logits, temperature: logits / math.sqrt(temperature)),
    ("wrong sign", "the least likely token becomes the most likely: a sign is wrong.",
        lambda logits, temperature: -logits / temperature),
)  # fmt: skip
_WAYS: tuple[Callable[..., Callable[[Tensor, float], Tensor]], ...] = (
    lambda scaled: lambda logits, temperature: scaled(logits, temperature).softmax(dim=-1),
    lambda scaled: lambda logits, temperature: _by_hand(scaled(logits, temperature), 1.0),
)
TEMPERATURE_MISTAKES = (
    *(Mistake(name, hint, way(scaled)) for name, hint, scaled in _SCALED for way in _WAYS),
    Mistake("temperature after softmax", "you divide probabilities, and then they no longer sum to "
        "1. Which of the two steps comes first?",
        lambda logits, temperature: logits.softmax(dim=-1) / temperature),
    Mistake("softmax of a softmax", "you apply softmax twice. Probabilities are between 0 and 1, "
        "so as logits they hardly differ, and all tokens become about equally likely.",
        lambda logits, temperature: (logits.softmax(dim=-1) / temperature).softmax(dim=-1)),
    Mistake("too large to exponentiate", _TOO_LARGE, _by_hand),
    Mistake("too large to exponentiate", "right for most logits. You subtract the largest logit "
        "from logits that are already divided: the two do not fit, and the rest may still be too "
        "large.",
        lambda logits, temperature:
            _by_hand(logits / temperature - logits.amax(-1, keepdim=True), 1.0)),
    Mistake("too large to exponentiate", "right for most logits. You subtract the largest logit of "
        "the whole tensor, from logits that are already divided. Divide first, then subtract the "
        "largest of each row.",
        lambda logits, temperature: _by_hand(logits / temperature - logits.max(), 1.0)),
    Mistake("one shift for all rows", "you subtract the largest logit of the whole tensor. In a "
        "row far below it, all powers become 0, and 0 / 0 is not a number. Each row has its own "
        "largest logit.",
        lambda logits, temperature: _by_hand(logits - logits.max(), temperature)),
    Mistake("one sum for all rows", "all your rows together sum to 1. Each row is a separate "
        "choice: sum along the last dimension, and keep it.",
        _one_sum),
    Mistake("wrong dimension", "your columns sum to 1. The tokens to choose from are along the "
        "last dimension.",
        lambda logits, temperature: (logits / temperature).softmax(dim=0)),
    Mistake("log-probabilities", "these are the logarithms of the probabilities. Which of the two "
        "functions did you call?",
        lambda logits, temperature: (logits / temperature).log_softmax(dim=-1)),
    Mistake("no softmax", "the division is right, but these are still logits. What turns them into "
        "probabilities?",
        lambda logits, temperature: logits / temperature),
    Mistake("power not normalized", "a power of the probabilities is a good way, but its values "
        "do not sum to 1: divide by their sum.",
        lambda logits, temperature: logits.softmax(dim=-1) ** (1 / temperature)),
    Mistake("not divided by the sum", _NO_SUM, lambda logits, temperature:
        (logits / temperature - (logits / temperature).amax(-1, keepdim=True)).exp()),
    Mistake("not divided by the sum", _NO_SUM, lambda logits, temperature:
        (logits / temperature).exp()),
    Mistake("divided by the mean", "you divide by the mean of the powers. Divide by their sum, and "
        "each row sums to 1.",
        lambda logits, temperature:
            (logits / temperature).softmax(dim=-1) * logits.shape[-1]),
    Mistake("keepdim forgotten", _KEEPDIM, lambda logits, temperature:
        _sum_without_keepdim(logits / temperature - (logits / temperature).amax(-1, True))),
    Mistake("keepdim forgotten", _KEEPDIM, lambda logits, temperature:
        _sum_without_keepdim(logits / temperature)),
    Mistake("keepdim forgotten", _KEEPDIM, lambda logits, temperature:
        _by_hand(logits / temperature - (logits / temperature).amax(-1), 1.0)),
    Mistake("keepdim forgotten", _KEEPDIM, lambda logits, temperature:
        _sum_without_keepdim(logits / temperature - (logits / temperature).amax(-1))),
)  # fmt: skip
