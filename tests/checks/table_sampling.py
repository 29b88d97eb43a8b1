"""Answers to the exercises of notebook 11."""

import bisect
import itertools
import math

import answers_sampling_choose
import answers_sampling_top_p
import torch
import torch.nn.functional as F

from qwenkit.generate.sampling import divide_by_temperature

LN_2 = math.log(2)


# temperature(logits, temperature)
def largest_subtracted(logits, temperature):
    logits = logits / temperature
    powers = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(-1, True)


def _in_lists(logits, temperature):
    def row(values):
        powers = [math.exp((value - max(values)) / temperature) for value in values]
        return [power / sum(powers) for power in powers]

    flat = logits.reshape(-1, logits.shape[-1]).tolist()
    return torch.tensor([row(values) for values in flat]).view_as(logits)


def _share(powers):
    return powers / powers.sum(-1, keepdim=True)


def _from_largest(x):
    return x - x.amax(-1, keepdim=True)


# draw(probs, numbers)
def _each_row(choose):
    """Return a draw whose rows are chosen one by one, in plain Python."""
    return lambda probs, numbers: torch.tensor(
        [choose(row, u) for row, u in zip(probs.tolist(), numbers.tolist(), strict=True)]
    )


def _walk(row, number):
    total, token = 0.0, 0
    for place, share in enumerate(row):
        if share > 0 and total <= number:
            token = place
        total += share
    return token


def _clamped_walk(row, number):
    return min(bisect.bisect_right(list(itertools.accumulate(row)), number), len(row) - 1)


def _draw_scaled(probs, numbers):
    sums = probs.double().cumsum(1)
    return torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)[:, 0]


def _searched(sums, u, right=True, last=True):
    found = torch.searchsorted(sums, u[:, None], right=right)[:, 0]
    return found.clamp(max=sums.shape[1] - 1) if last else found


def _last_possible(probs):
    return len(probs[0]) - 1 - (probs.flip(1) > 0).int().argmax(1)


def _sorted_walk(row, number):
    return _walk(sorted(row, reverse=True), number)


RIGHT = {
    "temperature": [
        largest_subtracted, _in_lists, lambda x, t: _share(2 ** (_from_largest(x / t) / LN_2)),
        lambda x, t: _share((_from_largest(x) / t).exp()),
        lambda x, t: _share(_from_largest(x).double().exp() ** (1 / t)).float(),
    ],
    "draw": [
        _each_row(_walk), _draw_scaled,
        lambda probs, u: torch.minimum(_searched(probs.cumsum(1), u), _last_possible(probs)),
    ],
    "top_p": answers_sampling_top_p.RIGHT,
    "choose": answers_sampling_choose.RIGHT,
}  # fmt: skip
WRONG = {
    "temperature": [
        ("multiplied", lambda x, t: F.softmax(t * x, -1)),
        ("multiplied", lambda x, t: (x / (1 / t)).log_softmax(-1).exp()),
        ("temperature forgotten", lambda x, t: F.softmax(x, -1)),
        ("temperature forgotten", lambda x, t: _share(x.softmax(-1) / t)),
        ("temperature after softmax", lambda x, t: F.softmax(x, -1) * (1 / t)),
        ("softmax of a softmax", lambda x, t: F.softmax(F.softmax(x, -1) / t, -1)),
        ("temperature forgotten", lambda x, t: _share(x.exp())),
        ("multiplied", lambda x, t: _share(x.softmax(-1) ** t)),
        ("multiplied", lambda x, t: _share((x * t).exp())),
        ("wrong sign", lambda x, t: F.softmax(-x / t, -1)),
        ("wrong sign", lambda x, t: _share(torch.exp(-x / t))),
        ("power not normalized", lambda x, t: x.softmax(-1).pow(1 / t)),
        ("not divided by the sum", lambda x, t: torch.exp(x / t - (x / t).amax(-1, True))),
        ("not divided by the sum", lambda x, t: torch.exp(x / t)),
        ("divided by the mean",
            lambda x, t: (y := F.softmax(x / t, -1)) / y.mean(-1, keepdim=True)),
        ("keepdim forgotten", lambda x, t:
            (y := (x / t - (x / t).amax(-1, True)).exp()) / y.sum(-1)),
        ("keepdim forgotten", lambda x, t: (y := (x / t).exp()) / y.sum(-1)),
        ("keepdim forgotten", lambda x, t: _share((x / t - (x / t).amax(-1)).exp())),
        ("keepdim forgotten", lambda x, t:
            (y := (x / t - (x / t).max(-1).values).exp()) / y.sum(-1)),
        ("too large to exponentiate", lambda x, t: _share(torch.exp(x / t - x.max()))),
        ("too large to exponentiate", lambda x, t: _share(torch.exp(x / t))),
        ("too large to exponentiate", lambda x, t: _share(torch.e ** (x / t))),
        ("too large to exponentiate", lambda x, t: _share(torch.exp(x / t - x.amax(-1, True)))),
        ("one shift for all rows", lambda x, t: _share(torch.exp(x / t - (x / t).max()))),
        ("one sum for all rows", lambda x, t: (x / t).flatten().softmax(0).view_as(x)),
        ("wrong dimension", lambda x, t: F.softmax(x / t, 0)),
        ("log-probabilities", lambda x, t: F.log_softmax(x / t, -1)),
        ("log-probabilities", lambda x, t: x / t - (x / t).logsumexp(-1, keepdim=True)),
        ("no softmax", lambda x, t: x.div(t)),
        ("root of the temperature", lambda x, t: F.softmax(x / t**0.5, -1)),
        ("shape", lambda x, t: F.softmax(x / t, -1)[None]),
        ("dtype", lambda x, t: F.softmax(x.double() / t, -1)),
        ("changes its input", lambda x, t: largest_subtracted(x.div_(t), 1.0)),
        ("error", lambda x, t: x.softmax(-1, t)),
        ("forbidden", lambda x, t: F.softmax(x / t, dim=-1), "softmax"),
        ("forbidden", lambda x, t: (x / t).log_softmax(-1).exp(), "log_softmax"),
        ("forbidden", lambda x, t: divide_by_temperature(x, t).softmax(-1), "softmax"),
        ("forbidden", lambda x, t: (x / t - (x / t).logsumexp(-1, True)).exp(), "logsumexp"),
        ("forbidden", lambda x, t: torch.distributions.Categorical(logits=x / t).probs),
    ],
    "draw": [
        ("no fallback", lambda probs, u: _searched(probs.cumsum(1), u, last=False)),
        ("clamped to the last id", lambda probs, u: _searched(probs.cumsum(1), u)),
        ("clamped to the last id", _each_row(_clamped_walk)),
        ("falls back to the first",
            lambda probs, u: (u[:, None] < probs.cumsum(1)).long().argmax(1)),
        ("falls back to the first", _each_row(lambda row, u:
            next((i for i in range(len(row)) if u < sum(row[: i + 1])), 0))),
        ("numbers along the row",
            lambda probs, u: (probs.cumsum(1) <= u).sum(1).clamp(max=len(probs[0]) - 1)),
        ("what is still to come", lambda probs, u: (u[:, None] < probs.cumsum(1)).sum(1)),
        ("a column", lambda probs, u: _draw_scaled(probs, u).unsqueeze(1)),
        ("not int64", lambda probs, u: 1.0 * _draw_scaled(probs, u)),
        ("not int64", lambda probs, u: _draw_scaled(probs, u).int()),
        ("first row only", lambda probs, u: _draw_scaled(probs, u)[:1]),
        ("first row only", lambda probs, u: _draw_scaled(probs, u)[0]),
        ("number reversed", _each_row(lambda row, u: _walk(row, 1 - u))),
        ("border", lambda probs, u: _searched(probs.cumsum(1), u, right=False)),
        ("greedy", lambda probs, u: probs.topk(1).indices[:, 0]),
        ("no running sum",
            _each_row(lambda row, u: next((i for i, share in enumerate(row) if u < share), 0))),
        ("equal intervals", lambda probs, u: torch.floor(u * len(probs[0])).to(torch.int64)),
        ("one too early", _each_row(lambda row, u: _walk(row, u) - 1)),
        ("one too far", _each_row(lambda row, u: _walk(row, u) + 1)),
        ("nearest border", _each_row(lambda row, u: min(range(len(row)),
            key=lambda i: abs(sum(row[: i + 1]) - u)))),
        ("one number for all rows", lambda p, u: _each_row(_walk)(p, u[:1].expand_as(u))),
        ("one sum for all rows", lambda p, u: _searched(p.flatten().cumsum(0).view_as(p), u)),
        ("wrong dimension",
            lambda p, u: (p.cumsum(0) <= u[:, None]).sum(1).clamp(max=len(p[0]) - 1)),
        ("position in the sorted list", _each_row(_sorted_walk)),
        ("sorted first", _each_row(lambda row, u: sorted(range(len(row)), key=lambda i:
            -row[i])[_sorted_walk(row, u)])),
        ("from the end", _each_row(lambda row, u: len(row) - 1 - _walk(row[::-1], u))),
        ("the probability, not the token", _each_row(lambda row, u: row[_walk(row, u)])),
        ("kind", lambda probs, u: [_walk(row, float(u[0])) for row in probs.tolist()]),
        ("shape", lambda probs, u: F.one_hot(_draw_scaled(probs, u))),
        ("values", lambda probs, u: torch.full((len(probs),), 7)),
        ("error", lambda probs, u: probs.index(u)),
    ],
    "top_p": answers_sampling_top_p.WRONG,
    "choose": answers_sampling_choose.WRONG,
}  # fmt: skip
