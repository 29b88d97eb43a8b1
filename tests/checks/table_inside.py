"""Answers to the exercises of notebook 14."""

import numpy as np
import torch
import torch.nn.functional as F


# right, no matter how it is written
def _induction_in_loops(pattern, n):
    texts, heads = pattern.shape[:2]
    found = torch.zeros(heads)
    for b, h, i in np.ndindex(texts, heads, n):
        found[h] += pattern[b, h, n + i, i + 1] / (texts * n)
    return found.to(pattern.dtype)


def _with(z, head, value):
    heads = list(z.unbind(1))
    heads[head] = torch.zeros_like(heads[head]) + value
    return torch.stack(heads, 1)


def _contributions_in_loops(parts, weight, eps, row):
    stream = sum(parts)
    root = (float(stream.square().mean()) + eps) ** 0.5
    return torch.stack([(part * weight / root * row).sum() for part in parts])


def _contributions_by_leaving_out(parts, weight, eps, row):
    root = torch.rsqrt(parts.sum(0).square().mean() + eps)
    whole = parts.sum(0)
    total = (whole * root * weight).dot(row)
    return total - torch.stack([((whole - part) * root * weight).dot(row) for part in parts])


RIGHT = {
    "induction_score": [
        _induction_in_loops,
        lambda p, n: p.diagonal(1 - n, 2, 3)[..., 1:].float().mean((0, 2)).to(p.dtype),
        lambda p, n: p[:, :, n:][:, :, range(n), range(1, n + 1)].mean(dim=(0, -1)),
    ],
    "mean_ablation": [
        lambda z, head: _with(z, head, z[:, head].reshape(-1, z.shape[-1]).mean(0)),
        lambda z, head: torch.where((torch.arange(z.shape[1]) == head)[:, None, None],
            z.float().mean((0, 2), keepdim=True).to(z.dtype), z),
        lambda z, head: z.index_copy(1, torch.tensor([head]),
            z[:, [head]].mean((0, 2), keepdim=True).expand_as(z[:, [head]])),
    ],
    "recovered": [
        lambda p, clean, corrupted: (corrupted - p) / (corrupted - clean),
        lambda p, clean, corrupted: 1 - (clean - p) / (clean - corrupted),
        lambda p, clean, corrupted: torch.stack([(r - corrupted) / (clean - corrupted) for r in p]),
    ],
    "contributions": [
        _contributions_in_loops, _contributions_by_leaving_out,
        lambda p, w, eps, row: p * torch.rsqrt(p.sum(0).square().mean() + eps) @ (w * row),
    ],
}  # fmt: skip


# wrong, and named
def _at(p, n, back=None):
    """Return the weights of the second half's queries, `back` positions back: (n, B, H)."""
    back = n - 1 if back is None else back
    return torch.stack([p[:, :, t, (t - back) % (2 * n)] for t in range(n, 2 * n)])


def _rms(stream, eps):
    return torch.sqrt(stream.square().mean(-1, keepdim=True) + eps)


WRONG = {
    "induction_score": [
        ("the token itself", lambda p, n: _at(p, n, n).mean((0, 1))),
        ("the token before", lambda p, n: _at(p, n, n + 1).mean((0, 1))),
        ("a previous-token head", lambda p, n: _at(p, n, 1).mean((0, 1))),
        ("the first half too", lambda p, n: torch.stack([p[:, :, t, max(t - n + 1, 0)]
            for t in range(2 * n)], -1).mean(-1).mean(0)),
        ("divided by all tokens", lambda p, n: _at(p, n).mean((0, 1)) * n / p.shape[-1]),
        ("a sum", lambda p, n: _at(p, n).sum(0).mean(0)),
        ("query and key swapped", lambda p, n: _at(p.mT, n).mean((0, 1))),
        ("the largest", lambda p, n: p[:, :, n:].max(-1).values.mean(-1).mean(0)),
        ("texts, not heads", lambda p, n: _at(p, n).mean(0).mean(1)),
        ("two after", lambda p, n: _at(p, n, n - 2).mean((0, 1))),
        ("queries of the first half", lambda p, n: p.diagonal(1, 2, 3)[..., :n].mean((0, 2))),
        ("a block, not pairs", lambda p, n: p[:, :, n:, 1 : n + 1].mean((0, 2, 3))),
        ("last pair lost", lambda p, n: _at(p, n)[:-1].mean((0, 1))),
        ("first pair lost", lambda p, n: _at(p, n)[1:].mean((0, 1))),
        ("one pair too many", lambda p, n: p.diagonal(1 - n, 2, 3).mean((0, 2))),
        ("first text only", lambda p, n: _at(p, n)[:, 0].mean(0)),
        ("texts added up", lambda p, n: _at(p, n).mean(0).sum(0)),
        ("the best query", lambda p, n: _at(p, n).amax(0).mean(0)),
        ("one number for all heads", lambda p, n: _at(p, n).mean()),
        ("a score per text", lambda p, n: _at(p, n).mean(0)),
        ("a score per query", lambda p, n: _at(p, n).mean(1).T),
        ("dtype", lambda p, n: _at(p, n).mean((0, 1)).double()),
        ("kind", lambda p, n: _at(p, n).mean((0, 1)).tolist()),
        ("error", lambda p, n: p[:, :, torch.arange(n, 2 * n), torch.arange(n + 1)].mean((0, 2))),
    ],
    "mean_ablation": [
        ("zero", lambda z, head: _with(z, head, 0.0)),
        ("mean per text", lambda z, head: _with(z, head, z[:, head].mean(1)[:, None])),
        ("mean per position", lambda z, head: _with(z, head, z.mean(0)[head])),
        ("one number", lambda z, head: _with(z, head, z[:, head].mean())),
        ("over the values", lambda z, head: _with(z, head, z.mean(-1)[:, head, :, None])),
        ("the mean of all heads", lambda z, head: _with(z, head, z.mean((0, 1, 2)))),
        ("every head", lambda z, head: torch.zeros_like(z) + z.mean((0, 2))[None, :, None]),
        ("mean subtracted", lambda z, head: _with(z, head, z[:, head] - z.mean((0, 2))[head])),
        ("a token, not a head", lambda z, token:
            _with((y := z.transpose(1, 2)), token, y[:, token].mean((0, 1))).transpose(1, 2)),
        ("changes its input", lambda z, head: (z[:, head].copy_(z[:, head].mean((0, 1))), z)[1]),
        ("first text's mean", lambda z, head: _with(z, head, z[0, head].mean(0))),
        ("first text only", lambda z, head:
            torch.stack([_with(z, head, z.mean((0, 2))[head])[0], *z[1:]])),
        ("last position", lambda z, head: _with(z, head, z[:, head, -1][:, None])),
        ("first position", lambda z, head: _with(z, head, z[:, head, 0][:, None])),
        ("a sum", lambda z, head: _with(z, head, z.sum((0, 2))[head])),
        ("the median", lambda z, head: _with(z, head,
            z[:, head].reshape(-1, z.shape[-1]).median(0).values)),
        ("always the same head", lambda z, head: _with(z, 0, z.mean((0, 2))[0])),
        ("always the same head", lambda z, head: _with(z, 1, z.mean((0, 2))[1])),
        ("unchanged", lambda z, head: z + 0),
        ("the mean alone", lambda z, head: z[:, head].mean((0, 1))),
        ("one head alone", lambda z, head: z.mean((0, 2))[head].expand_as(z[:, head])),
        ("one number", lambda z, head: _with(z, head, z[:, head].mean((1, 2))[:, None, None])),
        ("dtype", lambda z, head: _with(z, head, z.mean((0, 2))[head]).double()),
        ("error", lambda z, head: _with(z, head, z.mean((0, 2))[head + 4])),
    ],
    "recovered": [
        ("what is still missing", lambda p, a, b: (a - p) / (a - b)),
        ("not divided", lambda p, a, b: p.sub(b)),
        ("a proportion of the clean run", lambda p, a, b: p.sub(b).div(a)),
        ("nothing subtracted", lambda p, a, b: p.div(a)),
        ("patched by the gap", lambda p, a, b: p / (a - b)),
        ("sign lost", lambda p, a, b: (p - b) / max(a - b, b - a)),
        ("distance", lambda p, a, b: ((p - b) / (a - b)).abs()),
        ("clamped", lambda p, a, b: ((p - b) / (a - b)).clip(min=0, max=1)),
        ("sign", lambda p, a, b: (p - b) / (b - a)),
        ("clamped", lambda p, a, b: ((p - b) / (a - b)).clip(max=1)),
        ("clamped", lambda p, a, b: ((p - b) / (a - b)).relu()),
        ("percent", lambda p, a, b: (p - b) / (a - b) * 100),
        ("a proportion of the corrupted run", lambda p, a, b: p.sub(b).div(b)),
        ("sum of the runs", lambda p, a, b: (p - b) / (a + b)),
        ("brackets missing", lambda p, a, b: p - b / a - b),
        ("brackets missing", lambda p, a, b: p - b / (a - b)),
        ("brackets missing", lambda p, a, b: (p - b) / a - b),
        ("from the clean run", lambda p, a, b: (p - b) / (a - b) - 1),
        ("upside down", lambda p, a, b: (a - b) / (p - b)),
        ("distance to clean", lambda p, a, b: -(p - a)),
        ("the table's own range", lambda p, a, b: (p - p.min()) / (p.max() - p.min())),
        ("mean over the layers", lambda p, a, b: ((p - b) / (a - b)).mean(0)),
        ("rounded down", lambda p, a, b: ((p - b) / (a - b)).floor()),
        ("values", lambda p, a, b: (p - b) / (a - b) + 0.3 * p),
        ("changes its input", lambda p, a, b: p.sub_(b).div_(a - b)),
        ("kind", lambda p, a, b: ((p - b) / (a - b)).tolist()),
    ],
    "contributions": [
        ("each part normed", lambda p, w, eps, row: F.rms_norm(p, w.shape, w, eps) @ row),
        ("no norm", lambda p, w, eps, row: (p * row).sum(-1)),
        ("weight alone", lambda p, w, eps, row: (p * w * row).sum(1)),
        ("no weight", lambda p, w, eps, row: (p @ row) / _rms(p.sum(0), eps)),
        ("no eps", lambda p, w, eps, row: (p @ (w * row)) / _rms(p.sum(0), 0)),
        ("mean of the parts", lambda p, w, eps, row: (p @ (w * row)) / _rms(p.mean(0), eps)),
        ("length, not root mean square",
            lambda p, w, eps, row: p @ (w * row) / (p.sum(0).square().sum() + eps) ** 0.5),
        ("no root", lambda p, w, eps, row: p @ (w * row) / (p.sum(0).square().mean() + eps)),
        ("the logit alone", lambda p, w, eps, row: F.rms_norm(p.sum(0), w.shape, w, eps) @ row),
        ("proportions", lambda p, w, eps, row: p @ (w * row) / (p @ (w * row)).sum()),
        ("standard deviation", lambda p, w, eps, row:
            p @ (w * row) / (p.sum(0).var(correction=0) + eps).sqrt()),
        ("standard deviation", lambda p, w, eps, row: p @ (w * row) / p.sum(0).std()),
        ("standard deviation",
            lambda p, w, eps, row: p @ (w * row) / (p.sum(0).std() ** 2 + eps).sqrt()),
        ("eps outside the root",
            lambda p, w, eps, row: p @ (w * row) / (p.sum(0).square().mean().sqrt() + eps)),
        ("mean over all parts", lambda p, w, eps, row: p @ (w * row) / _rms(p.flatten(), eps)),
        ("summed over the channels", lambda p, w, eps, row: p @ (w * row) / _rms(p.sum(1), eps)),
        ("largest value", lambda p, w, eps, row: p @ (w * row) / p.sum(0).abs().amax()),
        ("multiplied", lambda p, w, eps, row: p @ (w * row) * _rms(p.sum(0), eps)),
        ("weight twice", lambda p, w, eps, row: p @ (w * w * row) / _rms(p.sum(0), eps)),
        ("divided by the weight", lambda p, w, eps, row: p @ (row / w) / _rms(p.sum(0), eps)),
        ("equal shares", lambda p, w, eps, row: torch.full(
            p.shape[:1], float(p.mean(0) @ (w * row) / _rms(p.sum(0), eps)))),
        ("no row", lambda p, w, eps, row: p / _rms(p.sum(0), eps) * w),
        ("not summed", lambda p, w, eps, row: p * w * row / _rms(p.sum(0), eps)),
        ("absolute values", lambda p, w, eps, row: abs(p @ (w * row) / _rms(p.sum(0), eps))),
        ("softmax", lambda p, w, eps, row: (p @ (w * row) / _rms(p.sum(0), eps)).softmax(-1)),
        ("values", lambda p, w, eps, row: (p @ (w * row)) / _rms(p, eps).mean()),
        ("kind", lambda p, w, eps, row: (p @ (w * row) / _rms(p.sum(0), eps)).tolist()),
        ("changes its input", lambda p, w, eps, row: p.div_(_rms(p.sum(0), eps)) @ (w * row)),
    ],
}  # fmt: skip
