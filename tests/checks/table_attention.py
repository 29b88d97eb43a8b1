"""Answers to the exercises of notebook 05."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from qwenkit.model import causal_mask, fused_attention

NEVER = float("-inf")


def _dot(q, k):
    return torch.einsum("bhtd,bhsd->bhts", q, k)


def _scores(q, k):
    return _dot(q, k) / q.shape[-1] ** 0.5


def _past(q, k):
    return k.shape[2] - q.shape[2]


# right, no matter how it is written
def _scores_in_loops(q, k):
    found = q.new_zeros(*q.shape[:3], k.shape[2])
    for b, h, t, s in np.ndindex(*found.shape):
        found[b, h, t, s] = q[b, h, t].dot(k[b, h, s]) / math.sqrt(len(k[b, h, s]))
    return found


def _pattern_in_loops(scores):
    found = torch.zeros_like(scores)
    for b, h, t in np.ndindex(*scores.shape[:3]):
        found[b, h, t, : t + 1] = scores[b, h, t, : t + 1].float().softmax(0).to(scores.dtype)
    return found


def _pattern_largest_first(scores):
    seen = causal_mask(scores.shape[-1])
    scores = torch.where(seen, scores, torch.tensor(torch.finfo(scores.dtype).min).to(scores))
    powers = torch.exp(scores - scores.amax(-1, keepdim=True)) * seen
    return powers / powers.sum(-1, keepdim=True)


def _join_in_loops(z, weight):
    joined = z.new_zeros(len(z), z.shape[2], len(weight))
    for b, t in np.ndindex(*joined.shape[:2]):
        joined[b, t] = weight @ torch.cat([head[t] for head in z[b]])
    return joined


def _attend_in_loops(q, k, v):
    z = torch.zeros_like(q)
    for b, h, t in np.ndindex(*q.shape[:3]):
        last = _past(q, k) + t + 1
        fits = k[b, h, :last].float() @ q[b, h, t].float() / q.shape[-1] ** 0.5
        z[b, h, t] = (fits.softmax(0) @ v[b, h, :last].float()).to(v.dtype)
    return z


def _attend_padded(q, k, v):
    """Put empty queries in front, attend as a whole text, and take the last rows."""
    whole = F.pad(q, (0, 0, _past(q, k), 0))
    return F.scaled_dot_product_attention(whole, k, v, is_causal=True)[:, :, _past(q, k) :]


RIGHT = {
    "scores": [
        lambda q, k: (q @ k.mT) * q.shape[-1] ** -0.5, _scores, _scores_in_loops,
        lambda q, k: torch.matmul(q / q.shape[-1] ** 0.25, k.mT / q.shape[-1] ** 0.25),
    ],
    "pattern": [
        lambda s: s.masked_fill(~causal_mask(s.shape[-1]), -1e9).softmax(dim=-1), _pattern_in_loops,
        lambda s: F.softmax(s.float() + torch.full(s.shape[-2:], NEVER).triu(1), 3).to(s.dtype),
        _pattern_largest_first,
    ],
    "join": [
        lambda z, w: F.linear(z.transpose(1, 2).reshape(len(z), z.shape[2], -1), w), _join_in_loops,
        lambda z, w: sum(z[:, h] @ w.split(z.shape[-1], 1)[h].T for h in range(z.shape[1])),
        lambda z, w: torch.einsum("bhtd,chd->btc", z, w.view(len(w), z.shape[1], z.shape[3])),
    ],
    "attend": [fused_attention, _attend_in_loops, _attend_padded],
}  # fmt: skip


# wrong, and named
def _soft(s, allowed, dim=-1):
    return torch.where(allowed, s, NEVER).softmax(dim)


def _square(s, diagonal=0):
    rows, columns = torch.arange(s.shape[-2])[:, None], torch.arange(s.shape[-1])[None]
    return columns <= rows + diagonal


def _first_row_fixed(s):
    allowed = _square(s, -1)
    allowed[0, 0] = True
    return _soft(s, allowed)


def _attention(q, k, v, diagonal=0, scale=None, dim=-1):
    s = _dot(q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return _soft(s, _square(s, diagonal), dim) @ v


def _scaled(scale):
    return lambda q, k, v: _attention(q, k, v, _past(q, k), scale(q, k))


def _shifted(shift):
    return lambda q, k, v: _attention(q, k, v, shift(_past(q, k)))


WRONG = {
    "scores": [
        ("no scale", _dot),
        ("divided by D", lambda q, k: _dot(q, k) / k.shape[3]),
        ("multiplied", lambda q, k: _dot(q, k) * q.shape[-1] ** 0.5),
        ("divided by the number of keys", lambda q, k: _dot(q, k) / k.shape[2] ** 0.5),
        ("divided by all heads", lambda q, k: _dot(q, k) / (k.shape[1] * k.shape[3]) ** 0.5),
        ("divided by the number of heads", lambda q, k: _dot(q, k) / math.sqrt(q.shape[1])),
        ("divided by the number of queries", lambda q, k: _dot(q, k) / math.sqrt(q.size(2))),
        ("divided by the batch size", lambda q, k: _dot(q, k) / math.sqrt(len(q))),
        ("a fixed D", lambda q, k: _dot(q, k) / math.sqrt(32)),
        ("a fixed D", lambda q, k: _dot(q, k) / math.sqrt(4)),
        ("divided by D", lambda q, k: _dot(q / q.shape[-1] ** 0.5, k / q.shape[-1] ** 0.5)),
        ("query and key swapped", lambda q, k: _scores(q, k).mT),
        ("dimensions, not tokens", lambda q, k: q.mT @ k * q.shape[-1] ** -0.5),
        ("reshaped", lambda q, k: q @ k.reshape(*q.shape[:2], q.shape[3], -1) / q.shape[-1] ** 0.5),
        ("each with itself", lambda q, k: torch.linalg.vecdot(q, k) / q.shape[-1] ** 0.5),
        ("cosine", lambda q, k: torch.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)),
        ("softmax already", lambda q, k: F.softmax(_scores(q, k), -1)),
        ("masked already", lambda q, k: _scores(q, k).masked_fill(~_square(_dot(q, k)), NEVER)),
        ("not transposed", lambda q, k: torch.matmul(q, k) / q.shape[-1] ** 0.5),
        ("all axes reversed", lambda q, k: q @ k.permute(3, 2, 1, 0) / q.shape[-1] ** 0.5),
        ("heads and tokens swapped", lambda q, k: q @ k.transpose(1, 2) / q.shape[-1] ** 0.5),
        ("float32 comes back", lambda q, k: _scores(q.float(), k.float())),
        ("shape", lambda q, k: _dot(q, k).sum(1) / q.shape[-1] ** 0.5),
        ("first text only", lambda q, k: _scores(q, k)[0]),
        ("changes its input", lambda q, k: q.div_(q.shape[-1] ** 0.5) @ k.mT),
    ],
    "pattern": [
        ("no mask", lambda s: F.softmax(s, 3)),
        ("sees the next token", lambda s: _soft(s, _square(s, 1))),
        ("not itself", lambda s: _soft(s, _square(s, -1))),
        ("not itself", lambda s: torch.nan_to_num(_soft(s, _square(s, -1)))),
        ("not itself", _first_row_fixed),
        ("the future only", lambda s: s.masked_fill(_square(s), NEVER).softmax(-1)),
        ("the future only", lambda s: _soft(s, torch.ones(s.shape[-2:]).triu() > 0)),
        ("zero before softmax", lambda s: s.tril().softmax(-1)),
        ("boolean mask added", lambda s: torch.softmax(s + 1 * _square(s), -1)),
        ("mask after softmax", lambda s: s.softmax(-1) * _square(s)),
        ("divided again", lambda s: (s.softmax(-1).tril() / s.softmax(-1).tril().sum(-1, True))),
        ("weights of minus infinity", lambda s: s.softmax(-1).masked_fill(~_square(s), NEVER)),
        ("plus infinity", lambda s: s.masked_fill(~_square(s), math.inf).softmax(-1)),
        ("not a number", lambda s: (s + torch.ones_like(s).triu(1) * NEVER).softmax(-1)),
        ("not a number", lambda s: (s + ~_square(s) * NEVER).softmax(-1)),
        ("softmax twice", lambda s: _soft(s, _square(s)).softmax(-1)),
        ("scaled again", lambda s: _soft(s / math.sqrt(s.shape[-1]), _square(s))),
        ("log-softmax", lambda s: F.log_softmax(torch.where(_square(s), s, NEVER), -1)),
        ("not divided by the sum", lambda s: torch.where(_square(s), s, NEVER).exp()),
        ("not divided by the sum", lambda s: torch.exp(s) * _square(s)),
        ("over texts", lambda s: _soft(s, _square(s), dim=0)),
        ("the future only", lambda s: s.masked_fill(torch.ones_like(s).triu(1) == 0, NEVER)
            .softmax(-1)),
        ("not itself", lambda s: s.masked_fill(torch.ones_like(s).triu() == 1, NEVER).softmax(-1)),
        ("zero before softmax", lambda s: (s * _square(s)).softmax(-1)),
        ("over queries", lambda s: _soft(s, _square(s), dim=2)),
        ("over heads", lambda s: _soft(s, _square(s), dim=-3)),
        ("over everything",
            lambda s: torch.where(_square(s), s, NEVER).flatten(2).softmax(2).reshape(s.shape)),
        ("no softmax", lambda s: torch.where(_square(s), s, NEVER).to(s.dtype)),
        ("not low enough", lambda s: torch.where(_square(s), s, -1e4).to(s.dtype).softmax(-1)),
        ("not low enough", lambda s: s.masked_fill(~_square(s), -1).softmax(-1)),
        ("not low enough", lambda s: s.masked_fill(~_square(s), -100).softmax(-1)),
        ("too large to exponentiate",
            lambda s: s.exp() * _square(s) / (s.exp() * _square(s)).sum(-1, keepdim=True)),
        ("too large to exponentiate", lambda s: s.exp().tril() / s.exp().tril().sum(-1, True)),
        ("float32 comes back", lambda s: _soft(s.float(), _square(s))),
        ("values", lambda s: _soft(s, _square(s)) / 2),
        ("changes its input", lambda s: s.masked_fill_(~_square(s), NEVER).softmax(-1)),
        ("error", lambda s: s.masked_fill(~torch.ones(1, 8, 40, 40).tril().bool(), NEVER)),
    ],
    "join": [
        ("heads not moved", lambda z, w: z.reshape(len(z), z.shape[2], -1) @ w.T),
        ("heads interleaved", lambda z, w: torch.einsum("bhtd->btdh", z).flatten(2) @ w.T),
        ("weight not transposed", lambda z, w: z.transpose(1, 2).flatten(2) @ w),
        ("not projected", lambda z, w: torch.cat(list(z.unbind(1)), -1)),
        ("heads reversed", lambda z, w: F.linear(torch.cat(list(z.unbind(1))[::-1], -1), w)),
        ("heads added", lambda z, w: F.linear(z.sum(1), w[:, : z.shape[3]])),
        ("every head the same columns", lambda z, w: z.mean(1).repeat(1, 1, z.shape[1]) @ w.T),
        ("tokens last", lambda z, w: F.linear(z.transpose(1, 2).flatten(2), w).mT),
        ("heads not joined", lambda z, w: z @ w.T),
        ("heads not joined", lambda z, w: z.flatten(1, 2) @ w.T),
        ("view", lambda z, w: z.transpose(1, 2).view(len(z), z.shape[2], -1) @ w.T),
        ("C taken for H·D", lambda z, w: z.transpose(1, 2).reshape(len(z), -1, len(w)) @ w.T),
        ("C taken for H·D", lambda z, w:
            z.transpose(1, 2).reshape(len(z), z.shape[2], len(w)) @ w.T),
        ("wrong axes swapped", lambda z, w: z.transpose(2, 3).reshape(len(z), z.shape[2], -1)
            @ w.T),
        ("batch and heads swapped", lambda z, w: z.transpose(0, 1).reshape(len(z), z.shape[2], -1)
            @ w.T),
        ("weight not transposed",
            lambda z, w: sum(one @ w.split(z.shape[3])[h] for h, one in enumerate(z.unbind(1)))),
        ("one head only", lambda z, w: z[:, 0] @ w[:, : z.shape[3]].T),
        ("one head only", lambda z, w: z[:, -1] @ w[:, -z.shape[3] :].T),
        ("error", lambda z, w: z.transpose(1, 2).reshape(len(z), z.shape[2], 256) @ w.T),
        ("float32 comes back",
            lambda z, w: z.transpose(1, 2).flatten(2).float() @ w.float().T),
    ],
    "attend": [
        ("no offset", _attention),
        ("offset backwards", _shifted(lambda past: -past)),
        ("sees the next token", _shifted(lambda past: past + 1)),
        ("not itself", _shifted(lambda past: past - 1)),
        ("no mask", F.scaled_dot_product_attention),
        ("no offset", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
        ("no offset", lambda q, k, v:
            F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)),
        ("offset by the new tokens", lambda q, k, v: _attention(q, k, v, q.shape[2])),
        ("a fixed offset", lambda q, k, v: _attention(q, k, v, 3)),
        ("no mask", lambda q, k, v: _attention(q, k, v, k.shape[2])),
        ("query and key swapped",
            lambda q, k, v: _soft(_scores(k, q), _square(_scores(k, q), _past(q, k))) @ v),
        ("no values", lambda q, k, v: _soft(_scores(q, k), _square(_scores(q, k), _past(q, k)))),
        ("divided again", lambda q, k, v:
            (p := _scores(q, k).softmax(-1).tril(_past(q, k))) / p.sum(-1, keepdim=True) @ v),
        ("over heads", lambda q, k, v: _attention(q, k, v, _past(q, k), dim=1)),
        ("no softmax", lambda q, k, v: _scores(q, k).tril(_past(q, k)) @ v),
        ("a fixed D", _scaled(lambda q, k: 32**-0.5)),
        ("a fixed D", _scaled(lambda q, k: 4**-0.5)),
        ("divided by the number of heads", _scaled(lambda q, k: q.shape[1] ** -0.5)),
        ("divided by the number of keys", _scaled(lambda q, k: k.shape[2] ** -0.5)),
        ("divided by D", _scaled(lambda q, k: 1 / q.shape[-1])),
        ("too large to exponentiate", lambda q, k, v:
            (p := _scores(q, k).exp().tril(_past(q, k))) / p.sum(-1, keepdim=True) @ v),
        ("not low enough", lambda q, k, v: _scores(q, k).masked_fill(
            ~_square(_dot(q, k), _past(q, k)), -100).softmax(-1) @ v),
        ("last token only", lambda q, k, v: _attention(q[:, :, -1:], k, v, k.shape[2])),
        ("float32 comes back", lambda q, k, v: _attend_in_loops(q.float(), k.float(), v.float())),
        ("changes its input",
            lambda q, k, v: _attend_in_loops(q.div_(q.shape[3] ** 0.5) * q.shape[3] ** 0.5, k, v)),
        ("cached tokens forgotten",
            lambda q, *kv: _attention(q, *(one[:, :, -q.shape[2] :] for one in kv))),
        ("mask after softmax", lambda q, k, v: _scores(q, k).softmax(-1).tril(_past(q, k)) @ v),
        ("zero before softmax", lambda q, k, v: _scores(q, k).tril(_past(q, k)).softmax(-1) @ v),
        ("over queries", lambda q, k, v: _attention(q, k, v, _past(q, k), dim=-2)),
        ("no scale", _scaled(lambda q, k: 1)),
        ("keys instead of values", lambda q, k, v: _attention(q, k, k, _past(q, k))),
        ("values", lambda q, k, v: _attention(q, k, v.flip(1), _past(q, k))),
    ],
}  # fmt: skip
