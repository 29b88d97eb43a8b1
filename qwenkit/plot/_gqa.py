"""Grouped-query attention: which query heads share a kv head, and how the KV cache grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from qwenkit.config import BYTES_PER_VALUE, QwenConfig
from qwenkit.errors import InputError
from qwenkit.files import format_bytes
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import (
    CURVES,
    HEADS,
    LIGHT,
    SIGNED,
    TEXT,
    WIDEST,
    color_bar,
    new_axes,
    plain,
    reference_line,
)
from qwenkit.plot.tokens import drawable

MOST_HEADS = 256  # that are drawn
MOST_TOKENS = 10**12  # in a cache
NAMED = 20  # heads, up to which their names are written
SPACIOUS = 10  # heads, up to which there is room for "for q0"
DASHES = ("-", "--", "-.", ":")
Configs = QwenConfig | Mapping[str, QwenConfig]


def gqa_sharing(
    heads: int, kv_heads: int, *, ax: Axes | None = None, marked: int | None = None
) -> Axes:
    """Draw which query heads share a kv head: two rows of boxes, and lines between them.

    Args:
        heads: H, query heads.
        kv_heads: KV; it divides H.
        ax: where to draw; None: a new figure.
        marked: a query head whose line and boxes stand out; None: no one's.

    Raises:
        InputError: numbers that do not divide.
    """
    groups = _groups(heads, kv_heads)
    ax = ax or new_axes(min(max(0.6 * heads, 4), WIDEST), 2.2)
    for head in range(heads):
        kv, x = head // groups, head + 0.5
        color, width = HEADS[kv % len(HEADS)], 3.5 if head == marked else 1.5
        ax.plot([x, (kv + 0.5) * groups], [1, 0], color=color, linewidth=width, zorder=0)
        _box(ax, (x, 1), 1, f"q{head}" if heads <= NAMED else "", color, head == marked)
    for kv in range(kv_heads):
        color, edge = HEADS[kv % len(HEADS)], marked is not None and marked // groups == kv
        name = f"k{kv}, v{kv}" if kv_heads <= NAMED else ""
        _box(ax, ((kv + 0.5) * groups, 0), groups, name, color, edge)
    ax.set(xlim=(0, heads), ylim=(-0.25, 1.25))
    ax.set_axis_off()
    return ax


def gqa_sharing_alt(heads: int, kv_heads: int) -> str:
    """Return the alt text of `gqa_sharing`.

    >>> gqa_sharing_alt(4, 2)
    '4 query heads share 2 kv heads, 2 each: q0 to q1 use k0 and v0, q2 to q3 use k1 and v1.'
    """
    groups = _groups(heads, kv_heads)
    if groups == 1:
        return f"{heads} query heads, each with a kv head of its own."
    spans = ", ".join(f"q{kv * groups} to q{kv * groups + groups - 1} use k{kv} and v{kv}"
                      for kv in range(min(kv_heads, 4)))  # fmt: skip
    more = ", and so on" if kv_heads > 4 else ""
    return f"{heads} query heads share {kv_heads} kv heads, {groups} each: {spans}{more}."


def kv_repetition(k: Any, groups: int) -> Figure:
    """Draw the key tensor before and after its kv heads are repeated for the query heads.

    Args:
        k: (KV, S, D) keys of one text.
        groups: how many times each kv head is repeated consecutively, as by repeat_interleave.

    Raises:
        InputError: another shape, or groups below 1.
    """
    values = _keys(k, groups)
    heads = len(values) * groups
    limit = float(np.abs(values).max()) or 1.0
    size = (min(max(1.0 * heads + 1, 5), WIDEST), 3.8)
    figure, axes = plt.subplots(2, heads, figsize=size, layout="constrained", squeeze=False)
    look: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, "aspect": "auto"}
    look["interpolation"] = "nearest"  # a pixel per value, nothing between them
    for ax in axes.flat:
        ax.set_axis_off()
    axes[0, 0].set(xlabel="dimension", ylabel="token")
    axes[0, 0].set_axis_on()
    axes[0, 0].locator_params("y", nbins=4, integer=True)
    axes[0, 0].set_xticks([0, values.shape[-1] - 1])
    for head in range(heads):
        kv, offset = divmod(head, groups)
        color, below = HEADS[kv % len(HEADS)], f"for q{head}" if heads <= SPACIOUS else f"q{head}"
        names = {1: below} if offset else {0: f"k{kv}", 1: below}
        for row, name in names.items():
            image = axes[row, head].imshow(values[kv].astype(np.float64), **look)
            box = {"facecolor": color, "edgecolor": "none", "pad": 2}
            axes[row, head].set_title(name, fontsize=TEXT, color=_letters(color), bbox=box)
    color_bar(image, "value of a key", *axes.flat)
    return figure


def kv_repetition_alt(k: Any, groups: int) -> str:
    """Return the alt text of `kv_repetition`."""
    kv_heads, length, size = _keys(k, groups).shape
    return (
        f"Above, the keys of {kv_heads} kv heads, each {length} tokens by {size} dimensions; "
        f"below, each {groups} times consecutively, one for each of {kv_heads * groups} query "
        f"heads. Only the {kv_heads} above are stored: a cache {groups} times smaller."
    )


def _keys(k: Any, groups: int) -> np.ndarray:
    values = numbers(k, "k", "KV S D")
    if type(groups) is not int or not 1 <= groups * len(values) <= MOST_HEADS:
        raise InputError(
            f"groups is {groups!r} for {len(values)} kv heads; it must be an integer of at least "
            f"1, so that there are at most {MOST_HEADS} query heads"
        )
    return values


def _groups(heads: int, kv_heads: int) -> int:
    integers = type(heads) is type(kv_heads) is int
    if not integers or kv_heads < 1 or heads < kv_heads or heads % kv_heads:
        raise InputError(
            f"{heads!r} query heads and {kv_heads!r} kv heads; the first must be a multiple of the "
            "last"
        )
    if heads > MOST_HEADS:
        raise InputError(f"{heads} query heads are too many to draw; at most {MOST_HEADS} can be")
    return heads // kv_heads


def _box(
    ax: Axes, middle: tuple[float, float], width: float, text: str, color: str, marked: bool
) -> None:
    corner, wide = (middle[0] - 0.42 * width, middle[1] - 0.15), 0.84 * width
    edge = "black" if marked else "none"
    ax.add_patch(Rectangle(corner, wide, 0.3, facecolor=color, edgecolor=edge))
    letters = _letters(color)
    ax.text(*middle, text, ha="center", va="center", fontsize=TEXT, color=letters)


def _letters(color: str) -> str:
    """Return the color of letters on a color."""
    return "black" if color in LIGHT else "white"


def cache_growth(
    configs: Configs,
    *,
    tokens: int | None = None,
    dtype: str | None = None,
    references: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many bytes the cache takes: a straight line for each config.

    Args:
        configs: name -> config; or one config, which is compared with the same model with a kv
            head for each query head (MHA) and with a single kv head (MQA).
        tokens: how far to draw; None: the longest context of the configs.
        dtype: of the cache; None: each config's own.
        references: name -> bytes to compare with, drawn as dotted lines.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: no configs, an unknown dtype, or fewer tokens than one.
    """
    rates, length = _rates(configs, tokens, dtype)
    ax = plain(ax or new_axes(8, 4.2), "tokens in the cache", "keys and values")
    for number, (name, rate) in enumerate(rates.items()):
        color, dash = CURVES[number % 6], DASHES[number % 4]
        words = f"{drawable(name)}: {_rate(rate, length)}"
        ax.plot([0, length], [0, rate * length], dash, color=color, linewidth=2, label=words)
    for name, value in (references or {}).items():
        reference_line(ax, name, value)
    ax.set_xlim(0, length)
    ax.set_ylim(0, None)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    ax.legend(  # above the axes, where it hides no line
        frameon=False, fontsize=TEXT, loc="lower left", bbox_to_anchor=(0, 1),
        ncols=2 if len(rates) > 3 else 1, borderaxespad=0.2, alignment="left",
        title=f"bytes per token, and bytes of {length:,} tokens", title_fontsize=TEXT,
    )  # fmt: skip
    return ax


def cache_growth_alt(
    configs: Configs, *, tokens: int | None = None, dtype: str | None = None
) -> str:
    """Return the alt text of `cache_growth`; arguments as above."""
    rates, length = _rates(configs, tokens, dtype)
    lines = "; ".join(f"{name} {_rate(rate, length)}" for name, rate in rates.items())
    words = f"Bytes of the KV cache up to {length:,} tokens, straight lines: {lines}"
    most, least = max(rates.values()), min(rates.values())
    if most > least:
        words += f". The steepest rises {most / least:.3g} times as fast as the flattest"
    return f"{words}."


def _rate(rate: int, length: int) -> str:
    return f"{rate:,} bytes per token, {format_bytes(rate * length)}"


def _rates(configs: Configs, tokens: int | None, dtype: str | None) -> tuple[dict[str, int], int]:
    """Return name -> bytes per token, and how many tokens to draw."""
    if isinstance(configs, QwenConfig):
        heads = configs.num_attention_heads
        configs = {
            "MHA": replace(configs, num_key_value_heads=heads),
            "GQA": configs,
            "MQA": replace(configs, num_key_value_heads=1),
        }
    if not configs:
        raise InputError("configs is empty; it must name at least one")
    if dtype is not None and dtype not in BYTES_PER_VALUE:
        raise InputError(f"dtype is {dtype!r}; it must be one of {', '.join(BYTES_PER_VALUE)}")
    longest = max(config.max_position_embeddings for config in configs.values())
    length = longest if tokens is None else tokens
    if not 1 <= length <= MOST_TOKENS:
        rule = f"it must be at least 1, and at most {MOST_TOKENS:,}"
        raise InputError(f"tokens is {length}; {rule}")
    return {name: one.kv_bytes_per_token(dtype) for name, one in configs.items()}, length
