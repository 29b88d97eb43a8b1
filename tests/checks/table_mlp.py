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
    "unit_writes": [
        lambda act, down, unit: act[:, :, [unit]] @ down[:, [unit]].T,
        lambda act, down, unit: torch.einsum("bt,c->btc", act[..., unit], down.T[unit]),
        lambda act, down, unit: (act * (torch.arange(act.shape[-1]) == unit)) @ down.T,
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
    "unit_writes": [
        ("row", lambda act, down, unit: act[:, :, [unit]] * down[unit]),
        ("no activation", lambda act, down, unit: down[:, unit].repeat(*act.shape[:2], 1)),
        ("no activation", lambda act, down, unit: down.T[unit]),
        ("absolute", lambda act, down, unit: act.abs()[:, :, [unit]] * down[:, unit]),
        ("all units", lambda act, down, unit: act @ down.T),
        ("all other units", lambda act, down, u: act @ down.T - act[..., [u]] * down[:, u]),
        ("token instead of unit", lambda act, down, unit: act[:, unit] @ down.T),
        ("summed over tokens", lambda act, down, unit: act[..., unit].sum(1, True) * down[:, unit]),
        ("axes not lined up", lambda act, down, unit: act[..., unit] * down[:, unit]),
        ("counted from 1", lambda act, down, unit: act[..., unit - 1, None] * down[:, unit - 1]),
        ("column of another unit", lambda act, down, unit: act[..., unit, None] * down[:, 0]),
        ("negative dropped", lambda act, down, unit: act[..., [unit]].relu() * down[:, unit]),
        ("SiLU again", lambda act, down, unit: F.silu(act[..., [unit]]) * down[:, unit]),
        ("last token only", lambda act, down, unit: act[:, -1, unit, None] * down[:, unit]),
        ("summed over channels",
            lambda act, down, unit: (act[..., [unit]] * down[:, unit]).sum(-1)),
        ("activation alone", lambda act, down, unit: act[..., unit]),
        ("changes its input", lambda act, down, unit: act.mul_(
            torch.arange(act.shape[-1]) == unit) @ down.T),
        ("error", lambda act, down, unit: act[unit] * down[:, unit]),
        ("values", lambda act, down, unit: act[:, :, [unit]] * down[:, unit] * 2),
    ],
}  # fmt: skip
