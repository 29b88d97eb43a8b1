"""LayerInspector's panels, drawn with matplotlib for pages without a kernel."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qwenkit.plot.attention import LARGEST, attention
from qwenkit.plot.tokens import label
from qwenkit.widgets.layer_view import LayerView

BEFORE, AFTER, CHOSEN, OTHER = "#b0b0b0", "#0072b2", "#d55e00", "#009e73"
COLUMNS = 3


def draw_layer(view: LayerView) -> Figure:
    """Draw what the view shows, a panel for each thing."""
    panels: list[Callable[[Axes, LayerView], None]] = [_attention, _pairs, _units, _norms, _lens]
    panels += [_other] if view.other else []
    panels += [_compared] if view.off else []
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(11.5, 3.7 * rows), layout="constrained", squeeze=False
    )
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
    attention(view.matrix(), view.patterns.tokens, ax=ax)
    _mark(ax, view.token, len(view.patterns.tokens))
    ax.set_title("where the head reads")


def _other(ax: Axes, view: LayerView) -> None:
    assert view.other is not None
    attention(view.other.matrix(view.layer, view.head), view.other.tokens, ax=ax)
    _mark(ax, view.other_token, len(view.other.tokens))
    ax.set_title("the same head on the other text")


def _mark(ax: Axes, token: int, tokens: int) -> None:
    """Frame a token's row, and let the names be as small as they must."""
    row = token // -(-tokens // LARGEST)  # where the map was pooled
    ax.add_patch(Rectangle((-0.5, row - 0.5), row + 1, 1, fill=False, edgecolor=CHOSEN, lw=1.5))
    ax.tick_params(labelsize=max(4, min(7, 180 / tokens)))


def _pairs(ax: Axes, view: LayerView) -> None:
    """Draw query above key, each before and after RoPE."""
    places = np.arange(view.query()[0].size)
    both = {"query": view.query(), f"key of kv head {view.kv_head()}": view.key()}
    heights = []
    for floor, (name, (before, after)) in zip((1.2, -1.2), both.items(), strict=True):
        largest = max(np.abs(before).max(), np.abs(after).max(), 1e-9)
        for shift, values, colour in ((-0.2, before, BEFORE), (0.2, after, AFTER)):
            ax.bar(places + shift, values / largest, 0.4, bottom=floor, color=colour)
        ax.axhline(floor, color="black", linewidth=0.5)
        heights.append((floor, f"{name}\n(to {largest:.2g})"))
    ax.axvline(places.size / 2 - 0.5, color="black", linewidth=0.5, linestyle=":")
    ax.set_yticks(*zip(*heights, strict=True), rotation=90, va="center")
    ax.set_ylim(-2.5, 2.5)
    ax.set_xlabel("dimension; i turns together with i + D/2", fontsize=8)
    ax.set_title("before RoPE (grey), after it (blue)")


def _units(ax: Axes, view: LayerView) -> None:
    names, values = zip(*view.units(), strict=True)
    _bars(ax, [f"unit {name}" for name in names], list(values))
    ax.set_title(f"the MLP's strongest of {view.model.config.intermediate_size:,} units")


def _norms(ax: Axes, view: LayerView) -> None:
    norms = view.norms()
    places = np.arange(norms.size) / 2 - 1
    ax.axvspan(view.layer - 0.75, view.layer + 0.25, color=CHOSEN, alpha=0.15)
    ax.plot(places, norms, color=BEFORE, linewidth=1)
    ax.plot(places[1::2], norms[1::2], "s", color=OTHER, markersize=4, label="after attention")
    ax.plot(places[::2], norms[::2], "o", color=AFTER, markersize=4, label="after the MLP")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("layer (−1: as it starts)", fontsize=8)
    ax.legend(fontsize=7)
    ax.set_title("length of the residual stream")


def _lens(ax: Axes, view: LayerView) -> None:
    rows = [row[0] for row in view.lens()]
    names = ["start", *(f"layer {i}" for i in range(len(rows) - 1))]
    words = [f"{name}: {label(token)}" for name, (token, _) in zip(names, rows, strict=True)]
    colours = [CHOSEN if i == view.layer + 1 else AFTER for i in range(len(rows))]
    _bars(ax, words, [share for _, share in rows], colours)
    ax.set_xlim(0, 1)
    ax.set_title("what the model would say, stopped there")


def _compared(ax: Axes, view: LayerView) -> None:
    compared = view.compared()
    assert compared is not None
    rows = compared.rows[view.token]
    places = np.arange(len(rows))
    ax.barh(places - 0.2, [row[2] for row in rows], 0.4, color=BEFORE, label="with it")
    ax.barh(places + 0.2, [row[3] for row in rows], 0.4, color=CHOSEN, label="without")
    ax.set_yticks(places, [label(row[0]) for row in rows], family="monospace")
    ax.invert_yaxis()
    ax.legend(fontsize=7)
    ax.set_title(f"next token without head {compared.head} of layer {compared.layer}")


def _bars(
    ax: Axes, names: list[str], values: list[float], colours: list[str] | str = AFTER
) -> None:
    """Draw bars to the right, the first on top."""
    ax.barh(np.arange(len(values)), values, color=colours)
    ax.set_yticks(np.arange(len(values)), names, family="monospace")
    ax.axvline(0, color="black", linewidth=0.5)
    ax.invert_yaxis()
