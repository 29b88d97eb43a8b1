"""GQAExplorer: which query heads share a kv head, and what that saves in the cache."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qwenkit.config import QwenConfig
from qwenkit.plot.cache import size
from qwenkit.plot.gqa import COLOURS, LIGHT
from qwenkit.widgets.base import Inspector
from qwenkit.widgets.gqa_view import GQAView, count, view_of

NUMBERED = 20  # heads, up to which the snapshot writes their numbers


class GQAExplorer(Inspector):
    """Choose heads, kv heads and context; see who shares, and how many bytes the cache takes.

    Args:
        config: a model's, to begin with, in the dtype that it names; None: the 0.5B.
    """

    script = "parts gqa"
    view: GQAView

    def __init__(self, config: QwenConfig | None = None) -> None:
        super().__init__(GQAView() if config is None else view_of(config))

    def snapshot(self) -> Figure:
        """Draw who reads whom above the bytes of the cache."""
        view = self.view
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(9, 4.2), layout="constrained", height_ratios=(1.4, 1)
        )
        _draw_heads(above, view)
        kinds = view.compared()
        totals = [view.token_bytes(kept) * view.tokens for kept in kinds.values()]
        names = [f"{name}: {count(kept, 'kv head')}" for name, kept in kinds.items()]
        bars = below.barh(names, totals, color=["#b0b0b0", "#0072b2", "#b0b0b0"])
        below.bar_label(bars, [f" {size(total)}" for total in totals], fontsize=9)
        below.invert_yaxis()
        below.set_xlim(0, 1.15 * max(totals))
        below.set_xticks([])
        below.spines[["top", "right", "bottom"]].set_visible(False)
        figure.suptitle(view.title(), size=10)
        return figure


def _draw_heads(ax: Axes, view: GQAView) -> None:
    """Draw query heads above the kv heads that they read, the lit one's line thick."""
    groups = view.heads // view.kv_heads
    for head in range(view.heads):
        kv = head // groups
        colour = COLOURS[kv % len(COLOURS)]
        lit = head == view.head
        x, below = head + 0.5, (kv + 0.5) * groups
        ax.plot([x, below], [1, 0.28], color=colour, linewidth=3.5 if lit else 1, zorder=0)
        edge = "black" if lit else "none"
        ax.add_patch(Rectangle((head + 0.08, 1), 0.84, 0.3, facecolor=colour, edgecolor=edge))
        if view.heads <= NUMBERED:
            words = "black" if colour in LIGHT else "white"
            ax.text(x, 1.15, f"q{head}", ha="center", va="center", fontsize=9, color=words)
    for kv in range(view.kv_heads):
        colour = COLOURS[kv % len(COLOURS)]
        corner = (kv * groups + 0.08 * groups, 0)
        edge = "black" if kv == view.kv_head() else "none"
        ax.add_patch(Rectangle(corner, 0.84 * groups, 0.28, facecolor=colour, edgecolor=edge))
        if view.kv_heads <= NUMBERED:
            words = "black" if colour in LIGHT else "white"
            place = ((kv + 0.5) * groups, 0.14)
            ax.text(*place, f"k{kv}, v{kv}", ha="center", va="center", fontsize=8, color=words)
    ax.set_xlim(0, view.heads)
    ax.set_ylim(-0.05, 1.35)
    ax.set_axis_off()
