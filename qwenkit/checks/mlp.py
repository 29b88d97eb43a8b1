"""The checks of notebook 07, MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal

EXERCISES: dict[str, str] = {
    "07.1": "SiLU, the gate's curve",
    "07.2": "the MLP, from x to what it adds",
    "07.3": "what one unit writes",
}
ROUGH = 1e-4  # of bfloat16 that is a few in the last digit, so any order of rounding passes
Formula = Callable[[Tensor, Tensor], Tensor]  # of gate and up, to the units' activations


def silu(learner: Callable[..., Any]) -> Verdict:
    """Judge `silu(x)`: any shape, the same shape back."""
    return judge(
        "07.1", learner, F.silu, _silu_cases(), _SILU_MISTAKES,
        "near x on the right, near 0 on the left, and no number breaks it.", ROUGH,
    )  # fmt: skip


def mlp(learner: Callable[..., Any]) -> Verdict:
    """Judge `mlp(x, gate, up, down)`: (B, T, C), (F, C), (F, C), (C, F) -> (B, T, C)."""
    return judge(
        "07.2", learner, _of(_swiglu), _mlp_cases(), _MLP_MISTAKES,
        "three matrices, one curve, one product: this is the model's MLP.", ROUGH,
    )  # fmt: skip


def unit_writes(learner: Callable[..., Any]) -> Verdict:
    """Judge `unit_writes(act, down, unit)`: (B, T, F), (C, F), number -> (B, T, C)."""
    return judge(
        "07.3", learner, _unit_writes, _unit_cases(), _UNIT_MISTAKES,
        "activation times column. Added up over all units this is the MLP's whole output.",
    )  # fmt: skip


# --- 07.1 ---


def _silu_cases() -> list[Case]:
    return [
        Case("numbers from -3 to 3", (torch.linspace(-3, 3, 7),)),
        Case("two texts of three tokens", (normal(2, 3, 5, seed=1),)),
        Case("large numbers", (torch.tensor([200.0, -200.0, 0.0]),)),
        Case("bfloat16", (normal(3, 4, seed=2).bfloat16(),)),
        Case("a transposed tensor", (normal(4, 3, seed=3).T,)),
        Case("a single number", (torch.tensor(-1.0),)),
    ]


_SILU_MISTAKES = [
    Mistake(
        "sigmoid",
        "that is the sigmoid alone, between 0 and 1. SiLU is x times it.",
        torch.sigmoid,
    ),
    Mistake(
        "ReLU",
        "that is ReLU: a sharp corner at 0, and nothing at all on the left. SiLU dips below 0.",
        torch.relu,
    ),
    Mistake(
        "GELU",
        "that is GELU, a curve much like it. Qwen's is x times the sigmoid of x.",
        F.gelu,
    ),
    Mistake(
        "GELU",
        "that is x times the sigmoid of 1.702 x, a quick form of GELU. For SiLU, the sigmoid takes "
        "x as it is.",
        lambda x: x * torch.sigmoid(1.702 * x),
    ),
    Mistake(
        "tanh",
        "tanh stands where the sigmoid belongs. At x = 0 a gate is half open, not shut.",
        lambda x: x * torch.tanh(x),
    ),
    Mistake(
        "tanh",
        "that is tanh. It levels off at 1; SiLU goes on with x.",
        torch.tanh,
    ),
    Mistake(
        "softplus",
        "that is log(1 + exp(x)), never below 0. SiLU has a dip on the left.",
        F.softplus,
    ),
    Mistake(
        "wrong sign",
        "the gate is turned round: it opens for negative x. Look at the sign inside exp.",
        lambda x: x * torch.sigmoid(-x),
    ),
    Mistake(
        "overflow",
        "right for small numbers; for x = 200, exp(x) is infinite, and infinite / infinite is no "
        "number. Which form has only exp(-x)?",
        lambda x: x * x.exp() / (1 + x.exp()),
    ),
    Mistake(
        "twice",
        "the sigmoid is applied to SiLU itself. One sigmoid of x is enough.",
        lambda x: x * torch.sigmoid(F.silu(x)),
    ),
]

# --- 07.2 ---


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _of(formula: Formula) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Put the middle of an MLP between its three matrices."""
    return lambda x, gate, up, down: F.linear(formula(F.linear(x, gate), F.linear(x, up)), down)


def _mlp_cases() -> list[Case]:
    gate, up, down = normal(6, 4, seed=10), normal(6, 4, seed=11), normal(4, 6, seed=12)
    square = [normal(4, 4, seed=seed) for seed in (13, 14, 15)]
    apart = normal(1, 4, 3, seed=16).transpose(1, 2)
    half = [one.bfloat16() for one in (normal(1, 2, 4, seed=17), gate, up, down)]
    return [
        Case("one text of three tokens", (normal(1, 3, 4, seed=18), gate, up, down)),
        Case("one token alone", (normal(1, 1, 4, seed=19), gate, up, down)),
        Case("two texts, as many units as channels", (normal(2, 3, 4, seed=20), *square)),
        Case("not contiguous", (apart, gate, up, down)),
        Case("large numbers", (100 * normal(1, 2, 4, seed=21), gate, up, down)),
        Case("bfloat16", tuple(half)),
    ]


_MIDDLES: list[tuple[str, str, Formula]] = [
    (
        "exchanged",
        "gate and up are exchanged: SiLU bends one of the two only. Which one?",
        lambda gate, up: F.silu(up) * gate,
    ),
    (
        "no gate",
        "the gate plays no part. What passes is up, and how much of it passes is the gate's word.",
        lambda gate, up: up,
    ),
    (
        "no gate",
        "the gate plays no part: SiLU bends up itself. What is the third matrix for?",
        lambda gate, up: F.silu(up),
    ),
    (
        "no up",
        "up plays no part. The gate only says how open a unit is; what passes is up.",
        lambda gate, up: F.silu(gate),
    ),
    (
        "sigmoid",
        "the gate's curve is the sigmoid, as in the first gated units (GLU). Here it is SiLU.",
        lambda gate, up: torch.sigmoid(gate) * up,
    ),
    (
        "ReLU",
        "the gate's curve is ReLU. Here it is SiLU, which has no corner.",
        lambda gate, up: F.relu(gate) * up,
    ),
    (
        "GELU",
        "the gate's curve is GELU, as in Gemma. Close, but these weights were trained with SiLU.",
        lambda gate, up: F.gelu(gate) * up,
    ),
    (
        "GELU",
        "the gate's curve is GELU, as in Gemma. Close, but these weights were trained with SiLU.",
        lambda gate, up: F.gelu(gate, approximate="tanh") * up,
    ),
    (
        "no curve",
        "gate times up, and nothing is bent. Where is SiLU?",
        lambda gate, up: gate * up,
    ),
    (
        "SiLU of the product",
        "SiLU is taken of the product. It belongs to the gate alone, before the product.",
        lambda gate, up: F.silu(gate * up),
    ),
    (
        "SiLU of both",
        "SiLU bends up as well. What passes the gate should pass as it is.",
        lambda gate, up: F.silu(gate) * F.silu(up),
    ),
    (
        "added",
        "gate and up are added. A gate multiplies: where it is 0, nothing may pass.",
        lambda gate, up: F.silu(gate) + up,
    ),
]
_MLP_MISTAKES = [
    *(Mistake(name, hint, _of(formula)) for name, hint, formula in _MIDDLES),
    Mistake(
        "no down",
        "these are the units' activations. Their way back to the stream's channels is missing.",
        lambda x, gate, up, down: _swiglu(F.linear(x, gate), F.linear(x, up)),
    ),
    Mistake(
        "stream added",
        "x itself is in the result. The addition to the stream is the layer's work; the MLP "
        "returns only what is to be added.",
        lambda x, gate, up, down: x + _of(_swiglu)(x, gate, up, down),
    ),
    Mistake(
        "not transposed",
        "with as many units as channels something comes out, and it is wrong. A weight has one "
        "row for each *output*; which way round does x @ weight read it?",
        lambda x, gate, up, down: _swiglu(x @ gate, x @ up) @ down,
    ),
]

# --- 07.3 ---


def _unit_writes(act: Tensor, down: Tensor, unit: int) -> Tensor:
    return act[..., unit, None] * down[:, unit]


def _unit_cases() -> list[Case]:
    return [
        Case("three tokens, six units", (normal(1, 3, 6, seed=30), normal(4, 6, seed=31), 2)),
        Case("as many units as channels", (normal(2, 2, 4, seed=32), normal(4, 4, seed=33), 3)),
        Case("as many units as tokens", (normal(1, 5, 5, seed=34), normal(3, 5, seed=35), 0)),
        Case("one token", (normal(1, 1, 4, seed=36), normal(2, 4, seed=37), 1)),
    ]


def _without_unit(act: Tensor, down: Tensor, unit: int) -> Tensor:
    return F.linear(act, down) - _unit_writes(act, down, unit)


_UNIT_MISTAKES = [
    Mistake(
        "row",
        "you took a row of down. A row collects what all units send to *one channel*; what one "
        "unit sends to all channels is a column.",
        lambda act, down, unit: act[..., unit, None] * down[unit],
    ),
    Mistake(
        "no activation",
        "that is the column alone, the same at each token. A unit writes as strongly as it fires.",
        lambda act, down, unit: down[:, unit].expand(*act.shape[:-1], -1).clone(),
    ),
    Mistake(
        "no activation",
        "that is the column alone. How strongly does the unit fire at each token?",
        lambda act, down, unit: down[:, unit],
    ),
    Mistake(
        "absolute",
        "the sign is lost. An activation below 0 writes the column turned round.",
        lambda act, down, unit: act[..., unit, None].abs() * down[:, unit],
    ),
    Mistake(
        "all units",
        "that is what all units write together, the whole output of the MLP.",
        lambda act, down, unit: F.linear(act, down),
    ),
    Mistake(
        "all other units",
        "that is what remains without this unit. Wanted is what it writes itself.",
        _without_unit,
    ),
    Mistake(
        "token taken for unit",
        "you picked a token, not a unit. The units lie along the last dimension of act.",
        lambda act, down, unit: F.linear(act[:, unit], down),
    ),
    Mistake(
        "token taken for unit",
        "you picked a token, not a unit. The units lie along the last dimension of act.",
        lambda act, down, unit: act[:, unit, None] * down[:, unit],
    ),
    Mistake(
        "summed over tokens",
        "you added up the tokens. Each token's stream gets its own share: (B, T, C).",
        lambda act, down, unit: _unit_writes(act, down, unit).sum(dim=1),
    ),
]
