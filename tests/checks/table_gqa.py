"""Answers to the exercises of notebook 06."""

from math import prod

import numpy as np
import torch

from qwenkit.model import repeat_kv


def _cut(p, v):
    return p.unflatten(1, (v.shape[1], -1))


# right, no matter how it is written
def _read_in_loops(pattern, v):
    groups = pattern.shape[1] // v.shape[1]
    z = pattern.new_zeros(*pattern.shape[:3], v.shape[-1])
    for b, h, t in np.ndindex(*pattern.shape[:3]):
        z[b, h, t] = pattern[b, h, t] @ v[b, h // groups]
    return z


def _read_as_rows(pattern, v):
    """Put the heads of a group below one another: more rows for one kv head."""
    rows = pattern.reshape(*v.shape[:2], -1, v.shape[2])
    return (rows @ v).reshape(*pattern.shape[:3], -1)


def _read_einsum(pattern, v):
    return torch.einsum("bkgts,bksd->bkgtd", _cut(pattern, v), v).flatten(1, 2)


RIGHT = {
    "kv_head": [
        lambda h, heads, kv: h // (heads // kv), lambda h, heads, kv: h * kv // heads,
        lambda h, heads, kv: [i for i in range(kv) for _ in range(heads // kv)][h],
    ],
    "repeat": [
        lambda x, g: x[:, :, None].expand(-1, -1, g, -1, -1).reshape(len(x), -1, *x.shape[2:]),
        lambda x, groups: torch.stack([x] * groups, dim=2).flatten(1, 2),
        lambda x, groups: x[:, torch.arange(x.shape[1] * groups) // groups],
        lambda x, groups: torch.cat([x[:, [kv] * groups] for kv in range(x.shape[1])], dim=1),
        lambda x, groups: x.repeat(1, 1, groups, 1).reshape(len(x), -1, *x.shape[2:]),
    ],
    "cache_bytes": [
        lambda c, n, size: sum([2 * c.num_key_value_heads * c.head_dim * n * size]
            * c.num_hidden_layers),
        lambda c, n, size: n * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * size * 2,
    ],
    "read_values": [_read_in_loops, _read_as_rows, _read_einsum],
}  # fmt: skip


# wrong, and named
def _bytes(c, tokens, size, kinds=2, **other):
    """Return the bytes of a cache; `other`: sizes that are not those of the config."""
    sizes = {"layers": c.num_hidden_layers, "heads": c.num_key_value_heads, "dim": c.head_dim}
    return prod((sizes | other).values()) * kinds * tokens * size


WRONG = {
    "kv_head": [
        ("cycles", lambda h, heads, kv: list(range(kv))[h % kv]),
        ("divided by KV", lambda h, heads, kv: int(h / kv)),
        ("position in the group", lambda h, heads, kv: divmod(h, heads // kv)[1]),
        ("first of the group", lambda h, heads, kv: h // (heads // kv) * (heads // kv)),
        ("not an integer", lambda h, heads, kv: h / (heads / kv)),
        ("rounded", lambda h, heads, kv: round(h / (heads / kv))),
        ("counted from 1", lambda h, heads, kv: 1 + h * kv // heads),
        ("backwards", lambda h, heads, kv: (heads - 1 - h) // (heads // kv)),
        ("one each", lambda h, heads, kv: list(range(heads))[h]),
        ("kind", lambda h, heads, kv: h // (heads / kv)),
        ("a fixed group size", lambda h, heads, kv: h // 4),
        ("always 0", lambda h, heads, kv: h // heads * kv),
        ("group size", lambda h, heads, kv: heads // kv),
        ("off by one", lambda h, heads, kv: (h + 1) // (heads // kv)),
        ("off by one", lambda h, heads, kv: (h - 1) // (heads // kv)),
        ("values", lambda h, heads, kv: (heads - h) // kv),
        ("error", lambda h, heads, kv: heads[h]),
    ],
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
    "cache_bytes": [
        ("query heads", lambda c, n, size: _bytes(c, n, size, heads=c.num_attention_heads)),
        ("hidden size", lambda c, n, size: _bytes(c, n, size, heads=1, dim=c.hidden_size)),
        ("C / H", lambda c, *given: _bytes(c, *given, dim=c.hidden_size // c.num_attention_heads)),
        ("one head", lambda c, n, size: _bytes(c, n, size, heads=1)),
        ("queries too",
            lambda c, *n: _bytes(c, *n) + _bytes(c, *n, kinds=1, heads=c.num_attention_heads)),
        ("keys or values alone", lambda c, n, size: _bytes(c, n, size, kinds=1)),
        ("one layer", lambda c, n, size: _bytes(c, n, size, layers=1)),
        ("values, not bytes", lambda c, n, size: _bytes(c, n, 1)),
        ("one token", lambda c, n, size: _bytes(c, 1, size)),
        ("size ignored", lambda c, n, size: c.kv_bytes_per_token() * n),
        ("forbidden", lambda c, n, size: c.kv_bytes_per_token() // 2 * size * n),
        ("size ignored", lambda c, n, size: _bytes(c, n, 2)),
        ("doubled", lambda c, n, size: _bytes(c, n, size) * 2),
        ("the notebook's model", lambda c, n, size: 2 * 6 * 2 * 32 * n * size),
        ("a fixed D", lambda c, n, size: _bytes(c, n, size, dim=32)),
        ("no head_dim", lambda c, n, size: _bytes(c, n, size, dim=1)),
        ("groups", lambda c, n, size: _bytes(c, n, size, heads=c.num_key_value_groups)),
        ("another unit", lambda c, n, size: _bytes(c, n, size) / 1024),
        ("another unit", lambda c, n, size: _bytes(c, n, size) / 1e9),
        ("another unit", lambda c, n, size: _bytes(c, n, size) * 8),
        ("the longest text", lambda c, n, size: _bytes(c, c.max_position_embeddings, size)),
        ("tokens squared", lambda c, n, size: _bytes(c, n, size) * n),
        ("values", lambda c, n, size: _bytes(c, n, size) + 1),
        ("error", lambda c, n, size: c.num_layers * c.head_dim * n * size),
    ],
    "read_values": [
        ("cycles", lambda p, v: p @ torch.cat([v] * (p.shape[1] // v.shape[1]), dim=1)),
        ("cycles", lambda p, v: (p.unflatten(1, (-1, v.shape[1])) @ v[:, None]).flatten(1, 2)),
        ("not merged", lambda p, v: torch.einsum("bkgts,bksd->bkgtd", _cut(p, v), v)),
        ("order lost", lambda p, v: torch.einsum("bkgts,bksd->bgktd", _cut(p, v), v).flatten(1, 2)),
        ("axis in front", lambda p, v: torch.matmul(_cut(p, v), v.unsqueeze(1)).flatten(1, 2)),
        ("group added up", lambda p, v: torch.einsum("bkgts,bksd->bktd", _cut(p, v), v)),
        ("group averaged", lambda p, v: (_cut(p, v) @ v[:, :, None]).mean(2)),
        ("first kv head only", lambda p, v: torch.einsum("bhts,bsd->bhtd", p, v[:, 0])),
        ("values averaged", lambda p, v: torch.einsum("bhts,bsd->bhtd", p, v.mean(1))),
        ("pattern transposed", lambda p, v: _read_as_rows(p.mT, v)),
        ("groups backwards", lambda p, v: _read_einsum(p, torch.flip(v, [1]))),
        ("forbidden", lambda p, v: p @ v.repeat_interleave(p.shape[1] // v.shape[1], dim=1)),
        ("forbidden", lambda p, v: p @ repeat_kv(v, p.shape[1] // v.shape[1])),
        ("cycles", lambda p, v: p @ v.repeat(1, p.shape[1] // v.shape[1], 1, 1)),
        ("not grouped", lambda p, v: p @ v),
        ("not split", lambda p, v: p @ v[:, :, None]),
        ("KV fixed", lambda p, v: (p.unflatten(1, (2, -1)) @ v[:, :, None]).flatten(1, 2)),
        ("KV fixed", lambda p, v:
            torch.einsum("bkgts,bksd->bkgtd", p.unflatten(1, (2, -1)), v).flatten(1, 2)),
        ("group and tokens merged", lambda p, v: (_cut(p, v) @ v[:, :, None]).flatten(2, 3)),
        ("softmax again", lambda p, v: _read_einsum(p.softmax(-1), v)),
        ("joined already", lambda p, v: _read_einsum(p, v).transpose(1, 2).flatten(2)),
        ("divided by KV", lambda p, v:
            torch.stack([p[:, h] @ v[:, h // v.shape[1]] for h in range(p.shape[1])], 1)),
        ("float32 comes back", lambda p, v: _read_einsum(p.float(), v.float())),
        ("error", lambda p, v: (p.unflatten(1, (2, 4)) @ v[:, :, None]).flatten(1, 2)),
    ],
}  # fmt: skip
