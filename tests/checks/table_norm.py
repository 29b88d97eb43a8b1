"""Answers to the exercises of notebook 03."""

import torch
import torch.nn.functional as F

from qwenkit.model.norm import RMSNorm


# right, no matter how it is written
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


def _steps(x, weight, eps):
    wide = x.to(torch.float32)
    divisor = torch.sqrt((wide * wide).sum(dim=-1, keepdim=True) / x.shape[-1] + eps)
    return (wide / divisor * weight).to(x.dtype)  # the weight before the cast: just as good


RIGHT = {
    "rms": [lambda x: x.square().mean(-1).sqrt().unsqueeze(-1), _rms_by_length, _rms_in_loops],
    "rms_norm": [
        _module, lambda x, w, e: w * F.rms_norm(x.float(), (x.shape[-1],), eps=e).to(x.dtype),
        _steps,
        lambda x, w, e:
            (w * x.double() * (x.double().square().mean(-1, True) + e).pow(-0.5)).to(x.dtype),
    ],
    "fold": [
        lambda weight, matrix: matrix * weight, lambda weight, matrix: matrix @ torch.diag(weight),
        lambda weight, matrix: torch.stack([row * weight for row in matrix]),
    ],
}  # fmt: skip


# wrong, and named
def _normed(x, weight, eps, about=0.0, power=0.5):
    wide = x.float() - about
    return (weight * wide / (wide.square().mean(-1, keepdim=True) + eps) ** power).to(x.dtype)


WRONG = {
    "rms": [
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
        ("divided by tokens", lambda x: (x.square().sum(-1, keepdim=True) / len(x)).sqrt()),
        ("root of the mean", lambda x: x.mean(-1, keepdim=True).sqrt()),
        ("inverse", lambda x: torch.rsqrt(x.square().mean(-1, keepdim=True))),
        ("normalized", lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True))),
        ("no return", lambda x: print(_rms_by_length(x))),
        ("changes its input", lambda x: x.square_().mean(-1, keepdim=True).sqrt_()),
    ],
    "rms_norm": [
        ("eps outside", lambda x, w, e: w * (x / (_rms_by_length(x) + e))),
        ("eps outside", lambda x, w, e: (w * (x / (_rms_by_length(x.float()) + e))).to(x.dtype)),
        ("eps as a minimum", lambda x, w, e: w * x / _rms_by_length(x.float()).clamp(e**0.5)),
        ("no eps", lambda x, w, e: w * F.normalize(x.float(), dim=-1, eps=0) * x.shape[-1] ** 0.5),
        ("no eps", lambda x, w, e: _normed(x, w, 0.0)),
        ("eps fixed", lambda x, w, e: _normed(x, w, 1e-6)),
        ("eps fixed", lambda x, w, e: F.rms_norm(x, (x.shape[-1],), w, 1e-6)),
        ("no weight", lambda x, w, e: _normed(x, 1.0, e)),
        ("no weight", lambda x, w, e: x * torch.rsqrt((x * x).mean(-1, True) + e)),
        ("weight plus one", lambda x, w, e: _normed(x, 1 + w.float(), e)),
        ("weight first", lambda x, w, e: _normed(x * w, 1.0, e)),
        ("mean subtracted", lambda x, w, e: F.layer_norm(x.float(), w.shape, w.float(), None, e)),
        ("mean subtracted", lambda x, w, e: _normed(x, w, e, about=x.float().mean(-1, True))),
        ("mean subtracted", lambda x, w, e: w * x / (x.var(-1, False, True) + e) ** 0.5),
        ("sum", lambda x, w, e: w * (x / (x.float().square().sum(-1, True) + e).sqrt())),
        ("sum", lambda x, w, e: _normed(x, w, e / x.shape[-1]) / x.shape[-1] ** 0.5),
        ("no root", lambda x, w, e: _normed(x, w, e, power=1.0)),
        ("not divided", lambda x, w, e: torch.einsum("...c,c->...c", x, w)),
        ("multiplied", lambda x, w, e: _normed(x, w, e, power=-0.5)),
        ("whole tensor", lambda x, w, e: w * x / (x.square().mean() + e) ** 0.5),
        ("wrong dimension", lambda x, w, e: w * x * ((x * x).mean(-2, True) + e) ** -0.5),
        ("wrong dimension", lambda x, w, e: w * x.float() / (x.float() ** 2 + e).mean(0) ** 0.5),
        ("half precision", lambda x, w, e: x * torch.rsqrt((x * x).mean(-1, True) + e) * w),
        ("float32 comes back", lambda x, w, e: w.float() * _normed(x.float(), 1.0, e)),
        ("values", lambda x, w, e: _normed(x, w, e) + x),
        ("eps as a minimum", lambda x, w, e: w * x / _rms_by_length(x).clamp(min=e)),
        ("vector's length", lambda x, w, e: w * F.normalize(x, dim=-1, eps=e)),
        ("keepdim forgotten", lambda x, w, e: w * x / (x.square().mean(-1) + e).sqrt()),
        ("eps subtracted", lambda x, w, e: _normed(x, w, -e)),
    ],
    "fold": [
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
        ("multiplied out", lambda w, m: w @ m),
        ("normalized, too", lambda w, m: m * w / w.square().mean().sqrt()),
        ("multiplied out", lambda w, m: m @ w),
    ],
}  # fmt: skip
