"""Exercise 02c.1, nearest neighbors: tables of rows, and wrong rankings of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake


def _rows(degrees: Sequence[float], lengths: Sequence[float]) -> Tensor:
    """Return rows of two values with the given directions and lengths."""
    angles = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    return torch.tensor(lengths)[:, None] * torch.stack([angles.cos(), angles.sin()], dim=-1)


_PLAIN = _rows((0, 20, 50, 90, 200, 330), (1, 1, 1, 1, 1, 1))
_UNEVEN = _rows((0, 25, 60, 100, 185, 300), (1.0, 0.5, 6.0, 9.0, 4.0, 3.0))
NEIGHBOR_CASES = [
    Case("six rows of one length", (_PLAIN, 0, 3)),
    Case("long and short rows", (_UNEVEN, 1, 4)),
    Case("all the others", (_UNEVEN, 4, 5)),
    Case("only the nearest", (_UNEVEN, 3, 1)),
    Case("bfloat16", (_UNEVEN.bfloat16(), 2, 3)),
    Case("not contiguous", (_UNEVEN.T.contiguous().T, 5, 3)),
    Case("four values per row", (torch.cat([_UNEVEN, _PLAIN.flip(0) * 2], dim=-1), 2, 3)),
]


def _best(scores: Tensor, number: int, count: int, itself: bool = False) -> list[int]:
    if not itself:
        scores[number] = -float("inf")
    return scores.sort(descending=True).indices[:count].tolist()


def _cosines(table: Tensor, number: int, dim: int = -1) -> Tensor:
    unit = F.normalize(table.float(), dim=dim)
    return unit @ unit[number]


def _products(table: Tensor, number: int) -> Tensor:
    return table.float() @ table[number].float()


def nearest(table: Tensor, number: int, count: int) -> list[int]:
    return _best(_cosines(table, number), number, count)


NEIGHBOR_MISTAKES = (
    Mistake("itself", "a row is most like itself, and you count it. The question is which other "
        "rows are like it.",
        lambda table, number, count: _best(_cosines(table, number), number, count, itself=True)),
    Mistake("dot product", "you rank by the dot product, and long rows win whatever their "
        "direction. By what must each product be divided?",
        lambda table, number, count: _best(_products(table, number), number, count)),
    Mistake("dot product", "you rank by the dot product, where a long row beats even the row "
        "itself; so the first one that you drop is another row. By what must each product be "
        "divided?",
        lambda table, number, count:
            _best(_products(table, number), number, count + 1, itself=True)[1:]),
    Mistake("dot product, with itself", "you rank by the dot product, so long rows win whatever "
        "their direction, and the row itself takes part. Fix both: by what must you divide, and "
        "which row must you leave out?",
        lambda table, number, count: _best(_products(table, number), number, count, itself=True)),
    Mistake("distance", "you rank by distance. A row in the same direction, but ten times as long, "
        "is far away and yet the most similar: compare directions.",
        lambda table, number, count:
            _best(-(table.float() - table[number].float()).norm(dim=-1), number, count)),
    Mistake("farthest", "these are the least similar rows. Which end of the sorted cosines do you "
        "need?",
        lambda table, number, count: _best(-_cosines(table, number), number, count, itself=True)),
    Mistake("least similar first", "the right rows, in the wrong order: the most similar comes "
        "first.",
        lambda table, number, count: nearest(table, number, count)[::-1]),
    Mistake("sign lost", "a row that points in the opposite direction counts as similar. A cosine "
        "of −1 is the opposite: where does your function lose the sign?",
        lambda table, number, count: _best(_cosines(table, number).abs(), number, count)),
    Mistake("columns", "you divide by the length of each column. A token is a row: over which "
        "dimension is its length computed?",
        lambda table, number, count: _best(_cosines(table, number, dim=0), number, count)),
    Mistake("cosines, not ids", "these are not ids but floating-point numbers, such as cosines. "
        "Which rows do they belong to? topk and sort return both.",
        lambda table, number, count: _cosines(table, number)),
    Mistake("with itself, one too many", "you take one row more, but the row itself is still "
        "among them. Leave out the first.",
        lambda table, number, count: _best(_cosines(table, number), number, count + 1, True)),
    Mistake("one too few", "these are fewer rows than asked for: you leave out the first, but take "
        "no more for it.",
        lambda table, number, count: nearest(table, number, count - 1)),
    Mistake("all rows", "the order is right, but you return all the other rows. How many were "
        "asked for?",
        lambda table, number, count: nearest(table, number, len(table) - 1)),
)  # fmt: skip
