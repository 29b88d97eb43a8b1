"""Answers to the exercises of notebook 07."""

import math

import torch
import torch.nn.functional as F

from qwenkit import QwenConfig
from qwenkit.model.mlp import MLP


def _products(x, gate, up, down):
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


# right, no matter how it is written
def _module(x, gate, up, down):
    inner, hidden = gate.shape
    config = QwenConfig(16, hidden, inner, 1, 1, 1, head_dim=2)
    one = MLP(config)
    for name, weight in (("gate", gate), ("up", up), ("down", down)):
        getattr(one, f"{name}_proj").weight.data = weight
    return one(x).detach()


def _unit_after_unit(x, gate, up, down):
    total = torch.zeros_like(x)
    for g, u, d in zip(gate, up, down.T, strict=True):
        opened = (x * g).sum(-1, keepdim=True)
        total = total + opened * torch.sigmoid(opened) * (x * u).sum(-1, keepdim=True) * d
    return total


# product(a, b, out, channels)
def _units(channels, units):
    """Return weights from (channel, value) of gate, up and down for each unit."""
    gate, up, down = (torch.zeros(len(units), channels) for _ in range(3))
    for n, (a, g, b, u, out, d) in enumerate(units):
        gate[n, a], up[n, b], down[n, out] = g, u, d
    return gate, up, down.T


def _by_signs(gate, up, gate2, up2, down2=1):
    """Return the weights of two units with these signs."""
    return lambda a, b, out, channels: _units(
        channels, [(a, gate, b, up, out, 1), (a, gate2, b, up2, out, down2)]
    )


def _one_by_one(a, b, out, channels):
    one = torch.eye(channels, dtype=torch.int64)
    gate, up = torch.stack([one[a], -one[a]]), torch.stack([one[b], -one[b]])
    return [gate, up, torch.stack([one[out], one[out]], dim=1)]


def _with_sums(a, b, out, channels):
    both = torch.zeros(channels)
    both[[a, b]] = 1.0
    rows = torch.stack([both, -both])
    return rows, rows, _by_signs(1, 1, -1, -1)(a, b, out, channels)[2]


# backward(x, gate, up, down, d_out)
def _s(g):
    return 1 / (1 + torch.exp(-g))


def _slope(g):
    return _s(g) + g * _s(g) * (1 - _s(g))


def _written_out(x, gate, up, down, d_out, through=None):
    g, u = x @ gate.T, x @ up.T
    d_act = d_out @ (down if through is None else through)
    d_g, d_u = d_act * u * _slope(g), d_act * g * _s(g)
    rows = x.reshape(-1, x.shape[-1])
    d_gate, d_up = (d.reshape(-1, d.shape[-1]).T @ rows for d in (d_g, d_u))
    d_down = d_out.reshape(-1, d_out.shape[-1]).T @ (g * _s(g) * u).reshape(-1, len(gate))
    return d_g @ gate + d_u @ up, d_gate, d_up, d_down


def _token_by_token(x, gate, up, down, d_out):
    d_x, *sums = (torch.zeros_like(one) for one in (x, gate, up, down))
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            found = _written_out(*(x[b, t][None, None], gate, up, down, d_out[b, t][None, None]))
            d_x[b, t] = found[0][0, 0]
            sums = [one + other for one, other in zip(sums, found[1:], strict=True)]
    return d_x, *sums


def _by_einsum(x, gate, up, down, d_out):
    g, u = torch.einsum("btc,fc->btf", x, gate), torch.einsum("btc,fc->btf", x, up)
    d_act = torch.einsum("btc,cf->btf", d_out, down)
    d_g, d_u = d_act * u * torch.sigmoid(g) * (1 + g - F.silu(g)), d_act * F.silu(g)
    outer = [torch.einsum("btf,btc->fc", d, x) for d in (d_g, d_u)]
    d_x = torch.einsum("btf,fc->btc", d_g, gate) + torch.einsum("btf,fc->btc", d_u, up)
    return [d_x, *outer, torch.einsum("btc,btf->cf", d_out, F.silu(g) * u)]


def _by_autograd(*given):
    *given, d_out = (one.clone().requires_grad_() for one in given)
    return torch.autograd.grad(_products(*given), given, d_out.detach())


def _broken(x=None, slope=_slope, gate=None, up=None, act=None):
    """Return the gradients with one step done in another way."""

    def gradients(given, gate_weight, up_weight, down, d_out):
        g, u, d_act = given @ gate_weight.T, given @ up_weight.T, d_out @ down
        d_g = gate(d_act, g, u) if gate else d_act * u * slope(g)
        d_u = up(d_act, g, u) if up else d_act * g * _s(g)
        inner = act(g, u) if act else g * _s(g) * u
        ways = d_g @ gate_weight, d_u @ up_weight
        d_x = x(*ways, d_out) if x else sum(ways)
        outer = [torch.einsum("btf,btc->fc", d, given) for d in (d_g, d_u)]
        return d_x, *outer, torch.einsum("btc,btf->cf", d_out, inner)

    return gradients


def _without_batch_sum(x, gate, up, down, d_out):
    g, u, d_act = x @ gate.T, x @ up.T, d_out @ down
    d_g, d_u = d_act * u * _slope(g), d_act * g * _s(g)
    return d_g @ gate + d_u @ up, d_g.mT @ x, d_u.mT @ x, d_out.mT @ (F.silu(g) * u)


RIGHT = {
    "silu": [
        lambda x: x * torch.sigmoid(x), lambda x: x / (1 + torch.exp(-x)),
        lambda x: x * (1 + torch.tanh(x / 2)) / 2,
        lambda x: torch.tensor([v / (1 + math.exp(-v)) for v in x.flatten()]).view_as(x).to(x),
    ],
    "mlp": [
        _module, _products, _unit_after_unit,
        lambda *given: _products(*(one.float() for one in given)).to(given[0].dtype),
    ],
    "product": [
        _by_signs(1, 1, -1, -1), _by_signs(-1, -1, 1, 1), _by_signs(1, 1, -1, 1, -1), _one_by_one,
        lambda a, b, out, channels: _by_signs(1, 1, -1, -1)(b, a, out, channels),
    ],
    "backward": [
        _written_out, _token_by_token, _by_einsum,
    ],
}  # fmt: skip


# wrong, and named
def _around(middle):
    """Return an MLP with another middle, by matrix products."""
    return lambda x, gate, up, down: middle(x @ gate.T, x @ up.T) @ down.T


WRONG = {
    "silu": [
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
        ("ReLU", lambda x: x.clamp(min=0)),
        ("GELU", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("GELU", lambda x: x / (1 + torch.exp(-1.702 * x))),
        ("tanh", lambda x: x.tanh() * x),
        ("tanh", lambda x: 2 * torch.sigmoid(2 * x) - 1),
        ("softplus", lambda x: torch.logaddexp(x, torch.zeros_like(x))),
        ("wrong sign", lambda x: x / (1 + torch.exp(x))),
        ("overflow", lambda x: x * torch.exp(x) / (torch.exp(x) + 1)),
        ("twice", lambda x: x * torch.sigmoid(x * torch.sigmoid(x))),
        ("float32 comes back", lambda x: x.float() * torch.sigmoid(x.float())),
        ("changes its input", lambda x: x.mul_(torch.sigmoid(x))),
        ("values", lambda x: x * torch.sigmoid(x) + 0.1),
        ("forbidden", lambda x: F.silu(x)),
        ("forbidden", lambda x: torch.nn.SiLU()(x)),
        ("missing parentheses", lambda x: x / 1 + torch.exp(-x)),
        ("missing parentheses", lambda x: x * (1 / 1 + torch.exp(-x))),
        ("one number only", lambda x: x * (1 / (1 + math.exp(-x)))),
        ("wrong sign", lambda x: 1 / (1 + torch.exp(x))),
        ("minus", lambda x: x / (1 - torch.exp(-x))),
        ("softmax", lambda x: x * x.softmax(-1)),
        ("softmax", lambda x: x.softmax(dim=-1)),
        ("kind", lambda x: [float(v) / (1 + math.exp(-float(v))) for v in x.flatten()]),
    ],
    "mlp": [
        ("swapped", lambda x, gate, up, down: _products(x, up, gate, down)),
        ("no gate", lambda x, gate, up, down: x @ up.T @ down.T),
        ("no gate", lambda x, gate, up, down: F.silu(x @ up.T) @ down.T),
        ("no up", lambda x, gate, up, down: F.silu(x @ gate.T) @ down.T),
        ("sigmoid", _around(lambda g, u: u / (1 + torch.exp(-g)))),
        ("ReLU", _around(lambda g, u: g.clamp(min=0) * u)),
        ("GELU", _around(lambda g, u: g * (1 + torch.erf(g / 2**0.5)) / 2 * u)),
        ("GELU", _around(lambda g, u: F.gelu(g, approximate="tanh") * u)),
        ("no activation", _around(lambda g, u: u * g)),
        ("SiLU of the product", _around(lambda g, u: g * u * torch.sigmoid(g * u))),
        ("SiLU of both", _around(lambda g, u: torch.sigmoid(g) * torch.sigmoid(u) * g * u)),
        ("added", _around(lambda g, u: u + F.silu(g))),
        ("no down", lambda x, gate, up, down: F.silu(x @ gate.T) * (x @ up.T)),
        ("stream added", lambda x, gate, up, down: _products(x, gate, up, down) + x),
        ("not transposed", lambda x, gate, up, down: _products(x, gate.T, up.T, down.T)),
        ("not transposed", lambda x, gate, up, down: F.silu(x @ gate) * (x @ up) @ down.T),
        ("not transposed", lambda x, gate, up, down: F.silu(x @ gate.T) * (x @ up.T) @ down),
        ("SiLU at the end",
            lambda x, gate, up, down: F.silu((x @ gate.T) * (x @ up.T) @ down.T)),
        ("SiLU of x", lambda x, gate, up, down: (F.silu(x) @ gate.T) * (x @ up.T) @ down.T),
        ("down before the product",
            lambda x, gate, up, down: (F.silu(x @ gate.T) @ down.T) * (x @ up.T @ down.T)),
        ("tanh", _around(lambda g, u: g.tanh() * u)),
        ("softmax", _around(lambda g, u: g.softmax(-1) * u)),
        ("wrong sign", _around(lambda g, u: -F.silu(-g) * u)),
        ("values", lambda x, gate, up, down: 2 * _products(x, gate, up, down)),
        ("float32 comes back", lambda *given: _products(*(one.float() for one in given))),
        ("error", lambda x, gate, up, down: F.silu(x @ gate.T) * up @ down.T),
        ("shape", lambda x, gate, up, down: _products(x, gate, up, down)[None]),
    ],
    "product": [
        ("one unit", lambda a, b, out, C: _units(C, [(a, 1, b, 1, out, 1)])),
        ("twice the same", _by_signs(1, 1, 1, 1)),
        ("units cancel", _by_signs(1, 1, 1, -1)),
        ("units cancel", _by_signs(1, 1, 1, 1, -1)),
        ("sign lost", _by_signs(1, 1, -1, 1)),
        ("sign lost", _by_signs(1, 1, -1, -1, -1)),
        ("only one factor", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(a, a, out, C)),
        ("only one factor", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(b, b, out, C)),
        ("sum in the gate", lambda a, b, out, C: _with_sums(a, b, out, C)[:1]
            + _by_signs(1, 1, -1, -1)(a, b, out, C)[1:]),
        ("sum in both", lambda *given: _with_sums(*given)),
        ("added everywhere", lambda *given: (*_by_signs(1, 1, -1, -1)(*given)[:2],
            torch.ones(given[3], 2))),
        ("another channel", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(a, b, a, C)),
        ("another channel", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(a, b, b, C)),
        ("another channel", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(a, b, 0, C)),
        ("fixed channels", lambda a, b, out, C: _by_signs(1, 1, -1, -1)(0, 1, out, C)),
        ("gate and up transposed", lambda *given: [
            one.T for one in _by_signs(1, 1, -1, -1)(*given)]),
        ("gate and up transposed", lambda *given: [
            w.T if n < 2 else w for n, w in enumerate(_by_signs(1, 1, -1, -1)(*given))]),
        ("down transposed", lambda *given: [
            w.T if n == 2 else w for n, w in enumerate(_by_signs(1, 1, -1, -1)(*given))]),
        ("values", _by_signs(-1, 1, 1, -1)),
        ("values", lambda *given: [2 * one for one in _by_signs(1, 1, -1, -1)(*given)]),
        ("kind", lambda *given: _by_signs(1, 1, -1, -1)(*given)[:2]),
        ("error", lambda a, b, out, C: (torch.zeros(2, C), torch.zeros(2, C))[a + 2]),
    ],
    "backward": [
        ("one path of x", _broken(x=lambda gate, up, d: gate)),
        ("one path of x", _broken(x=lambda gate, up, d: up)),
        ("stream added", _broken(x=lambda gate, up, d: d + gate + up)),
        ("paths multiplied", _broken(x=lambda gate, up, d: up * gate)),
        ("paths subtracted", _broken(x=lambda gate, up, d: gate - up)),
        ("no slope", _broken(slope=lambda g: 1)),
        ("half of the product rule", _broken(slope=lambda g: 1 / (1 + torch.exp(-g)))),
        ("half of the product rule", _broken(slope=lambda g: g * _s(g) * (1 - _s(g)))),
        ("slope of the sigmoid", _broken(slope=lambda g: _s(g) - _s(g) ** 2)),
        ("SiLU for its slope", _broken(slope=lambda g: g * _s(g))),
        ("sign in the slope", _broken(slope=lambda g: _s(g) - g * _s(g) * (1 - _s(g)))),
        ("slope of ReLU", _broken(slope=lambda g: (g > 0) * 1.0)),
        ("slope of the result", _broken(slope=lambda g: _slope(g * _s(g)))),
        ("up missing", _broken(gate=lambda d, g, u: d * _slope(g))),
        ("SiLU missing", _broken(up=lambda d, g, u: d * g)),
        ("gate missing", _broken(up=lambda d, g, u: d)),
        ("slope at up", _broken(up=lambda d, g, u: d * _slope(g))),
        ("gate and up swapped", lambda *given: [_written_out(*given)[i] for i in (0, 2, 1, 3)]),
        ("down gets gate or up", _broken(act=lambda g, u: u)),
        ("down gets gate or up", _broken(act=lambda g, u: g * _s(g))),
        ("down without SiLU", _broken(act=lambda g, u: g * u)),
        ("weights transposed", lambda *given: [
            one if n == 0 else one.T for n, one in enumerate(_written_out(*given))]),
        ("only down transposed", lambda *given: [
            one.T if n == 3 else one for n, one in enumerate(_written_out(*given))]),
        ("mean over tokens", lambda x, *given: [
            one / (x.shape[0] * x.shape[1]) if n else one
            for n, one in enumerate(_written_out(x, *given))]),
        ("one per text", _without_batch_sum),
        ("order", lambda *given: [_written_out(*given)[i] for i in (1, 2, 3, 0)]),
        ("d_out ignored", lambda *given: _written_out(*given[:4], 1 + 0 * given[4])),
        ("down not transposed", lambda x, gate, up, down, d: _written_out(
            x, gate, up, down, d, through=down.T)),
        ("forbidden", _by_autograd),
        ("changes its input", lambda x, *given: _written_out(x, *given) and [
            *_written_out(x, *given[:3], given[3].mul_(1)), x.mul_(2)][:4]),
        ("error", lambda x, gate, up, down, d: d @ down.T @ up.T),
        ("kind", lambda *given: _written_out(*given)[0]),
        ("values", lambda *given: [2 * one for one in _written_out(*given)]),
        ("values", lambda *given: [
            one if n else 0 * one for n, one in enumerate(_written_out(*given))]),
    ],
}  # fmt: skip
