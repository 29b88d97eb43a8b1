"""Exercise 03.2: RMSNorm of vectors whose channels lie on several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal

ROUGH = 4e-5  # one unit in the last digit of bfloat16, so any order of rounding passes
PLUS_ONE = (
    "you multiply by 1 + weight. Gemma stores its weights like that; Qwen's weights are the "
    "factors themselves."
)
_Parts = Sequence[Tensor]
_MeanSquare = Callable[[_Parts], Tensor]


def cases() -> list[Case]:
    """Return parts of equal and of different sizes, tiny and large values, and half precision."""

    def case(label: str, sizes: Sequence[int], eps: float = 1e-6, scale: float = 1.0) -> Case:
        parts = [scale * (normal(2, 3, size, seed=30 + n) + n) for n, size in enumerate(sizes)]
        weights = [1 + normal(size, seed=40 + n) for n, size in enumerate(sizes)]
        return Case(label, (parts, weights, eps))

    parts, weights, _ = case("", (2, 4)).arguments
    large = [torch.tensor([[300.0, -200.0]]), torch.tensor([[100.0, 500.0, -400.0]])]
    ones = [torch.ones(2), torch.ones(3)]
    return [
        case("two parts of four channels", (4, 4)),
        case("parts of different sizes", (2, 6, 1)),
        case("a single part", (5,)),
        case("a large eps", (2, 4), 0.5),
        case("tiny values", (4, 2), scale=1e-3),
        Case("zeros", ([0 * part for part in parts], weights, 1e-6)),
        Case("bfloat16", ([p.bfloat16() for p in parts], [w.bfloat16() for w in weights], 1e-6)),
        Case("large values in float16", ([x.half() for x in large], [w.half() for w in ones], 0.0)),
    ]


def split(parts: _Parts, weights: _Parts, eps: float) -> list[Tensor]:
    """Return each part, divided by the root mean square of all of them, times its weight."""
    return _with(_mean_square)(parts, weights, eps)


# --- what the parts are divided by ---


def _sum(part: Tensor) -> Tensor:
    return part.pow(2).sum(dim=-1, keepdim=True)


def _mean(part: Tensor) -> Tensor:
    return part.pow(2).mean(dim=-1, keepdim=True)


def _together(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([*values]).sum(dim=0)


def _channels(parts: _Parts) -> int:
    return sum(part.shape[-1] for part in parts)


def _mean_square(parts: _Parts) -> Tensor:
    return _together([_sum(part) for part in parts]) / _channels(parts)


def _with(mean_square: _MeanSquare, upcast: bool = True) -> Callable[..., list[Tensor]]:
    """Return the exercise's function with another idea of the mean square."""
    return _divided_by(lambda parts, eps: (mean_square(parts) + eps).sqrt(), upcast)


def _divided_by(
    divisor: Callable[[_Parts, float], Tensor], upcast: bool = True
) -> Callable[..., list[Tensor]]:
    def norm(parts: _Parts, weights: _Parts, eps: float) -> list[Tensor]:
        wide = [part.float() if upcast else part for part in parts]
        root = divisor(wide, eps)
        return [
            weight * (one / root).to(part.dtype)
            for part, one, weight in zip(parts, wide, weights, strict=True)
        ]

    return norm


def _each_alone(parts: _Parts, weights: _Parts, eps: float) -> list[Tensor]:
    return [split([p], [w], eps)[0] for p, w in zip(parts, weights, strict=True)]


def _first_only(parts: _Parts, weights: _Parts, eps: float) -> list[Tensor]:
    return _divided_by(lambda all_parts, eps: (_mean(all_parts[0]) + eps).sqrt())(
        parts, weights, eps
    )


_MEANS = (
    "the mean of the parts' means is right only where all parts have the same size. A part of six "
    "channels should count six times as much as a part of one."
)
SPLIT_MISTAKES = [
    Mistake("each part alone", "each part is divided by its own root mean square. There is one "
        "per token, of all its channels: what must the parts tell each other?", _each_alone),
    Mistake("mean of means", _MEANS,
        _with(lambda parts: _together([_mean(part) for part in parts]) / len(parts))),
    Mistake("mean of roots", "you take the mean of the parts' roots. Roots cannot be averaged; "
        "which numbers of two parts can simply be added?",
        _divided_by(lambda parts, eps:
            _together([(_mean(part) + eps).sqrt() for part in parts]) / len(parts))),
    Mistake("mean of roots", "you add the parts' roots. Add the numbers under the roots first.",
        _divided_by(lambda parts, eps: _together([(_mean(part) + eps).sqrt() for part in parts]))),
    Mistake("sum of means", "you add the parts' means. With two equal parts, that is twice the "
        "mean of all channels.",
        _with(lambda parts: _together([_mean(part) for part in parts]))),
    Mistake("sum", "the squares of all parts are added up and not averaged. By how many channels "
        "should you divide?",
        _with(lambda parts: _together([_sum(part) for part in parts]))),
    Mistake("divided by the parts", "you divide by the number of parts. A mean over channels "
        "divides by the number of channels, of all parts together.",
        _with(lambda parts: _together([_sum(part) for part in parts]) / len(parts))),
    Mistake("divided by one size", "you divide the sum of all squares by the channels of one part "
        "alone. How many are there in all?",
        _with(lambda parts: _together([_sum(part) for part in parts]) / parts[0].shape[-1])),
    Mistake("divided by one size", "you divide the sum of all squares by the channels of one part "
        "alone. How many are there in all?",
        _with(lambda parts: _together([_sum(part) for part in parts]) / parts[-1].shape[-1])),
    Mistake("first part only", "every part is divided by the root mean square of the first one.",
        _first_only),
    Mistake("eps once per part", "eps is added once per part, so it counts several times. It "
        "should be added once, to the mean square of all channels.",
        _divided_by(lambda parts, eps: (_mean_square(parts) + eps * len(parts)).sqrt())),
    Mistake("eps in the sum", "eps is added to the sum of the squares, and then divided by the "
        "number of channels. Add it after the division.",
        _divided_by(lambda parts, eps: (_mean_square(parts) + eps / _channels(parts)).sqrt())),
    Mistake("eps outside", "eps is added to the root; it belongs under the root. It shows where "
        "values are tiny.",
        _divided_by(lambda parts, eps: _mean_square(parts).sqrt() + eps)),
    Mistake("no eps", "where is eps? The root mean square of zeros is 0, and 0 / 0 is not a "
        "number.",
        _divided_by(lambda parts, eps: _mean_square(parts).sqrt())),
    Mistake("eps fixed", "eps is an argument: each checkpoint has its own. Yours is always the "
        "same.",
        _divided_by(lambda parts, eps: (_mean_square(parts) + 1e-6).sqrt())),
    Mistake("no root", "you divide by the mean square. Where is the root?",
        _divided_by(lambda parts, eps: _mean_square(parts) + eps)),
    Mistake("mixes tokens", "this mixes different tokens. Each token has its own root mean square: "
        "sum over the last dimension only.",
        _divided_by(lambda parts, eps:
            (_together([part.pow(2).sum() for part in parts]) / _channels(parts) + eps).sqrt())),
    Mistake("mixes tokens", "this mixes different tokens. Each token has its own root mean square: "
        "average over the last dimension only.",
        _divided_by(lambda parts, eps:
            (_together([part.pow(2).sum() for part in parts]) / sum(p.numel() for p in parts)
                + eps).sqrt())),
    Mistake("no weight", "each channel should also be multiplied by its weight.",
        lambda parts, weights, eps: split(parts, [torch.ones_like(w) for w in weights], eps)),
    Mistake("weight plus one", PLUS_ONE,
        lambda parts, weights, eps: split(parts, [1 + w for w in weights], eps)),
    Mistake("weight first", "the weight comes last. Here it changes the root mean square too.",
        lambda parts, weights, eps: split(
            [p * w for p, w in zip(parts, weights, strict=True)],
            [torch.ones_like(w) for w in weights], eps)),
    Mistake("half precision", "the formula is right, but float16 cannot hold the square of 300. "
        "Square in float32, then convert back to the dtype of the parts.",
        _with(_mean_square, upcast=False)),
    Mistake("float32 comes back", "the values are right. A bfloat16 model continues in bfloat16: "
        "return the dtype of the parts.",
        lambda parts, weights, eps: split(
            [p.float() for p in parts], [w.float() for w in weights], eps)),
]  # fmt: skip
