"""Exercises 04.1 and 04.2: the frequency of each pair, and the cos and sin tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

Two = tuple[Tensor, Tensor]


# --- 04.1 ---


def frequencies_of(head_dim: int, theta: float) -> Tensor:
    return _power(theta, torch.arange(0, head_dim, 2) / head_dim)


def _power(theta: float, exponent: Tensor) -> Tensor:
    return theta**-exponent


FREQUENCY_MISTAKES = (
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
        lambda d, theta: frequencies_of(d, 10_000.0)),
    Mistake("exponent 2i/(D/2)", "your exponent goes up to 2, and the last pairs hardly rotate. "
        "Divide by all dimensions of the head.",
        lambda d, theta: _power(theta, torch.arange(0, d, 2) / (d // 2))),
    Mistake("ends at 1/theta", "your last pair has the frequency 1/theta. What is 2i/D for the "
        "last pair? It is not 1.",
        lambda d, theta: _power(theta, torch.linspace(0, 1, d // 2))),
    Mistake("turns, not radians", "you multiply by 2π. These are already radians per position: the "
        "first pair has 1.",
        lambda d, theta: 2 * math.pi * frequencies_of(d, theta)),
    Mistake("each twice", "each frequency is there twice. Return one per pair; the tables repeat "
        "them.",
        lambda d, theta: frequencies_of(d, theta).repeat(2)),
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


def tables_of(positions: Tensor, speeds: Tensor, dtype: torch.dtype = torch.float32) -> Two:
    return _both(positions[..., None].float() * speeds, dtype)


_ROUNDED = (
    "it goes wrong far into a text in bfloat16, which cannot tell 1,001 from 1,000. Compute the "
    "angle in float32, and round only its cos and sin."
)
TABLE_MISTAKES = (
    Mistake("degrees", "your angles are much too small, as if they were degrees. They are already "
        "radians, and cos and sin take radians.",
        lambda p, speeds, dtype: tables_of(p, speeds * math.pi / 180, dtype)),
    Mistake("interleaved", "you repeat each angle in the next dimension, so dimensions 0 and 1 "
        "rotate together. Qwen pairs i with i + D/2: where must an angle appear a second time?",
        lambda p, speeds, dtype:
            _cos_sin((p[:, None] * speeds).repeat_interleave(2, dim=-1), dtype)),
    Mistake("swapped", "sin comes first. At position 0 nothing rotates: which of the two tables is "
        "1 there?",
        lambda p, speeds, dtype: tables_of(p, speeds, dtype)[::-1]),
    Mistake("half as wide", "you have one column per pair. A head has D dimensions, and both of a "
        "pair need their angle.",
        lambda p, speeds, dtype: _cos_sin(p[:, None] * speeds, dtype)),
    Mistake("from 1", "everything is rotated by one position too many. Positions count from 0, and "
        "there nothing rotates.",
        lambda p, speeds, dtype: tables_of(p + 1, speeds, dtype)),
    Mistake("positions not used", "you count the rows yourself. If the first position is 5, what "
        "is in row 0?",
        lambda p, speeds, dtype: tables_of(torch.arange(len(p)), speeds, dtype)),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: _both(p[:, None].to(dtype) * speeds.to(dtype), dtype)),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: tables_of(p.to(dtype), speeds, dtype)),
    Mistake("cos only", "both tables are the same. The second one is sin.",
        lambda p, speeds, dtype: (tables_of(p, speeds, dtype)[0],) * 2),
    Mistake("angles", "these are the angles themselves, twice. Take cos and sin of them.",
        lambda p, speeds, dtype: (torch.cat([p[:, None] * speeds] * 2, dim=-1).to(dtype),) * 2),
    Mistake("divided", "you divide positions by frequencies. An angle is position × frequency.",
        lambda p, speeds, dtype: tables_of(p, 1 / speeds, dtype)),
    Mistake("one tensor", "that is one tensor. Return two: cos, sin.",
        lambda p, speeds, dtype: torch.stack(tables_of(p, speeds, dtype))),
    Mistake("rounded angles", _ROUNDED,
        lambda p, speeds, dtype: _both((p[:, None] * speeds).to(dtype), dtype)),
    Mistake("not cast", "the values are right, but they stay float32 where bfloat16 is asked for. "
        "Convert the tables to `dtype` at the very end.",
        lambda p, speeds, dtype: tables_of(p, speeds)),
)  # fmt: skip
