"""Exercise 04.4: tensors trained with interleaved pairs, converted to half-split ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal

Tensors = dict[str, Tensor]
_ATTENTION = "model.layers.{0}.self_attn."
_Order = Callable[[Tensor, int], Tensor]  # rows and head_dim -> the same rows in another order


def cases() -> list[Case]:
    """Return small checkpoints; one head of them has 8 values, so an order is not its inverse."""
    only = {name: normal(8, 16, seed=n) for n, name in enumerate(_names("weight", "qk"))}
    whole = _checkpoint(layers=2, heads=4, kv_heads=2, head_dim=8)
    strided = {name: _strided(one) for name, one in whole.items()}
    return [
        Case("one head, weights alone", (only, 8)),
        Case("several heads, with biases", (_checkpoint(1, 2, 1, 8), 8)),
        Case("heads of six values", (_checkpoint(1, 2, 2, 6), 6)),
        Case("two layers", (whole, 8)),
        Case("not contiguous", (strided, 8)),
        Case("bfloat16", ({name: one.bfloat16() for name, one in whole.items()}, 8)),
    ]


def _strided(one: Tensor) -> Tensor:
    return one.T.contiguous().T if one.dim() == 2 else one


def _names(end: str, kinds: str, layer: int = 0) -> list[str]:
    return [f"{_ATTENTION.format(layer)}{kind}_proj.{end}" for kind in kinds]


def _checkpoint(layers: int, heads: int, kv_heads: int, head_dim: int) -> Tensors:
    """Return tensors with the names and shapes of a Qwen checkpoint; hidden size heads × D."""
    width, kv = heads * head_dim, kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (4 * head_dim, width)}
    for layer in range(layers):
        for kind, size in (("q", width), ("k", kv), ("v", kv)):
            weight, bias = (_names(end, kind, layer)[0] for end in ("weight", "bias"))
            shapes |= {weight: (size, width), bias: (size,)}
        shapes[_names("weight", "o", layer)[0]] = (width, width)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (width,)
    return {name: normal(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}


# --- rows in another order ---


def by_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Return the rows of each head, the even ones first."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])  # (H, D/2, 2, ...)
    return pairs.transpose(1, 2).reshape(rows.shape)


def _to_neighbors(rows: Tensor, head_dim: int) -> Tensor:
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _odd_first(rows: Tensor, head_dim: int) -> Tensor:
    heads = rows.reshape(-1, head_dim, *rows.shape[1:])
    return torch.cat([heads[:, 1::2], heads[:, ::2]], dim=1).reshape(rows.shape)


def _over_all_heads(rows: Tensor, head_dim: int) -> Tensor:
    return torch.cat([rows[::2], rows[1::2]])


def _first_head(rows: Tensor, head_dim: int) -> Tensor:
    return torch.cat([by_halves(rows[:head_dim], head_dim), rows[head_dim:]])


def _columns(rows: Tensor, head_dim: int) -> Tensor:
    if rows.dim() == 1:
        return by_halves(rows, head_dim)
    return torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1)


def _columns_by_head(rows: Tensor, head_dim: int) -> Tensor:
    return by_halves(rows, head_dim) if rows.dim() == 1 else by_halves(rows.T, head_dim).T


def converted(
    tensors: Tensors,
    head_dim: int,
    order: _Order = by_halves,
    wanted: Sequence[str] = ("q_proj.", "k_proj."),
) -> Tensors:
    """Return all tensors; those whose name contains one of the wanted parts have another order."""
    return {
        name: order(one, head_dim) if any(part in name for part in wanted) else one
        for name, one in tensors.items()
    }


def _all(name: str, hint: str, order: _Order) -> list[Mistake]:
    """Return a wrong order as mistakes: of weights and biases, and of weights alone."""
    return [
        Mistake(name, hint, lambda t, d, w=wanted: converted(t, d, order, w))
        for wanted in (("q_proj.", "k_proj."), ("q_proj.weight", "k_proj.weight"))
    ]


def _of(name: str, hint: str, *wanted: str) -> Mistake:
    """Return the mistake of converting other tensors than q's and k's."""
    return Mistake(name, hint, lambda t, d: converted(t, d, by_halves, wanted))


_COLUMNS = (
    "you reorder the columns: the channels that come in. Which side of a weight holds the values "
    "of the queries?"
)
_VALUES = (
    "you reorder v as well. Which of queries, keys and values does RoPE rotate? The others keep "
    "their order."
)
_ONLY = (
    "you convert only one of the two. A score multiplies a query with a key, dimension by "
    "dimension: what if only one of them has a new order?"
)
PAIR_MISTAKES = [
    _of("biases forgotten", "the weights are right, the biases are not. A query is weight times x, "
        "plus bias: which order must the bias have, if the weight's rows have a new one?",
        "q_proj.weight", "k_proj.weight"),
    *_all("other direction", "you go from half-split to interleaved. Where does a head's row 1 "
        "come from, and where should it go? Try it with the numbers 0 to 7.", _to_neighbors),
    *_all("over all heads", "the even rows of the whole matrix come first. Then rows of different "
        "heads are mixed: each head has its own pairs.", _over_all_heads),
    *_all("first head only", "the first head is right, the others are unchanged.", _first_head),
    *_all("odd rows first", "the odd rows come first. The first of each pair belongs to the first "
        "half.", _odd_first),
    *_all("columns", _COLUMNS, _columns),
    *_all("columns", _COLUMNS, _columns_by_head),
    _of("only q", _ONLY, "q_proj."),
    _of("only k", _ONLY, "k_proj."),
    _of("only q", _ONLY, "q_proj.weight"),
    _of("v too", _VALUES, "q_proj.", "k_proj.", "v_proj."),
    _of("v too", _VALUES, "_proj."),
    _of("v too", _VALUES, "self_attn."),
    _of("names too loosely compared", "you convert tensors that are neither q_proj nor k_proj: "
        "their names only contain a q or a k. Compare more of the name.", "q", "k"),
    Mistake("unchanged", "all tensors are as they were.", lambda t, d: dict(t)),
    Mistake("others missing", "q and k are right, but the other tensors are gone. Return the whole "
        "checkpoint.",
        lambda t, d: {name: one for name, one in converted(t, d).items()
            if "q_proj" in name or "k_proj" in name}),
]  # fmt: skip
