"""The checks of notebook 03, RMSNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal

EXERCISES: dict[str, str] = {
    "03.1": "the root mean square",
    "03.2": "RMSNorm, as the model computes it",
    "03.3": "fold a norm's weight into the next matrix",
}
ROUGH = 4e-5  # of bfloat16 that is one in the last digit, so any order of rounding passes
Formula = Callable[[Tensor, Tensor, float], Tensor]


def rms(learner: Callable[..., Any]) -> Verdict:
    """Judge `rms(x)`: (..., C) -> (..., 1), each vector's root mean square."""
    return judge(
        "03.1", learner, _rms, _rms_cases(), _RMS_MISTAKES,
        "square, mean, root, and one number for each vector.",
    )  # fmt: skip


def rms_norm(learner: Callable[..., Any]) -> Verdict:
    """Judge `rms_norm(x, weight, eps)`: (..., C) -> (..., C)."""
    return judge(
        "03.2", learner, _in_float32(_norm), _norm_cases(), _NORM_MISTAKES,
        "this is the model's norm, with tiny numbers, large ones and half precision.",
        ROUGH,
    )  # fmt: skip


def fold(learner: Callable[..., Any]) -> Verdict:
    """Judge `fold(weight, matrix)`: (C), (O, C) -> (O, C)."""
    return judge(
        "03.3", learner, lambda weight, matrix: matrix * weight, _fold_cases(), _FOLD_MISTAKES,
        "one matrix does the work of weight and matrix.", ROUGH,
    )  # fmt: skip


def _random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * (
        normal(*shape, seed=seed) + 0.5
    )  # not centred: a mean of zero would hide who subtracts it


# --- 03.1 ---


def _rms(x: Tensor) -> Tensor:
    return x.pow(2).mean(dim=-1, keepdim=True).sqrt()


def _rms_cases() -> list[Case]:
    return [
        Case("three tokens of four channels", (_random(3, 4, seed=1),)),
        Case("one vector alone", (_random(5, seed=2),)),
        Case("two texts", (_random(2, 3, 4, seed=3),)),
        Case("one token, large numbers", (_random(1, 6, seed=4, scale=1e4),)),
        Case("a transposed tensor", (_random(4, 3, seed=5).T,)),
    ]


def _spread(unbiased: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: x.std(dim=-1, keepdim=True, correction=int(unbiased))


_OVER_TOKENS = (
    "this mixes different tokens. Each token has its own vector, along the last dimension, and "
    "its own root mean square."
)
_RMS_MISTAKES = [
    Mistake(
        "sum",
        "that is the root of the sum, the vector's length. It grows with the number of channels. "
        "Which word of root *mean* square is missing?",
        lambda x: x.pow(2).sum(dim=-1, keepdim=True).sqrt(),
    ),
    Mistake(
        "divided outside",
        "the number of channels divides the sum *before* the root is taken. Try [3, 3, 3, 3]: its "
        "root mean square is 3.",
        lambda x: x.pow(2).sum(dim=-1, keepdim=True).sqrt() / x.shape[-1],
    ),
    Mistake(
        "no root",
        "that is the mean square. Its unit is still a square; what undoes a square?",
        lambda x: x.pow(2).mean(dim=-1, keepdim=True),
    ),
    Mistake(
        "absolute values",
        "that is the mean of the absolute values. The root comes last, after the mean, not "
        "right after the square.",
        lambda x: x.abs().mean(dim=-1, keepdim=True),
    ),
    Mistake(
        "mean first",
        "you took the mean before the square: 3 and -3 then cancel. Square each number first.",
        lambda x: x.mean(dim=-1, keepdim=True).abs(),
    ),
    Mistake(
        "mean subtracted",
        "that is the standard deviation: a mean is subtracted first. RMSNorm subtracts nothing.",
        _spread(unbiased=False),
    ),
    Mistake(
        "mean subtracted",
        "that is the standard deviation: a mean is subtracted first. RMSNorm subtracts nothing.",
        _spread(unbiased=True),
    ),
    Mistake(
        "dimension dropped",
        "the numbers are right, and the last dimension is gone. Then x / rms(x) would not line "
        "up: keep it, with size 1.",
        lambda x: _rms(x)[..., 0],
    ),
    Mistake("whole tensor", _OVER_TOKENS, lambda x: x.pow(2).mean().sqrt()),
    Mistake("whole tensor", _OVER_TOKENS, lambda x: x.pow(2).mean().sqrt().view(*[1] * x.dim())),
    Mistake("wrong dimension", _OVER_TOKENS, lambda x: x.pow(2).mean(0, keepdim=True).sqrt()),
    Mistake("wrong dimension", _OVER_TOKENS, lambda x: x.pow(2).mean(-2, keepdim=True).sqrt()),
    Mistake("wrong dimension", _OVER_TOKENS, lambda x: x.pow(2).mean(0).sqrt()),
    Mistake("wrong dimension", _OVER_TOKENS, lambda x: x.pow(2).mean(-2).sqrt()),
]

# --- 03.2 ---


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x / (x.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt())


def _in_float32(formula: Formula) -> Formula:
    """Compute in float32 and hand back x's dtype."""
    return lambda x, weight, eps: formula(x.float(), weight.float(), eps).to(x.dtype)


def _as_it_comes(formula: Formula) -> Formula:
    """Compute in x's own dtype."""
    return formula


def _staying_wide(formula: Formula) -> Formula:
    """Compute in float32 and leave it so."""
    return lambda x, weight, eps: formula(x.float(), weight.float(), eps)


def _norm_cases() -> list[Case]:
    weight = _random(4, seed=10)
    half = torch.tensor([[300.0, -200.0, 100.0, 500.0]], dtype=torch.float16)
    return [
        Case("three tokens of four channels", (_random(3, 4, seed=11), weight, 1e-6)),
        Case("one vector alone", (_random(4, seed=12), weight, 1e-6)),
        Case("two texts, not contiguous", (_random(2, 4, 3, seed=13).transpose(1, 2), weight, 0.0)),
        Case("tiny numbers", (_random(2, 4, seed=14, scale=1e-3), weight, 1e-6)),
        Case("a vector of zeros", (torch.zeros(1, 4), weight, 1e-6)),
        Case("a large eps", (_random(1, 4, seed=15), weight, 0.5)),
        Case("bfloat16", (_random(5, 4, seed=16).bfloat16(), weight.bfloat16(), 1e-6)),
        Case("large numbers in float16", (half, weight.half(), 1e-6)),
    ]


def _centred(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _norm(x - x.mean(dim=-1, keepdim=True), weight, eps)


def _divided_by(divisor: Callable[[Tensor, float], Tensor]) -> Formula:
    return lambda x, weight, eps: weight * (x / divisor(x.pow(2), eps))


def _square_mean(x2: Tensor) -> Tensor:
    return x2.mean(dim=-1, keepdim=True)


_MIXES = "the mean runs over the wrong numbers: each token is divided by the root mean square of "
_FORMULAS: list[tuple[str, str, Formula]] = [
    (
        "eps outside",
        "eps is added to the root; it belongs under it. You see it where numbers are tiny.",
        _divided_by(lambda x2, eps: _square_mean(x2).sqrt() + eps),
    ),
    (
        "eps as a floor",
        "eps is used as a smallest value. It is added to the mean square, always.",
        _divided_by(lambda x2, eps: _square_mean(x2).clamp(min=eps).sqrt()),
    ),
    (
        "no eps",
        "where is eps? A vector of zeros has the root mean square 0, and 0 / 0 is no number.",
        _divided_by(lambda x2, eps: _square_mean(x2).sqrt()),
    ),
    (
        "eps of its own",
        "eps comes with the call: every checkpoint names its own. Yours is always the same.",
        _divided_by(lambda x2, eps: (_square_mean(x2) + 1e-6).sqrt()),
    ),
    (
        "no weight",
        "the vectors have the right size, and then each channel has a weight of its own.",
        lambda x, weight, eps: _norm(x, torch.ones_like(weight), eps),
    ),
    (
        "weight plus one",
        "you multiply by 1 + weight. Gemma stores its weights so; Qwen's are the factors "
        "themselves.",
        lambda x, weight, eps: _norm(x, 1 + weight, eps),
    ),
    (
        "weight first",
        "the weight comes last. Here the vector is weighted first, and so the weight changes the "
        "root mean square too.",
        lambda x, weight, eps: _norm(x * weight, torch.ones_like(weight), eps),
    ),
    (
        "mean subtracted",
        "the mean is subtracted, as LayerNorm does. RMSNorm only divides.",
        _centred,
    ),
    (
        "mean subtracted",
        "the mean is subtracted inside the root, as a variance does. RMSNorm squares x itself.",
        lambda x, weight, eps: (
            weight * x / (x.var(dim=-1, keepdim=True, correction=0) + eps).sqrt()
        ),
    ),
    (
        "sum",
        "the squares are added up and not averaged. Then more channels mean smaller numbers.",
        _divided_by(lambda x2, eps: (x2.sum(dim=-1, keepdim=True) + eps).sqrt()),
    ),
    (
        "no root",
        "you divide by the mean square. Twice as large an input then comes out half as large; "
        "it should come out the same.",
        _divided_by(lambda x2, eps: _square_mean(x2) + eps),
    ),
    (
        "not divided",
        "the weight is there, the division is not. Large vectors stay large.",
        lambda x, weight, eps: weight * x,
    ),
    (
        "multiplied",
        "you multiply by the root mean square: large vectors become larger still.",
        lambda x, weight, eps: weight * x * (_square_mean(x.pow(2)) + eps).sqrt(),
    ),
    (
        "whole tensor",
        f"{_MIXES}all tokens together.",
        _divided_by(lambda x2, eps: (x2.mean() + eps).sqrt()),
    ),
    (
        "wrong dimension",
        f"{_MIXES}its channel over all tokens, later ones too.",
        _divided_by(lambda x2, eps: (x2.mean(dim=-2, keepdim=True) + eps).sqrt()),
    ),
    (
        "wrong dimension",
        f"{_MIXES}its channel over the first dimension.",
        _divided_by(lambda x2, eps: (x2.mean(dim=0, keepdim=True) + eps).sqrt()),
    ),
]
_NORM_MISTAKES = [
    Mistake(
        "half precision",
        "the formula is right, and float16 cannot hold the square of 300: it ends at 65,504. "
        "Compute in a wider dtype, then go back to the dtype that came in.",
        _norm,
    ),
    Mistake(
        "float32 out",
        "the values are right. A bfloat16 model goes on in bfloat16: give back the dtype of x.",
        lambda x, weight, eps: _norm(x.float(), weight, eps),
    ),
    *(
        Mistake(name, hint, how(formula))
        for how in (_in_float32, _as_it_comes, _staying_wide)  # all three are written
        for name, hint, formula in _FORMULAS
    ),
]

# --- 03.3 ---


def _fold_cases() -> list[Case]:
    return [
        Case("a square matrix", (_random(4, seed=20), _random(4, 4, seed=21))),
        Case("fewer outputs than channels", (_random(4, seed=22), _random(2, 4, seed=23))),
        Case("a single output", (_random(3, seed=24), _random(1, 3, seed=25))),
        Case("bfloat16", (_random(4, seed=26).bfloat16(), _random(6, 4, seed=27).bfloat16())),
    ]


_FOLD_MISTAKES = [
    Mistake(
        "rows",
        "you scale the rows, the matrix's outputs. The weight scales what goes *into* it. Which "
        "index of the matrix counts the inputs?",
        lambda weight, matrix: weight[:, None] * matrix,
    ),
    Mistake(
        "rows",
        "you scale the rows, the matrix's outputs. The weight scales what goes *into* it. On which "
        "side of the matrix does the vector stand?",
        lambda weight, matrix: torch.diag(weight) @ matrix,
    ),
    Mistake(
        "multiplied out",
        "that is the matrix times one vector, and its result a vector. Wanted is a matrix for any "
        "normed vector.",
        lambda weight, matrix: matrix @ weight,
    ),
    Mistake(
        "transposed",
        "the numbers are right, rows and columns are exchanged. The new matrix takes the place of "
        "the old one, so it has the same shape.",
        lambda weight, matrix: (matrix * weight).T,
    ),
    Mistake(
        "divided",
        "you divide by the weight. The norm multiplies by it; the matrix takes that over.",
        lambda weight, matrix: matrix / weight,
    ),
    Mistake(
        "added",
        "you add the weight. Write out one output: it is a sum of matrix entry × weight × number.",
        lambda weight, matrix: matrix + weight,
    ),
    Mistake(
        "weight plus one",
        "you multiply by 1 + weight. Qwen's weights are the factors themselves.",
        lambda weight, matrix: matrix * (1 + weight),
    ),
    Mistake(
        "unchanged",
        "the matrix is as it was, so the weight is lost.",
        lambda weight, matrix: matrix,
    ),
]
