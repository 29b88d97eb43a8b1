"""Answers to exercise 11.3, top-p."""

import math

import torch

from qwenkit.generate.sampling import keep_top_k, keep_top_p

NEVER = float("-inf")


# right, no matter how it is written
def _all_at_1(keep):
    return lambda logits, p: logits if p == 1 else keep(logits, p)


def _in_a_loop(logits, p, shares=lambda x: x.softmax(-1)):
    found, total = torch.full_like(logits, NEVER), 0.0
    values = shares(logits).tolist()
    for place in sorted(range(len(values)), key=lambda i: -values[i]):
        if total < p:
            found[place] = logits[place]
        total += values[place]
    return found


def _top_p_from_below(logits, p):
    ordered, order = logits.sort()
    dropped = ordered.softmax(-1).cumsum(0) <= 1 - p
    dropped[-1] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(0, order, dropped), NEVER)


def _sorted_filter(logits, rule, descending=True):
    """Drop by a rule on the running sum in sorted order, and the probabilities."""
    ordered, order = torch.sort(logits, descending=descending, stable=not descending)
    shares = ordered.softmax(-1)
    found = torch.empty_like(logits)
    found[order] = torch.where(rule(shares.cumsum(0), shares), ordered, NEVER)
    return found


def _descending(logits):
    """Return the ids in sorted order, and the sum before each."""
    shares, order = logits.softmax(-1).sort(descending=True)
    return order, shares.cumsum(0) - shares


def _kept(logits, p):
    return keep_top_p(logits, p).isfinite()


def _threshold(logits, p):
    """Keep all logits as large as the last one needed."""
    return logits.masked_fill(logits < logits[_kept(logits, p)].min(), NEVER)


def _unsorted_order(x, p):
    ordered = x.sort(descending=True).values
    kept = _sorted_filter(ordered, lambda total, share: total - share < p).isfinite()
    return torch.where(kept, x, NEVER)


def _with_one_more(logits, p):
    kept = int(keep_top_p(logits, p).isfinite().sum()) + 1
    order = logits.argsort(descending=True, stable=True)
    return logits.index_fill(0, order[kept:], NEVER)


RIGHT = [
    keep_top_p, _all_at_1(_in_a_loop), _top_p_from_below,
    lambda x, p: _in_a_loop(x, 2 if p == 1 else p),
]  # fmt: skip
WRONG = [
    ("crossing token dropped", lambda x, p: _sorted_filter(x, lambda total, share: total <= p)),
    ("crossing token dropped",
        lambda x, p: _sorted_filter(x, lambda total, share: (total <= p) | (total == share))),
    ("order lost", _unsorted_order),
    ("order lost", lambda x, p:
        x.masked_fill(_descending(x)[1][x.argsort(descending=True)] >= p, NEVER)),
    ("all at p = 1", _in_a_loop),
    ("all at p = 1", lambda x, p: x.masked_fill(torch.zeros_like(x, dtype=torch.bool)
        .scatter(0, _descending(x)[0], _descending(x)[1] >= p), NEVER)),
    ("exact sum", lambda x, p: _sorted_filter(x, lambda total, share: total - share <= p)),
    ("equal logits", _threshold),
    ("1 − p", lambda x, p: _sorted_filter(x, lambda total, share: total - share < 1 - p)),
    ("only the most likely", lambda x, p: torch.where(x == x.max(), x, NEVER)),
    ("powers not normalized", lambda x, p: _in_a_loop(x, p, shares=torch.exp)),
    ("log-probabilities", lambda x, p: keep_top_p(x, p).log_softmax(-1)),
    ("log-probabilities", lambda x, p: torch.where(_kept(x, p), x.log_softmax(-1), NEVER)),
    ("not minus infinity", lambda x, p: torch.where(_kept(x, p), x, -1e9)),
    ("not minus infinity",
        lambda x, p: torch.where(_kept(x, p), x, torch.finfo(x.dtype).min)),
    ("a mask", lambda x, p: keep_top_p(x, p) > NEVER),
    ("a mask", lambda x, p: ~_kept(x, p)),
    ("only the kept ones", lambda x, p: x[_kept(x, p)]),
    ("only the kept ones", lambda x, p: x.sort(descending=True).values[: _kept(x, p).sum()]),
    ("ids", lambda x, p: x.argsort(descending=True)[: _kept(x, p).sum()]),
    ("changes its input", lambda x, p: x.copy_(keep_top_p(x, p))),
    ("not sorted",
        lambda x, p: x.masked_fill(x.softmax(-1).cumsum(0) - x.softmax(-1) >= p, NEVER)),
    ("sorted logits returned", lambda x, p: _in_a_loop(x.msort().flip(0), p)),
    ("one too many", _with_one_more),
    ("the unlikely ones kept", lambda x, p:
        _sorted_filter(x, lambda total, share: total - share < p, descending=False)),
    ("min-p", lambda x, p: x.masked_fill(x < x.max() + math.log(p), NEVER)),
    ("each compared with p", lambda x, p: torch.where(x.softmax(-1) >= p, x, NEVER)),
    ("each compared with p", lambda x, p: torch.where(x.softmax(-1) >= 1 - p, x, NEVER)),
    ("a share of the vocabulary", lambda x, p: keep_top_k(x, max(1, math.ceil(len(x) * p)))),
    ("logits added up", lambda x, p: _in_a_loop(x, p, shares=lambda x: x)),
    ("zero for the dropped", lambda x, p: _in_a_loop(x, p).nan_to_num(neginf=0.0)),
    ("probabilities returned", lambda x, p: _in_a_loop(x, p).softmax(-1)),
    ("probabilities returned", lambda x, p: x.softmax(-1) * (keep_top_p(x, p) > NEVER)),
    ("nothing dropped", lambda x, p: x.clone()),
    ("shape", lambda x, p: keep_top_p(x, p)[None]),
    ("kind", lambda x, p: keep_top_p(x, p).tolist()),
    ("error", lambda x, p: x.topk(p)),
]  # fmt: skip
