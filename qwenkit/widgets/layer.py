"""LayerInspector: what one head, one layer and one token do, in panels that move together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.model import QwenForCausalLM
from qwenkit.plot import attention
from qwenkit.plot.style import BLUE, GREEN, PALE, TEXT, VERMILION, WIDEST, grid
from qwenkit.plot.tokens import label
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets._layer_view import LayerView
from qwenkit.widgets._patterns import LARGEST, Patterns, read_patterns
from qwenkit.widgets._pictures import bars, fewer_labels, mark
from qwenkit.widgets._prompted import PromptInspector
from qwenkit.widgets._reading import LENS, SHOWN, UNITS, guesses, one_text, read_layers

MOST_NAMES = 12  # of tokens along a map in the still picture
CHEAP = 100e9  # multiplications; if the lens of all tokens takes fewer, it is computed at once


class LayerInspector(PromptInspector):
    """One layer, one head, one token: linked panels, from the attention to the output.

    Click a token or use arrow keys; the panels follow at once. Only two things need the kernel:
    ablating a head, and, on a large model with a long text, the logit lens of a token. Another text
    can be entered in the page; the other text stays.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text, of at most 512 tokens.
        other_prompt: a second text, whose attention is shown next to it.

    Raises:
        InputError: an empty prompt, or one that is too long.
    """

    script = "layer"
    kept = ("layer", "head", "other_token", "off")
    view: LayerView
    lens = traitlets.Dict().tag(sync=True)  # the answer for a token whose lens was not sent yet
    without = traitlets.Dict().tag(sync=True)  # the answer for the head that is off

    def __init__(
        self,
        model: QwenForCausalLM,
        tokenizer: Tokenizer,
        prompt: str,
        other_prompt: str | None = None,
    ) -> None:
        self.other = None
        if other_prompt is not None:
            self.other = read_patterns(model, tokenizer, other_prompt, LARGEST)
        super().__init__(model, tokenizer, prompt)

    def read(self, prompt: str) -> LayerView:
        """Run the model on a prompt; its last token is chosen."""
        model, tokenizer, other = self.model, self.tokenizer, self.other
        patterns = read_patterns(model, tokenizer, prompt, LARGEST)
        input_ids = one_text(model, tokenizer, prompt)
        reading = read_layers(model, input_ids)
        view = LayerView(model, tokenizer, input_ids, patterns, reading, other)
        last = len(patterns.tokens) - 1
        streams = reading.streams
        if streams.numel() * model.config.vocab_size < CHEAP:
            view.lenses |= {
                token: guesses(model, tokenizer, streams[:, token]) for token in range(last + 1)
            }
        view.choose(token=last, other_token=len(other.tokens) - 1 if other else 0)
        view.lens()
        return view

    def answer(self) -> None:
        """Send what the page cannot compute, with the token or head that it belongs to."""
        view = self.view
        sent = str(view.token) in self.data["lens"]
        self.lens = {} if sent else {"token": view.token, "rows": view.lens()}
        compared = view.compared()
        self.without = {} if compared is None else asdict(compared)

    def exported(self) -> dict[str, Any]:
        """Return all that was computed so far."""
        lenses = {str(token): rows for token, rows in self.view.lenses.items()}
        return {**super().exported(), "data": self.data | {"lens": lenses}, "without": self.without}

    def settings(self) -> dict[str, Any]:
        """Return how many tokens there are, and how many of what is computed are shown."""
        return {
            "tokens": self.model.num_tokens, "most": LARGEST, "units": UNITS, "lens": LENS,
            "shown": SHOWN, "cheap": CHEAP,
        }  # fmt: skip

    def snapshot(self) -> Figure:
        """Draw the panels, and what has changed if a head is off."""
        return _draw_layer(self.view)


def _draw_layer(view: LayerView) -> Figure:
    """Draw what the view shows, a panel for each thing."""
    panels: list[Callable[[Axes, LayerView], None]] = [_attention, _pairs, _units, _norms, _lens]
    panels += [_other] if view.other else []
    panels += [_compared] if view.off else []
    figure, axes = grid(len(panels), 2, WIDEST / 2, 3.7)
    for ax, panel in zip(axes, panels, strict=False):
        ax.tick_params(labelsize=TEXT)
        panel(ax, view)
        ax.title.set_fontsize(TEXT)
    token = label(view.patterns.tokens[view.token])
    figure.suptitle(f"{view.title()}\nat token {view.token}, {token}", fontsize=TEXT)
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
    fewer_labels(ax, patterns.tokens, MOST_NAMES)


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
    ax.set_xlabel("dimension; i rotates together with i + D/2", fontsize=TEXT)
    ax.set_title("before RoPE (gray), after it (blue)")


def _units(ax: Axes, view: LayerView) -> None:
    names, values = zip(*view.units(), strict=True)
    colors = [BLUE if value < 0 else VERMILION for value in values]
    bars(ax, [f"unit {name}" for name in names], (values, colors, None))
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
    ax.set_xlabel("layer (−1: the embedding)", fontsize=TEXT)
    ax.legend(fontsize=TEXT)
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
    ax.legend(fontsize=TEXT)
    ax.set_title("next token without head {1} of layer {0}".format(*compared.off))
