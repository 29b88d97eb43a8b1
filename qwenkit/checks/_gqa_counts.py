"""The mistakes of exercises 06.1 and 06.3: which kv head, and the bytes of a cache."""

from __future__ import annotations

from collections.abc import Callable

from qwenkit.checks._judge import Mistake
from qwenkit.checks._kv import Count, kv_values, wrong_counts
from qwenkit.config import QwenConfig

# --- 06.1 ---


def kv_head_of(head: int, heads: int, kv_heads: int) -> int:
    return head // (heads // kv_heads)


HEAD_MISTAKES = (
    Mistake("cycles", "you assign the kv heads in turn: 0, 1, 0, 1, ... That is the order of "
        "`repeat`. In Qwen consecutive heads share: the first H / KV query heads all use kv head "
        "0.",
        lambda h, heads, kv: h % kv),
    Mistake("divided by KV", "you divide by the number of kv heads. How many query heads share "
        "one?",
        lambda h, heads, kv: h // kv),
    *(Mistake("a fixed group size", "you always divide by the same number. Models differ: compute "
        "it from `heads` and `kv_heads`.",
        lambda h, heads, kv, size=size: h // size) for size in (4, 7)),
    Mistake("always 0", "you get 0 for every head. `head // heads` is 0: what should you divide "
        "by?",
        lambda h, heads, kv: 0),
    Mistake("group size", "that is how many query heads share a kv head. Divide `head` by it.",
        lambda h, heads, kv: heads // kv),
    Mistake("off by one", "you add 1 to the head, so the last head of each group gets the next kv "
        "head. Heads are counted from 0.",
        lambda h, heads, kv: (h + 1) // (heads // kv)),
    Mistake("off by one", "you subtract 1 from the head, so the first head of each group gets the "
        "kv head before. Heads are counted from 0.",
        lambda h, heads, kv: (h - 1) // (heads // kv)),
    Mistake("position in the group", "that is the position of the head within its group. Which "
        "group is it in?",
        lambda h, heads, kv: h % (heads // kv)),
    Mistake("first of the group", "that is the first query head of the group. Groups are counted "
        "0, 1, 2, ...",
        lambda h, heads, kv: h - h % (heads // kv)),
    Mistake("not an integer", "you get fractions. All heads of a group get the same integer: `//` "
        "rounds down.",
        lambda h, heads, kv: h * kv / heads),
    Mistake("rounded", "you round to the nearest integer, so the second half of a group gets the "
        "next kv head. The whole group shares one.",
        lambda h, heads, kv: round(h * kv / heads)),
    Mistake("counted from 1", "you count from 1. The first kv head is number 0, as the first query "
        "head is.",
        lambda h, heads, kv: h // (heads // kv) + 1),
    Mistake("backwards", "you count the kv heads from the end. Query head 0 uses kv head 0.",
        lambda h, heads, kv: kv - 1 - h // (heads // kv)),
    Mistake("one each", "you give each query head its own kv head. There are only KV of them.",
        lambda h, heads, kv: h),
)  # fmt: skip


# --- 06.3 ---


def bytes_of(count: Count) -> Callable[[QwenConfig, int, int], int]:
    """Return the bytes of a cache that keeps `count(config)` values per token."""
    return lambda c, tokens, size: count(c) * tokens * size


def _always(count: int) -> Count:
    return lambda c: count


def _with_head_dim(size: int) -> Count:
    return lambda c: kv_values(c) // c.head_dim * size


_UNITS = (1e3, 1e6, 1e9, 2**10, 2**20, 2**30)  # kB, MB, GB
BYTE_MISTAKES = (
    *wrong_counts(bytes_of),
    Mistake("one head", "you count one kv head per layer. How many are there?",
        bytes_of(lambda c: kv_values(c) // c.num_key_value_heads)),
    Mistake("values, not bytes", "you count values. How many bytes does each one take?",
        lambda c, tokens, size: kv_values(c) * tokens),
    Mistake("size ignored", "you count 2 bytes per value. Use `size`, the bytes of a value.",
        lambda c, tokens, size: kv_values(c) * tokens * 2),
    Mistake("doubled", "your result is twice as large. One factor 2 stands for keys and values; "
        "`size` is the number of bytes.",
        lambda c, tokens, size: 2 * kv_values(c) * tokens * size),
    *(Mistake("the notebook's model", "you use the numbers of the notebook's model. Take them from "
        "`c`.",
        bytes_of(_always(count))) for count in (2 * 6 * 2 * 32, 2 * 24 * 2 * 64)),
    *(Mistake("a fixed D", "your D is that of the notebook's model. Take `head_dim` from `c`.",
        bytes_of(_with_head_dim(size))) for size in (32, 64)),
    Mistake("no head_dim", "you count one value per head. A key is a vector of D values.",
        bytes_of(lambda c: kv_values(c) // c.head_dim)),
    Mistake("groups", "you multiply by the size of a group, H / KV. How many kv heads are there?",
        bytes_of(lambda c:
            2 * c.num_hidden_layers * c.num_attention_heads // c.num_key_value_heads * c.head_dim)),
    *(Mistake("another unit", "right, but in another unit. Return bytes.",
        lambda c, tokens, size, unit=unit: kv_values(c) * tokens * size / unit)
        for unit in _UNITS),
    Mistake("another unit", "that is the number of bits. Return bytes.",
        lambda c, tokens, size: kv_values(c) * tokens * size * 8),
    Mistake("the longest text", "you count as many tokens as the model can read. Use `tokens`.",
        lambda c, tokens, size: kv_values(c) * c.max_position_embeddings * size),
    Mistake("tokens squared", "your cache grows with the square of the tokens. The scores do; a "
        "cache keeps one key and one value per token.",
        lambda c, tokens, size: kv_values(c) * tokens**2 * size),
    Mistake("one token", "that is the size of one token. The cache keeps all of them.",
        lambda c, tokens, size: kv_values(c) * size),
)  # fmt: skip
