"""Answers to the exercises of notebook 13."""

import operator
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qwenkit.lora import add_lora
from qwenkit.model import QwenForCausalLM

KV = ("k_proj", "v_proj")


# LoRA(base, rank, alpha)
class _Plain(nn.Module):
    """The notebook's solution, in parts that a wrong answer can override."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.rank, self.alpha = base.requires_grad_(False), rank, alpha
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def scale(self):
        return self.alpha / self.rank

    def update(self, x):
        return self.scale() * (x.to(self.A.dtype) @ self.A.T @ self.B.T)

    def forward(self, x):
        plain = self.base(x)
        return (plain + self.update(x)).to(plain.dtype)


class _Linears(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        for one in base.parameters():
            one.requires_grad = False
        self.A = nn.Linear(base.in_features, rank, bias=False)
        self.B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x):
        return self.base(x) + (self.scale * self.B(self.A(x.float()))).to(x.dtype)


class _OneMatrix(_Plain):
    def forward(self, x):
        whole = self.base.weight.float() + self.B @ self.A * (self.alpha / len(self.A))
        return F.linear(x.float(), whole, self._bias()).to(x.dtype)

    def _bias(self):
        return None if self.base.bias is None else self.base.bias.float()


def _module(base=_Plain, after=None, **methods):
    """Return a LoRA class with some methods replaced; `after` runs at the end of its init."""

    class LoRA(base):
        def __init__(self, *given):
            super().__init__(*given)
            if after is not None:
                after(self)

    for name, method in methods.items():
        setattr(LoRA, name, method)
    return LoRA


def _scaled(scale):
    return _module(scale=lambda self: scale(self.alpha, self.rank))


def _starts(a, b):
    def after(self):
        nn.init.normal_(self.A) if a else nn.init.zeros_(self.A)
        nn.init.normal_(self.B) if b else nn.init.zeros_(self.B)

    return _module(after=after)


def _as_plain_tensors(self):
    for name in "AB":
        value = getattr(self, name).detach()
        delattr(self, name)
        setattr(self, name, value)


def _as_transposed(self):
    for name in "AB":
        setattr(self, name, nn.Parameter(getattr(self, name).detach().T.contiguous()))


# train_lora(model, batches, rank, alpha, rate, start)
def _train(
    targets=("q_proj", "v_proj"), layers=slice(None), freeze="all", make=None, clear="before",
    step=True, shift=(slice(None, -1), slice(1, None)), picked=None, end="merge", answer=None,
    first=None, when="before", scale=lambda lora: lora.alpha / lora.rank, a=None,
):  # fmt: skip
    """Return the exercise's function, written as the notebook asks; the arguments break it."""

    def make_adam(weights, rate):
        return torch.optim.AdamW(weights, lr=rate, weight_decay=0)

    def train_lora(model, batches, rank, alpha, rate, start):
        wrapped = {}
        for attention in [layer.self_attn for layer in model.model.layers][layers]:
            for name in targets:
                lora = _Plain(getattr(attention, name), rank, alpha)
                with torch.no_grad():
                    lora.A.copy_(start(rank, lora.A.shape[1]) if a is None else a * lora.A)
                setattr(attention, name, lora)
                wrapped[attention, name] = lora
        for name, one in model.named_parameters():
            own = name.endswith((".A", ".B"))
            if freeze == "all" or (freeze == "weights" and not name.endswith("bias")):
                one.requires_grad_(own)
            elif freeze == "matrices":  # and the biases need a gradient again
                one.requires_grad_(own or name.endswith("bias"))
            elif freeze == "nothing":
                one.requires_grad_(True)
            elif freeze == "everything":
                one.requires_grad_(False)
        weights = [one for one in model.parameters() if one.requires_grad]
        optimizer = (make or make_adam)(weights, rate)
        losses = []
        for number, batch in enumerate(picked(batches) if picked else batches):
            if first == "new":
                optimizer = make_adam(weights, rate)
            x, y = batch[:, shift[0]], batch[:, shift[1]]
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            if clear == "before" or (clear == "once" and number == 0):
                optimizer.zero_grad()
            loss.backward()
            if step:
                optimizer.step()
            if when == "after":
                loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            losses.append(loss.item())
        for (attention, name), lora in wrapped.items():
            with torch.no_grad():
                if end == "merge":
                    lora.base.weight += scale(lora) * lora.B @ lora.A
                elif end == "update":
                    lora.base.weight.copy_(scale(lora) * lora.B @ lora.A)
            if end != "stay":
                setattr(attention, name, lora.base)
        return losses if answer is None else answer(losses)

    return train_lora


def _by_hand(model, batches, rank, alpha, rate, start):
    """Train A and B from a dictionary, with hooks instead of a class, and merge by hand."""
    model.requires_grad_(False)
    pairs, hooks = {}, []
    for name, part in model.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            a = start(rank, part.in_features).clone().requires_grad_()
            b = torch.zeros(part.out_features, rank, requires_grad=True)
            pairs[part] = a, b

            def hook(part, given, output):
                a, b = pairs[part]
                return output + given[0] @ a.T @ b.T * alpha / rank

            hooks.append(part.register_forward_hook(hook))
    optimizer = torch.optim.Adam([one for pair in pairs.values() for one in pair], lr=rate)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        logits = model(batch)[:, :-1]
        losses.append(F.cross_entropy(logits.transpose(1, 2), batch[:, 1:]))
        losses[-1].backward()
        optimizer.step()
    for hook in hooks:
        hook.remove()
    for part, (a, b) in pairs.items():
        part.weight = nn.Parameter(part.weight + (alpha / rank * b @ a).detach(), False)
    return losses


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


# enough_rank(values, share)
def _rank(power=2, off=1, strict=False, flip=False):
    def enough_rank(values, share):
        numbers = [float(value) ** power for value in values][:: -1 if flip else 1]
        few = operator.le if strict else operator.lt
        return off + sum(few(kept, share * sum(numbers)) for kept in accumulate(numbers))

    return enough_rank


RIGHT = {
    "count_trained": [_count(_both), _of_a_model, _by_sizes],
    "module": [_Plain, _Linears, _OneMatrix],
    "train": [
        _train(), _by_hand, _train(freeze="no", make=lambda weights, rate: torch.optim.AdamW(
            [one for one in weights if len(one) in (2, 3) or one.shape[-1] in (2, 3)],
            lr=rate, weight_decay=0)),
    ],
    "enough_rank": [
        _rank(), lambda s, share: 1 + int(((s**2).cumsum(0) < share * (s**2).sum()).sum()),
        lambda s, share: int(((s**2).cumsum(0) / (s**2).sum() >= share).int().argmax()) + 1,
    ],
}  # fmt: skip


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
    "module": [
        *((name, _scaled(scale)) for name, scale in SCALES.items()),
        ("divided by O", _module(scale=lambda self: self.alpha / len(self.B))),
        ("divided by I", _module(scale=lambda self: self.alpha / self.A.shape[1])),
        ("both at zero", _starts(0, 0)),
        ("both random", _starts(1, 1)),
        ("A at zero", _starts(0, 1)),
        ("base not frozen", _module(after=lambda self: self.base.requires_grad_(True))),
        ("not parameters", _module(after=_as_plain_tensors)),
        ("dtype of the base", _module(after=lambda self: self.to(self.base.weight.dtype))),
        ("float32 comes back", _module(forward=lambda self, x: self.base(x) + self.update(x))),
        ("stored transposed", _module(after=_as_transposed, update=lambda self, x:
            self.scale() * (x.float() @ self.A @ self.B))),
        ("no gradient", _module(update=torch.no_grad()(_Plain.update))),
        ("bias forgotten", _module(forward=lambda self, x:
            (x @ self.base.weight.T + self.update(x)).to(x.dtype))),
        ("update alone", _module(forward=lambda self, x: self.update(x).to(x.dtype))),
        ("base alone", _module(update=lambda self, x: 0 * _Plain.update(self, x))),
        ("everything scaled", _module(forward=lambda self, x: (self.scale() * (
            self.base(x) + x.float() @ self.A.T @ self.B.T)).to(x.dtype))),
        ("x instead of the output", _module(forward=lambda self, x:
            (x + self.update(x)).to(x.dtype))),
        ("multiplied", _module(forward=lambda self, x:
            (self.base(x) * self.update(x)).to(x.dtype))),
        ("one after the other", _module(forward=lambda self, x:
            ((y := self.base(x)) + self.update(y)).to(x.dtype))),
        ("minus", _module(forward=lambda self, x: (self.base(x) - self.update(x)).to(x.dtype))),
        ("A and B not transposed", _module(update=lambda self, x:
            self.scale() * (x.float() @ self.A @ self.B))),
        ("A and B swapped", _module(update=lambda self, x:
            self.scale() * (x.float() @ self.B.T @ self.A.T))),
        ("error", _module(update=lambda self, x: self.scale() * (x @ self.A.T @ self.B.T))),
        ("error", _module(after=lambda self: delattr(self, "B"))),
        ("values", _module(forward=lambda self, x: 1.5 * _Plain.forward(self, x))),
        ("nothing returned", _module(forward=lambda self, x: print(end=""))),
    ],
    "train": [
        ("not merged", _train(end="stay")),
        ("removed, not merged", _train(end="remove")),
        ("merged without scale", _train(scale=lambda lora: 1)),
        ("scaled twice", _train(scale=lambda lora: (lora.alpha / lora.rank) ** 2)),
        ("merged twice", _train(scale=lambda lora: 2 * lora.alpha / lora.rank)),
        ("minus at the end", _train(scale=lambda lora: -lora.alpha / lora.rank)),
        ("the update alone", _train(end="update")),
        ("nothing learned", _train(step=False)),
        ("nothing learned", _train(a=0.0)),
        ("not frozen", _train(freeze="nothing")),
        ("not frozen", _train(freeze="no")),
        ("biases trained", _train(freeze="weights")),
        ("biases trained", _train(freeze="matrices")),
        ("not cleared", _train(clear="never")),
        ("a new optimizer for each step", _train(first="new")),
        ("SGD", _train(make=lambda weights, rate: torch.optim.SGD(weights, rate))),
        ("Adam with another rate",
            _train(make=lambda weights, rate: torch.optim.Adam(weights))),
        ("weight decay", _train(make=lambda weights, rate: torch.optim.AdamW(weights, rate))),
        ("only q", _train(targets=["q_proj"])),
        ("only v", _train(targets=["v_proj"])),
        ("k for v", _train(targets=["q_proj", "k_proj"])),
        ("all of attention", _train(targets=["k_proj", "q_proj", "o_proj", "v_proj"])),
        ("one layer", _train(layers=slice(0, 1))),
        ("one layer", _train(layers=slice(-1, None))),
        ("not shifted", _train(shift=(slice(None), slice(None)))),
        ("shifted backwards", _train(shift=(slice(1, None), slice(None, -1)))),
        ("one batch only", _train(picked=lambda batches: [batches[0] for _ in batches])),
        ("one step only", _train(picked=lambda batches: [batches[0]])),
        ("losses after the step", _train(when="after")),
        ("the last loss", _train(answer=lambda losses: losses[-1:])),
        ("the mean loss", _train(answer=lambda losses: [sum(losses) / len(losses)])),
        ("no losses", _train(answer=lambda losses: None if losses else 0)),
        ("error", _train(freeze="everything")),
        ("error", _train(answer=lambda losses: losses[-1])),
        ("values", _train(a=2.0)),
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
