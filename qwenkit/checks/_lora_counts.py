"""Exercises 13.1 and 13.4, counts: the right answers, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.config import QwenConfig

# --- 13.1 ---


def _sizes(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Return the (O, I) of each matrix of one layer."""
    wide = config.num_attention_heads * config.head_dim
    narrow = config.num_key_value_heads * config.head_dim
    hidden, units = config.hidden_size, config.intermediate_size
    return {
        "q_proj": (wide, hidden),
        "k_proj": (narrow, hidden),
        "v_proj": (narrow, hidden),
        "o_proj": (hidden, wide),
        "gate_proj": (units, hidden),
        "up_proj": (units, hidden),
        "down_proj": (hidden, units),
    }


def _count(
    one: Callable[[int, int, int], int],
    layers: bool = True,
    every: bool = False,
    sizes: Callable[[QwenConfig], dict[str, tuple[int, int]]] = _sizes,
) -> Callable[..., int]:
    """Return a count that adds `one(O, I, rank)` over the targets, and over the layers."""

    def count(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
        found = sizes(config)
        total = sum(one(*found[name], rank) for name in (found if every else targets))
        return total * (config.num_hidden_layers if layers else 1)

    return count


def _a_and_b(out: int, inner: int, rank: int) -> int:
    return rank * (out + inner)


def _kv_as_q(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Give k and v as many heads as q."""
    sizes = _sizes(config)
    return sizes | {"k_proj": sizes["q_proj"], "v_proj": sizes["q_proj"]}


def _hidden_as_heads(config: QwenConfig) -> dict[str, tuple[int, int]]:
    """Take the hidden size for H · D."""
    square = (config.hidden_size, config.hidden_size)
    return _sizes(config) | {"q_proj": square, "o_proj": square}


def _count_with_biases(config: QwenConfig, targets: Sequence[str], rank: int) -> int:
    sizes = _sizes(config)
    more = sum(sizes[name][0] for name in targets if name in ("q_proj", "k_proj", "v_proj"))
    return count_right(config, targets, rank) + more * config.num_hidden_layers


count_right = _count(_a_and_b)
_one_layer = _count(_a_and_b, layers=False)
_MLP = ("gate_proj", "up_proj", "down_proj")
COUNT_MISTAKES = (
    Mistake("whole matrices", "those are the parameters of the frozen weights, O · I. What is "
        "trained is A and B.",
        _count(lambda out, inner, rank: out * inner)),
    Mistake("A alone", "that counts A, rank × I. B is trained as well: how many parameters does it "
        "have?",
        _count(lambda out, inner, rank: rank * inner)),
    Mistake("B alone", "that counts B, O × rank. A is trained as well: how many parameters does it "
        "have?",
        _count(lambda out, inner, rank: rank * out)),
    Mistake("one layer", "that is the count of one layer. Every layer has matrices of these names.",
        _one_layer),
    Mistake("rank forgotten", "each matrix counts O + I, as for rank 1. Rank 8 has eight rows in "
        "A, eight columns in B.",
        _count(lambda out, inner, rank: out + inner)),
    Mistake("product of A and B", "the parameters of A and B are added, not multiplied.",
        _count(lambda out, inner, rank: rank * out * rank * inner)),
    Mistake("k and v as wide as q", "k_proj and v_proj are narrower than q_proj: they have KV "
        "heads, not H (notebook 06).",
        _count(_a_and_b, sizes=_kv_as_q)),
    Mistake("all matrices", "that counts all seven matrices of a layer. Only those named in "
        "targets get A and B.",
        _count(_a_and_b, every=True)),
    Mistake("targets ignored", "you count q_proj and v_proj, whatever the targets are.",
        lambda config, targets, rank: count_right(config, ("q_proj", "v_proj"), rank)),
    Mistake("fixed number of layers", "you count six layers, whatever the config says.",
        lambda config, targets, rank: 6 * _one_layer(config, targets, rank)),
    Mistake("frozen weights too", "you also count the frozen weights. Only A and B are trained.",
        _count(lambda out, inner, rank: out * inner + rank * (out + inner))),
    Mistake("A and B as wide", "you count A and B as equally large, each with I values per rank. B "
        "has O.",
        _count(lambda out, inner, rank: 2 * rank * inner)),
    Mistake("A and B as wide", "you count A and B as equally large, each with O values per rank. A "
        "has I.",
        _count(lambda out, inner, rank: 2 * rank * out)),
    Mistake("everything as wide as the hidden size", "you count every matrix as hidden × hidden. "
        "k, v and the MLP have other sizes.",
        _count(_a_and_b, sizes=lambda c: {n: (c.hidden_size,) * 2 for n in _sizes(c)})),
    Mistake("MLP as wide as the hidden size", "you count the MLP's matrices as hidden × hidden. "
        "They have intermediate_size on one side.",
        _count(_a_and_b, sizes=lambda c: _sizes(c) | {n: (c.hidden_size,) * 2 for n in _MLP})),
    Mistake("down_proj's input", "down_proj takes intermediate_size values and returns "
        "hidden_size.",
        _count(_a_and_b, sizes=lambda c: _sizes(c) | {"down_proj": (c.hidden_size,) * 2})),
    Mistake("down_proj's input", "down_proj takes intermediate_size values and returns "
        "hidden_size.",
        _count(_a_and_b, sizes=lambda c:
            _sizes(c) | {"down_proj": (c.intermediate_size,) * 2})),
    Mistake("one kv head", "k_proj and v_proj return KV heads of D values, not one head.",
        _count(_a_and_b, sizes=lambda c:
            _sizes(c) | {n: (c.head_dim, c.hidden_size) for n in ("k_proj", "v_proj")})),
    Mistake("o_proj takes the hidden size", "o_proj takes H · D values. That is the hidden size in "
        "most models, but not in all: use heads times head_dim.",
        _count(_a_and_b, sizes=lambda c: _sizes(c) | {"o_proj": (c.hidden_size,) * 2})),
    Mistake("matrices counted", "that is how many matrices get A and B. Count their parameters.",
        _count(lambda out, inner, rank: 1)),
    Mistake("bytes", "you count 4 bytes per parameter. Count parameters.",
        _count(lambda out, inner, rank: 4 * rank * (out + inner))),
    Mistake("biases counted", "the biases of q, k and v stay frozen; they do not count.",
        _count_with_biases),
    Mistake("hidden size for H · D", "q_proj returns H · D values, and o_proj takes as many. That "
        "is the hidden size in most models, but not in all: use heads times head_dim.",
        _count(_a_and_b, sizes=_hidden_as_heads)),
)  # fmt: skip

# --- 13.4 ---


def enough_by(
    more: int,
    power: int = 2,
    at: Callable[[Tensor, float], Tensor] = torch.lt,
    order: Callable[[Tensor], Tensor] = lambda s: s,
) -> Callable[[Tensor, float], int]:
    """Return a rank: how many running sums of powers are below the share, and so many more."""

    def enough(values: Tensor, share: float) -> int:
        powers = order(values) ** power
        return int(at(powers.cumsum(dim=0) / powers.sum(), share).sum()) + more

    return enough


def _parts_of(values: Tensor) -> Tensor:
    """Return each square as a proportion of all squares."""
    return values**2 / (values**2).sum()


_EACH = "you compare each value alone with the share. What counts is how much they make together."
RANK_MISTAKES = (
    Mistake("not squared", "you add up the singular values themselves. The size of an update goes "
        "with their squares.",
        enough_by(1, power=1)),
    Mistake("one too few", "off by one: with that many values the share is not yet reached.",
        enough_by(0)),
    Mistake("one too many", "off by one: one value fewer is already enough.", enough_by(2)),
    Mistake("more than the share", "if the share is reached exactly, that is enough: at least the "
        "share, not more than it.",
        enough_by(1, at=torch.le)),
    Mistake("more than the share", "if the share is reached exactly, that is enough: at least the "
        "share, not more than it. If none is more, your search returns the first.",
        lambda s, share: int((_parts_of(s).cumsum(dim=0) > share).int().argmax()) + 1),
    Mistake("from the smallest", "you start with the smallest value. The largest ones contribute "
        "most: start with them.",
        enough_by(1, order=lambda s: s.flip(0))),
    Mistake("compared with the largest", "you count the values close to the largest one. What "
        "counts is how much they make together.",
        lambda s, share: int((s >= share * s.max()).sum())),
    Mistake("compared with the largest", "you count the squares close to the largest one. What "
        "counts is how much they make together.",
        lambda s, share: int((s**2 >= share * s.max() ** 2).sum())),
    Mistake("each compared with the share", _EACH, lambda s, share: int((s >= share).sum())),
    Mistake("each compared with the share", _EACH, lambda s, share: int((s**2 >= share).sum())),
    Mistake("each compared with the share", _EACH,
        lambda s, share: int((_parts_of(s) >= share).sum())),
    Mistake("each compared with the share", _EACH,
        lambda s, share: int((_parts_of(s) < share).sum()) + 1),
    Mistake("summed, then squared", "you add up first and square the sums. Square each value, then "
        "add up.",
        lambda s, share: int(((s.cumsum(dim=0) / s.sum()) ** 2 < share).sum()) + 1),
    Mistake("root of the squares", "you take the root of the sums, so a share of the length. Here "
        "the squares themselves are compared.",
        lambda s, share: enough_by(1)(s, share**2)),
    Mistake("not divided", "you compare the sums of squares with the share. Divide them by the sum "
        "of all squares first.",
        lambda s, share: int(((s**2).cumsum(dim=0) < share).sum()) + 1),
    Mistake("divided by the largest", "you always return 1, as if you divided by the largest "
        "square. Divide by the sum of all.",
        lambda s, share: int(((s**2).cumsum(dim=0) / s[0] ** 2 < share).sum()) + 1),
    Mistake("1 − share", "you stop at 1 − share. The squares must make up the share.",
        lambda s, share: enough_by(1)(s, 1 - share)),
    Mistake("share of the number of values", "you take a share of how many values there are. What "
        "counts is how much their squares make together.",
        lambda s, share: math.ceil(share * len(s))),
    Mistake("a tensor", "the number is right, but it is a tensor. Return an integer, with int.",
        lambda s, share: torch.tensor(enough_by(1)(s, share))),
    Mistake("the share, not the rank", "that is how much of the update is kept. Return how many "
        "values that takes.",
        lambda s, share: float(_parts_of(s)[: enough_by(1)(s, share)].sum())),
    Mistake("all values", "you return the number of values. Fewer may reach the share.",
        lambda s, share: len(s)),
    Mistake("all nonzero values", "that is the rank of the whole update. A smaller one may reach "
        "the share.",
        lambda s, share: int((s > 0).sum())),
)  # fmt: skip
