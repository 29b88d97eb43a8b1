"""Sampling: what each setting leaves of the probabilities of the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.plot.arrays import numbers
from qwenkit.plot.style import BLUE, TEXT, VERMILION, WIDEST
from qwenkit.plot.tokens import drawable, label

COLUMNS = 4  # of stages in a row
Names = Callable[[list[int]], Sequence[str]]


def sampling(stages: Mapping[str, Any], names: Names, *, most: int = 16) -> Figure:
    """Draw the most likely next tokens at each stage: their probabilities, and which are dropped.

    Args:
        stages: name -> (V,) logits, in the order applied, -inf for what is dropped; such as
            `{"logits": step.logits, **step.transforms}` of a step of `qk.generate`.
        names: gives the strings of ids, such as `tokenizer.token_strings`.
        most: how many tokens are drawn, the most likely of the first stage.

    Raises:
        InputError: no stages, stages of other lengths, or one that drops everything.
    """
    probs = _probabilities(stages)
    if most < 1:
        raise InputError(f"most is {most}; it must be at least 1")
    ids = np.argsort(-next(iter(probs.values())), kind="stable")[:most]
    columns = min(len(probs), COLUMNS)
    rows = -(-len(probs) // columns)
    size = min(1.4 + 2.1 * columns, WIDEST), (1.4 + 0.2 * len(ids)) * rows
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    for ax in axes.flat[len(probs) :]:
        ax.remove()
    largest = max(float(p.max()) for p in probs.values())
    for ax, (name, p) in zip(axes.flat, probs.items(), strict=False):
        _bars(ax, p[ids], largest)
        ax.set_title(f"{drawable(name)}\n{_kept(p)}", fontsize=TEXT)
        rest = 1 - float(p[ids].sum())
        others = int((p > 0).sum() - (p[ids] > 0).sum())
        words = f"{others:,} others: {max(rest, 0):.1%}" if others else "no others"
        ax.set_xlabel(f"probability\n{words}")
    labels = [label(one) for one in names(ids.tolist())]
    axes[0, 0].set_yticks(range(len(ids)), labels, family="monospace")
    axes[0, 0].invert_yaxis()
    return figure


def sampling_alt(stages: Mapping[str, Any], names: Names) -> str:
    """Return the alt text of `sampling`."""
    probs = _probabilities(stages)
    words = [label(one) for one in names([int(p.argmax()) for p in probs.values()])]
    parts = [
        f'{name}: {_kept(p)}, the most likely is "{word}" ({p.max():.0%})'
        for (name, p), word in zip(probs.items(), words, strict=True)
    ]
    return f"Probabilities of the next token, stage by stage. {'; '.join(parts)}."


def _bars(ax: Axes, probs: np.ndarray, largest: float) -> None:
    rows = np.arange(len(probs))
    ax.barh(rows, probs, color=BLUE, height=0.75)
    dropped = rows[probs == 0]
    ax.plot(np.full(len(dropped), 0.02 * largest), dropped, "x", color=VERMILION, markersize=5)
    ax.set_xlim(0, 1.05 * largest)
    ax.locator_params(axis="x", nbins=3)
    ax.spines[["top", "right"]].set_visible(False)


def _kept(p: np.ndarray) -> str:
    kept = int((p > 0).sum())
    return f"all {len(p):,} tokens" if kept == len(p) else f"{kept:,} of {len(p):,} tokens"


def _probabilities(stages: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return each stage's softmax."""
    logits = {name: numbers(one, name, "V", finite=False) for name, one in stages.items()}
    lengths = sorted({len(one) for one in logits.values()})
    if len(lengths) != 1:
        raise InputError(
            f"the stages have {lengths or 'no'} logits; there must be at least one stage, and all "
            "must have the same length"
        )
    found = {}
    for name, one in logits.items():
        if not np.isfinite(one.max()):
            raise InputError(f"{name} has {one.max()} as its largest logit; it must be a number")
        powers = np.exp(one.astype(np.float64) - one.max())
        powers[np.isfinite(one)] = np.maximum(powers[np.isfinite(one)], 1e-300)  # kept, if barely
        found[name] = powers / powers.sum()
    return found
