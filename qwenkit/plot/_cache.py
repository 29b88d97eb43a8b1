"""How the KV cache grows: bytes against tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from qwenkit.config import BYTES_PER_VALUE, QwenConfig
from qwenkit.errors import InputError
from qwenkit.files import format_bytes
from qwenkit.plot._distance import COLORS
from qwenkit.plot.style import new_axes, plain, reference_line

DASHES = ("-", "--", "-.", ":")


def cache_growth(
    configs: QwenConfig | Mapping[str, QwenConfig],
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
    ax = plain(ax or new_axes(7, 4), "tokens in the cache", "keys and values")
    for number, (name, rate) in enumerate(rates.items()):
        color, dash = COLORS[number % 6], DASHES[number % 4]
        words = f"{name}: {_rate(rate, length)}"
        ax.plot([0, length], [0, rate * length], dash, color=color, linewidth=2, label=words)
    for name, value in (references or {}).items():
        reference_line(ax, name, value)
    ax.set_xlim(0, length)
    ax.set_ylim(0, None)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    ax.legend(  # above the axes, where it hides no line
        frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1),
        ncols=2 if len(rates) > 3 else 1, borderaxespad=0.2, alignment="left",
        title=f"bytes per token, and bytes of {length:,} tokens", title_fontsize=8,
    )  # fmt: skip
    return ax


def cache_growth_alt(
    configs: QwenConfig | Mapping[str, QwenConfig],
    *,
    tokens: int | None = None,
    dtype: str | None = None,
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


def _rates(
    configs: QwenConfig | Mapping[str, QwenConfig], tokens: int | None, dtype: str | None
) -> tuple[dict[str, int], int]:
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
    if length < 1:
        raise InputError(f"tokens is {length}; it must be at least 1")
    return {name: one.kv_bytes_per_token(dtype) for name, one in configs.items()}, length
