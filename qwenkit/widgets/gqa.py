"""GQAExplorer: which query heads share a kv head, and what that saves in the cache."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from qwenkit.config import QwenConfig
from qwenkit.files import format_bytes
from qwenkit.plot import gqa_sharing
from qwenkit.plot.style import BLUE, PALE
from qwenkit.widgets._base import Inspector
from qwenkit.widgets._gqa_view import GQAView, count, view_of


class GQAExplorer(Inspector):
    """Choose heads, kv heads and context; see which heads share, and the bytes of the cache.

    Args:
        config: a model's, to begin with, in the dtype that it names; None: the 0.5B.
    """

    script = "parts gqa"
    view: GQAView

    def __init__(self, config: QwenConfig | None = None) -> None:
        super().__init__(GQAView() if config is None else view_of(config))

    def snapshot(self) -> Figure:
        """Draw which heads share a kv head, above the bytes of the cache."""
        view = self.view
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(9, 4.2), layout="constrained", height_ratios=(1.4, 1)
        )
        gqa_sharing(view.heads, view.kv_heads, ax=above, marked=view.head)
        kinds = view.compared()
        totals = [view.token_bytes(kept) * view.tokens for kept in kinds.values()]
        names = [f"{name}: {count(kept, 'kv head')}" for name, kept in kinds.items()]
        bars = below.barh(names, totals, color=[PALE, BLUE, PALE])
        below.bar_label(bars, [f" {format_bytes(total)}" for total in totals], fontsize=9)
        below.invert_yaxis()
        below.set_xlim(0, 1.15 * max(totals))
        below.set_xticks([])
        below.spines[["top", "right", "bottom"]].set_visible(False)
        figure.suptitle(view.title(), size=10)
        return figure
