"""The checks of notebook 03: right answers in several styles, and each wrong one by its name."""

import pytest
import torch
import torch.nn.functional as F

from qwenkit.checks import norm
from qwenkit.model.norm import RMSNorm


def judged(check, function):
    found = check(function)
    assert str(found).startswith("Right: " if found.outcome == "right" else "Not yet: ")
    return found.outcome, found.mistake


# --- right, however it is written ---


def _rms_by_length(x):
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5


def _rms_in_loops(x):
    flat = x.reshape(-1, x.shape[-1])
    rows = [(sum(float(v) ** 2 for v in row) / len(row)) ** 0.5 for row in flat]
    return torch.tensor(rows).view(*x.shape[:-1], 1)


def _module(x, weight, eps):
    one = RMSNorm(x.shape[-1], eps)
    one.weight.data = weight
    return one(x).detach()


def _library(x, weight, eps):
    wide = F.rms_norm(x.float(), (x.shape[-1],), eps=eps)
    return weight * wide.to(x.dtype)


def _steps(x, weight, eps):
    wide = x.to(torch.float32)
    total = (wide * wide).sum(dim=-1, keepdim=True)
    divisor = torch.sqrt(total / x.shape[-1] + eps)
    return (wide / divisor * weight).to(x.dtype)  # the weight before the way back: as good


def _doubly_wide(x, weight, eps):
    wide = x.double()
    return (weight * wide * (wide.square().mean(-1, keepdim=True) + eps).pow(-0.5)).to(x.dtype)


RIGHT = [
    (norm.rms, lambda x: x.square().mean(-1).sqrt().unsqueeze(-1)),
    (norm.rms, _rms_by_length),
    (norm.rms, _rms_in_loops),
    (norm.rms_norm, _module),
    (norm.rms_norm, _library),
    (norm.rms_norm, _steps),
    (norm.rms_norm, _doubly_wide),
    (norm.fold, lambda weight, matrix: matrix * weight),
    (norm.fold, lambda weight, matrix: matrix @ torch.diag(weight)),
    (norm.fold, lambda weight, matrix: torch.stack([row * weight for row in matrix])),
]


@pytest.mark.parametrize(("check", "function"), RIGHT)
def test_right_however_it_is_written(check, function):
    assert judged(check, function) == ("right", None)


@pytest.mark.parametrize("check", [norm.rms, norm.rms_norm, norm.fold])
def test_an_empty_stub_is_told_so_kindly(check):
    found = check(lambda *arguments: None)
    assert (found.outcome, found.mistake) == ("empty", None)
    assert found.exercise in norm.EXERCISES


# --- wrong, and named ---


def _normed(x, weight, eps, about=0.0, power=0.5):
    wide = x.float() - about
    return (weight * wide / (wide.square().mean(-1, keepdim=True) + eps) ** power).to(x.dtype)


def _own_mean(x):
    return x.float().mean(-1, keepdim=True)


WRONG_RMS = [
    ("sum", lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
    ("divided outside", lambda x: x.norm(dim=-1, keepdim=True) / x.size(-1)),
    ("no root", lambda x: (x * x).sum(-1, keepdim=True) / x.size(-1)),
    ("absolute values", lambda x: (x**2).sqrt().mean(-1, keepdim=True)),
    ("mean first", lambda x: (x.mean(-1, keepdim=True) ** 2).sqrt()),
    ("mean subtracted", lambda x: x.std(-1, keepdim=True)),
    ("mean subtracted", lambda x: x.var(-1, keepdim=True, unbiased=False).sqrt()),
    ("dimension dropped", lambda x: x.square().mean(-1).sqrt()),
    ("whole tensor", lambda x: x.norm() / x.numel() ** 0.5),
    ("whole tensor", lambda x: torch.ones(*[1] * x.dim()) * x.square().mean().sqrt()),
    ("wrong dimension", lambda x: x.square().mean(0, keepdim=True).sqrt()),
    ("wrong dimension", lambda x: x.square().mean(dim=x.dim() - 2).sqrt()),
    ("shape", lambda x: _rms_by_length(x).expand_as(x)),
    ("values", lambda x: 2 * _rms_by_length(x)),
    ("changes its input", lambda x: x.square_().mean(-1, keepdim=True).sqrt_()),
]
WRONG_NORM = [
    ("eps outside", lambda x, w, e: w * (x / (_rms_by_length(x) + e))),
    ("eps outside", lambda x, w, e: (w * (x / (_rms_by_length(x.float()) + e))).to(x.dtype)),
    ("eps as a floor", lambda x, w, e: w * x / x.float().square().mean(-1, True).clamp(e) ** 0.5),
    ("no eps", lambda x, w, e: w * F.normalize(x.float(), dim=-1, eps=0) * x.shape[-1] ** 0.5),
    ("no eps", lambda x, w, e: _normed(x, w, 0.0)),
    ("eps of its own", lambda x, w, e: _normed(x, w, 1e-6)),
    ("eps of its own", lambda x, w, e: F.rms_norm(x, (x.shape[-1],), w, 1e-6)),
    ("no weight", lambda x, w, e: _normed(x, 1.0, e)),
    ("no weight", lambda x, w, e: x * torch.rsqrt((x * x).mean(-1, True) + e)),
    ("weight plus one", lambda x, w, e: _normed(x, 1 + w.float(), e)),
    ("weight first", lambda x, w, e: _normed(x * w, 1.0, e)),
    ("mean subtracted", lambda x, w, e: F.layer_norm(x.float(), w.shape, w.float(), None, e)),
    ("mean subtracted", lambda x, w, e: _normed(x, w, e, about=_own_mean(x))),
    ("mean subtracted", lambda x, w, e: x / (x.var(-1, keepdim=True, correction=0) + e) ** 0.5 * w),
    ("sum", lambda x, w, e: w * (x / (x.float().square().sum(-1, True) + e).sqrt())),
    ("sum", lambda x, w, e: _normed(x, w, e / x.shape[-1]) / x.shape[-1] ** 0.5),
    ("no root", lambda x, w, e: _normed(x, w, e, power=1.0)),
    ("not divided", lambda x, w, e: torch.einsum("...c,c->...c", x, w)),
    ("multiplied", lambda x, w, e: _normed(x, w, e, power=-0.5)),
    ("whole tensor", lambda x, w, e: w * x / (x.square().mean() + e) ** 0.5),
    ("wrong dimension", lambda x, w, e: w * x * ((x * x).mean(-2, True) + e) ** -0.5),
    ("wrong dimension", lambda x, w, e: w * x.float() * (x.float().square().mean(0) + e) ** -0.5),
    ("half precision", lambda x, w, e: x * torch.rsqrt((x * x).mean(-1, True) + e) * w),
    ("float32 out", lambda x, w, e: w.float() * _normed(x.float(), 1.0, e)),
    ("values", lambda x, w, e: _normed(x, w, e) + 1),
]
WRONG_FOLD = [
    ("rows", lambda w, m: torch.diag(w) @ m),
    ("rows", lambda w, m: (m.T * w).T),
    ("multiplied out", lambda w, m: (m * w).sum(-1)),
    ("transposed", lambda w, m: torch.diag(w) @ m.T),
    ("divided", lambda w, m: m * (1 / w)),
    ("added", lambda w, m: m + w[None]),
    ("weight plus one", lambda w, m: m + m * w),
    ("unchanged", lambda w, m: m.clone()),
    ("error", lambda w, m: m.index(w)),
    ("changes its input", lambda w, m: m.mul_(w)),
    ("shape", lambda w, m: (m * w)[None]),
]


@pytest.mark.parametrize(("name", "function"), WRONG_RMS)
def test_a_wrong_rms_is_named(name, function):
    assert judged(norm.rms, function) == ("not yet", name)


@pytest.mark.parametrize(("name", "function"), WRONG_NORM)
def test_a_wrong_norm_is_named(name, function):
    assert judged(norm.rms_norm, function) == ("not yet", name)


@pytest.mark.parametrize(("name", "function"), WRONG_FOLD)
def test_a_wrong_fold_is_named(name, function):
    assert judged(norm.fold, function) == ("not yet", name)
