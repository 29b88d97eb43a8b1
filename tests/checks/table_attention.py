"""Answers to the exercises of notebook 05."""

import inspect
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
def _weights_in_loops(scores):
    found = torch.zeros_like(scores)
    for b, h, t in np.ndindex(*scores.shape[:3]):
        end = scores.shape[-1] - scores.shape[-2] + t + 1
        found[b, h, t, :end] = scores[b, h, t, :end].float().softmax(0).to(scores.dtype)
    return found


def _weights_largest_first(scores):
    seen = causal_mask(scores.shape[-2], scores.shape[-1] - scores.shape[-2])
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


def _blocks_online(q, k, v, block):
    past, dtype = _past(q, k), q.dtype
    q, k, v = q.float() / math.sqrt(q.shape[-1]), k.float(), v.float()
    largest = torch.full(q.shape[:3], NEVER)
    total, z = torch.zeros(q.shape[:3]), torch.zeros(q.shape)
    for first in range(0, k.shape[2], block):
        scores = q @ k[:, :, first : first + block].mT
        for t in range(q.shape[2]):
            scores[:, :, t, max(past + t + 1 - first, 0) :] = NEVER
        larger = torch.maximum(largest, scores.max(-1).values)
        shrink, powers = torch.exp(largest - larger), torch.exp(scores - larger[..., None])
        total = total * shrink + powers.sum(-1)
        z = z * shrink[..., None] + powers @ v[:, :, first : first + block]
        largest = larger
    return (z / total[..., None]).to(dtype)


def _blocks_in_bfloat16(q, k, v, block):
    """Keep the dtype that came in, and start below every score."""
    largest = q.new_full((*q.shape[:3], 1), torch.finfo(q.dtype).min)
    total, z = torch.zeros_like(largest), torch.zeros_like(q)
    at = torch.arange(_past(q, k), k.shape[2])[:, None]
    for number in range(math.ceil(k.shape[2] / block)):
        part = slice(number * block, min((number + 1) * block, k.shape[2]))
        scores = torch.einsum("bhtd,bhsd->bhts", q, k[:, :, part]) * q.shape[-1] ** -0.5
        scores = torch.where(torch.arange(part.start, part.stop) <= at, scores, NEVER)
        before = largest
        largest = torch.maximum(before, scores.amax(-1, keepdim=True))
        powers = torch.exp(scores - largest)
        total = total * torch.exp(before - largest) + powers.sum(-1, keepdim=True)
        z = z * torch.exp(before - largest) + powers @ v[:, :, part]
    return z / total


def _blocks_by_logsumexp(q, k, v, block):
    """Attend to each block alone, and weigh its result by the sum of its exponentials."""
    outputs, sizes = [], []
    at = torch.arange(_past(q, k), k.shape[2])[:, None]
    for first in range(0, k.shape[2], block):
        part = slice(first, first + block)
        scores = q.float() @ k[:, :, part].float().mT / math.sqrt(q.shape[-1])
        places = torch.arange(k.shape[2])[part]
        scores = scores.masked_fill(places > at, NEVER)
        sizes.append(scores.logsumexp(-1))
        outputs.append(scores.softmax(-1).nan_to_num() @ v[:, :, part].float())
    weights = torch.stack(sizes).softmax(0)[..., None]
    return (weights * torch.stack(outputs)).sum(0).to(q.dtype)


def _blocks_skip_the_future(q, k, v, block):
    """Go through the queries one by one, and only through blocks that they may see."""
    rows = []
    for t in range(q.shape[2]):
        end, largest, total, z = _past(q, k) + t + 1, NEVER, 0, 0
        for first in range(0, end, block):
            part = slice(first, min(first + block, end))
            scores = (q[:, :, t : t + 1] @ k[:, :, part].mT).float() / math.sqrt(q.shape[-1])
            larger = scores.amax(-1, keepdim=True).clamp(min=largest)
            powers = (scores - larger).exp()
            total = total * (largest - larger).exp() + powers.sum(-1, keepdim=True)
            z = z * (largest - larger).exp() + powers @ v[:, :, part].float()
            largest = larger
        rows.append(z / total)
    return torch.cat(rows, dim=2).to(q.dtype)


RIGHT = {
    "weights": [
        lambda s: s.masked_fill(~causal_mask(s.shape[-2], s.shape[-1] - s.shape[-2]), -1e9)
            .softmax(dim=-1),
        lambda s: F.softmax(s.float() + torch.full(s.shape[-2:], NEVER)
            .triu(1 + s.shape[-1] - s.shape[-2]), 3).to(s.dtype),
        _weights_in_loops, _weights_largest_first,
    ],
    "attend": [fused_attention, _attend_in_loops, _attend_padded],
    "join": [
        lambda z, w: F.linear(z.transpose(1, 2).reshape(len(z), z.shape[2], -1), w), _join_in_loops,
        lambda z, w: sum(z[:, h] @ w.split(z.shape[-1], 1)[h].T for h in range(z.shape[1])),
        lambda z, w: torch.einsum("bhtd,chd->btc", z, w.view(len(w), z.shape[1], z.shape[3])),
    ],
    "attend_in_blocks": [
        _blocks_online, _blocks_in_bfloat16, _blocks_by_logsumexp, _blocks_skip_the_future,
    ],
}  # fmt: skip


# wrong, and named
def _soft(s, allowed, dim=-1):
    return torch.where(allowed, s, NEVER).softmax(dim)


def _square(s, diagonal=0):
    rows, columns = torch.arange(s.shape[-2])[:, None], torch.arange(s.shape[-1])[None]
    return columns <= rows + diagonal


def _causal(s, ahead=0):
    return _square(s, s.shape[-1] - s.shape[-2] + ahead)


def _first_row_fixed(s):
    allowed = _causal(s, -1)
    allowed[0, 0] = True
    return _soft(s, allowed)


def _attention(q, k, v, diagonal=0, scale=None, dim=-1):
    s = _dot(q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return _soft(s, _square(s, diagonal), dim) @ v


def _scaled(scale):
    return lambda q, k, v: _attention(q, k, v, _past(q, k), scale(q, k))


def _shifted(shift):
    return lambda q, k, v: _attention(q, k, v, shift(_past(q, k)))


def _tril(s):
    return s.tril(s.shape[-1] - s.shape[-2])


def _blocks(change):
    """Return attention in blocks with one line of its text changed, as a reader would write it."""
    text = inspect.getsource(_blocks_online)
    for old, new in change.items():
        assert old in text, old
        text = text.replace(old, new)
    space = dict(globals())
    exec(text, space)
    return space["_blocks_online"]


def _blocks_of_a_list(q, k, v, block):
    """Collect the scores of all blocks, then do as always."""
    parts = [_dot(q, one) / math.sqrt(q.shape[-1]) for one in k.split(block, dim=2)]
    scores = torch.cat(parts, dim=-1)
    return _soft(scores, _causal(scores)).to(q.dtype) @ v


def _whole_mask(q, k, v, block):
    seen = causal_mask(q.shape[2], _past(q, k))
    size, total, z = math.sqrt(q.shape[-1]), 0, 0
    for first in range(0, k.shape[2], block):
        part = slice(first, first + block)
        powers = (_dot(q, k[:, :, part]) / size).masked_fill(~seen[:, part], NEVER).exp()
        total, z = total + powers.sum(-1, keepdim=True), z + powers @ v[:, :, part]
    return z / total


def _softmax_per_block(q, k, v, block, mean=False):
    z, at = 0, torch.arange(_past(q, k), k.shape[2])[:, None]
    for first in range(0, k.shape[2], block):
        part = slice(first, first + block)
        scores = _dot(q, k[:, :, part]) / math.sqrt(q.shape[-1])
        seen = torch.arange(first, first + scores.shape[-1]) <= at
        z = z + _soft(scores, seen).to(q.dtype) @ v[:, :, part]
    return z / math.ceil(k.shape[2] / block) if mean else z


_SHRINK = "shrink, powers = torch.exp(largest - larger), torch.exp(scores - larger[..., None])"
_LARGER = "larger = torch.maximum(largest, scores.max(-1).values)"

WRONG = {
    "weights": [
        ("no offset", lambda s: _soft(s, _square(s))),
        ("no offset", lambda s: s.masked_fill(torch.ones_like(s).tril() == 0, NEVER).softmax(-1)),
        ("offset backwards", lambda s: _soft(s, _causal(s, 2 * (s.shape[-2] - s.shape[-1])))),
        ("square mask", lambda s:
            s.masked_fill(~torch.ones(s.shape[-1], s.shape[-1]).tril().bool(), NEVER).softmax(-1)),
        ("square mask", lambda s:
            s.masked_fill(~torch.ones(s.shape[-2], s.shape[-2]).tril().bool(), NEVER).softmax(-1)),
        ("square mask", lambda s: s.masked_fill(~causal_mask(s.shape[-2]), NEVER).softmax(-1)),
        ("no mask", lambda s: F.softmax(s, 3)),
        ("sees the next token", lambda s: _soft(s, _causal(s, 1))),
        ("not itself", lambda s: _soft(s, _causal(s, -1))),
        ("not itself", lambda s: torch.nan_to_num(_soft(s, _causal(s, -1)))),
        ("not itself", _first_row_fixed),
        ("the future only", lambda s: s.masked_fill(_causal(s), NEVER).softmax(-1)),
        ("the future only", lambda s: _soft(s, torch.ones(s.shape[-2:]).triu() > 0)),
        ("zero before softmax", lambda s: s.tril(s.shape[-1] - s.shape[-2]).softmax(-1)),
        ("boolean mask added", lambda s: torch.softmax(s + 1 * _causal(s), -1)),
        ("mask after softmax", lambda s: s.softmax(-1) * _causal(s)),
        ("divided again", lambda s: (_tril(s.softmax(-1)) / _tril(s.softmax(-1)).sum(-1, True))),
        ("weights of minus infinity", lambda s: s.softmax(-1).masked_fill(~_causal(s), NEVER)),
        ("plus infinity", lambda s: s.masked_fill(~_causal(s), math.inf).softmax(-1)),
        ("not a number", lambda s: (s + torch.ones_like(s).triu(1) * NEVER).softmax(-1)),
        ("not a number", lambda s: (s + ~_causal(s) * NEVER).softmax(-1)),
        ("softmax twice", lambda s: _soft(s, _causal(s)).softmax(-1)),
        ("scaled again", lambda s: _soft(s / math.sqrt(s.shape[-1]), _causal(s))),
        ("log-softmax", lambda s: F.log_softmax(torch.where(_causal(s), s, NEVER), -1)),
        ("not divided by the sum", lambda s: torch.where(_causal(s), s, NEVER).exp()),
        ("not divided by the sum", lambda s: torch.exp(s) * _causal(s)),
        ("over texts", lambda s: _soft(s, _causal(s), dim=0)),
        ("the future only", lambda s: s.masked_fill(torch.ones_like(s).triu(1) == 0, NEVER)
            .softmax(-1)),
        ("not itself", lambda s: s.masked_fill(torch.ones_like(s).triu() == 1, NEVER).softmax(-1)),
        ("zero before softmax", lambda s: (s * _causal(s)).softmax(-1)),
        ("over queries", lambda s: _soft(s, _causal(s), dim=2)),
        ("over heads", lambda s: _soft(s, _causal(s), dim=-3)),
        ("over everything",
            lambda s: torch.where(_causal(s), s, NEVER).flatten(2).softmax(2).reshape(s.shape)),
        ("no softmax", lambda s: torch.where(_causal(s), s, NEVER).to(s.dtype)),
        ("not low enough", lambda s: torch.where(_causal(s), s, -1e4).to(s.dtype).softmax(-1)),
        ("not low enough", lambda s: s.masked_fill(~_causal(s), -1).softmax(-1)),
        ("not low enough", lambda s: s.masked_fill(~_causal(s), -100).softmax(-1)),
        ("too large to exponentiate",
            lambda s: s.exp() * _causal(s) / (s.exp() * _causal(s)).sum(-1, keepdim=True)),
        ("too large to exponentiate", lambda s: _tril(s.exp()) / _tril(s.exp()).sum(-1, True)),
        ("float32 comes back", lambda s: _soft(s.float(), _causal(s))),
        ("values", lambda s: _soft(s, _causal(s)) / 2),
        ("changes its input", lambda s: s.masked_fill_(~_causal(s), NEVER).softmax(-1)),
        ("error", lambda s: s.masked_fill(~torch.ones(1, 8, 40, 40).tril().bool(), NEVER)),
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
    "attend_in_blocks": [
        ("all scores at once", lambda q, k, v, block: _attention(q, k, v, _past(q, k))),
        ("all scores at once", _blocks_of_a_list),
        ("all scores at once", _whole_mask),
        ("no mask", _blocks({"= NEVER\n        larger": "*= 1\n        larger"})),
        ("mask of the block", _blocks({"max(past + t + 1 - first, 0)": "past + t + 1"})),
        ("no offset", _blocks({"max(past + t + 1 - first, 0)": "max(t + 1 - first, 0)"})),
        ("sees the next token", _blocks({"past + t + 1 - first": "past + t + 2 - first"})),
        ("last block missing",
            _blocks({"range(0, k.shape[2], block)": "range(0, k.shape[2] - block + 1, block)"})),
        ("last block missing", _blocks({"(0, k.shape[2], block)":
            "(0, k.shape[2] // block * block, block)"})),
        ("each block alone", _softmax_per_block),
        ("each block alone", lambda *given: _softmax_per_block(*given, mean=True)),
        ("sum not rescaled", _blocks({"total * shrink + powers": "total + powers"})),
        ("output not rescaled", _blocks({"z * shrink[..., None] + powers": "z + powers"})),
        ("nothing rescaled", _blocks({"total * shrink + powers": "total + powers",
            "z * shrink[..., None] + powers": "z + powers"})),
        ("rescaled the wrong way", _blocks({"exp(largest - larger)": "exp(larger - largest)"})),
        ("no maximum", _blocks({_SHRINK: "shrink, powers = torch.ones(()), scores.exp()"})),
        ("one maximum for all rows", _blocks({_LARGER:
            "larger = torch.maximum(largest, scores.max())"})),
        ("maximum starts at 0", _blocks({"torch.full(q.shape[:3], NEVER)":
            "torch.zeros(q.shape[:3])"})),
        ("maximum of the block", _blocks({_LARGER: "larger = scores.max(-1).values"})),
        ("divided in each block", _blocks({"        largest = larger\n":
            "        z, largest = z / total[..., None], larger\n",
            "(z / total[..., None]).to": "z.to"})),
        ("not divided", _blocks({"(z / total[..., None]).to": "z.to"})),
        ("last block only", _blocks({"total * shrink +": "0 +", "z * shrink[..., None] +": "0 +"})),
        ("last block only", _blocks({"total * shrink +": "0 +", "z * shrink[..., None] +": "0 +",
            _LARGER: "larger = scores.max(-1).values"})),
        ("no scale", _blocks({" / math.sqrt(q.shape[-1])": ""})),
        ("divided by D", _blocks({"math.sqrt(q.shape[-1])": "q.shape[-1]"})),
        ("float32 comes back", _blocks({".to(dtype)": ""})),
        ("error", _blocks({"total[..., None]": "total"})),
        ("values", _blocks({"return (z": "return 2 + (z"})),
        ("all scores at once", lambda q, k, v, block: fused_attention(q, k, v)),
        ("forbidden", lambda q, k, v, block: F.scaled_dot_product_attention(
            F.pad(q, (0, 0, _past(q, k), 0)), k, v, is_causal=True)[:, :, _past(q, k) :]),
    ],
}  # fmt: skip
