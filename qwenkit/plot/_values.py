"""Weights and activations by module: how they are spread, and which channels stand out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers, pool_columns
from qwenkit.plot.style import BLUE, TEXT, UNSIGNED, VERMILION, grid, new_axes
from qwenkit.plot.tokens import drawable

BINS = 61  # an odd number: 0 is in the middle of a bin
LONGEST_NAME = 28
MOST = 32  # panels of a figure
WIDEST = 512  # channels in a row; more are pooled
OUTLIER = 6.0  # times the median channel
STEPS = [one * 10**power for power in range(9) for one in (1, 3)]  # of the color bar


def value_histograms(tensors: Mapping[str, Any], *, columns: int | None = None) -> Figure:
    """Draw a histogram of the values of each of some tensors, its heights logarithmic.

    Args:
        tensors: name -> weights or activations of any shape.
        columns: histograms in a row; None: up to three.

    Raises:
        InputError: no tensors, more than 32, an empty one, NaN or an infinity.
    """
    values = _values(tensors)
    columns = columns or min(len(values), 3)
    figure, axes = grid(len(values), columns, 2.9, 2.3)
    for ax, name, flat in zip(axes, _ends(values), values.values(), strict=False):
        reach = _reach(flat)
        counts, edges = np.histogram(flat / reach, BINS, (-1, 1))
        ax.stairs(counts, edges.astype(np.float64) * reach, fill=True, color=BLUE)
        ax.set_yscale("log")
        ax.set_ylim(0.5, None)
        ax.set_title(f"{drawable(name)}\n{_spread(flat)}", fontsize=TEXT)
        ax.locator_params(axis="x", nbins=5)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("number of values")
    for ax in axes[-columns:] if len(values) % columns == 0 else axes[: len(values)]:
        ax.set_xlabel("value")
    return figure


def value_histograms_alt(tensors: Mapping[str, Any]) -> str:
    """Return the alt text of `value_histograms`."""
    values = _values(tensors)
    few = [f"{name} ({flat.size:,} values, {_spread(flat)})" for name, flat in values.items()]
    more = f", and {len(few) - 6} more" if len(few) > 6 else ""
    far = max(values, key=lambda name: _far(values[name]))
    return (
        f"Histograms of {len(values)} tensor{'s' * (len(values) > 1)}, heights logarithmic: "
        f"{', '.join(few[:6])}{more}. Farthest out for its spread: {far}, at "
        f"{_far(values[far]):.1f} standard deviations."
    )


def outlier_channels(activations: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw each channel's largest value, a row per module: what stands out is bright.

    Args:
        activations: module's name -> (N, C): N tokens (or, of a weight, N rows) by C channels.
        ax: where to draw; None: a new figure.

    Raises:
        InputError: no modules, or modules of different widths.
    """
    ratios = _channel_ratios(activations)
    modules, width = ratios.shape
    ax = ax or new_axes(8, min(1.6 + 0.24 * modules, 9))
    shown, factor = pool_columns(ratios, WIDEST)
    norm = LogNorm(1, max(float(ratios.max()), 10.0), clip=True)
    image = ax.imshow(shown, norm=norm, cmap=UNSIGNED, aspect="auto", interpolation="nearest")
    ticks = [int(tick) for tick in MaxNLocator(8, integer=True).tick_values(0, width - 1)]
    ticks = [tick for tick in ticks if 0 <= tick < width]
    ax.set_xticks([tick // factor for tick in ticks], [str(tick) for tick in ticks])
    names, step = [*map(drawable, _ends(activations))], -(-modules // 40)
    ax.set_yticks(range(0, modules, step), names[::step])
    for channel in _marked(ratios):
        ax.annotate(
            str(channel), (channel // factor, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 12), textcoords="offset points", ha="center", fontsize=TEXT, color="#a34700",
            arrowprops={"arrowstyle": "-|>", "color": VERMILION, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    pooled = f" (a pixel is the largest of {factor})" if factor > 1 else ""
    ax.set_xlabel("channel" + pooled)
    steps = [step for step in STEPS if step <= norm.vmax]
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, ticks=steps, format="{x:g}")
    bar.minorticks_off()
    bar.set_label("largest |value|\n÷ the median channel's")
    return ax


def outlier_channels_alt(activations: Mapping[str, Any]) -> str:
    """Return the alt text of `outlier_channels`."""
    ratios = _channel_ratios(activations)
    modules, width = ratios.shape
    often = (ratios > OUTLIER).sum(axis=0)
    order = np.lexsort((-ratios.max(axis=0), -often))
    row, column = np.unravel_index(int(ratios.argmax()), ratios.shape)
    words = (
        f"The largest absolute value of each of {width:,} channels, for {modules} "
        f"module{'s' * (modules > 1)}, as a multiple of the median channel's. Highest: channel "
        f"{column} of {list(activations)[row]} at {ratios[row, column]:.1f} times"
    )
    few = [f"{i} (in {often[i]} of {modules})" for i in order[:4] if often[i]]
    if not few:
        return f"{words}; no channel is above {OUTLIER:g} times."
    more = int((often > 0).sum()) - len(few)
    listed = ", ".join(few) + (f" and {more} more" if more else "")
    return f"{words}; channels above {OUTLIER:g} times: {listed}."


def _channel_ratios(activations: Mapping[str, Any]) -> np.ndarray:
    """Return (modules, C): each channel's largest |value| as a multiple of the median channel's."""
    if not activations:
        raise InputError("activations is empty; it must name at least one module")
    arrays = {name: numbers(one, name, "N C") for name, one in activations.items()}
    widths = {name: array.shape[1] for name, array in arrays.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width:,}" for name, width in list(widths.items())[:6])
        raise InputError(f"the modules' widths differ ({listed}); draw them in separate figures")
    largest = np.stack([np.abs(array).max(axis=0) for array in arrays.values()], dtype=np.float64)
    middle = np.median(largest, axis=1, keepdims=True)
    return largest / np.where(middle > 0, middle, np.finfo(np.float32).tiny)


def _marked(ratios: np.ndarray) -> list[int]:
    """Return up to four channels that stand out, far enough apart for their labels."""
    strength = ratios.max(axis=0)
    apart = max(ratios.shape[1] // 24, 1)
    found: list[int] = []
    for channel in np.argsort(-strength, kind="stable")[:64].tolist():
        clear = all(abs(channel - other) >= apart for other in found)
        if clear and strength[channel] > OUTLIER and len(found) < 4:
            found.append(channel)
    return found


def _values(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return each tensor's values as a vector."""
    if not 0 < len(tensors) <= MOST:
        raise InputError(f"there are {len(tensors)} tensors; draw from 1 to {MOST} in one figure")
    shapes = ("", "C", "N C", "B T C", "B H T D")
    return {name: numbers(one, name, *shapes).reshape(-1) for name, one in tensors.items()}


def _far(flat: np.ndarray) -> float:
    """Return the largest |value| in standard deviations."""
    return float(np.abs(flat).max()) / (_std(flat) or 1.0)


def _reach(flat: np.ndarray) -> float:
    return float(np.abs(flat).max()) or 1.0


def _std(flat: np.ndarray) -> float:
    """Return the standard deviation, even of values whose squares overflow float32."""
    reach = _reach(flat)
    return float((flat / reach).std()) * reach


def _spread(flat: np.ndarray) -> str:
    return f"std {_std(flat):.2g}, largest {np.abs(flat).max():.2g}"


def _ends(names: Iterable[str]) -> list[str]:
    """Return modules' names; where one is long, the last parts of all, which differ."""
    parts = [name.split(".") for name in names]
    while any(len(one) > 1 and len(".".join(one)) > LONGEST_NAME for one in parts):
        parts = [one[1:] or one for one in parts]
    return [".".join(one) for one in parts]
