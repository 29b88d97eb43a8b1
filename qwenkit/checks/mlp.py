"""The checks of notebook 07, MLP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal

EXERCISES: dict[str, str] = {
    "07.1": "SiLU, the activation of the gate",
    "07.2": "the MLP, from x to what it adds",
    "07.3": "what one unit writes",
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


def unit_writes(learner: Callable[..., Any]) -> Verdict:
    """Check `unit_writes(act, down, unit)`: (B, T, F), (C, F), number -> (B, T, C): 07.3."""
    cases = [
        Case("three tokens, six units", (normal(1, 3, 6, seed=30), normal(4, 6, seed=31), 2)),
        Case("as many units as channels", (normal(2, 2, 4, seed=32), normal(4, 4, seed=33), 3)),
        Case("as many units as tokens", (normal(1, 5, 5, seed=34), normal(3, 5, seed=35), 0)),
        Case("one token", (normal(1, 1, 4, seed=36), normal(2, 4, seed=37), 1)),
    ]
    praise = "activation times column. The sum over all units is the MLP's whole output."
    return judge("07.3", learner, _unit_writes, cases, _UNIT_MISTAKES, praise)


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

# --- 07.3 ---


def _unit_writes(act: Tensor, down: Tensor, unit: int) -> Tensor:
    return act[..., unit, None] * down[:, unit]


_A_TOKEN = "you picked a token, not a unit. The units are along the last dimension of act."
_UNIT_MISTAKES = (
    Mistake("row", "you took a row of down. A row collects what all units send to *one channel*; "
        "what one unit sends to all channels is a column.",
        lambda act, down, unit: act[..., unit, None] * down[unit]),
    Mistake("no activation", "that is the column alone, the same at each token. A unit writes in "
        "proportion to its activation.",
        lambda act, down, unit: down[:, unit].expand(*act.shape[:-1], -1).clone()),
    Mistake("no activation", "that is the column alone. How large is the unit's activation at each "
        "token?",
        lambda act, down, unit: down[:, unit]),
    Mistake("axes not lined up", "(B, T) times (C,) does not line up. Give the activations a last "
        "axis of size 1: (B, T, 1).",
        lambda act, down, unit: act[..., unit] * down[:, unit]),
    Mistake("counted from 1", "you use the unit before. The first unit has number 0.",
        lambda act, down, unit: _unit_writes(act, down, unit - 1)),
    Mistake("column of another unit", "you always use the same column of down. Use column `unit`.",
        lambda act, down, unit: act[..., unit, None] * down[:, 0]),
    Mistake("negative dropped", "negative activations are dropped. An activation below 0 writes "
        "the negative of the column.",
        lambda act, down, unit: _unit_writes(act.relu(), down, unit)),
    Mistake("SiLU again", "you apply SiLU to act. These are activations: SiLU is done.",
        lambda act, down, unit: _unit_writes(F.silu(act), down, unit)),
    Mistake("last token only", "you return the last token alone. A unit writes to each token: (B, "
        "T, C).",
        lambda act, down, unit: act[:, -1, unit, None] * down[:, unit]),
    Mistake("summed over channels", "you sum over the channels. Each channel gets its own part: "
        "(B, T, C).",
        lambda act, down, unit: _unit_writes(act, down, unit).sum(dim=-1)),
    Mistake("activation alone", "that is the activation alone. By which column of down is it "
        "multiplied?",
        lambda act, down, unit: act[..., unit]),
    Mistake("absolute", "the sign is lost. An activation below 0 writes the negative of the "
        "column.",
        lambda act, down, unit: act[..., unit, None].abs() * down[:, unit]),
    Mistake("all units", "that is what all units write together: the whole output of the MLP.",
        lambda act, down, unit: F.linear(act, down)),
    Mistake("all other units", "that is what remains without this unit. Return what the unit "
        "itself writes.",
        lambda act, down, unit: F.linear(act, down) - _unit_writes(act, down, unit)),
    Mistake("token instead of unit", _A_TOKEN,
        lambda act, down, unit: F.linear(act[:, unit], down)),
    Mistake("token instead of unit", _A_TOKEN,
        lambda act, down, unit: act[:, unit, None] * down[:, unit]),
    Mistake("summed over tokens", "you sum over the tokens. Each token's stream gets its own part: "
        "(B, T, C).",
        lambda act, down, unit: _unit_writes(act, down, unit).sum(dim=1)),
)  # fmt: skip
