"""Answers to the exercises of notebook 03."""

import torch
import torch.nn.functional as F

from qwenkit.model.norm import RMSNorm


# right, no matter how it is written
def _rms_by_length(x):
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5


def _module(x, weight, eps):
    one = RMSNorm(x.shape[-1], eps)
    one.weight.data = weight
    return one(x).detach()


def _steps(x, weight, eps):
    wide = x.to(torch.float32)
    divisor = torch.sqrt((wide * wide).sum(dim=-1, keepdim=True) / x.shape[-1] + eps)
    return (wide / divisor * weight).to(x.dtype)  # the weight before the cast: just as good


def _split(parts, weights, eps):
    total, count = 0.0, 0
    for part in parts:
        total = total + torch.einsum("...c,...c->...", part.float(), part.float())
        count += part.size(-1)
    scale = torch.rsqrt(total / count + eps).unsqueeze(-1)
    return [
        (scale * p.float() * w.float()).to(p.dtype) for p, w in zip(parts, weights, strict=True)
    ]


def _split_by_share(parts, weights, eps):
    """Weigh the parts' means by their share of the channels; a tuple is as good as a list."""
    count = sum(w.numel() for w in weights)
    shares = [p.float().square().mean(-1, True) * p.shape[-1] / count for p in parts]
    root = (sum(shares) + eps) ** 0.5
    return tuple(w * (p.float() / root).to(p.dtype) for p, w in zip(parts, weights, strict=True))


RIGHT = {
    "rms_norm": [
        _module, lambda x, w, e: w * F.rms_norm(x.float(), (x.shape[-1],), eps=e).to(x.dtype),
        _steps,
        lambda x, w, e:
            (w * x.double() * (x.double().square().mean(-1, True) + e).pow(-0.5)).to(x.dtype),
    ],
    "split_norm": [
        _split, _split_by_share,
        lambda parts, weights, e: [
            w * (p.double() / (
                sum(q.double().norm(dim=-1, keepdim=True) ** 2 for q in parts)
                / sum(len(w) for w in weights) + e
            ) ** 0.5).to(p.dtype) for p, w in zip(parts, weights, strict=True)],
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


def _parts(divisor, dtype=torch.float32, weigh=lambda w: w):
    """Return a norm of parts, each divided by `divisor(squares, eps)`."""

    def norm(parts, weights, eps):
        squares = [part.to(dtype or part.dtype).square() for part in parts]
        d = divisor(squares, eps)
        return [
            (p.to(dtype or p.dtype) / d).to(p.dtype) * weigh(w)
            for p, w in zip(parts, weights, strict=True)
        ]

    return norm


def _sums(squares):
    return sum(one.sum(-1, True) for one in squares)


def _count(squares):
    return sum(one.shape[-1] for one in squares)


def _own_norms(parts, weights, eps):
    pairs = zip(parts, weights, strict=True)
    return [F.rms_norm(p.float(), w.shape, w.float(), eps).to(p.dtype) for p, w in pairs]


def _joined(parts, weights, eps):
    x, weight = torch.cat([*parts], dim=-1), torch.cat([*weights])
    return [*_module(x, weight, eps).split([w.numel() for w in weights], dim=-1)]


WRONG = {
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
    "split_norm": [
        ("each part alone", _own_norms),
        ("mean of means",
            _parts(lambda s, e: (sum(x.mean(-1, True) for x in s) / len(s) + e) ** 0.5)),
        ("mean of means", _parts(lambda s, e:
            (torch.stack([x.mean(-1, True) for x in s]).mean(0) + e).sqrt())),
        ("mean of roots", _parts(lambda s, e:
            sum((x.mean(-1, True) + e).sqrt() for x in s) / len(s))),
        ("mean of roots", _parts(lambda s, e: sum((x.mean(-1, True) + e).sqrt() for x in s))),
        ("sum of means", _parts(lambda s, e: (sum(x.mean(-1, True) for x in s) + e).sqrt())),
        ("sum", _parts(lambda s, e: (_sums(s) + e).sqrt())),
        ("divided by the parts", _parts(lambda s, e: (_sums(s) / len(s) + e).sqrt())),
        ("divided by one size", _parts(lambda s, e: (_sums(s) / s[0].shape[-1] + e).sqrt())),
        ("divided by one size", _parts(lambda s, e: (_sums(s) / s[-1].shape[-1] + e).sqrt())),
        ("first part only", _parts(lambda s, e: (s[0].mean(-1, True) + e).sqrt())),
        ("eps once per part", _parts(lambda s, e: (_sums(s) / _count(s) + len(s) * e).sqrt())),
        ("eps in the sum", _parts(lambda s, e: ((_sums(s) + e) / _count(s)).sqrt())),
        ("eps outside", _parts(lambda s, e: (_sums(s) / _count(s)).sqrt() + e)),
        ("no eps", _parts(lambda s, e: (_sums(s) / _count(s)).sqrt())),
        ("eps fixed", _parts(lambda s, e: (_sums(s) / _count(s) + 1e-6).sqrt())),
        ("no root", _parts(lambda s, e: _sums(s) / _count(s) + e)),
        ("mixes tokens", _parts(lambda s, e: (sum(x.sum() for x in s) / _count(s) + e).sqrt())),
        ("mixes tokens", _parts(lambda s, e:
            (sum(x.sum() for x in s) / sum(x.numel() for x in s) + e).sqrt())),
        ("no weight", _parts(lambda s, e: (_sums(s) / _count(s) + e).sqrt(), weigh=lambda w: 1)),
        ("weight plus one",
            _parts(lambda s, e: (_sums(s) / _count(s) + e).sqrt(), weigh=lambda w: 1 + w)),
        ("weight first", lambda parts, weights, e: _split(
            [p * w for p, w in zip(parts, weights, strict=True)],
            [torch.ones_like(w) for w in weights], e)),
        ("half precision", _parts(lambda s, e: (_sums(s) / _count(s) + e).sqrt(), dtype=None)),
        ("float32 comes back", lambda parts, weights, e: _split(
            [p.float() for p in parts], [w.float() for w in weights], e)),
        ("forbidden", _joined),
        ("kind", lambda parts, weights, e: torch.cat(_split(parts, weights, e), dim=-1)),
        ("values", _parts(lambda s, e: (sum(s) / _count(s) + e).sqrt())),
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
