"""Exercise 12.2, a step of AdamW: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal

Step = Callable[[Tensor, Tensor, Tensor, Tensor, int, float, float], Any]
_EPS = 1e-8

_ZERO = torch.zeros(2, 3)
CASES = [
    Case("the first step, no decay",
        (normal(2, 3), normal(2, 3, seed=1), _ZERO, _ZERO, 1, 0.1, 0.0)),
    Case("the first step, with decay",
        (normal(2, 3), normal(2, 3, seed=1), _ZERO, _ZERO, 1, 0.1, 0.5)),
    Case("the tenth step",
        (normal(4, seed=2), normal(4, seed=3), normal(4, seed=4), normal(4, seed=5) ** 2, 10, 0.5,
            0.1)),
    Case("the third step, a rate of 0.3",
        (normal(3, 2, seed=6), 20 * normal(3, 2, seed=7), normal(3, 2, seed=8),
            30 * normal(3, 2, seed=9) ** 2, 3, 0.3, 0.2)),
    Case("tiny gradients", (normal(3), 1e-8 * normal(3, seed=1), torch.zeros(3), torch.zeros(3), 2,
        0.1, 0.1)),
    Case("a gradient of 0", (normal(3), torch.zeros(3), torch.zeros(3), torch.zeros(3), 1, 0.1,
        0.1)),
]  # fmt: skip


def adamw(
    betas: tuple[float, float] = (0.9, 0.95),
    corrected: Callable[[float, int], float] = lambda beta, step: 1 - beta**step,
    corrected_v: Callable[[float, int], float] | None = None,
    direction: Callable[[Tensor, Tensor], Tensor] = lambda m, v: m / (v.sqrt() + _EPS),
    gradient_of: Callable[[Tensor, Tensor, float], Tensor] = lambda g, weight, decay: g,
    square: Callable[[Tensor], Tensor] = lambda g: g**2,
    end: Callable[[Tensor, Tensor, float, float], Tensor] = lambda weight, move, rate, decay: (
        weight * (1 - rate * decay) - rate * move
    ),
    result: Callable[..., Any] = lambda weight, m, v, *_: (weight, m, v),
) -> Step:
    """Return the step; each argument is a part of it that can go wrong."""

    def step_of(
        weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float
    ) -> Any:
        g = gradient_of(gradient, weight, decay)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * square(g)
        m_hat = m / corrected(betas[0], step)
        v_hat = v / (corrected_v or corrected)(betas[1], step)
        move = direction(m_hat, v_hat)
        return result(end(weight, move, rate, decay), m, v, m_hat, v_hat, move, rate)

    return step_of


def _one(beta: float, step: int) -> float:
    return 1.0


def _fresh(weight: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> Any:
    return adamw()(weight, g, torch.zeros_like(m), torch.zeros_like(v), *rest)


def _first(weight: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, *rest: Any) -> Any:
    return adamw()(weight, g, m, v, 1, *rest)


def _squared_decay(g: Tensor, weight: Tensor, decay: float) -> Tensor:
    return g + decay * weight


def _no_decay(weight: Tensor, move: Tensor, rate: float, decay: float) -> Tensor:
    return weight - rate * move


ADAMW_MISTAKES = [
    Mistake(name, hint, function)
    for name, hint, function in (
        ("no correction", "m and v are right, but the step does not correct them for their start "
            "at 0. At step 1, what part of the gradient is m?",
            adamw(corrected=_one)),
        ("v not corrected", "m is corrected for its start at 0, v is not. Both started there.",
            adamw(corrected_v=_one)),
        ("m not corrected", "v is corrected for its start at 0, m is not. Both started there.",
            adamw(corrected=_one, corrected_v=lambda beta, step: 1 - beta**step)),
        ("correction of one step", "you correct as if every step were the first. Where does `step` "
            "come in?",
            _first),
        ("correction times the step", "you correct by 1 − beta · step. The power counts the steps.",
            adamw(corrected=lambda beta, step: 1 - beta * step)),
        ("step counted from 0", "your correction counts steps from 0. `step` is 1 at the first.",
            adamw(corrected=lambda beta, step: 1 - beta ** (step + 1))),
        ("corrected means returned", "the weight is right. Return m and v as they are, not "
            "corrected: the next step goes on from them.",
            adamw(result=lambda weight, m, v, m_hat, v_hat, *_: (weight, m_hat, v_hat))),
        ("betas exchanged", "the two betas are exchanged: 0.9 belongs to m, 0.95 to v.",
            adamw(betas=(0.95, 0.9))),
        ("betas reversed", "you keep a tenth of the old mean and nine tenths of the new gradient. "
            "Which of the two has the weight 0.9?",
            adamw(betas=(0.1, 0.05), corrected=lambda beta, step: 1 - (1 - beta) ** step)),
        ("betas reversed", "you keep a tenth of the old mean and nine tenths of the new gradient. "
            "Which of the two has the weight 0.9?",
            adamw(betas=(0.1, 0.05))),
        ("another beta", "your v has 0.999, as Adam's paper has. Here it is 0.95.",
            adamw(betas=(0.9, 0.999))),
        ("old means ignored", "you start m and v at 0 again. Go on from those that are given.",
            _fresh),
        ("no square root", "you divide by v. Its unit is the gradient's squared: take its root.",
            adamw(direction=lambda m, v: m / (v + _EPS))),
        ("eps inside the root", "the small number is inside the root. Add it after the root.",
            adamw(direction=lambda m, v: m / (v + _EPS).sqrt())),
        ("no eps", "right, except for a gradient of 0: 0 / 0 is not a number. Add 1e-8 "
            "to the root.",
            adamw(direction=lambda m, v: m / v.sqrt())),
        ("not divided", "the step is rate · m. What is v for?",
            adamw(direction=lambda m, v: m)),
        ("gradient for m", "you divide the gradient itself, not its mean m.",
            lambda weight, g, m, v, step, rate, decay: adamw(
                direction=lambda _, v: g / (v.sqrt() + _EPS))(weight, g, m, v, step, rate, decay)),
        ("no square", "v is a mean of the gradient's size, not of its square.",
            adamw(square=torch.abs)),
        ("no square", "v is a mean of the gradient, not of its square.",
            adamw(square=lambda g: g)),
        ("decay in the gradient", "you add the decay to the gradient. Then it is divided by the "
            "root of v, too: that is Adam with an L2 penalty. AdamW pulls the weight itself.",
            adamw(gradient_of=_squared_decay, end=_no_decay)),
        ("no decay", "the step is right, but nothing pulls the weight towards 0.",
            adamw(end=_no_decay)),
        ("decay without rate", "the decay pulls with its full strength at every step. It is "
            "multiplied by the rate as well.",
            adamw(end=lambda weight, move, rate, decay: weight * (1 - decay) - rate * move)),
        ("decay of the new weight", "you take the step first, and then pull the new weight. Pull "
            "the old one.",
            adamw(end=lambda weight, move, rate, decay:
                (weight - rate * move) * (1 - rate * decay))),
        ("decay pushes away", "your decay makes the weight larger. Towards which value must it "
            "pull?",
            adamw(end=lambda weight, move, rate, decay: weight * (1 + rate * decay) - rate * move)),
        ("uphill", "the step goes along the gradient, and the loss rises. Go against it.",
            adamw(end=lambda weight, move, rate, decay: weight * (1 - rate * decay) + rate * move)),
        ("no rate", "the step is not multiplied by the rate.",
            adamw(end=lambda weight, move, rate, decay: weight * (1 - rate * decay) - move)),
        ("weight alone", "the weight is right. Return m and v as well: the next step needs them.",
            adamw(result=lambda weight, *_: weight)),
        ("the step, not the weight", "m and v are right. Return the new weight, not the step.",
            adamw(result=lambda weight, m, v, m_hat, v_hat, move, rate: (rate * move, m, v))),
        ("order of results", "the values are right. Return them in the order weight, m, v.",
            adamw(result=lambda weight, m, v, *_: (m, v, weight))),
    )
]  # fmt: skip
