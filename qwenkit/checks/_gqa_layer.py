"""The mistakes of exercise 06.3: the attention of a layer, from the stream to the stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal
from qwenkit.model import apply_rope, eager_attention, repeat_kv

Weights = Mapping[str, Tensor]
Three = tuple[Tensor, Tensor, Tensor]  # what attention adds, keys, values
Layer = Callable[..., Three]
_All = tuple[Tensor, Weights, Tensor, Tensor, Tensor, Tensor]


def layer_case(
    label: str,
    sizes: tuple[int, int, int, int],
    new: int,
    past: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Return the case of a layer with (C, H, KV, D) values and heads."""
    width, heads, kv_heads, size = sizes
    outputs = {"q": heads, "k": kv_heads, "v": kv_heads}
    weights = {}
    for seed, (name, count) in enumerate(outputs.items()):
        weights[f"{name}_proj.weight"] = normal(count * size, width, seed=seed) / math.sqrt(width)
        weights[f"{name}_proj.bias"] = normal(count * size, seed=seed + 10)
    joined = heads * size
    weights["o_proj.weight"] = normal(width, joined, seed=3) / math.sqrt(joined)
    angles = torch.arange(past, past + new)[:, None] * 10.0 ** -torch.arange(0, 1, 2 / size)
    angles = torch.cat([angles, angles], dim=-1).expand(batch, -1, -1)  # (B, T, D)
    cached = (normal(batch, kv_heads, past, size, seed=seed) for seed in (4, 5))
    given = (normal(batch, new, width, seed=6), angles.cos(), angles.sin(), *cached)
    x, cos, sin, keys, values = (one.to(dtype) for one in given)
    weights = {name: one.to(dtype) for name, one in weights.items()}
    return Case(label, (x, weights, cos, sin, keys, values))


def right_layer(*given: Tensor | Weights) -> Three:
    """Return what attention adds to the stream, and keys and values with the new ones."""
    return _layer()(*given)


def _layer(
    bias: str = "qkv",
    rotated: str = "qk",
    scale: Callable[[Tensor, Tensor], float] = lambda x, q: 1,
    split: str = "right",
    joined: str = "right",
    old: str = "kept",
    cached: str = "rotated",
    new_first: bool = False,
    bias_last: bool = False,
    core: Callable[[Tensor, Tensor, Tensor], Tensor] = eager_attention,
) -> Layer:
    """Return a layer's attention that is wrong in one respect; all biases: "qkv"."""

    def layer(
        x: Tensor, weights: Weights, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> Three:
        size = cos.shape[-1]
        if "C / H" in split:
            size = x.shape[-1] * size // len(weights["q_proj.weight"])

        def heads(flat: Tensor) -> Tensor:
            if split == "view":
                return flat.view(len(x), -1, x.shape[1], size)
            if split == "interleaved":
                return flat.view(len(x), x.shape[1], size, -1).permute(0, 3, 1, 2)
            if split == "C / H, unflatten":
                return torch.unflatten(flat, -1, (-1, size)).transpose(1, 2)
            return flat.view(len(x), x.shape[1], -1, size).transpose(1, 2)  # (B, heads, T, D)

        def projected(name: str) -> Tensor:
            weight, shift = (weights[f"{name}_proj.{part}"] for part in ("weight", "bias"))
            return heads(x @ weight.T + shift * (name in bias and not bias_last))

        def rotating(name: str, out: Tensor) -> Tensor:
            out = apply_rope(out, cos, sin) if name in rotated else out
            shift = weights[f"{name}_proj.bias"]
            return out + heads(shift.expand(len(x), x.shape[1], -1)) if bias_last else out

        q, k, v = projected("q"), projected("k"), projected("v")
        q, k, v = rotating("q", q), rotating("k", k), rotating("v", v)
        both = [[keys, k], [values, v]]
        if new_first:
            both = [pair[::-1] for pair in both]
        all_keys, all_values = (torch.cat(pair, dim=2) for pair in both)
        if old == "forgotten":
            all_keys, all_values = k, v
        if old == "rotated again":
            all_keys = torch.cat([apply_rope(keys, cos[:, :1], sin[:, :1]), k], dim=2)
        z = core(q * scale(x, q), all_keys, all_values)
        z = z.transpose(1, 2) if joined == "right" else z
        flat = z.reshape(len(x), x.shape[1], -1)
        out = flat if joined == "not projected" else flat @ weights["o_proj.weight"].T
        if joined == "not projected":
            out = z.transpose(1, 2).reshape(len(x), x.shape[1], -1)
        if cached == "new only":
            return out, k, v
        if cached == "old only":
            return out, keys, values
        if cached == "repeated":
            groups = q.shape[1] // k.shape[1]
            return out, repeat_kv(all_keys, groups), repeat_kv(all_values, groups)
        return out, all_keys, all_values

    return layer


def _cycles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    copies = q.shape[1] // k.shape[1]
    return eager_attention(q, k.repeat(1, copies, 1, 1), v.repeat(1, copies, 1, 1))


def _with_mask(ahead: Callable[[int], int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return attention whose triangle is moved by `ahead(S - T)`."""

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys = q.shape[2], k.shape[2]
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(ahead(keys - queries))
        return eager_attention(q, k, v, seen[None, None])

    return core


def _reordered(*order: int) -> Layer:
    def layer(*given: Tensor | Weights) -> Three:
        found = right_layer(*given)
        return found[order[0]], found[order[1]], found[order[2]]

    return layer


def _not_transposed(name: str) -> Layer:
    """Return a layer that multiplies by a weight as it is stored, which fits if it is square."""

    def layer(x: Tensor, weights: Weights, *rest: Tensor) -> Three:
        weight = weights[f"{name}_proj.weight"]
        torch.empty(1, x.shape[-1] if name != "o" else weight.shape[1]) @ weight.float()
        return right_layer(x, {**weights, f"{name}_proj.weight": weight.T}, *rest)

    return layer


_BIAS = "the bias of {} is missing. In Qwen, q, k and v have one, and o_proj has none."
_ROTATE = "{} RoPE belongs to the new queries and the new keys, and to nothing else."
LAYER_MISTAKES = (
    Mistake("no bias", _BIAS.format("q, k and v"), _layer(bias="")),
    *(Mistake("one bias missing", _BIAS.format(name), _layer(bias="qkv".replace(name, "")))
        for name in "qkv"),
    Mistake("bias after the rotation", "you add the bias after RoPE. It is part of the projection: "
        "add it first, and rotate the sum.",
        _layer(bias_last=True)),
    *(Mistake("weight not transposed", "a stored weight has one row per output: multiply by its "
        "transpose. If the weight is square, this mistake raises no error.",
        _not_transposed(name)) for name in "qo"),
    Mistake("heads not transposed", "you cut the projection into heads with `view` alone, so "
        "tokens and heads are mixed. Split into (B, T, heads, D), then swap heads and tokens.",
        _layer(split="view")),
    Mistake("heads interleaved", "a head is D consecutive values of the projection. You take every "
        "second, third, ... value instead.",
        _layer(split="interleaved")),
    *(Mistake("C / H", "your D is C / H. That does not hold for every model: take D from the "
        "tables, or from the cached keys.",
        _layer(split=split)) for split in ("C / H", "C / H, unflatten")),
    Mistake("no rotation", _ROTATE.format("you rotate nothing."), _layer(rotated="")),
    Mistake("q not rotated", _ROTATE.format("q is not rotated."), _layer(rotated="k")),
    Mistake("k not rotated", _ROTATE.format("k is not rotated."), _layer(rotated="q")),
    Mistake("v rotated", _ROTATE.format("you rotate v as well."), _layer(rotated="qkv")),
    Mistake("old keys rotated", _ROTATE.format("you rotate the cached keys again."),
        _layer(old="rotated again")),
    Mistake("new tokens first", "the new keys and values come after the old ones: the order of the "
        "cache is the order of the text.",
        _layer(new_first=True)),
    Mistake("cache forgotten", "your new tokens attend to one another only, and the old keys are "
        "lost. Concatenate old and new along the tokens, attend to all, and return all.",
        _layer(old="forgotten")),
    Mistake("only the new returned", "what attention adds is right, but you return only the new "
        "keys and values. The next token needs all of them.",
        _layer(cached="new only")),
    Mistake("only the old returned", "what attention adds is right, but you return the keys and "
        "values that came in. The next token needs the new ones too.",
        _layer(cached="old only")),
    Mistake("repeated in the cache", "the keys and values that you return are repeated. The cache "
        "keeps KV heads, or nothing is saved.",
        _layer(cached="repeated")),
    Mistake("cycles", "your query heads use k0, k1, k0, k1 in turn. Consecutive query heads share: "
        "the first H / KV use kv head 0.",
        _layer(core=_cycles)),
    Mistake("no mask", "the future is not masked. With one new token that shows nothing; with "
        "several, the first one sees the last one.",
        _layer(core=_with_mask(lambda past: 10_000))),
    Mistake("no offset", "right without cached tokens. With them, the first new token sees only "
        "key 0: at which position is it?",
        _layer(core=_with_mask(lambda past: 0))),
    Mistake("no scale", "the scores are not divided by the square root of D.",
        _layer(scale=lambda x, q: math.sqrt(q.shape[-1]))),
    Mistake("scale of C", "you divide by the square root of C. A head's vectors have D values.",
        _layer(scale=lambda x, q: math.sqrt(q.shape[-1] / x.shape[-1]))),
    Mistake("heads not moved", "the last step is wrong: each token's heads must be next to each "
        "other before you join them. Which axes must be swapped?",
        _layer(joined="not moved")),
    Mistake("not projected", "the heads are joined, but `o_proj` is missing.",
        _layer(joined="not projected")),
    Mistake("order of the results", "return what attention adds first, then keys, then values.",
        _reordered(1, 2, 0)),
    Mistake("keys and values swapped", "you return the values before the keys.",
        _reordered(0, 2, 1)),
    Mistake("only the output", "that is what attention adds. Return keys and values as well: a "
        "tuple of three.",
        lambda *given: right_layer(*given)[0]),
)  # fmt: skip
