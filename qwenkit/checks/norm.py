"""The checks of notebook 03, RMSNorm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._norm_split import PLUS_ONE, ROUGH, SPLIT_MISTAKES, split
from qwenkit.checks._norm_split import cases as parts_cases
from qwenkit.checks._samples import normal

EXERCISES: dict[str, str] = {
    "03.1": "RMSNorm, as the model computes it",
    "03.2": "RMSNorm with the channels on several devices",
    "03.3": "fold a norm's weight into the next matrix",
}
_Formula = Callable[[Tensor, Tensor, float], Tensor]


def rms_norm(learner: Callable[..., Any]) -> Verdict:
    """Check `rms_norm(x, weight, eps)`: (..., C) -> (..., C): exercise 03.1."""
    weight = _random(4, seed=10)
    half = torch.tensor([[300.0, -200.0, 100.0, 500.0]], dtype=torch.float16)
    cases = [
        Case("three tokens of four channels", (_random(3, 4, seed=11), weight, 1e-6)),
        Case("a single vector", (_random(4, seed=12), weight, 1e-6)),
        Case("two texts, not contiguous", (_random(2, 4, 3, seed=13).transpose(1, 2), weight, 0.0)),
        Case("tiny values", (_random(2, 4, seed=14, scale=1e-3), weight, 1e-6)),
        Case("a vector of zeros", (torch.zeros(1, 4), weight, 1e-6)),
        Case("a large eps", (_random(1, 4, seed=15), weight, 0.5)),
        Case("bfloat16", (_random(5, 4, seed=16).bfloat16(), weight.bfloat16(), 1e-6)),
        Case("large values in float16", (half, weight.half(), 1e-6)),
    ]
    praise = "this is the model's norm, for tiny values, large values and half precision."
    return judge("03.1", learner, _in_float32(_norm), cases, _NORM_MISTAKES, praise, ROUGH)


def split_norm(learner: Callable[..., Any]) -> Verdict:
    """Check `split_norm(parts, weights, eps)`: a list of (..., Ci), normalized: exercise 03.2."""
    praise = "only one number per token has to travel from device to device."
    joins = ("cat", "concat", "concatenate", "hstack", "rms_norm", "RMSNorm", "my_norm")
    return judge("03.2", learner, split, parts_cases(), SPLIT_MISTAKES, praise, ROUGH, joins)


def fold(learner: Callable[..., Any]) -> Verdict:
    """Check `fold(weight, matrix)`: (C), (O, C) -> (O, C): exercise 03.3."""
    cases = [
        Case("a square matrix", (_random(4, seed=20), _random(4, 4, seed=21))),
        Case("fewer outputs than channels", (_random(4, seed=22), _random(2, 4, seed=23))),
        Case("a single output", (_random(3, seed=24), _random(1, 3, seed=25))),
        Case("bfloat16", (_random(4, seed=26).bfloat16(), _random(6, 4, seed=27).bfloat16())),
    ]
    praise = "one matrix does the work of weight and matrix."
    return judge("03.3", learner, lambda w, m: m * w, cases, _FOLD_MISTAKES, praise, ROUGH)


def _random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    # not centered: a mean of zero would hide that someone subtracts it
    return scale * (normal(*shape, seed=seed) + 0.5)


# --- 03.1 ---


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x / (_mean(x.pow(2)) + eps).sqrt())


def _in_float32(formula: _Formula) -> _Formula:
    """Compute in float32 and return x's dtype."""
    return lambda x, weight, eps: formula(x.float(), weight.float(), eps).to(x.dtype)


def _in_its_dtype(formula: _Formula) -> _Formula:
    """Compute in x's own dtype."""
    return formula


def _stays_float32(formula: _Formula) -> _Formula:
    """Compute in float32 and return float32."""
    return lambda x, weight, eps: formula(x.float(), weight.float(), eps)


def _divided_by(divisor: Callable[[Tensor, float], Tensor]) -> _Formula:
    return lambda x, weight, eps: weight * (x / divisor(x.pow(2), eps))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=-1, keepdim=True)


_FORMULAS: tuple[tuple[str, str, _Formula], ...] = (
    ("eps outside", "eps is added to the root; it belongs under the root. It shows where values "
        "are tiny.",
        _divided_by(lambda x2, eps: _mean(x2).sqrt() + eps)),
    ("eps as a minimum", "eps is used as a minimum. It should be added to the mean square, always.",
        _divided_by(lambda x2, eps: _mean(x2).clamp(min=eps).sqrt())),
    ("eps as a minimum", "eps is used as a minimum of the root. It should be added to the mean "
        "square, always.",
        _divided_by(lambda x2, eps: _mean(x2).sqrt().clamp(min=eps))),
    ("vector's length", "you divide by the vector's length, as F.normalize does: the root of the "
        "sum. Root mean square needs the mean.",
        _divided_by(lambda x2, eps: x2.sum(dim=-1, keepdim=True).sqrt().clamp(min=eps))),
    ("keepdim forgotten", "the root mean square lost its last dimension, so it lines up with the "
        "channels instead of the tokens: keepdim.",
        _divided_by(lambda x2, eps: (x2.mean(dim=-1) + eps).sqrt())),
    ("eps subtracted", "eps is subtracted; it should be added.",
        _divided_by(lambda x2, eps: (_mean(x2) - eps).sqrt())),
    ("no eps", "where is eps? The root mean square of a vector of zeros is 0, and 0 / 0 is not a "
        "number.",
        _divided_by(lambda x2, eps: _mean(x2).sqrt())),
    ("eps fixed", "eps is an argument: each checkpoint has its own. Yours is always the same.",
        _divided_by(lambda x2, eps: (_mean(x2) + 1e-6).sqrt())),
    ("no weight", "the vectors have the right size, but each channel should also be multiplied by "
        "its weight.",
        lambda x, weight, eps: _norm(x, torch.ones_like(weight), eps)),
    ("weight plus one", PLUS_ONE, lambda x, weight, eps: _norm(x, 1 + weight, eps)),
    ("weight first", "the weight comes last. Here the vector is multiplied by it first, so the "
        "weight changes the root mean square too.",
        lambda x, weight, eps: _norm(x * weight, torch.ones_like(weight), eps)),
    ("mean subtracted", "the mean is subtracted, as in LayerNorm. RMSNorm only divides.",
        lambda x, weight, eps: _norm(x - _mean(x), weight, eps)),
    ("mean subtracted", "the mean is subtracted inside the root, as in a variance. RMSNorm squares "
        "x itself.",
        lambda x, weight, eps:
            weight * x / (x.var(dim=-1, keepdim=True, correction=0) + eps).sqrt()),
    ("sum", "the squares are added up and not averaged. Then more channels mean smaller values.",
        _divided_by(lambda x2, eps: (x2.sum(dim=-1, keepdim=True) + eps).sqrt())),
    ("no root", "you divide by the mean square. An input that is twice as large then comes out "
        "half as large; it should come out the same.",
        _divided_by(lambda x2, eps: _mean(x2) + eps)),
    ("not divided", "the weight is there, but the division is not. Large vectors stay large.",
        lambda x, weight, eps: weight * x),
    ("multiplied", "you multiply by the root mean square: large vectors become even larger.",
        lambda x, weight, eps: weight * x * (_mean(x.pow(2)) + eps).sqrt()),
    ("whole tensor", "the mean runs over the wrong values: each token is divided by the root mean "
        "square of all tokens together.",
        _divided_by(lambda x2, eps: (x2.mean() + eps).sqrt())),
    ("wrong dimension", "the mean runs over the wrong values: each token is divided by the root "
        "mean square of its channel over all tokens, later ones too.",
        _divided_by(lambda x2, eps: (x2.mean(dim=-2, keepdim=True) + eps).sqrt())),
    ("wrong dimension", "the mean runs over the wrong values: each token is divided by the root "
        "mean square of its channel over the first dimension.",
        _divided_by(lambda x2, eps: (x2.mean(dim=0, keepdim=True) + eps).sqrt())),
)  # fmt: skip
_NORM_MISTAKES = [
    Mistake("half precision", "the formula is right, but float16 cannot hold the square of 300: "
        "its largest value is 65,504. Compute in float32, then convert back to the dtype of the "
        "input.",
        _norm),
    Mistake("float32 comes back", "the values are right. A bfloat16 model continues in bfloat16: "
        "return the dtype of x.",
        lambda x, weight, eps: _norm(x.float(), weight, eps)),
    *(
        Mistake(name, hint, how(formula))
        for how in (_in_float32, _in_its_dtype, _stays_float32)  # readers write all three
        for name, hint, formula in _FORMULAS
    ),
]  # fmt: skip

# --- 03.3 ---

_FOLD_MISTAKES = (
    Mistake("rows", "you scale the rows: the matrix's outputs. The weight scales the inputs. Which "
        "index of the matrix counts the inputs?",
        lambda weight, matrix: weight[:, None] * matrix),
    Mistake("rows", "you scale the rows: the matrix's outputs. The weight scales the inputs. On "
        "which side of the matrix is the vector?",
        lambda weight, matrix: torch.diag(weight) @ matrix),
    Mistake("multiplied out", "that is the matrix times one vector, which is a vector. Return a "
        "matrix that works for any normalized vector.",
        lambda weight, matrix: matrix @ weight),
    Mistake("multiplied out", "that is a vector times the matrix. Return a matrix that works for "
        "any normalized vector: multiply element by element, not with @.",
        lambda weight, matrix: weight @ matrix),
    Mistake("normalized, too", "you divide the weight by its own root mean square. The weight "
        "stays as it is.",
        lambda weight, matrix: matrix * (weight / _mean(weight.pow(2)).sqrt())),
    Mistake("transposed", "the values are right, but rows and columns are swapped. The new matrix "
        "replaces the old one, so it has the same shape.",
        lambda weight, matrix: (matrix * weight).T),
    Mistake("divided", "you divide by the weight. The norm multiplies by it, and the matrix should "
        "do that now.",
        lambda weight, matrix: matrix / weight),
    Mistake("added", "you add the weight. Write out one output: it is a sum of matrix entry × "
        "weight × value.",
        lambda weight, matrix: matrix + weight),
    Mistake("weight plus one", PLUS_ONE, lambda weight, matrix: matrix * (1 + weight)),
    Mistake("unchanged", "the matrix is unchanged, so the weight is lost.",
        lambda weight, matrix: matrix),
)  # fmt: skip
