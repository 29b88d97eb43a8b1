"""LayerInspector's panels, drawn with matplotlib for pages without a kernel."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.plot import attention
from qwenkit.plot.style import BLUE, GREEN, PALE, VERMILION
from qwenkit.plot.tokens import label
from qwenkit.widgets._layer_view import LayerView
from qwenkit.widgets._patterns import Patterns
from qwenkit.widgets._pictures import bars, mark

COLUMNS = 3


def draw_layer(view: LayerView) -> Figure:
    """Draw what the view shows, a panel for each thing."""
    panels: list[Callable[[Axes, LayerView], None]] = [_attention, _pairs, _units, _norms, _lens]
    panels += [_other] if view.other else []
    panels += [_compared] if view.off else []
    rows = -(-len(panels) // COLUMNS)
    size = (11.5, 3.7 * rows)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=size, layout="constrained", squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(grid.flat, panels, strict=False):
        ax.tick_params(labelsize=7)
        panel(ax, view)
        ax.title.set_fontsize(9)
    token = label(view.patterns.tokens[view.token])
    figure.suptitle(f"{view.title()}\nat token {view.token}, {token}", fontsize=10)
    return figure


def _attention(ax: Axes, view: LayerView) -> None:
    _map(ax, view.patterns, view, view.token)
    ax.set_title("what the head attends to")


def _other(ax: Axes, view: LayerView) -> None:
    assert view.other is not None
    _map(ax, view.other, view, view.other_token)
    ax.set_title("the same head on the other text")


def _map(ax: Axes, patterns: Patterns, view: LayerView, token: int) -> None:
    attention(patterns.matrix(view.layer, view.head), patterns.tokens, ax=ax)
    mark(ax, token, len(patterns.tokens))
    ax.tick_params(labelsize=max(4, min(7, 180 / len(patterns.tokens))))


def _pairs(ax: Axes, view: LayerView) -> None:
    """Draw query above key, each before and after RoPE."""
    x = np.arange(view.query()[0].size)
    both = {"query": view.query(), f"key of kv head {view.kv_head()}": view.key()}
    heights = []
    for base, (name, (before, after)) in zip((1.2, -1.2), both.items(), strict=True):
        largest = max(np.abs(before).max(), np.abs(after).max(), 1e-9)
        for shift, values, color in ((-0.2, before, PALE), (0.2, after, BLUE)):
            ax.bar(x + shift, values / largest, 0.4, bottom=base, color=color)
        ax.axhline(base, color="black", linewidth=0.5)
        heights.append((base, f"{name}\n(to {largest:.2g})"))
    ax.axvline(x.size / 2 - 0.5, color="black", linewidth=0.5, linestyle=":")
    ax.set_yticks(*zip(*heights, strict=True), rotation=90, va="center")
    ax.set_ylim(-2.5, 2.5)
    ax.set_xlabel("dimension; i rotates together with i + D/2", fontsize=8)
    ax.set_title("before RoPE (gray), after it (blue)")


def _units(ax: Axes, view: LayerView) -> None:
    names, values = zip(*view.units(), strict=True)
    bars(ax, [f"unit {name}" for name in names], (values, BLUE, None))
    ax.axvline(0, color="black", linewidth=0.5)
    ax.set_title(f"the MLP's strongest of {view.model.config.intermediate_size:,} units")


def _norms(ax: Axes, view: LayerView) -> None:
    norms = view.norms()
    x = np.arange(norms.size) / 2 - 1
    ax.axvspan(view.layer - 0.75, view.layer + 0.25, color=VERMILION, alpha=0.15)
    ax.plot(x, norms, color=PALE, linewidth=1)
    ax.plot(x[1::2], norms[1::2], "s", color=GREEN, markersize=4, label="after attention")
    ax.plot(x[::2], norms[::2], "o", color=BLUE, markersize=4, label="after the MLP")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("layer (−1: the embedding)", fontsize=8)
    ax.legend(fontsize=7)
    ax.set_title("norm of the residual stream")


def _lens(ax: Axes, view: LayerView) -> None:
    rows = [row[0] for row in view.lens()]
    names = ["embedding", *(f"layer {i}" for i in range(len(rows) - 1))]
    words = [f"{name}: {label(token)}" for name, (token, _) in zip(names, rows, strict=True)]
    colors = [VERMILION if i == view.layer + 1 else BLUE for i in range(len(rows))]
    bars(ax, words, ([probability for _, probability in rows], colors, None))
    ax.set_xlim(0, 1)
    ax.set_title("what the model would predict, stopped there")


def _compared(ax: Axes, view: LayerView) -> None:
    compared = view.compared()
    assert compared is not None
    names, _, before, after = zip(*compared.rows[view.token], strict=True)
    bars(ax, [*map(label, names)], (before, PALE, "with it"), (after, VERMILION, "without"))
    ax.legend(fontsize=7)
    ax.set_title(f"next token without head {compared.head} of layer {compared.layer}")
