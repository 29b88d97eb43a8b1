"""Head types: which attention weights tell them apart, and how large those are in a pattern.

Every function takes arrays and tensors alike, of any batch dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PREVIOUS, FIRST, CURRENT, INDUCTION = HEAD_TYPES = (
    "previous-token head", "first-token head", "current-token head", "induction head",
)  # fmt: skip


def attended(pattern: Any, head_type: str) -> Any:
    """Return the attention weights that are large in a head of one type: (..., T, S) -> (..., n).

    One for each query position but the first, which often can attend only to itself.

    Args:
        pattern: attention weights; T < S: the queries are the last T positions.
        head_type: PREVIOUS: a query's weight on the position before it; FIRST: on position 0 (an
            attention sink, Xiao et al. 2023); CURRENT: on its own position.

    >>> attended(np.array([[1, 0, 0], [0.2, 0.8, 0], [0.1, 0.6, 0.3]]), PREVIOUS)
    array([0.2, 0.6])
    """
    queries, keys = pattern.shape[-2:]
    rows = np.arange(1, queries) if queries > 1 else np.arange(queries)
    own = rows + keys - queries
    columns = {PREVIOUS: own - 1, FIRST: 0 * own, CURRENT: own}[head_type]
    return pattern[..., rows, columns]


def head_scores(pattern: Any) -> dict[str, Any]:
    """Return head type -> (...,), the mean of `attended` for a pattern (..., T, S).

    A text of one token has no previous token, and so no score of that type.
    """
    types = (PREVIOUS, FIRST, CURRENT) if pattern.shape[-1] > 1 else (FIRST, CURRENT)
    return {name: attended(pattern, name).mean(-1) for name in types}


def induction_targets(ids: Any) -> np.ndarray:
    """Return (T, T) whether a key position follows an earlier copy of the query's token.

    An induction head attends there (Olsson et al. 2022, "In-context Learning and Induction Heads").

    >>> np.argwhere(induction_targets([5, 5, 6, 5])).tolist()  # (query, key)
    [[3, 1], [3, 2]]
    """
    ids = np.asarray(ids)
    targets = np.zeros((len(ids), len(ids)), bool)
    targets[:, 1:] = ids[:, None] == ids[None, :-1]
    return np.tril(targets, -1)  # what follows a copy just before the query is the query itself
