"""AttentionExplorer: all heads of all layers on one text, one of them large, and arcs."""

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
from qwenkit.plot import attention
from qwenkit.plot.arrays import pool
from qwenkit.plot.heads import CURRENT, INDUCTION
from qwenkit.plot.style import TEXT
from qwenkit.plot.tokens import label
from qwenkit.widgets._patterns import (
    FAR,
    LARGEST,
    STEPS,
    HeadView,
    Patterns,
    most_tokens,
    read_patterns,
)
from qwenkit.widgets._pictures import MARK, fewer_labels, mark
from qwenkit.widgets._prompted import PromptInspector

MOSAIC = 400  # pixels that the longer side of the snapshot's mosaic has for its tiles
LONG = 64  # positions; weights are spread thin over more, so that their contrast adapts
BRIGHT, DIM = 0.995, 5  # the part of them below the brightest color, and its least value of 255
MOST_NUMBERS = 12  # of layers or heads along the mosaic
MOST_NAMES = 18  # of tokens along the map
ARCS = ("attends to", "is attended to by")
MEANING = "induction: attending to what followed earlier copies of the current token"


@dataclass
class AttentionView(HeadView):
    """What the explorer shows."""

    chosen = ("layer", "head", "token", "arcs", "faint")
    patterns: Patterns  # the attention of every head
    layer: int = 0
    head: int = 0  # of that layer
    token: int = 0  # the position whose arcs are shown
    arcs: str = ARCS[0]  # from a query to its keys, or from a key to its queries
    faint: bool = False  # whether small weights are brought out: color follows the square root

    def largest(self) -> dict[str, int]:
        """Return the last layer, head and position."""
        layers, heads = self.patterns.weights.shape[:2]
        return {"layer": layers - 1, "head": heads - 1, "token": len(self.patterns.labels) - 1}

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse other arcs, and what is neither true nor false."""
        arcs, faint = state.get("arcs", ARCS[0]), state.get("faint", False)
        if arcs not in ARCS:
            raise InputError(f"arcs is {arcs!r}; it must be {' or '.join(map(repr, ARCS))}")
        if not isinstance(faint, bool):
            raise InputError(f"faint is {faint!r}; it must be True or False")
        return super().checked(state)

    def data(self) -> dict[str, Any]:
        """Return what the script draws."""
        patterns = self.patterns
        types = [name for name in patterns.scores if name != CURRENT]
        return patterns.data() | {
            "labels": patterns.labels,
            "length": len(patterns.tokens),
            "factor": patterns.factor,
            "strongest": [_strongest(patterns, name) for name in types],
            "pooling": patterns.pooling(),
            "meaning": MEANING if INDUCTION in patterns.scores else "",
        }

    def arc_weights(self) -> np.ndarray:
        """Return (n,) the weights of the chosen query on each key, or of each query on that key."""
        pattern = self.matrix()
        return pattern[self.token] if self.arcs == ARCS[0] else pattern[:, self.token]

    def brightest(self) -> float:
        """Return the weight of the brightest color: on a long text few weights are near 1."""
        weights = self.patterns.weights[self.layer, self.head]
        if len(self.patterns.labels) <= LONG:
            return 1.0
        return max(float(np.quantile(weights, BRIGHT)), DIM) / STEPS

    def alt(self) -> str:
        """Return what is shown as text."""
        patterns, labels, weights = self.patterns, self.patterns.labels, self.arc_weights()
        layers, heads = patterns.weights.shape[:2]
        found = [
            f"{name} in layer {i}, head {j} ({scores[i, j]:.0%})"
            for name, scores in patterns.scores.items()
            for i, j in [patterns.strongest(name)]
        ]
        most = np.argsort(-weights, kind="stable")[:3]
        few = [f"{label(labels[i])} {weights[i]:.0%}" for i in most if weights[i] > 0]
        words = [
            f"Attention of {layers} layers × {heads} heads over {len(patterns.tokens)} tokens",
            f"strongest: {', '.join(found)}" if found else "",
            patterns.pooling(),
            f"chosen: {self.title()}",
            f"{label(labels[self.token])} ({patterns.number(self.token)}) {self.arcs} "
            f"{', '.join(few) or 'no token'}",
        ]
        return f"{'; '.join(filter(None, words))}."

    def mosaic(self) -> tuple[np.ndarray, int]:
        """Return all heads as one picture, and the side of a tile; a gap of NaN after each."""
        layers, heads = self.patterns.weights.shape[:2]
        most = max(MOSAIC // max(layers, heads), 4)
        tiles = np.array([
            [pool(self.patterns.matrix(i, j), most)[0] for j in range(heads)]
            for i in range(layers)
        ])  # fmt: skip
        side = tiles.shape[-1]
        masked = np.triu(np.ones((side, side), dtype=bool), 1)  # later positions
        grid = np.full((layers, side + 1, heads, side + 1), np.nan)
        grid[:, :side, :, :side] = np.where(masked, np.nan, tiles).transpose(0, 2, 1, 3)
        return grid.reshape(layers * (side + 1), heads * (side + 1)), side


class AttentionExplorer(PromptInspector):
    """All heads of all layers as a grid of small maps; the chosen one large, with arcs.

    Arrow keys and clicks choose a head in the grid, and a token in the large map or in the text.
    Weights are shown to the nearest 255th. A text of more than 512 tokens is pooled, and says so.
    Another text can be entered in the page.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text.

    Raises:
        InputError: an empty prompt.
    """

    script = "attention"
    kept = ("layer", "head", "arcs", "faint")
    view: AttentionView

    def read(self, prompt: str) -> AttentionView:
        """Run the model on a prompt; a head and a token are chosen that attend to one far away."""
        patterns = read_patterns(self.model, self.tokenizer, prompt)
        layer, head, token = patterns.start()
        return AttentionView(patterns, layer, head, token)

    def aim(self, view: AttentionView, state: dict[str, Any]) -> None:
        """Choose a token at which the head attends to one far away."""
        if "token" not in state:
            view.choose(token=view.patterns.example(FAR, view.layer, view.head))

    def settings(self) -> dict[str, Any]:
        """Return the largest text, the pooling of long ones, and what is said of induction."""
        config = self.model.config
        heads = config.num_hidden_layers * config.num_attention_heads
        return {"most": most_tokens(heads), "largest": LARGEST, "meaning": MEANING}

    def snapshot(self) -> Figure:
        """Draw the mosaic of all heads next to the chosen head."""
        view, labels = self.view, self.view.patterns.labels
        figure, (left, right, bar) = plt.subplots(
            1, 3, figsize=(9, 4.8), layout="constrained", width_ratios=(1, 1.1, 0.03)
        )
        top = view.brightest()
        norm = PowerNorm(0.5, 0, top) if view.faint else Normalize(0, top)
        _draw_mosaic(left, view, norm)
        attention(view.matrix(), labels, ax=right, norm=norm, vmin=None, vmax=None)
        fewer_labels(right, labels, MOST_NAMES)
        mark(right, view.token, len(labels), column=view.arcs == ARCS[1])
        figure.colorbar(
            right.images[0],
            cax=bar,
            label="attention weight",
            extend="neither" if top == 1 else "max",
        )
        lines = [view.title(), view.patterns.pooling()]
        figure.suptitle("\n".join(filter(None, lines)), size=TEXT)
        return figure


def _strongest(patterns: Patterns, head_type: str) -> list[Any]:
    """Return a type, the layer and head that are most of it, and a token that shows it."""
    layer, head = patterns.strongest(head_type)
    return [head_type, layer, head, patterns.example(head_type, layer, head)]


def _draw_mosaic(ax: Axes, view: AttentionView, norm: Normalize) -> None:
    picture, side = view.mosaic()
    ax.imshow(picture, cmap="viridis", norm=norm, interpolation="nearest")
    axes = ((ax.yaxis, "layer"), (ax.xaxis, "head"))
    for (axis, name), count in zip(axes, view.patterns.weights.shape[:2], strict=True):
        numbers = range(0, count, -(-count // MOST_NUMBERS))
        middles = [i * (side + 1) + (side - 1) / 2 for i in numbers]
        axis.set_ticks(middles, [str(number) for number in numbers])
        axis.set_label_text(name)
    ax.tick_params(length=0, labelsize=TEXT)
    ax.spines[:].set_visible(False)
    corner = (view.head * (side + 1) - 1, view.layer * (side + 1) - 1)
    ax.add_patch(Rectangle(corner, side + 1, side + 1, **MARK))
