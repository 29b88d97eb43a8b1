"""The checks of notebook 13: each wrong idea is named, each right way passes."""

import pytest
import torch
import torch.nn.functional as F

from qwenkit import checks
from qwenkit.config import QwenConfig
from qwenkit.lora import add_lora
from qwenkit.model import QwenForCausalLM

FORWARD, COUNT = checks.lora.forward, checks.lora.count_trained
MERGED, RANK = checks.lora.merged_weight, checks.lora.enough_rank
KV = ("k_proj", "v_proj")


def forward(scale=None, first=1.0, sign=1.0, chain=False):
    def lora_forward(x, weight, a, b, alpha):
        plain = F.linear(x, weight)
        low = F.linear(plain if chain else x, a)
        factor = alpha / a.shape[0] if scale is None else scale(alpha, a.shape[0])
        return first * plain + sign * F.linear(low, b) * factor

    return lora_forward


def _all_scaled(x, weight, a, b, alpha):
    return F.linear(x, weight + b @ a) * alpha / len(a)


def _columns(x, weight, a, b, alpha):
    return torch.matmul(x, weight) + F.linear(F.linear(x, a), b) * alpha / len(a)


def merged(scale=None, first=1.0, times=1.0):
    def merged_weight(weight, a, b, alpha):
        factor = alpha / a.shape[0] if scale is None else scale(alpha, a.shape[0])
        update = torch.einsum("or,ri->oi", b, a) * factor * times
        return (first * weight.float() + update).to(weight.dtype)

    return merged_weight


def _turned(weight, a, b, alpha):
    return (weight.float() + (b @ a).T * alpha / len(a)).to(weight.dtype)


def _in_place(weight, a, b, alpha):
    weight += alpha / len(a) * (b @ a)
    return weight


def matrices(config):
    """Yield the name and the shape of each layer's matrices, as the checkpoint has them."""
    for name, shape in config.tensor_shapes().items():
        if "_proj.weight" in name:
            yield name.split(".")[2], name.split(".")[4], shape


def count(one, layers=None, every=False, wide=(), plus=0):
    def count_trained(config, targets, rank):
        total = 0
        for layer, name, (outer, inner) in matrices(config):
            if (every or name in targets) and layer in (layers or layer):
                width = config.num_attention_heads * config.head_dim if name in wide else outer
                bias = plus * (outer if name in ("q_proj", *KV) else 0)
                total += one(width, inner, rank) + bias
        return total

    return count_trained


def right(outer, inner, rank):
    return rank * outer + rank * inner


def _as_in_most_models(config, targets, rank):
    hidden, heads = config.hidden_size, config.num_attention_heads
    plain = QwenConfig(
        config.vocab_size, hidden, config.intermediate_size, config.num_hidden_layers, heads,
        config.num_key_value_heads, head_dim=config.head_dim,
    )  # fmt: skip
    total = 0
    for _, name, shape in matrices(plain):
        if name in targets:
            total += rank * (2 * hidden if name in ("q_proj", "o_proj") else sum(shape))
    return total


def rank(power=2, off=1, strict=False, flip=False):
    def enough_rank(values, share):
        kept, numbers = 0.0, [float(value) ** power for value in values]
        numbers = numbers[::-1] if flip else numbers
        for place, number in enumerate(numbers):
            kept += number
            if kept > share * sum(numbers) if strict else kept >= share * sum(numbers):
                return place + off
        return len(numbers) + off  # strict, and all are needed

    return enough_rank


WRONG = [
    (FORWARD, "scale forgotten", forward(lambda alpha, r: 1)),
    (FORWARD, "not divided by the rank", forward(lambda alpha, r: alpha)),
    (FORWARD, "divided upside down", forward(lambda alpha, r: r / alpha)),
    (FORWARD, "only divided", forward(lambda alpha, r: 1 / r)),
    (FORWARD, "root of the rank", forward(lambda alpha, r: alpha * r**-0.5)),
    (FORWARD, "update alone", forward(first=0.0)),
    (FORWARD, "weight alone", lambda x, weight, a, b, alpha: F.linear(x, weight)),
    (FORWARD, "all is scaled", _all_scaled),
    (FORWARD, "not transposed", _columns),
    (FORWARD, "one after the other", forward(chain=True)),
    (FORWARD, "minus", forward(sign=-1.0)),
    (FORWARD, "values", forward(first=1.5)),
    (FORWARD, "error", lambda x, weight, a, b, alpha: x @ a @ b),
    (COUNT, "whole matrices", count(lambda outer, inner, r: outer * inner)),
    (COUNT, "A alone", count(lambda outer, inner, r: r * inner)),
    (COUNT, "B alone", count(lambda outer, inner, r: r * outer)),
    (COUNT, "one layer", count(right, layers=("0",))),
    (COUNT, "rank forgotten", count(lambda outer, inner, r: outer + inner)),
    (COUNT, "product of A and B", count(lambda outer, inner, r: r * r * outer * inner)),
    (COUNT, "k and v as wide as q", count(right, wide=KV)),
    (COUNT, "all matrices", count(right, every=True)),
    (COUNT, "biases counted", count(right, plus=1)),
    (COUNT, "H · D taken for the hidden size", _as_in_most_models),
    (COUNT, "values", lambda config, targets, r: 7),
    (MERGED, "scale forgotten", merged(lambda alpha, r: 1)),
    (MERGED, "not divided by the rank", merged(lambda alpha, r: alpha)),
    (MERGED, "divided upside down", merged(lambda alpha, r: r / alpha)),
    (MERGED, "only divided", merged(lambda alpha, r: 1 / r)),
    (MERGED, "root of the rank", merged(lambda alpha, r: alpha * r**-0.5)),
    (MERGED, "float32 comes back", lambda w, a, b, alpha: w + (b * (alpha / len(a))) @ a),
    (MERGED, "update alone", merged(first=0.0)),
    (MERGED, "update transposed", _turned),
    (MERGED, "merged twice", merged(times=2.0)),
    (MERGED, "minus", merged(times=-1.0)),
    (MERGED, "changes its input", _in_place),
    (MERGED, "error", lambda weight, a, b, alpha: weight + a @ b),
    (RANK, "not squared", rank(power=1)),
    (RANK, "one too few", rank(off=0)),
    (RANK, "one too many", rank(off=2)),
    (RANK, "must be more", rank(strict=True)),
    (RANK, "from the smallest", rank(flip=True)),
    (RANK, "compared with the largest", lambda s, share: sum(v >= share * s[0] for v in s).item()),
    (RANK, "all that are not zero", lambda s, share: int(torch.count_nonzero(s))),
    (RANK, "values", lambda s, share: 9),
]


@pytest.mark.parametrize(
    ("check", "name", "function"), WRONG, ids=[f"{n}-{w[1]}" for n, w in enumerate(WRONG)]
)
def test_the_mistake_is_named(check, name, function):
    verdict = check(function)
    assert (verdict.mistake, verdict.outcome) == (name, "not yet"), str(verdict)


@pytest.mark.parametrize("check", [FORWARD, COUNT, MERGED, RANK])
def test_an_empty_stub_is_told_so(check):
    assert check(lambda *arguments: None).outcome == "empty"
    assert "without brackets" in str(check(3))


def _one_matrix(x, weight, a, b, alpha):
    return x @ (weight + alpha / a.shape[0] * (b @ a)).T


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


RIGHT = [
    (FORWARD, forward()),
    (FORWARD, _one_matrix),
    (FORWARD, lambda x, w, a, b, alpha: x @ w.mT + x @ a.mT @ (b * (alpha / b.shape[1])).mT),
    (COUNT, count(right)),
    (COUNT, _of_a_model),
    (COUNT, _by_sizes),
    (MERGED, merged()),
    (MERGED, lambda w, a, b, alpha: w + (alpha / len(a) * b @ a).to(w.dtype)),
    (MERGED, lambda w, a, b, alpha: torch.addmm(w.float(), b, a, alpha=alpha / len(a)).to(w.dtype)),
    (RANK, rank()),
    (RANK, lambda s, share: 1 + int(((s**2).cumsum(0) < share * (s**2).sum()).sum())),
    (
        RANK,
        lambda s, share: (
            int(torch.argmax(((s.square().cumsum(0) / s.square().sum()) >= share).int())) + 1
        ),
    ),
]


@pytest.mark.parametrize(("check", "function"), RIGHT)
def test_right_ways_pass(check, function):
    assert check(function).outcome == "right", str(check(function))
