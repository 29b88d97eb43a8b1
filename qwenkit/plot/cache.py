"""How the KV cache grows: bytes against tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from qwenkit.config import BYTES_PER_VALUE, QwenConfig
from qwenkit.errors import InputError
from qwenkit.plot.distance import COLOURS
from qwenkit.plot.training import REFERENCE

DASHES = ("-", "--", "-.", ":")
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


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
        configs: name -> config; or one config, which is drawn as it is (GQA) beside itself with a
            kv head for each query head (MHA) and with a single one (MQA).
        tokens: how far to draw; None: the longest context of the configs.
        dtype: of the cache; None: each config's own.
        references: bytes to compare with, as dotted lines, by their names.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: no configs, or fewer tokens than one.
    """
    rates, length = _rates(configs, tokens, dtype)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, (name, rate) in enumerate(rates.items()):
        colour, dash = COLOURS[number % 6], DASHES[number % 4]
        words = f"{name}: {rate:,} bytes a token, {size(rate * length)}"
        ax.plot([0, length], [0, rate * length], dash, color=colour, linewidth=2, label=words)
    for name, value in (references or {}).items():
        ax.axhline(value, color=REFERENCE, linestyle=":", linewidth=1)
        ax.annotate(
            name, (0, value), xycoords=("axes fraction", "data"), xytext=(4, 3),
            textcoords="offset points", color=REFERENCE, fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    ax.set_xlim(0, length)
    ax.set_ylim(0, None)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
    ax.set_xlabel("tokens in the cache")
    ax.set_ylabel("keys and values")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(  # above: there it hides no line
        frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1),
        ncols=2 if len(rates) > 3 else 1, borderaxespad=0.2, alignment="left",
        title=f"bytes a token, and bytes of {length:,} tokens", title_fontsize=8,
    )  # fmt: skip
    return ax


def cache_growth_alt(
    configs: QwenConfig | Mapping[str, QwenConfig],
    *,
    tokens: int | None = None,
    dtype: str | None = None,
) -> str:
    """Return in words what `cache_growth` draws; arguments as above."""
    rates, length = _rates(configs, tokens, dtype)
    lines = [
        f"{name} {rate:,} bytes a token, {size(rate * length)}" for name, rate in rates.items()
    ]
    words = f"The KV cache's bytes up to {length:,} tokens, straight lines: {'; '.join(lines)}"
    most, least = max(rates.values()), min(rates.values())
    if most > least:
        words += f". The steepest rises {most / least:.3g} times as fast as the flattest"
    return f"{words}."


def size(count: float) -> str:
    """Write bytes in decimal units of three digits at most."""
    # What would be rounded to 1000 of a unit is 1 of the next.
    unit, name = next((pair for pair in UNITS if count >= 0.9995 * pair[0]), UNITS[-1])
    return f"{count / unit:.3g} {name}"


def _rates(
    configs: QwenConfig | Mapping[str, QwenConfig], tokens: int | None, dtype: str | None
) -> tuple[dict[str, int], int]:
    """Return bytes a token by name, and how many tokens to draw."""
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
