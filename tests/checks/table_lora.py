"""Answers to the exercises of notebook 13."""

import operator
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F

from qwenkit.lora import add_lora
from qwenkit.model import QwenForCausalLM

KV = ("k_proj", "v_proj")


# lora_forward(x, weight, a, b, alpha)
def _right(alpha, rank):
    return alpha / rank


def _forward(scale=_right, first=1.0, sign=1.0, chain=False):
    def lora_forward(x, weight, a, b, alpha):
        plain = F.linear(x, weight)
        low = F.linear(plain if chain else x, a)
        return first * plain + sign * F.linear(low, b) * scale(alpha, a.shape[0])

    return lora_forward


# count_trained(config, targets, rank)
def _matrices(config):
    """Yield the name and the shape of each layer's matrices, as in the checkpoint."""
    for name, shape in config.tensor_shapes().items():
        if "_proj.weight" in name:
            yield name.split(".")[2], name.split(".")[4], shape


def _count(one, layers=None, every=False, wide=(), plus=0):
    def count_trained(config, targets, rank):
        total = 0
        for layer, name, (out, inner) in _matrices(config):
            if (every or name in targets) and layer in (layers or layer):
                width = config.num_attention_heads * config.head_dim if name in wide else out
                bias = plus * (out if name in ("q_proj", *KV) else 0)
                total += one(width, inner, rank) + bias
        return total

    return count_trained


def _both(out, inner, rank):
    return rank * out + rank * inner


def _of_a_model(config, targets, rank):
    with torch.device("meta"):
        model = QwenForCausalLM(config)
    add_lora(model, rank=rank, targets=targets)
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def _by_sizes(config, targets, rank):
    hidden, units, d = config.hidden_size, config.intermediate_size, config.head_dim
    kv, q = d * config.num_key_value_heads, d * config.num_attention_heads
    other = {"q_proj": q, "k_proj": kv, "v_proj": kv, "o_proj": q}
    sides = sum(hidden + other.get(name, units) for name in targets)
    return config.num_hidden_layers * rank * sides


def _as_in_most_models(config, targets, rank):
    sides = {"q_proj": 2 * config.hidden_size, "o_proj": 2 * config.hidden_size}
    own = [(name, sum(shape)) for _, name, shape in _matrices(config) if name in targets]
    return rank * sum(sides.get(name, both) for name, both in own)


def _resized(size, *names):
    """Count the named matrices as square, of a size that the config gives."""

    def count_trained(config, targets, rank):
        rest = [name for name in targets if name not in names]
        few = config.num_hidden_layers * (len(targets) - len(rest))
        return _by_sizes(config, rest, rank) + few * rank * 2 * size(config)

    return count_trained


# merged_weight(weight, a, b, alpha)
def _merged(scale=_right, first=1.0, times=1.0):
    def merged_weight(weight, a, b, alpha):
        update = torch.einsum("or,ri->oi", b, a) * scale(alpha, a.shape[0]) * times
        return (first * weight.float() + update).to(weight.dtype)

    return merged_weight


# enough_rank(values, share)
def _rank(power=2, off=1, strict=False, flip=False):
    def enough_rank(values, share):
        numbers = [float(value) ** power for value in values][:: -1 if flip else 1]
        few = operator.le if strict else operator.lt
        return off + sum(few(kept, share * sum(numbers)) for kept in accumulate(numbers))

    return enough_rank


RIGHT = {
    "forward": [
        _forward(), lambda x, weight, a, b, alpha: x @ (weight + alpha / a.shape[0] * (b @ a)).T,
        lambda x, w, a, b, alpha: x @ w.mT + x @ a.mT @ (b * (alpha / b.shape[1])).mT,
    ],
    "count_trained": [_count(_both), _of_a_model, _by_sizes],
    "merged_weight": [
        _merged(), lambda w, a, b, alpha: w + (alpha / len(a) * b @ a).to(w.dtype),
        lambda w, a, b, alpha: torch.addmm(w.float(), b, a, alpha=alpha / len(a)).to(w.dtype),
    ],
    "enough_rank": [
        _rank(), lambda s, share: 1 + int(((s**2).cumsum(0) < share * (s**2).sum()).sum()),
        lambda s, share: int(((s**2).cumsum(0) / (s**2).sum() >= share).int().argmax()) + 1,
    ],
}  # fmt: skip


def _cast(w, a, b, alpha):
    return w + alpha / len(a) * (b.to(w.dtype) @ a.to(w.dtype))


def _sums(values, share, off=1):
    squares = values.square()
    return int((squares.cumsum(0) < share).sum()) + off


SCALES = {
    "rounded down": lambda alpha, r: alpha // r,
    "times the rank": lambda alpha, r: alpha * r,
    "scaled twice": lambda alpha, r: alpha**2 / r**2,
    "scale forgotten": lambda alpha, r: 1,
    "not divided by the rank": lambda alpha, r: alpha,
    "divided upside down": lambda alpha, r: r / alpha,
    "only divided": lambda alpha, r: 1 / r,
    "root of the rank": lambda alpha, r: alpha * r**-0.5,
}
WRONG = {
    "forward": [
        *((name, _forward(scale)) for name, scale in SCALES.items()),
        ("update alone", _forward(first=0.0)),
        ("weight alone", lambda x, weight, a, b, alpha: F.linear(x, weight)),
        ("everything scaled", lambda x, w, a, b, alpha: F.linear(x, w + b @ a) * alpha / len(a)),
        ("not transposed", lambda x, w, a, b, alpha: x @ w + x @ a.T @ b.T * alpha / len(a)),
        ("one after the other", _forward(chain=True)),
        ("minus", _forward(sign=-1.0)),
        ("divided by O", lambda x, w, a, b, alpha: x @ w.T + alpha / b.shape[0] * (x @ a.T @ b.T)),
        ("divided by I", lambda x, w, a, b, alpha: x @ w.T + alpha / x.shape[-1] * (x @ a.T @ b.T)),
        ("not transposed", lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a @ b)),
        ("A and B not transposed",
            lambda x, w, a, b, alpha: F.linear(x, w) + x @ a @ b * alpha / len(a)),
        ("B before A", lambda x, w, a, b, alpha:
            F.linear(x, w) + alpha / len(a) * F.linear(F.linear(x, b), a)),
        ("x instead of the output",
            lambda x, w, a, b, alpha: x + alpha / len(a) * F.linear(x, b @ a)),
        ("multiplied",
            lambda x, w, a, b, alpha: F.linear(x, w) * F.linear(x, b @ a) * alpha / len(a)),
        ("the merged weight", lambda x, w, a, b, alpha: _merged()(w, a, b, alpha)),
        ("values", _forward(first=1.5)),
        ("error", lambda x, weight, a, b, alpha: x @ a @ b),
    ],
    "count_trained": [
        ("whole matrices", _count(lambda out, inner, r: out * inner)),
        ("A alone", _count(lambda out, inner, r: r * inner)),
        ("B alone", _count(lambda out, inner, r: r * out)),
        ("one layer", _count(_both, layers=("0",))),
        ("rank forgotten", _count(lambda out, inner, r: out + inner)),
        ("product of A and B", _count(lambda out, inner, r: r * r * out * inner)),
        ("k and v as wide as q", _count(_both, wide=KV)),
        ("all matrices", _count(_both, every=True)),
        ("biases counted", _count(_both, plus=1)),
        ("hidden size for H · D", _as_in_most_models),
        ("targets ignored", lambda config, targets, r: _by_sizes(config, ("q_proj", "v_proj"), r)),
        ("fixed number of layers",
            lambda config, targets, r: 6 * _count(_both, layers=("0",))(config, targets, r)),
        ("frozen weights too", _count(lambda out, inner, r: out * inner + _both(out, inner, r))),
        ("A and B as wide", _count(lambda out, inner, r: r * inner + r * inner)),
        ("A and B as wide", _count(lambda out, inner, r: r * out + r * out)),
        ("everything as wide as the hidden size", lambda config, targets, r:
            2 * r * config.hidden_size * len(targets) * config.num_hidden_layers),
        ("MLP as wide as the hidden size", _resized(
            lambda c: c.hidden_size, "gate_proj", "up_proj", "down_proj")),
        ("down_proj's input", _resized(lambda c: c.hidden_size, "down_proj")),
        ("down_proj's input", _resized(lambda c: c.intermediate_size, "down_proj")),
        ("one kv head", lambda config, targets, r: _by_sizes(
            replace(config, num_key_value_heads=1), targets, r)),
        ("o_proj takes the hidden size", _resized(lambda c: c.hidden_size, "o_proj")),
        ("matrices counted", lambda c, targets, r: len(targets) * c.num_hidden_layers),
        ("bytes", lambda *given: 4 * _by_sizes(*given)),
        ("kind", lambda *given: torch.tensor(_by_sizes(*given))),
        ("error", lambda c, targets, r: sum(getattr(c, name) for name in targets)),
        ("values", lambda config, targets, r: 7),
    ],
    "merged_weight": [
        *((name, _merged(scale)) for name, scale in SCALES.items()),
        ("float32 comes back", lambda w, a, b, alpha: w + (b * (alpha / len(a))) @ a),
        ("update alone", _merged(first=0.0)),
        ("update transposed",
            lambda w, a, b, alpha: (w.float() + (b @ a).T * alpha / len(a)).to(w.dtype)),
        ("merged twice", _merged(times=2.0)),
        ("divided by O", lambda w, a, b, alpha: (w.float() + alpha / len(b) * b @ a).to(w.dtype)),
        ("divided by I",
            lambda w, a, b, alpha: (w.float() + alpha / w.shape[1] * b @ a).to(w.dtype)),
        ("A and B rounded", _cast),
        ("A and B rounded",
            lambda w, a, b, alpha: w + (alpha / len(a) * b).to(w.dtype) @ a.to(w.dtype)),
        ("A and B swapped",
            lambda w, a, b, alpha: (w.float() + a @ b * alpha / len(a)).to(w.dtype)),
        ("element by element", lambda w, a, b, alpha: w + b * a * alpha / len(a)),
        ("weight transposed", lambda w, a, b, alpha: _merged()(w.T, a, b, alpha)),
        ("everything scaled",
            lambda w, a, b, alpha: ((w.float() + b @ a) * alpha / len(a)).to(w.dtype)),
        ("weight alone", lambda w, a, b, alpha: 1 * w),
        ("multiplied", lambda w, a, b, alpha: (w.float() * (b @ a) * alpha / len(a)).to(w.dtype)),
        ("dtype", lambda w, a, b, alpha: _merged()(w, a, b, alpha).double()),
        ("minus", _merged(times=-1.0)),
        ("changes its input", lambda w, a, b, alpha: w.add_(alpha / len(a) * (b @ a))),
        ("error", lambda weight, a, b, alpha: weight + a @ b),
    ],
    "enough_rank": [
        ("not squared", _rank(power=1)),
        ("one too few", _rank(off=0)),
        ("one too many", _rank(off=2)),
        ("more than the share", _rank(strict=True)),
        ("from the smallest", _rank(flip=True)),
        ("compared with the largest", lambda s, share: sum(v >= share * s[0] for v in s).item()),
        ("all nonzero values", lambda s, share: int(torch.count_nonzero(s))),
        ("more than the share", lambda s, share:
            int((s.square().cumsum(0) / s.square().sum() > share).int().argmax()) + 1),
        ("compared with the largest",
            lambda s, share: sum(v**2 >= share * s[0] ** 2 for v in s).item()),
        ("each compared with the share", lambda s, share: (s >= share).sum().item()),
        ("each compared with the share", lambda s, share: (s * s >= share).sum().item()),
        ("each compared with the share",
            lambda s, share: (s**2 / s.square().sum() >= share).sum().item()),
        ("each compared with the share",
            lambda s, share: (s**2 / s.square().sum() < share).sum().item() + 1),
        ("summed, then squared",
            lambda s, share: 1 + int((s.cumsum(0).square() / s.sum().square() < share).sum())),
        ("root of the squares", lambda s, share:
            1 + int((s.square().cumsum(0).sqrt() / s.norm() < share).sum())),
        ("not divided", _sums),
        ("divided by the largest", lambda s, share: _sums(s / s.max(), share)),
        ("1 − share", lambda s, share: _rank()(s, 1 - share)),
        ("share of the number of values", lambda s, share: int(np.ceil(len(s) * share))),
        ("a tensor", lambda s, share: ((s**2).cumsum(0) < share * (s**2).sum()).sum() + 1),
        ("the share, not the rank", lambda s, share:
            ((s**2).cumsum(0) / (s**2).sum())[_rank()(s, share) - 1].item()),
        ("all values", lambda s, share: s.numel()),
        ("error", lambda s, share: int((s.cumsum() < share).sum())),
        ("values", lambda s, share: 9),
    ],
}  # fmt: skip
