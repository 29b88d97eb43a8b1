"""The checks of notebook 07, MLP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._mlp_gradient import GRADIENT_MISTAKES, gradients
from qwenkit.checks._mlp_product import PRODUCT_MISTAKES, applied, product_weights
from qwenkit.checks._samples import in_bfloat16, normal

EXERCISES: dict[str, str] = {
    "07.1": "SiLU, the activation of the gate",
    "07.2": "the MLP, from x to what it adds",
    "07.3": "two units that multiply",
    "07.4": "the gradient by hand",
}
_Formula = Callable[[Tensor, Tensor], Tensor]  # of gate and up, to the activations of the units


def silu(learner: Callable[..., Any]) -> Verdict:
    """Check `silu(x)`: any shape, returned in the same shape: exercise 07.1."""
    cases = [
        Case("numbers from -3 to 3", (torch.linspace(-3, 3, 7),)),
        Case("two texts of three tokens", (normal(2, 3, 5, seed=1),)),
        Case("large numbers", (torch.tensor([200.0, -200.0, 0.0]),)),
        in_bfloat16(normal(3, 4, seed=2)),
        Case("a transposed tensor", (normal(4, 3, seed=3).T,)),
        Case("a single number", (torch.tensor(-1.0),)),
    ]
    praise = "close to x on the right, close to 0 on the left, and no number breaks it."
    forbidden = ("silu", "SiLU")
    return judge("07.1", learner, F.silu, cases, _SILU_MISTAKES, praise, LOOSE, forbidden)


def mlp(learner: Callable[..., Any]) -> Verdict:
    """Check `mlp(x, gate, up, down)`: (B, T, C), (F, C), (F, C), (C, F) -> (B, T, C): 07.2."""
    weights = normal(6, 4, seed=10), normal(6, 4, seed=11), normal(4, 6, seed=12)
    square = [normal(4, 4, seed=seed) for seed in (13, 14, 15)]
    cases = [
        Case("one text of three tokens", (normal(1, 3, 4, seed=18), *weights)),
        Case("a single token", (normal(1, 1, 4, seed=19), *weights)),
        Case("two texts, as many units as channels", (normal(2, 3, 4, seed=20), *square)),
        Case("not contiguous", (normal(1, 4, 3, seed=16).transpose(1, 2), *weights)),
        Case("large numbers", (100 * normal(1, 2, 4, seed=21), *weights)),
        in_bfloat16(normal(1, 2, 4, seed=17), *weights),
    ]
    praise = "three matrices, one activation, one product: this is the model's MLP."
    return judge("07.2", learner, _of(_swiglu), cases, _MLP_MISTAKES, praise, LOOSE)


def product(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(a, b, out, channels)`: the weights of an MLP that multiplies: 07.3."""
    cases = [
        Case("channels 0 and 1 to channel 2", (0, 1, 2, 3, normal(1, 4, 3, seed=30))),
        Case("channels 4 and 1 to channel 3", (4, 1, 3, 6, normal(2, 3, 6, seed=31))),
        Case("a square", (1, 1, 0, 4, normal(1, 4, 4, seed=32))),
        Case("into a channel that it reads", (2, 0, 2, 3, normal(1, 4, 3, seed=33))),
        Case("two channels in all", (0, 1, 1, 2, normal(1, 4, 2, seed=34))),
    ]
    known = [Mistake(name, hint, applied(wrong)) for name, hint, wrong in PRODUCT_MISTAKES]
    learner = applied(learner) if callable(learner) else learner
    praise = "two units multiply exactly, for any two numbers. One unit without a gate cannot."
    return judge("07.3", learner, applied(product_weights), cases, known, praise)


def backward(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(x, gate, up, down, d_out)`: the gradients of x, gate, up and down: 07.4."""

    def case(label: str, tokens: tuple[int, int], C: int, F: int, scale: float = 1.0) -> Case:
        shapes = ((*tokens, C), (F, C), (F, C), (C, F), (*tokens, C))
        given = [normal(*shape, seed=40 + seed) for seed, shape in enumerate(shapes)]
        return Case(label, (scale * given[0], *given[1:]))

    cases = [
        case("one text of three tokens", (1, 3), 4, 6),
        case("two texts", (2, 3), 5, 7),
        case("a single token", (1, 1), 4, 6),
        case("as many units as channels", (2, 2), 4, 4),
        case("large numbers", (1, 3), 4, 6, 30.0),
    ]
    praise = "all four gradients are autograd's: you can train this layer without it."
    forbidden = ("backward", "autograd", "requires_grad_", "requires_grad")
    right = gradients()
    return judge("07.4", learner, right, cases, GRADIENT_MISTAKES, praise, LOOSE, forbidden)


# --- 07.1 ---

_PARENTHESES = (
    "the parentheses are missing: a division comes before an addition. Write the whole sum below "
    "the fraction line in parentheses."
)
_ONE_NUMBER = (
    "`math.exp` takes one number, and so does a `sigmoid` that uses it. Use PyTorch's functions, "
    "which take a whole tensor."
)
_SILU_MISTAKES = (
    Mistake("missing parentheses", _PARENTHESES, lambda x: x / 1 + torch.exp(-x)),
    Mistake("missing parentheses", _PARENTHESES, lambda x: x * (1 / 1 + torch.exp(-x))),
    Mistake("one number only", _ONE_NUMBER, lambda x: x / (1 + math.exp(-x))),
    Mistake("float32 comes back", "the values are right, but they come back in float32. Return the "
        "dtype of the input.",
        lambda x: F.silu(x.float())),
    Mistake("minus", "you subtract below the fraction line. The sigmoid is 1 / (1 + exp(-x)).",
        lambda x: x / (1 - torch.exp(-x))),
    Mistake("softmax", "you use softmax, which compares the numbers of a row. The sigmoid looks at "
        "each number alone.",
        lambda x: x * x.softmax(dim=-1)),
    Mistake("softmax", "that is softmax. SiLU is x times the sigmoid of x.",
        lambda x: x.softmax(dim=-1)),
    Mistake("sigmoid", "that is only the sigmoid, between 0 and 1. SiLU is x times the sigmoid of "
        "x.",
        torch.sigmoid),
    Mistake("ReLU", "that is ReLU: a sharp corner at 0, and 0 everywhere on the left. SiLU dips "
        "below 0.",
        torch.relu),
    Mistake("GELU", "that is GELU, a very similar curve. Qwen uses x times the sigmoid of x.",
        F.gelu),
    Mistake("GELU", "that is x times the sigmoid of 1.702 x, an approximation of GELU. In SiLU, "
        "the sigmoid takes x itself.",
        lambda x: x * torch.sigmoid(1.702 * x)),
    Mistake("tanh", "you use tanh instead of the sigmoid. At x = 0 a gate is half open, not "
        "closed.",
        lambda x: x * torch.tanh(x)),
    Mistake("tanh", "that is tanh. It levels off at 1; SiLU keeps growing with x.", torch.tanh),
    Mistake("softplus", "that is softplus, log(1 + exp(x)), which is never below 0. SiLU dips "
        "below 0 on the left.",
        F.softplus),
    Mistake("wrong sign", "your gate is inverted: it opens for negative x. Look at the sign inside "
        "exp.",
        lambda x: x * torch.sigmoid(-x)),
    Mistake("wrong sign", "that is the sigmoid of -x. SiLU is x times the sigmoid of x.",
        lambda x: torch.sigmoid(-x)),
    Mistake("overflow", "right for small numbers; for x = 200, exp(x) is infinite, and infinity / "
        "infinity is not a number. Which form has only exp(-x)?",
        lambda x: x * x.exp() / (1 + x.exp())),
    Mistake("twice", "you apply the sigmoid to SiLU itself. One sigmoid, of x, is enough.",
        lambda x: x * torch.sigmoid(F.silu(x))),
)  # fmt: skip

# --- 07.2 ---


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _of(formula: _Formula) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Put a formula between the three matrices of an MLP."""
    return lambda x, gate, up, down: F.linear(formula(F.linear(x, gate), F.linear(x, up)), down)


_GELU = (
    "the activation of your gate is GELU, as in Gemma. That is close, but these weights were "
    "trained with SiLU."
)
_FORMULAS: tuple[tuple[str, str, _Formula], ...] = (
    ("swapped", "gate and up are swapped: SiLU is applied to only one of the two. Which one?",
        lambda gate, up: F.silu(up) * gate),
    ("no gate", "you do not use the gate. up is what passes, and the gate decides how much of it.",
        lambda gate, up: up),
    ("no gate", "you do not use the gate: SiLU is applied to up itself. What is the third matrix "
        "for?",
        lambda gate, up: F.silu(up)),
    ("no up", "you do not use up. The gate only says how open a unit is; up is what passes.",
        lambda gate, up: F.silu(gate)),
    ("sigmoid", "the activation of your gate is the sigmoid, as in the first gated linear units "
        "(GLU). Here it is SiLU.",
        lambda gate, up: torch.sigmoid(gate) * up),
    ("ReLU", "the activation of your gate is ReLU. Here it is SiLU, which has no corner.",
        lambda gate, up: F.relu(gate) * up),
    ("GELU", _GELU, lambda gate, up: F.gelu(gate) * up),
    ("GELU", _GELU, lambda gate, up: F.gelu(gate, approximate="tanh") * up),
    ("no activation", "you multiply gate and up without an activation. Where is SiLU?",
        lambda gate, up: gate * up),
    ("SiLU of the product", "you apply SiLU to the product. It belongs to the gate only, before "
        "the product.",
        lambda gate, up: F.silu(gate * up)),
    ("SiLU of both", "you apply SiLU to up as well. What passes the gate should pass unchanged.",
        lambda gate, up: F.silu(gate) * F.silu(up)),
    ("tanh", "the activation of your gate is tanh. Here it is SiLU.",
        lambda gate, up: torch.tanh(gate) * up),
    ("softmax", "the activation of your gate is softmax, so the units compete with one another. "
        "Here it is SiLU.",
        lambda gate, up: gate.softmax(dim=-1) * up),
    ("wrong sign", "your gate is inverted: it opens where it should close. Look at the sign inside "
        "exp.",
        lambda gate, up: gate * torch.sigmoid(-gate) * up),
    ("added", "you add gate and up. A gate multiplies: where it is 0, nothing may pass.",
        lambda gate, up: F.silu(gate) + up),
)  # fmt: skip
_NOT_TRANSPOSED = (
    "a weight is not transposed. If there are as many units as channels, this raises no error, but "
    "it is wrong. A weight has one row per *output*; in which direction does x @ weight read it?"
)
_MLP_MISTAKES = [
    *(Mistake(name, hint, _of(formula)) for name, hint, formula in _FORMULAS),
    Mistake("no down", "these are the activations of the units. The projection back to the "
        "channels of the stream is missing.",
        lambda x, gate, up, down: _swiglu(F.linear(x, gate), F.linear(x, up))),
    Mistake("stream added", "x itself is in the result. The layer adds to the stream; the MLP "
        "returns only what is to be added.",
        lambda x, gate, up, down: x + _of(_swiglu)(x, gate, up, down)),
    Mistake("not transposed", _NOT_TRANSPOSED,
        lambda x, gate, up, down: _swiglu(x @ gate, x @ up) @ down),
    Mistake("not transposed", _NOT_TRANSPOSED,
        lambda x, gate, up, down: _swiglu(x @ gate, x @ up) @ down.T),
    Mistake("not transposed", _NOT_TRANSPOSED,
        lambda x, gate, up, down: _swiglu(x @ gate.T, x @ up.T) @ down),
    Mistake("SiLU at the end", "you apply SiLU to the result of down. It belongs to the gate.",
        lambda x, gate, up, down: F.silu(_of(lambda g, u: g * u)(x, gate, up, down))),
    Mistake("SiLU of x", "you apply SiLU to x, before gate. It belongs to the result of gate.",
        lambda x, gate, up, down: F.linear((F.silu(x) @ gate.T) * (x @ up.T), down)),
    Mistake("down before the product", "you project gate and up back to C channels, then multiply. "
        "Multiply first; down comes last.",
        lambda x, gate, up, down:
            F.linear(F.silu(x @ gate.T), down) * F.linear(x @ up.T, down)),
    Mistake("float32 comes back", "the result is right, but it comes back in float32. Return the "
        "dtype of x.",
        lambda *given: _of(_swiglu)(*(one.float() for one in given))),
]  # fmt: skip
