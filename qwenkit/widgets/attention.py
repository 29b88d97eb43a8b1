"""AttentionExplorer: all heads of all layers on one text, one of them large, and who reads whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.attention import attention
from qwenkit.plot.tokens import label, pool
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets.base import Inspector
from qwenkit.widgets.choices import check_names, check_whole
from qwenkit.widgets.pack import pack
from qwenkit.widgets.patterns import INDUCTION, ITSELF, Patterns, read_patterns

MOSAIC = 400  # pixels that the longer side of the snapshot's mosaic has for its tiles
ARCS = ("reads", "is read by")
MEANING = "induction: reading what followed earlier copies of the token that reads"
MARK: dict[str, Any] = {
    "fill": False, "edgecolor": "#d55e00", "linewidth": 1.5, "clip_on": False, "zorder": 5,
}  # fmt: skip


@dataclass
class AttentionView:
    """What the explorer shows.

    Attributes:
        patterns: the attention of every head.
        layer: chosen, as are the following.
        head: of that layer.
        token: the place whose arcs are shown.
        arcs: "reads": from the token to what it reads; "is read by": from those that read it.
        faint: whether small shares are brought out (the colour follows the square root).
    """

    patterns: Patterns
    layer: int = 0
    head: int = 0
    token: int = 0
    arcs: str = ARCS[0]
    faint: bool = False

    def state(self) -> dict[str, Any]:
        """Return what is chosen now."""
        names = ("layer", "head", "token", "arcs", "faint")
        return {name: getattr(self, name) for name in names}

    def choose(self, **state: Any) -> None:
        """Choose others; all or, where one cannot be, none of them."""
        layers, heads = self.patterns.shares.shape[:2]
        sizes = {"layer": layers, "head": heads, "token": len(self.patterns.places)}
        check_names(state, self.state())
        for name, value in state.items():
            if name in sizes:
                check_whole(name, value, 0, sizes[name] - 1)
            elif name == "arcs" and value not in ARCS:
                raise InputError(f"arcs is {value!r}; it must be {' or '.join(map(repr, ARCS))}")
            elif name == "faint" and not isinstance(value, bool):
                raise InputError(f"faint is {value!r}; it must be True or False")
        for name, value in state.items():
            setattr(self, name, value)

    def data(self) -> dict[str, Any]:
        """Return what the script draws."""
        patterns = self.patterns
        layers, heads = patterns.shares.shape[:2]
        habits = [name for name in patterns.habits if name != ITSELF]
        return {
            "places": patterns.places,
            "length": len(patterns.tokens),
            "factor": patterns.factor,
            "layers": layers,
            "heads": heads,
            "shares": pack(patterns.shares),
            "titles": [[self.title(i, j) for j in range(heads)] for i in range(layers)],
            "strongest": [[name, *patterns.strongest(name)] for name in habits],
            "pooling": patterns.pooling(),
            "meaning": MEANING if INDUCTION in patterns.habits else "",
        }

    def matrix(self) -> np.ndarray:
        """Return the chosen head's attention, (n, n): a row for each place that reads."""
        return self.patterns.matrix(self.layer, self.head)

    def arc_shares(self) -> np.ndarray:
        """Return (n,) what the chosen token reads of each place, or what each reads of it."""
        pattern = self.matrix()
        return pattern[self.token] if self.arcs == ARCS[0] else pattern[:, self.token]

    def title(self, layer: int | None = None, head: int | None = None) -> str:
        """Name a head and its habits, by default the chosen one's."""
        layer, head = self.layer if layer is None else layer, self.head if head is None else head
        return f"Layer {layer}, head {head}: {self.patterns.behaviour(layer, head)}"

    def alt(self) -> str:
        """Return in words what is shown."""
        patterns, places, shares = self.patterns, self.patterns.places, self.arc_shares()
        layers, heads = patterns.shares.shape[:2]
        found = [
            f"{name} in layer {i}, head {j} ({values[i, j]:.0%})"
            for name, values in patterns.habits.items()
            for i, j in [patterns.strongest(name)]
        ]
        most = np.argsort(-shares, kind="stable")[:3]
        few = [f"{label(places[i])} {shares[i]:.0%}" for i in most if shares[i] > 0]
        words = [
            f"Attention of {layers} layers × {heads} heads over {len(patterns.tokens)} tokens",
            f"strongest: {', '.join(found)}" if found else "",
            patterns.pooling(),
            f"chosen: {self.title()}",
            f"{label(places[self.token])} ({patterns.number(self.token)}) {self.arcs} "
            f"{', '.join(few) or 'nobody'}",
        ]
        return f"{'; '.join(filter(None, words))}."

    def mosaic(self) -> tuple[np.ndarray, int]:
        """Return all heads as one picture, and the side of a tile; a gap of NaN after each."""
        layers, heads = self.patterns.shares.shape[:2]
        most = max(MOSAIC // max(layers, heads), 4)

        def tile(layer: int, head: int) -> np.ndarray:
            return pool(self.patterns.matrix(layer, head), most)[0]

        tiles = np.array([[tile(i, j) for j in range(heads)] for i in range(layers)])
        side = tiles.shape[-1]
        never = np.triu(np.ones((side, side), dtype=bool), 1)  # later tokens
        grid = np.full((layers, side + 1, heads, side + 1), np.nan)
        grid[:, :side, :, :side] = np.where(never, np.nan, tiles).transpose(0, 2, 1, 3)
        return grid.reshape(layers * (side + 1), heads * (side + 1)), side


class AttentionExplorer(Inspector):
    """All heads of all layers as a grid of small maps; the chosen one large, with arcs.

    Arrow keys and clicks choose a head in the grid, and a token in the large map or in the text.
    Attention is shown to the nearest 255th. A text of more than 512 tokens is pooled, and says so.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text.

    Raises:
        InputError: an empty prompt.
    """

    script = "parts attention_map attention"
    view: AttentionView

    def __init__(self, model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> None:
        patterns = read_patterns(model, tokenizer, prompt)
        super().__init__(AttentionView(patterns, token=len(patterns.places) - 1))

    def snapshot(self) -> Figure:
        """Draw the mosaic of all heads beside the chosen head."""
        view = self.view
        figure, (left, right, bar) = plt.subplots(
            1, 3, figsize=(11, 5.6), layout="constrained", width_ratios=(1, 1.1, 0.03)
        )
        norm = PowerNorm(0.5, 0, 1) if view.faint else Normalize(0, 1)
        _draw_mosaic(left, view, norm)
        places = view.patterns.places
        attention(view.matrix(), places, ax=right, norm=norm, vmin=None, vmax=None)
        _mark_token(right, view)
        figure.colorbar(right.images[0], cax=bar, label="share")
        figure.suptitle("\n".join(filter(None, [view.title(), view.patterns.pooling()])), size=10)
        return figure


def _mark_token(ax: Axes, view: AttentionView) -> None:
    """Frame the row of what the token reads, or the column of those that read it."""
    drawn = ax.images[0].get_array()
    assert drawn is not None
    size = drawn.shape[0]  # a large map is drawn pooled
    token = view.token // -(-len(view.patterns.places) // size)
    air = size / 250  # so that the frame does not cover a thin row
    x = y = token - 0.5 - air
    width, height = 1 + 2 * air, size - token + 2 * air
    if view.arcs == ARCS[0]:
        x, width, height = -0.5 - air, token + 1 + 2 * air, 1 + 2 * air
    ax.add_patch(Rectangle((x, y), width, height, **MARK))


def _draw_mosaic(ax: Axes, view: AttentionView, norm: Normalize) -> None:
    picture, side = view.mosaic()
    ax.imshow(picture, cmap="viridis", norm=norm, interpolation="nearest")
    axes = ((ax.yaxis, "layer"), (ax.xaxis, "head"))
    for (axis, name), count in zip(axes, view.patterns.shares.shape[:2], strict=True):
        numbers = range(0, count, -(-count // 16))
        middles = [i * (side + 1) + (side - 1) / 2 for i in numbers]
        axis.set_ticks(middles, [str(number) for number in numbers])
        axis.set_label_text(name)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[:].set_visible(False)
    corner = (view.head * (side + 1) - 1, view.layer * (side + 1) - 1)
    ax.add_patch(Rectangle(corner, side + 1, side + 1, **MARK))
