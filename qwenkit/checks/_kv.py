"""How many values a KV cache keeps per token, and the wrong counts (notebooks 06 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qwenkit.checks._judge import Mistake
from qwenkit.config import QwenConfig

Count = Callable[[QwenConfig], int]


def kv_values(c: QwenConfig) -> int:
    """Return the keys and values that all layers keep of one token."""
    return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim


def _query_values(c: QwenConfig) -> int:
    return c.num_hidden_layers * c.num_attention_heads * c.head_dim


def _c_over_h(c: QwenConfig) -> int:
    return kv_values(c) // c.head_dim * (c.hidden_size // c.num_attention_heads)


def wrong_counts(using: Callable[[Count], Callable[..., Any]]) -> tuple[Mistake, ...]:
    """Return the mistakes of an answer that uses a wrong count of values per token."""
    return tuple(Mistake(name, hint, using(count)) for name, hint, count in _WRONG)


_WRONG: tuple[tuple[str, str, Count], ...] = (
    ("query heads", "you count H heads. The cache holds keys and values before they are repeated, "
        "so it has only KV heads.",
        lambda c: 2 * _query_values(c)),
    ("hidden size", "you count C values per token. That is the residual stream; a key has KV heads "
        "of D values.",
        lambda c: 2 * c.num_hidden_layers * c.hidden_size),
    ("C / H", "right where D is C / H. That does not hold for every model: use the config's own "
        "`head_dim`.",
        _c_over_h),
    ("queries too", "you count the queries as well. An earlier token asks nothing more, so its "
        "query is not kept.",
        lambda c: kv_values(c) + _query_values(c)),
    ("keys or values alone", "you count only keys or only values. The cache keeps a key *and* a "
        "value for each token.",
        lambda c: kv_values(c) // 2),
    ("one layer", "you count one layer. Each layer has its own keys and values.",
        lambda c: kv_values(c) // c.num_hidden_layers),
)  # fmt: skip
