"""Answers to the exercises of notebook 14."""

import numpy as np
import torch
import torch.nn.functional as F

from qwenkit.trace import Trace


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


# find_circuit(model, clean, corrupted, metric, number)
def _part(x, good, bad):
    return (good - x) / (good - bad)


def _circuit(
    table="denoise", put=None, share=lambda x, good, bad: (x - bad) / (good - bad),
    rank=lambda value: -value, order=lambda heads: heads, pair=lambda n, h, width: (n, h),
    lost="together", part=_part, control="same layers",
):  # fmt: skip
    """Return the exercise's function, in loops; the arguments break it."""
    put = put or (lambda z, other, h: z[:, h].copy_(other[:, h]))

    def find_circuit(model, clean, corrupted, metric, number):
        def run(ids, edits=None):
            trace = Trace(["attn.z"], edits=edits)
            return metric(model(ids, trace=trace)), trace

        def with_heads(ids, source, heads, put=put):
            edits = {}
            for layer, head in heads:
                name = f"layers.{layer}.attn.z"
                before = edits.get(name, lambda z: z) if lost != "overwritten" else lambda z: z

                def edit(z, before=before, name=name, head=head):
                    z = before(z)
                    put(z, source[name], head)
                    return z

                edits[name] = edit
            return run(ids, edits)[0]

        (good, kept), (bad, kept_bad) = run(clean), run(corrupted)
        layers, width = model.config.num_hidden_layers, model.config.num_attention_heads
        found = torch.zeros(layers, width)
        for n in range(layers):
            for h in range(width):
                ids = clean if table == "noise" else corrupted
                source = kept if table == "denoise" else kept_bad
                found[n, h] = share(with_heads(ids, source, [(n, h)]), good, bad)
        every = [(n, h) for n in range(layers) for h in range(width)]
        heads = sorted(every, key=lambda one: rank(found[one].item()))[:number]
        calm = []
        for layer in {n for n, _ in heads}:
            row = found[layer] if control == "lowest" else found[layer].abs()
            count = [n for n, _ in heads].count(layer)
            calm += [(layer, int(h)) for h in row.argsort()[:count]]
        if control == "anywhere":
            calm = sorted(every, key=lambda one: abs(found[one]))[:number]
        calm = heads if control == "group" else calm

        def without(group):
            if lost == "one by one":
                return sum(part(with_heads(clean, kept_bad, [one]), good, bad) for one in group)
            if lost == "brought back":
                return part(with_heads(corrupted, kept, group), good, bad)
            if lost == "zeroed":
                zero = lambda z, other, h: z[:, h].zero_()  # noqa: E731
                return part(with_heads(clean, kept_bad, group, zero), good, bad)
            return part(with_heads(clean, kept_bad, group), good, bad)

        costs = without(heads), without(calm)
        return found, [pair(n, h, width) for n, h in order(heads)], *costs

    return find_circuit


def _circuit_by_bits(model, clean, corrupted, metric, number):
    """The same with masks over all heads instead of lists of heads."""
    layers, width = model.config.num_hidden_layers, model.config.num_attention_heads

    def run(ids, mask=None, other=None):
        def edit_of(n):
            bits = None if mask is None else mask[n][None, :, None, None]
            return lambda z: z if bits is None else torch.where(bits, other[n], z)

        trace = Trace("attn.z", edits={f"layers.{n}.attn.z": edit_of(n) for n in range(layers)})
        value = metric(model(ids, trace=trace))
        return value, [trace[f"layers.{n}.attn.z"] for n in range(layers)]

    (good, clean_z), (bad, bad_z) = run(clean), run(corrupted)
    masks = torch.eye(layers * width).bool().view(-1, layers, width)
    values = torch.tensor([run(corrupted, mask, clean_z)[0] for mask in masks])
    table = ((values - bad) / (good - bad)).view(layers, width)
    best = table.flatten().argsort(descending=True)[:number]
    group = masks[best].any(dim=0)
    ranks = table.abs().argsort(dim=1).argsort(dim=1)
    calm = ranks < group.sum(dim=1, keepdim=True)
    costs = [(good - run(clean, mask, bad_z)[0]) / (good - bad) for mask in (group, calm)]
    return table, [[int(i) // width, int(i) % width] for i in best], *costs


RIGHT = {
    "contributions": [
        _contributions_in_loops, _contributions_by_leaving_out,
        lambda p, w, eps, row: p * torch.rsqrt(p.sum(0).square().mean() + eps) @ (w * row),
    ],
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
    "circuit": [_circuit(), _circuit_by_bits, lambda *given: list(_circuit()(*given))],
}  # fmt: skip


# wrong, and named
def _at(p, n, back=None):
    """Return the weights of the second half's queries, `back` positions back: (n, B, H)."""
    back = n - 1 if back is None else back
    return torch.stack([p[:, :, t, (t - back) % (2 * n)] for t in range(n, 2 * n)])


def _rms(stream, eps):
    return torch.sqrt(stream.square().mean(-1, keepdim=True) + eps)


WRONG = {
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
    "circuit": [
        ("runs exchanged", _circuit(table="noise")),
        ("its own values", _circuit(table="own")),
        ("zeros", _circuit(put=lambda z, other, h: z[:, h].zero_())),
        ("last position only",
            _circuit(put=lambda z, other, h: z[:, h, -1].copy_(other[:, h, -1]))),
        ("the whole layer", _circuit(put=lambda z, other, h: z.copy_(other))),
        ("a token, not a head",
            _circuit(put=lambda z, other, h: z[:, :, h].copy_(other[:, :, h]))),
        ("the metric itself", _circuit(share=lambda x, good, bad: x)),
        ("the metric itself", _circuit(share=lambda x, *_: x, part=lambda x, *_: x)),
        ("not divided", _circuit(share=lambda x, good, bad: x - bad)),
        ("not divided", _circuit(share=lambda x, good, bad: x - bad,
            part=lambda x, good, bad: good - x)),
        ("what is missing", _circuit(share=lambda x, good, bad: 1 - (x - bad) / (good - bad))),
        ("sign", _circuit(share=lambda x, good, bad: (bad - x) / (good - bad))),
        ("signs lost", _circuit(share=lambda x, good, bad: abs((x - bad) / (good - bad)))),
        ("smallest first", _circuit(rank=lambda value: value)),
        ("largest up or down", _circuit(rank=lambda value: -abs(value))),
        ("ascending", _circuit(order=lambda heads: heads[::-1])),
        ("flat numbers", _circuit(pair=lambda n, h, width: width * n + h)),
        ("layer and head exchanged", _circuit(pair=lambda n, h, width: (h, n))),
        ("one head per layer", _circuit(lost="overwritten")),
        ("one by one", _circuit(lost="one by one")),
        ("the group brought back", _circuit(lost="brought back")),
        ("the group brought back", _circuit(lost="brought back", part=lambda x, good, bad:
            (x - bad) / (good - bad))),
        ("the group zeroed", _circuit(lost="zeroed")),
        ("metric of the groups", _circuit(part=lambda x, good, bad: x)),
        ("what is left", _circuit(part=lambda x, good, bad: (x - bad) / (good - bad))),
        ("lost, not divided", _circuit(part=lambda x, good, bad: good - x)),
        ("control from other layers", _circuit(control="anywhere")),
        ("control that pushes", _circuit(control="lowest")),
        ("control is the group", _circuit(control="group")),
        ("no control", lambda *given: _circuit()(*given)[:3]),
        ("the table alone", lambda *given: _circuit()(*given)[0]),
        ("values", _circuit(part=lambda x, good, bad: 0.7)),
        ("values", _circuit(share=lambda x, good, bad: (x - bad) / (good + 1))),
        ("error", lambda model, *rest: Trace()["layers.0.attn.z"]),
    ],
}  # fmt: skip
