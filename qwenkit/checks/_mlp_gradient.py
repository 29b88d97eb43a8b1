"""Exercise 07.4, the gradients of an MLP: the right ones, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Mistake

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]
_Backward = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Any]


def silu_slope(g: Tensor) -> Tensor:
    """Return the derivative of SiLU."""
    s = torch.sigmoid(g)
    return s * (1 + g * (1 - s))


def gradients(
    slope: Callable[[Tensor], Tensor] = silu_slope,
    to_gate: Callable[..., Tensor] = lambda d_act, g, u, slope: d_act * u * slope(g),
    to_up: Callable[..., Tensor] = lambda d_act, g, u: d_act * F.silu(g),
    into_down: Callable[..., Tensor] = lambda g, u: F.silu(g) * u,
    to_x: Callable[..., Tensor] = lambda from_gate, from_up, d_out: from_gate + from_up,
) -> _Backward:
    """Return the backward pass of an MLP; each argument can put a wrong idea into one step."""

    def backward(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, d_out: Tensor) -> Gradients:
        g, u = F.linear(x, gate), F.linear(x, up)  # (B, T, F)
        d_act = d_out @ down  # (B, T, F)
        d_gate, d_up = to_gate(d_act, g, u, slope), to_up(d_act, g, u)
        return (
            to_x(d_gate @ gate, d_up @ up, d_out),
            _outer(d_gate, x),
            _outer(d_up, x),
            _outer(d_out, into_down(g, u)),
        )

    return backward


def _outer(d_result: Tensor, given: Tensor) -> Tensor:
    """Return the gradient of a weight: the sum over tokens of the outer products."""
    return d_result.flatten(0, 1).T @ given.flatten(0, 1)


def _then(change: Callable[..., Any]) -> _Backward:
    """Return the right gradients, changed at the end: `change(gradients, arguments)`."""
    return lambda *given: change(gradients()(*given), given)


def _divided(found: Gradients, given: tuple[Tensor, ...]) -> Gradients:
    x, *weights = found
    gate, up, down = (one / given[0][..., 0].numel() for one in weights)
    return x, gate, up, down


def _per_text(found: Gradients, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Leave the texts apart: (B, F, C)."""
    x, gate, up, down, d_out = given
    each = [
        gradients()(x[text : text + 1], gate, up, down, d_out[text : text + 1])[1:]
        for text in range(len(x))
    ]
    return found[0], *(torch.stack(one) for one in zip(*each, strict=True))


def _down_not_transposed(*given: Tensor) -> Gradients:
    x, gate, up, down, d_out = given
    g, u, d_act = F.linear(x, gate), F.linear(x, up), d_out @ down.T
    d_gate, d_up = d_act * u * silu_slope(g), d_act * F.silu(g)
    d_x = d_gate @ gate + d_up @ up
    return d_x, _outer(d_gate, x), _outer(d_up, x), _outer(d_out, F.silu(g) * u)


_SLOPE = "the derivative of SiLU is wrong. SiLU is x times sigmoid(x): the product rule gives "
_ONE_PATH = (
    "the gradient of x is incomplete. x is used twice in an MLP; where, and what happens to the "
    "two gradients?"
)
_PLAIN = _SLOPE + "two terms. Which are they?"
GRADIENT_MISTAKES = (
    Mistake("one path of x", _ONE_PATH,
        gradients(to_x=lambda from_gate, from_up, d_out: from_gate)),
    Mistake("one path of x", _ONE_PATH,
        gradients(to_x=lambda from_gate, from_up, d_out: from_up)),
    Mistake("stream added", "d_out itself is in the gradient of x. That belongs to the residual "
        "connection around the MLP, which is not part of it.",
        gradients(to_x=lambda from_gate, from_up, d_out: from_gate + from_up + d_out)),
    Mistake("paths multiplied", "you multiply the two gradients of x. The gradients of two uses "
        "are added.",
        gradients(to_x=lambda from_gate, from_up, d_out: from_gate * from_up)),
    Mistake("paths subtracted", "you subtract the two gradients of x. The gradients of two uses "
        "are added.",
        gradients(to_x=lambda from_gate, from_up, d_out: from_gate - from_up)),
    Mistake("no slope", "the gradient passes through SiLU as if it were not there. By what must it "
        "be multiplied there?",
        gradients(slope=torch.ones_like)),
    Mistake("half of the product rule", _PLAIN, gradients(slope=torch.sigmoid)),
    Mistake("half of the product rule", _PLAIN,
        gradients(slope=lambda g: g * torch.sigmoid(g) * (1 - torch.sigmoid(g)))),
    Mistake("slope of the sigmoid", "you use the derivative of the sigmoid, s (1 - s). "
        + _PLAIN[0].upper() + _PLAIN[1:],
        gradients(slope=lambda g: torch.sigmoid(g) * (1 - torch.sigmoid(g)))),
    Mistake("SiLU for its slope", "you multiply by SiLU where its derivative belongs.",
        gradients(slope=F.silu)),
    Mistake("sign in the slope", _SLOPE + "a sum, not a difference. Check the sign of its second "
        "term.",
        gradients(slope=lambda g: torch.sigmoid(g) * (1 - g * (1 - torch.sigmoid(g))))),
    Mistake("slope of ReLU", "your derivative is that of ReLU: 0 or 1. That of SiLU changes "
        "smoothly.",
        gradients(slope=lambda g: (g > 0).to(g.dtype))),
    Mistake("slope of the result", "you compute the derivative at SiLU(g). It belongs at g itself, "
        "what SiLU gets.",
        gradients(slope=lambda g: silu_slope(F.silu(g)))),
    Mistake("up missing", "the gradient of gate is incomplete. The activation is a product: by "
        "what was SiLU(gate) multiplied?",
        gradients(to_gate=lambda d_act, g, u, slope: d_act * slope(g))),
    Mistake("SiLU missing", "the gradient of up has the raw gate as its factor. By what was up "
        "multiplied?",
        gradients(to_up=lambda d_act, g, u: d_act * g)),
    Mistake("gate missing", "the gradient of up is incomplete. The activation is a product: by "
        "what was up multiplied?",
        gradients(to_up=lambda d_act, g, u: d_act)),
    Mistake("slope at up", "the gradient of up contains the derivative of SiLU. Does up pass "
        "through SiLU?",
        gradients(to_up=lambda d_act, g, u: d_act * silu_slope(g))),
    Mistake("gate and up swapped", "the gradients of gate and up are in each other's place.",
        _then(lambda found, given: (found[0], found[2], found[1], found[3]))),
    Mistake("down gets gate or up", "the gradient of down is wrong. What was multiplied by down: "
        "SiLU(gate), up, or their product?",
        gradients(into_down=lambda g, u: u)),
    Mistake("down gets gate or up", "the gradient of down is wrong. What was multiplied by down: "
        "SiLU(gate), up, or their product?",
        gradients(into_down=lambda g, u: F.silu(g))),
    Mistake("down without SiLU", "in the gradient of down, gate is used without SiLU.",
        gradients(into_down=lambda g, u: g * u)),
    Mistake("weights transposed", "the gradients of the weights are transposed. A gradient has the "
        "shape of its weight.",
        _then(lambda found, given: (found[0], *(one.T for one in found[1:])))),
    Mistake("only down transposed", "the gradient of down is transposed. A gradient has the shape "
        "of its weight: (C, F).",
        _then(lambda found, given: (*found[:3], found[3].T))),
    Mistake("mean over tokens", "you average the gradients of the weights over the tokens. d_out "
        "already contains such a factor: add them up.",
        _then(_divided)),
    Mistake("one per text", "you return a gradient of the weights for each text. All texts and "
        "tokens use the same weights: add them up.",
        lambda *given: _per_text(gradients()(*given), given)),
    Mistake("order", "the values are right, but their order is not: x, gate, up, down.",
        _then(lambda found, given: (*found[1:], found[0]))),
    Mistake("d_out ignored", "you do not use d_out, as if it were 1 everywhere.",
        lambda x, gate, up, down, d_out: gradients()(x, gate, up, down, torch.ones_like(d_out))),
    Mistake("down not transposed", "the gradient passes through down in the wrong direction. "
        "Forward goes from F to C, backward from C to F. Which product gives that shape?",
        _down_not_transposed),
)  # fmt: skip
