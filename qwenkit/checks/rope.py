"""The checks of notebook 04, RoPE: frequencies, tables, the rotation, and tokens after a cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit._deprecated import renamed
from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import in_bfloat16, normal, not_contiguous
from qwenkit.model import apply_rope

EXERCISES = {
    "04.1": "the frequency of each pair",
    "04.2": "the cos and sin tables",
    "04.3": "rotate the pairs",
    "04.4": "tokens after a cache",
}
Two = tuple[Tensor, Tensor]


def frequencies(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(head_dim, theta)`: radians per position of each pair, (D/2,)."""
    cases = [
        Case("head_dim 8, theta 10,000", (8, 10_000.0)),
        Case("head_dim 64, theta 1,000,000", (64, 1_000_000.0)),
        Case("head_dim 6, theta 500", (6, 500.0)),
        Case("a single pair", (2, 10_000.0)),
    ]
    praise = "the first pair rotates by one radian per position, each later one more slowly."
    return judge("04.1", learner, _frequencies, cases, _FREQUENCY_MISTAKES, praise)


def tables(learner: Callable[..., Two]) -> Verdict:
    """Check `learner(positions, frequencies, dtype)`: cos and sin, (T, D) each."""
    speeds = _frequencies(8, 10_000.0)
    cases = [
        Case("positions 0 to 4", (torch.arange(5), speeds, torch.float32)),
        Case("positions 5, 6 and 7", (torch.arange(5, 8), speeds, torch.float32)),
        Case("position 9 alone", (torch.tensor([9]), speeds, torch.float32)),
        Case("positions 3, 0 and 11", (torch.tensor([3, 0, 11]), speeds, torch.float32)),
        Case("bfloat16, far into a text", (torch.arange(1000, 1006), speeds, torch.bfloat16)),
    ]
    praise = "one row per position, both halves alike, and no angle loses its digits."
    return judge("04.2", learner, _tables, cases, _TABLE_MISTAKES, praise, LOOSE)


def rotate(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(x, cos, sin)`: x, (B, H, T, D), rotated by tables of (B, T, D)."""

    def case(label: str, shape: tuple[int, ...], starts: tuple[int, ...], scale: float = 1) -> Case:
        positions = torch.tensor(starts)[:, None] + torch.arange(shape[2])  # (B, T)
        cos, sin = _tables(positions, _frequencies(shape[3], 100.0))
        return Case(label, (scale * normal(*shape, seed=4), cos, sin))

    two = case("two texts, two heads", (2, 2, 5, 8), (1, 9))
    x, cos, sin = two.arguments
    cases = [
        case("one text, two heads, three tokens", (1, 2, 3, 8), (1,)),
        two,
        case("as many heads as tokens", (1, 4, 4, 8), (2,)),
        case("a single token", (1, 3, 1, 4), (6,)),
        in_bfloat16(x, cos, sin),
        Case("not contiguous", (*not_contiguous(x).arguments, cos, sin)),
        case("large values", (1, 2, 3, 8), (3,), 1e4),
    ]
    praise = "each token is rotated by its own angle, in every head alike."
    return judge(
        "04.3", learner, apply_rope, cases, _ROTATION_MISTAKES, praise, LOOSE, ("apply_rope",)
    )


def rotate_new(learner: Callable[..., Two]) -> Verdict:
    """Check `learner(q, k, past, frequencies)`: both rotated, after `past` cached tokens."""

    def case(label: str, tokens: int, past: int, batch: int = 1) -> Case:
        q, k = normal(batch, 4, tokens, 8, seed=4), normal(batch, 2, tokens, 8, seed=4) + 0.5
        return Case(label, (q, k, past, _frequencies(8, 100.0)))

    q, k, past, speeds = case("", 2, 1002, 2).arguments
    cases = [
        case("three tokens after five", 3, 5),
        case("one token after seven", 1, 7),
        case("a prompt of four tokens, nothing before it", 4, 0),
        case("two texts", 2, 6, 2),
        Case("bfloat16, far into a text", (q.bfloat16(), k.bfloat16(), past, speeds)),
    ]
    praise = "new positions continue where the cache ends, so all distances are as in training."
    return judge("04.4", learner, _rotate_new, cases, _NEW_MISTAKES, praise, LOOSE)


__getattr__ = renamed(__name__, turn_new="rotate_new")


# --- 04.1 ---


def _frequencies(head_dim: int, theta: float) -> Tensor:
    return _power(theta, torch.arange(0, head_dim, 2) / head_dim)


def _power(theta: float, exponent: Tensor) -> Tensor:
    return theta**-exponent


_FREQUENCY_MISTAKES = (
    Mistake("exponent i/D", "your slow pairs rotate too fast: the exponent gets only half-way to "
        "1. A pair takes two dimensions; so how much does the exponent grow from pair to pair?",
        lambda d, theta: _power(theta, torch.arange(d // 2) / d)),
    Mistake("one for each dimension", "these are D frequencies. The two dimensions of a pair "
        "rotate together: how many pairs are there?",
        lambda d, theta: _power(theta, torch.arange(d) / d)),
    Mistake("not inverse", "yours grow from pair to pair, and the last one rotates many times "
        "between two tokens. Which sign must the exponent have?",
        lambda d, theta: _power(theta, -torch.arange(0, d, 2) / d)),
    Mistake("theta fixed", "your theta is always 10,000. Other models use another value: use the "
        "argument.",
        lambda d, theta: _frequencies(d, 10_000.0)),
    Mistake("exponent 2i/(D/2)", "your exponent goes up to 2, and the last pairs hardly rotate. "
        "Divide by all dimensions of the head.",
        lambda d, theta: _power(theta, torch.arange(0, d, 2) / (d // 2))),
    Mistake("ends at 1/theta", "your last pair has the frequency 1/theta. What is 2i/D for the "
        "last pair? It is not 1.",
        lambda d, theta: _power(theta, torch.linspace(0, 1, d // 2))),
    Mistake("turns, not radians", "you multiply by 2π. These are already radians per position: the "
        "first pair has 1.",
        lambda d, theta: 2 * math.pi * _frequencies(d, theta)),
    Mistake("each twice", "each frequency is there twice. Return one per pair; the tables repeat "
        "them.",
        lambda d, theta: _frequencies(d, theta).repeat(2)),
    Mistake("linear", "you divide by theta times the exponent. The exponent belongs to theta: a "
        "power.",
        lambda d, theta: 1 / (theta * torch.arange(0, d, 2) / d)),
    Mistake("exponents", "these are the exponents. Theta to the power of minus each is a "
        "frequency.",
        lambda d, theta: torch.arange(0, d, 2) / d),
    Mistake("pairs from 1", "your first pair does not rotate by 1 radian. Pairs count from 0, and "
        "theta to the power of 0 is 1.",
        lambda d, theta: _power(theta, torch.arange(2, d + 2, 2) / d)),
)  # fmt: skip


# --- 04.2 ---


def _cos_sin(angles: Tensor, dtype: torch.dtype = torch.float32) -> Two:
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _both(angles: Tensor, dtype: torch.dtype = torch.float32) -> Two:
    return _cos_sin(torch.cat([angles, angles], dim=-1), dtype)  # (..., T, D)


def _tables(positions: Tensor, speeds: Tensor, dtype: torch.dtype = torch.float32) -> Two:
    return _both(positions[..., None].float() * speeds, dtype)


_ROUNDED = (
    "it goes wrong far into a text in bfloat16, which cannot tell 1,001 from 1,000. Compute the "
    "angle in float32, and round only its cos and sin."
)
_TABLE_MISTAKES = (
    Mistake("degrees", "your angles are much too small, as if they were degrees. They are already "
        "radians, and cos and sin take radians.",
        lambda p, speeds, dtype: _tables(p, speeds * math.pi / 180, dtype)),
    Mistake("interleaved", "you repeat each angle in the next dimension, so dimensions 0 and 1 "
        "rotate together. Qwen pairs i with i + D/2: where must an angle appear a second time?",
        lambda p, speeds, dtype:
            _cos_sin((p[:, None] * speeds).repeat_interleave(2, dim=-1), dtype)),
    Mistake("swapped", "sin comes first. At position 0 nothing rotates: which of the two tables is "
        "1 there?",
        lambda p, speeds, dtype: _tables(p, speeds, dtype)[::-1]),
    Mistake("half as wide", "you have one column per pair. A head has D dimensions, and both of a "
        "pair need their angle.",
        lambda p, speeds, dtype: _cos_sin(p[:, None] * speeds, dtype)),
    Mistake("from 1", "everything is rotated by one position too many. Positions count from 0, and "
        "there nothing rotates.",
        lambda p, speeds, dtype: _tables(p + 1, speeds, dtype)),
    Mistake("positions not used", "you count the rows yourself. If the first position is 5, what "
        "is in row 0?",
        lambda p, speeds, dtype: _tables(torch.arange(len(p)), speeds, dtype)),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: _both(p[:, None].to(dtype) * speeds.to(dtype), dtype)),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: _tables(p.to(dtype), speeds, dtype)),
    Mistake("cos only", "both tables are the same. The second one is sin.",
        lambda p, speeds, dtype: (_tables(p, speeds, dtype)[0],) * 2),
    Mistake("angles", "these are the angles themselves, twice. Take cos and sin of them.",
        lambda p, speeds, dtype: (torch.cat([p[:, None] * speeds] * 2, dim=-1).to(dtype),) * 2),
    Mistake("divided", "you divide positions by frequencies. An angle is position × frequency.",
        lambda p, speeds, dtype: _tables(p, 1 / speeds, dtype)),
    Mistake("one tensor", "that is one tensor. Return two: cos, sin.",
        lambda p, speeds, dtype: torch.stack(_tables(p, speeds, dtype))),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: _both((p[:, None] * speeds).to(dtype), dtype)),
    Mistake("not cast", "the values are right, but they stay float32 where bfloat16 is asked for. "
        "Convert the tables to `dtype` at the very end.",
        lambda p, speeds, dtype: _tables(p, speeds)),
)  # fmt: skip


# --- 04.3 ---


def _with(x: Tensor, cos: Tensor, sin: Tensor, other: Tensor) -> Tensor:
    """Rotate x with another idea of what sin is multiplied by."""
    return x * cos[:, None] + other * sin[:, None]


def _halves(x: Tensor, first: int, second: int, dim: int = -1) -> Tensor:
    """Swap the halves of x and give each a sign."""
    a, b = x.chunk(2, dim=dim)
    return torch.cat([first * b, second * a], dim=dim)


def _neighbors(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def _interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x[2i] with x[2i + 1] by the angle of pair i."""
    half = x.shape[-1] // 2
    cos, sin = (table[..., :half].repeat_interleave(2, dim=-1) for table in (cos, sin))
    return _with(x, cos, sin, _neighbors(x))


def _one_after_the_other(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a = apply_rope(x, cos, sin)[..., :half]  # the new one
    return torch.cat([a, apply_rope(torch.cat([a, x[..., half:]], -1), cos, sin)[..., half:]], -1)


_INTERLEAVED = (
    "this is the interleaved rotation, which pairs 2i with 2i + 1. Qwen pairs i with i + D/2: cut "
    "the head in the middle."
)
_ROTATION_MISTAKES = (
    Mistake("interleaved", _INTERLEAVED, _interleaved),
    Mistake("interleaved", _INTERLEAVED, lambda x, cos, sin: _with(x, cos, sin, _neighbors(x))),
    Mistake("other direction", "you rotate in the other direction. Take the pair (1, 0) and a "
        "quarter turn: it becomes (0, 1).",
        lambda x, cos, sin: apply_rope(x, cos, -sin)),
    Mistake("no minus", "you only add, so lengths change. Which of the two lines of a rotation has "
        "a minus?",
        lambda x, cos, sin: _with(x, cos, sin, _halves(x, 1, 1))),
    Mistake("swapped", "cos and sin are swapped. At angle 0, cos is 1, sin is 0, and x should stay "
        "unchanged.",
        lambda x, cos, sin: apply_rope(x, sin, cos)),
    Mistake("halves not swapped", "each value is mixed with itself. In a rotation a takes some of "
        "b, and b some of a.",
        lambda x, cos, sin: _with(x, cos, sin, _halves(_halves(x, 1, 1), -1, 1))),
    Mistake("only cos", "that is x · cos alone: the part with sin is missing.",
        lambda x, cos, sin: x * cos[:, None]),
    Mistake("only sin", "that is the part with sin alone: x · cos is missing.",
        lambda x, cos, sin: _halves(x, -1, 1) * sin[:, None]),
    Mistake("one after the other", "you compute the new a and use it for the new b. Both need the "
        "old a.",
        _one_after_the_other),
    Mistake("angle by head", "the angles run along the heads. The tables are (B, T, D): at which "
        "position does x have one axis more?",
        lambda x, cos, sin: x * cos.unsqueeze(2) + _halves(x, -1, 1) * sin.unsqueeze(2)),
    Mistake("no axis for the heads", "the tables are (B, T, D), x is (B, H, T, D). That works for "
        "a batch of one; with more texts, the angles of a text meet the heads of another. Give the "
        "tables an axis for the heads.",
        lambda x, cos, sin: x * cos + _halves(x, -1, 1) * sin),
    Mistake("over the tokens", "you cut the tokens into two halves. Which axis of (B, H, T, D) "
        "holds the values of a head?",
        lambda x, cos, sin: _with(x, cos, sin, _halves(x, -1, 1, dim=-2))),
)  # fmt: skip


# --- 04.4 ---


def _at(x: Tensor, positions: Tensor, speeds: Tensor) -> Tensor:
    return apply_rope(x, *_tables(positions[None], speeds, x.dtype))


def _each(rotate: Callable[[Tensor, int, Tensor], Tensor]) -> Callable[..., Two]:
    """Return a rotation of q and k alike."""
    return lambda q, k, past, speeds: (rotate(q, past, speeds), rotate(k, past, speeds))


def _after(x: Tensor, past: int, speeds: Tensor) -> Tensor:
    return _at(x, past + torch.arange(x.shape[2]), speeds)


def _in_its_dtype(x: Tensor, past: int, speeds: Tensor) -> Tensor:
    return _at(x, (past + torch.arange(x.shape[2])).to(x.dtype), speeds)


_rotate_new = _each(_after)
_NEW_MISTAKES = (
    Mistake("past forgotten", "you count the new tokens from 0. But `past` tokens come before "
        "them: what is the position of the first new one?",
        lambda q, k, past, speeds: _rotate_new(q, k, 0, speeds)),
    Mistake("one too far", "everything is rotated by one position too many. Five tokens are at 0 "
        "to 4: where is the next?",
        lambda q, k, past, speeds: _rotate_new(q, k, past + 1, speeds)),
    Mistake("one too near", "the first new token gets the position of the last cached one. Five "
        "tokens are at 0 to 4: where is the next?",
        lambda q, k, past, speeds: _rotate_new(q, k, past - 1, speeds)),
    Mistake("past includes the new ones", "you count back from `past`, as if it included the new "
        "tokens. They come after.",
        lambda q, k, past, speeds: _rotate_new(q, k, past - q.shape[2], speeds)),
    Mistake("all at one position", "every new token is rotated by `past`. Each has its own "
        "position.",
        _each(lambda x, past, speeds: _at(x, torch.full(x.shape[2:3], past), speeds))),
    Mistake("k from 0", "q continues where the cache ends, but k starts at 0 again. They belong to "
        "the same tokens.",
        lambda q, k, past, speeds: (_after(q, past, speeds), _after(k, 0, speeds))),
    Mistake("q from 0", "k continues where the cache ends, but q starts at 0. They belong to the "
        "same tokens.",
        lambda q, k, past, speeds: (_after(q, 0, speeds), _after(k, past, speeds))),
    Mistake("q not rotated", "you return q unchanged. The scores compare rotated queries with "
        "rotated keys.",
        lambda q, k, past, speeds: (q, _after(k, past, speeds))),
    Mistake("neither rotated", "you return q and k unchanged.",
        lambda q, k, past, speeds: (q, k)),
    Mistake("swapped", "k comes first. Return q, then k.",
        lambda q, k, past, speeds: _rotate_new(q, k, past, speeds)[::-1]),
    Mistake("only q", "that is q alone. Return both: q, k.",
        lambda q, k, past, speeds: _after(q, past, speeds)),
    Mistake("only k", "that is k alone. Return both: q, k.",
        lambda q, k, past, speeds: _after(k, past, speeds)),
    Mistake("k not rotated", "you return k unchanged. The keys in the cache are rotated already; "
        "the new ones are not.",
        lambda q, k, past, speeds: (_after(q, past, speeds), k)),
    Mistake("k rotated backwards", "you rotate k in the other direction. Both rotate in the same "
        "direction; the difference comes from q · k.",
        lambda q, k, past, speeds:
            (_after(q, past, speeds), _at(k, -past - torch.arange(k.shape[2]), speeds))),
    Mistake("rounded angles", _ROUNDED, _each(_in_its_dtype)),
    Mistake("not cast", "the values are right, but queries and keys in bfloat16 come back as "
        "float32. They should keep their dtype.",
        lambda q, k, past, speeds: _rotate_new(q.float(), k.float(), past, speeds)),
)  # fmt: skip
