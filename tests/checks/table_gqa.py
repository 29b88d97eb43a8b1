"""Answers to the exercises of notebook 06."""

import inspect
import math

import numpy as np
import torch
import torch.nn.functional as F

from qwenkit.model import apply_rope, causal_mask, eager_attention, fused_attention, repeat_kv

NEVER = float("-inf")


def _changed(function, change):
    """Return a function with lines of its text changed, as a reader would write it."""
    text = inspect.getsource(function)
    for old, new in change.items():
        assert old in text, old
        text = text.replace(old, new)
    space = dict(globals())
    exec(text, space)
    return space[function.__name__]


# right, no matter how it is written
def _in_loops(q, k, v):
    groups, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    z = torch.zeros_like(q)
    for b, h, t in np.ndindex(*q.shape[:3]):
        keys, values = k[b, h // groups, : past + t + 1], v[b, h // groups, : past + t + 1]
        scores = keys.float() @ q[b, h, t].float() / math.sqrt(q.shape[-1])
        z[b, h, t] = (scores.softmax(0) @ values.float()).to(q.dtype)
    return z


def _einsum(q, k, v):
    grouped = q.unflatten(1, (k.shape[1], -1))  # (B, KV, groups, T, D)
    scores = torch.einsum("bkgtd,bksd->bkgts", grouped, k) / math.sqrt(q.shape[-1])
    seen = torch.ones_like(scores).tril(k.shape[2] - q.shape[2]) == 1
    weights = scores.masked_fill(~seen, NEVER).softmax(-1)
    return torch.einsum("bkgts,bksd->bkgtd", weights, v).flatten(1, 2)


def _as_rows(q, k, v):
    """Put the heads of a group below one another: more rows for one kv head."""
    batch, heads, tokens, size = q.shape
    rows = q.reshape(batch, k.shape[1], -1, size)
    seen = torch.cat([causal_mask(tokens, k.shape[2] - tokens)] * (heads // k.shape[1]))
    scores = (rows @ k.mT / size**0.5).masked_fill(~seen, NEVER)
    return (scores.softmax(-1) @ v).view(batch, heads, tokens, size)


def _matmul(q, k, v):
    grouped = (
        q.view(len(q), k.shape[1], -1, *q.shape[2:])
        if q.is_contiguous()
        else q.reshape(len(q), k.shape[1], -1, *q.shape[2:])
    )
    scores = grouped @ k[:, :, None].mT / q.shape[-1] ** 0.5
    at = torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None]
    scores = torch.where(torch.arange(k.shape[2]) <= at, scores, NEVER)
    return (scores.softmax(-1).to(v.dtype) @ v[:, :, None]).flatten(1, 2)


def _layer(x, weights, cos, sin, keys, values):
    size = cos.shape[-1]

    def project(name):
        flat = F.linear(x, weights[f"{name}_proj.weight"], weights[f"{name}_proj.bias"])
        return flat.unflatten(-1, (-1, size)).transpose(1, 2)

    q, k, v = project("q"), project("k"), project("v")
    q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
    keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
    z = _einsum(q, keys, values)
    out = z.transpose(1, 2).flatten(2) @ weights["o_proj.weight"].T
    return out, keys, values


def _layer_in_parts(x, w, cos, sin, old_keys, old_values):
    """Write everything out, and return a list."""
    batch, length = x.shape[:2]
    size = old_keys.shape[-1]
    heads, kv = len(w["q_proj.weight"]) // size, len(w["k_proj.weight"]) // size
    q = (x @ w["q_proj.weight"].T + w["q_proj.bias"]).view(batch, length, heads, size)
    k = (x @ w["k_proj.weight"].T + w["k_proj.bias"]).view(batch, length, kv, size)
    v = (x @ w["v_proj.weight"].T + w["v_proj.bias"]).view(batch, length, kv, size)
    q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 1, 3), v.permute(0, 2, 1, 3)
    half = size // 2
    cos, sin = cos[:, None], sin[:, None]
    q = q * cos + torch.cat([-q[..., half:], q[..., :half]], -1) * sin
    k = k * cos + torch.cat([-k[..., half:], k[..., :half]], -1) * sin
    k, v = torch.cat([old_keys, k], 2), torch.cat([old_values, v], 2)
    z = [
        _in_loops(q[:, h : h + 1], *(one[:, [h * kv // heads]] for one in (k, v)))
        for h in range(heads)
    ]
    columns = w["o_proj.weight"].split(size, dim=1)
    out = sum(one[:, 0] @ column.T for one, column in zip(z, columns, strict=True))
    return [out, k, v]


RIGHT = {
    "repeat": [
        lambda x, g: x[:, :, None].expand(-1, -1, g, -1, -1).reshape(len(x), -1, *x.shape[2:]),
        lambda x, groups: torch.stack([x] * groups, dim=2).flatten(1, 2),
        lambda x, groups: x[:, torch.arange(x.shape[1] * groups) // groups],
        lambda x, groups: torch.cat([x[:, [kv] * groups] for kv in range(x.shape[1])], dim=1),
        lambda x, groups: x.repeat(1, 1, groups, 1).reshape(len(x), -1, *x.shape[2:]),
    ],
    "attend_grouped": [_in_loops, _einsum, _as_rows, _matmul],
    "attention_layer": [_layer, _layer_in_parts],
}  # fmt: skip


# wrong, and named
def _group(change):
    return _changed(_matmul, change)


def _einsum_with(change):
    return _changed(_einsum, change)


def _layer_with(change):
    return _changed(_layer, change)


def _by_heads(order):
    """Return a loop over the heads, with another kv head for each."""

    def attend(q, k, v):
        heads, kv = q.shape[1], k.shape[1]
        found = [
            eager_attention(q[:, h : h + 1], *(x[:, [order(h, heads, kv)]] for x in (k, v)))
            for h in range(heads)
        ]
        return torch.cat(found, dim=1)

    return attend


_MASK = "torch.where(torch.arange(k.shape[2]) <= at, scores, NEVER)"
_ROTATED = "q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)\n"
_KEPT = "keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)"

WRONG = {
    "repeat": [
        ("cycles", lambda x, g: torch.cat([x] * g, dim=1)),
        ("cycles", lambda x, g: x[:, None].expand(-1, g, -1, -1, -1).flatten(1, 2)),
        ("not merged", lambda x, g: torch.stack([x] * g, dim=2)),
        ("tokens repeated, cut into heads",
            lambda x, g: torch.stack([x] * g, dim=3).reshape(len(x), -1, *x.shape[2:])),
        ("dimensions repeated, cut into heads",
            lambda x, g: torch.stack([x] * g, dim=4).reshape(len(x), -1, *x.shape[2:])),
        ("tokens repeated", lambda x, g: torch.stack([x] * g, dim=3).flatten(2, 3)),
        ("tokens repeated", lambda x, g: torch.cat([x] * g, dim=2)),
        ("batch repeated", lambda x, g: torch.stack([x] * g, dim=1).flatten(0, 1)),
        ("flat", lambda x, g: torch.stack([x] * g, dim=-1).flatten()),
        ("heads reversed", lambda x, g: torch.stack([x] * g, dim=2).flatten(1, 2).flip(1)),
        ("unchanged", lambda x, g: x.clone()),
        ("divided", lambda x, g: torch.stack([x / g] * g, dim=2).flatten(1, 2)),
        ("expand", lambda x, g: x.expand(-1, x.shape[1] * g, -1, -1)),
        ("forbidden", lambda x, g: x.repeat_interleave(g, dim=1)),
        ("forbidden", lambda x, g: torch.repeat_interleave(x, g, 1)),
        ("forbidden", lambda x, g: repeat_kv(x, g)),
        ("cycles", lambda x, g: x.repeat(1, g, 1, 1)),
        ("tokens repeated", lambda x, g: x[:, :, None].expand(-1, -1, g, -1, -1).flatten(2, 3)),
        ("axis before KV, not merged", lambda x, g: x[:, None].expand(-1, g, -1, -1, -1)),
        ("axis after the tokens", lambda x, g:
            x[:, :, :, None].expand(-1, -1, -1, g, -1).flatten(1, 2)),
        ("a fixed number of copies", lambda x, g: torch.stack([x] * 2, dim=2).flatten(1, 2)),
        ("a fixed number of copies", lambda x, g: torch.stack([x] * 4, dim=2).flatten(1, 2)),
        ("expand",
            lambda x, g: x[:, :, None].expand(-1, -1, g, -1, -1).view(len(x), -1, *x.shape[2:])),
        ("multiplied", lambda x, g: x * g),
        ("a list", lambda x, g: [x] * g),
        ("batch repeated", lambda x, g: x.repeat(g, 1, 1, 1)),
        ("one text only", lambda x, g: torch.stack([x] * g, dim=2).reshape(1, -1, *x.shape[2:])),
    ],
    "attend_grouped": [
        ("cycles", _by_heads(lambda h, heads, kv: h % kv)),
        ("cycles", _einsum_with({"(k.shape[1], -1)": "(-1, k.shape[1])", "bkgtd": "bgktd",
            "bkgts": "bgkts"})),
        ("divided by KV", _by_heads(lambda h, heads, kv: h // kv)),
        ("groups backwards", _by_heads(lambda h, heads, kv: kv - 1 - h // (heads // kv))),
        ("first kv head only", _by_heads(lambda h, heads, kv: 0)),
        ("error", _einsum_with({"q.unflatten(1, (k.shape[1], -1))": "q",
            "bkgtd": "bktd", "bkgts": "bkts", ".flatten(1, 2)": ""})),
        ("not grouped", lambda q, k, v: ((q @ k.mT) / math.sqrt(q.shape[-1])).masked_fill(
            ~causal_mask(q.shape[2], k.shape[2] - q.shape[2]), NEVER).softmax(-1) @ v),
        ("not split", _group({"grouped @ k": "q @ k"})),
        ("KV fixed", _einsum_with({"(k.shape[1], -1)": "(2, -1)"})),
        ("keys in another order", lambda q, k, v: eager_attention(
            q, torch.cat([k] * (q.shape[1] // k.shape[1]), 1),
            repeat_kv(v, q.shape[1] // k.shape[1]))),
        ("values in another order", lambda q, k, v: eager_attention(
            q, repeat_kv(k, q.shape[1] // k.shape[1]),
            torch.cat([v] * (q.shape[1] // k.shape[1]), 1))),
        ("axis in front", _group({"k[:, :, None]": "k[:, None]", "v[:, :, None]": "v[:, None]"})),
        ("not merged", _einsum_with({".flatten(1, 2)": ""})),
        ("group and tokens merged", _einsum_with({".flatten(1, 2)": ".flatten(2, 3)"})),
        ("order lost", _einsum_with({"->bkgtd": "->bgktd"})),
        ("group added up", _einsum_with({"->bkgtd": "->bktd", ".flatten(1, 2)": ""})),
        ("group averaged", _einsum_with({".flatten(1, 2)": ".mean(2)"})),
        ("queries averaged",
            lambda q, k, v: _einsum(q.unflatten(1, (k.shape[1], -1)).mean(2), k, v)),
        ("rows stacked", lambda q, k, v: _changed(_as_rows, {"seen = torch.cat("
            "[causal_mask(tokens, k.shape[2] - tokens)] * (heads // k.shape[1]))":
            "seen = causal_mask(rows.shape[2], k.shape[2] - rows.shape[2])"})(q, k, v)),
        ("rows stacked", _changed(_as_rows, {"seen = torch.cat("
            "[causal_mask(tokens, k.shape[2] - tokens)] * (heads // k.shape[1]))":
            "seen = torch.ones(rows.shape[2], k.shape[2]).tril(k.shape[2] - tokens) == 1"})),
        ("no mask", _group({_MASK: "scores"})),
        ("no offset", _einsum_with({".tril(k.shape[2] - q.shape[2])": ".tril()"})),
        ("sees the next token", _einsum_with({"- q.shape[2])": "- q.shape[2] + 1)"})),
        ("not itself", _einsum_with({"- q.shape[2])": "- q.shape[2] - 1)"})),
        ("mask after softmax", _einsum_with({
            "scores.masked_fill(~seen, NEVER).softmax(-1)": "scores.softmax(-1) * seen"})),
        ("zero before softmax", _einsum_with({"NEVER": "0"})),
        ("over queries", _group({"softmax(-1)": "softmax(-2)"})),
        ("over the group", _group({"softmax(-1)": "softmax(2)"})),
        ("no scale", _group({" / q.shape[-1] ** 0.5": ""})),
        ("divided by D", _group({"q.shape[-1] ** 0.5": "q.shape[-1]"})),
        ("keys instead of values", _einsum_with({"weights, v)": "weights, k)"})),
        ("joined already", _einsum_with({".flatten(1, 2)":
            ".flatten(1, 2).transpose(1, 2).flatten(2)"})),
        ("no values", lambda q, k, v: _einsum_with({
            'torch.einsum("bkgts,bksd->bkgtd", weights, v)': "weights"})(q, k, v)),
        ("float32 comes back", lambda q, k, v: _matmul(q.float(), k.float(), v.float())),
        ("forbidden", lambda q, k, v: fused_attention(q, k, v)),
        ("forbidden", lambda q, k, v: _einsum(q, k, v.repeat_interleave(1, dim=1))),
        ("values", _einsum_with({".flatten(1, 2)": ".flatten(1, 2) + 1"})),
        ("error", _einsum_with({"bkgts,bksd": "bkgts,bkgd"})),
    ],
    "attention_layer": [
        ("no bias", _layer_with({', weights[f"{name}_proj.bias"])': ")"})),
        ("one bias missing", _layer_with({'weights[f"{name}_proj.bias"])':
            'weights[f"{name}_proj.bias"] if name != "v" else None)'})),
        ("bias after the rotation", _layer_with({', weights[f"{name}_proj.bias"])': ")",
            _ROTATED: 'q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)\n'
            '    q, k, v = (x + weights[f"{n}_proj.bias"].view(1, -1, 1, size)\n'
            '               for n, x in (("q", q), ("k", k), ("v", v)))\n'})),
        ("weight not transposed", _layer_with({'weights["o_proj.weight"].T':
            'weights["o_proj.weight"]'})),
        ("weight not transposed", _layer_with({'F.linear(x, weights[f"{name}_proj.weight"], ':
            '(x @ weights[f"{name}_proj.weight"] if name == "q" else '
            'x @ weights[f"{name}_proj.weight"].T) + ('})),
        ("heads not transposed", _layer_with({
            "flat.unflatten(-1, (-1, size)).transpose(1, 2)":
            "flat.view(len(x), -1, x.shape[1], size)"})),
        ("heads interleaved", _layer_with({
            "flat.unflatten(-1, (-1, size)).transpose(1, 2)":
            "flat.unflatten(-1, (size, -1)).permute(0, 3, 1, 2)"})),
        ("C / H", _layer_with({"size = cos.shape[-1]":
            "size = x.shape[-1] // (len(weights['q_proj.weight']) // keys.shape[-1])"})),
        ("no rotation", _layer_with({_ROTATED: "\n"})),
        ("q not rotated", _layer_with({_ROTATED: "k = apply_rope(k, cos, sin)\n"})),
        ("k not rotated", _layer_with({_ROTATED: "q = apply_rope(q, cos, sin)\n"})),
        ("v rotated", _layer_with({_ROTATED:
            "q, k, v = (apply_rope(one, cos, sin) for one in (q, k, v))\n"})),
        ("old keys rotated", _layer_with({_KEPT: "keys = apply_rope(keys, cos[:, :1], sin[:, :1])\n"
            "    " + _KEPT})),
        ("new tokens first", _layer_with({"[keys, k]": "[k, keys]", "[values, v]": "[v, values]"})),
        ("cache forgotten", _layer_with({_KEPT: "keys, values = k, v"})),
        ("only the new returned", _layer_with({"return out, keys, values": "return out, k, v"})),
        ("only the old returned", _layer_with({_KEPT: "before = keys, values\n    " + _KEPT,
            "return out, keys, values": "return out, *before"})),
        ("repeated in the cache", _layer_with({_KEPT: _KEPT + "\n    keys, values = "
            "(repeat_kv(one, q.shape[1] // k.shape[1]) for one in (keys, values))"})),
        ("cycles", _layer_with({"_einsum(q, keys, values)": "eager_attention(q, *("
            "x.repeat(1, q.shape[1] // k.shape[1], 1, 1) for x in (keys, values)))"})),
        ("no mask", _layer_with({"_einsum(q, keys, values)":
            "F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)"})),
        ("no offset", _layer_with({"_einsum(q, keys, values)":
            "F.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=True)"})),
        ("no scale", _layer_with({"_einsum(q, keys": "_einsum(q * size**0.5, keys"})),
        ("scale of C", _layer_with({"_einsum(q, keys":
            "_einsum(q * (size / x.shape[-1]) ** 0.5, keys"})),
        ("heads not moved", _layer_with({"z.transpose(1, 2).flatten(2)":
            "z.reshape(len(x), x.shape[1], -1)"})),
        ("not projected", _layer_with({' @ weights["o_proj.weight"].T': ""})),
        ("order of the results", _layer_with({"return out, keys, values":
            "return keys, values, out"})),
        ("keys and values swapped", _layer_with({"return out, keys": "return out, values",
            "values, values": "values, keys"})),
        ("only the output", _layer_with({"return out, keys, values": "return out"})),
        ("forbidden", _layer_with({"_einsum(": "fused_attention("})),
        ("dtype", lambda x, w, *rest: _layer(x.float(), {n: one.float() for n, one in w.items()},
            *(one.float() for one in rest))),
        ("error", _layer_with({"_proj.bias": "_proj.shift"})),
        ("changes its input", _layer_with({
            "    return out": "    weights['o_proj.weight'].zero_()\n    return out"})),
    ],
}  # fmt: skip
