"""The attention of every head on one text, a byte a share, and how each head behaves on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace
from qwenkit.widgets.pack import square, triangle
from qwenkit.widgets.reading import one_text

LARGEST = 512  # places a side; a longer text is pooled
HABITS = PREVIOUS, FIRST, ITSELF, INDUCTION = (
    "previous token", "first token", "itself", "induction",
)  # fmt: skip
Measure = Callable[[Tensor], Tensor]
"""Of one layer's attention (H, T, T): how much of it each head gives to a habit, (H,)."""


@dataclass(frozen=True)
class Patterns:
    """What is kept of a forward pass.

    Attributes:
        tokens: the text's tokens as they are shown.
        shares: (L, H, n (n + 1) / 2) uint8, each head's attention as `triangle` makes it.
        habits: name -> (L, H), how much a head attends in a known way, averaged over the tokens
            that can; a habit that the text gives no occasion for is absent.
        even: what an evenly spread attention would give to induction.
        factor: how many tokens a side one place of `shares` stands for: their largest share.
    """

    tokens: list[str]
    shares: np.ndarray
    habits: dict[str, np.ndarray]
    even: float = 0.0
    factor: int = 1

    @property
    def places(self) -> list[str]:
        """Names of the n rows: the tokens, or what `factor` of them say together."""
        starts = range(0, len(self.tokens), self.factor)
        return ["".join(self.tokens[i : i + self.factor]) for i in starts]

    def number(self, place: int) -> str:
        """Return a place's token number, or its first and last one."""
        first, last = place * self.factor, min((place + 1) * self.factor, len(self.tokens)) - 1
        return f"{first}" if self.factor == 1 else f"{first}–{last}"

    def matrix(self, layer: int, head: int) -> np.ndarray:
        """Return a head's attention, (n, n)."""
        return square(self.shares[layer, head])

    def strongest(self, habit: str) -> tuple[int, int]:
        """Return layer and head that show a habit most."""
        layer, head = np.unravel_index(int(self.habits[habit].argmax()), self.shares.shape[:2])
        return int(layer), int(head)

    def behaviour(self, layer: int, head: int) -> str:
        """Say how much a head shows each habit."""
        parts = [f"{name} {values[layer, head]:.0%}" for name, values in self.habits.items()]
        if INDUCTION in self.habits:
            parts[-1] += f" (evenly spread: {self.even:.0%})"
        return ", ".join(parts) or "the only token reads itself"

    def pooling(self) -> str:
        """Say that places stand for several tokens; empty where they do not."""
        f = self.factor
        words = f"{len(self.tokens):,} tokens: each pixel is the largest of {f} × {f} shares"
        return "" if f == 1 else words


@torch.no_grad()
def read_patterns(model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> Patterns:
    """Run a model over a text and keep every head's attention.

    Each layer's attention is reduced as it flows by, so that only one layer's is ever held.

    Raises:
        InputError: an empty prompt.
    """
    input_ids = one_text(model, tokenizer, prompt)
    tokens = tokenizer.token_strings(input_ids)
    factor = -(-len(tokens) // LARGEST)
    measures, even = _measures(input_ids[0].cpu())
    shares: list[np.ndarray] = []
    habits: list[dict[str, np.ndarray]] = []

    def read(pattern: Tensor) -> Tensor:
        whole = pattern[0].float().cpu()  # (H, T, T)
        small = max_pool2d(whole, factor, ceil_mode=True) if factor > 1 else whole
        shares.append(triangle(small.numpy()))
        habits.append({name: measure(whole).numpy() for name, measure in measures.items()})
        return pattern

    layers = range(model.config.num_hidden_layers)
    edits: dict[str, Edit] = {f"layers.{i}.attn.pattern": read for i in layers}
    model(input_ids, trace=Trace(keep=(), edits=edits), logits_to_keep=1)
    stacked = {name: np.stack([layer[name] for layer in habits]) for name in measures}
    return Patterns(tokens, np.stack(shares), stacked, even, factor)


def _measures(ids: Tensor) -> tuple[dict[str, Measure], float]:
    """Return how each habit is measured on a text (T,), and an even spread's induction.

    Induction is reading the tokens that followed earlier copies of the reading token, averaged
    over the tokens that have such copies.
    """
    length = len(ids)
    if length < 2:
        return {}, 0.0
    later = torch.arange(1, length)
    measures: dict[str, Measure] = {
        PREVIOUS: lambda p: p[:, later, later - 1].mean(-1),
        FIRST: lambda p: p[:, later, 0].mean(-1),
        ITSELF: lambda p: p[:, later, later].mean(-1),
    }
    follows = torch.zeros(length, length)
    follows[:, 1:] = (ids[:, None] == ids[None, :-1]).float()
    follows = follows.tril(-1)  # what follows a copy just before is the reader itself
    readers = follows.any(-1)
    if not readers.any():
        return measures, 0.0
    follows = follows[readers]  # (readers, T)
    measures[INDUCTION] = lambda p: (p[:, readers] * follows).sum(-1).mean(-1)
    evenly = follows.sum(-1) / (torch.arange(length)[readers] + 1)
    return measures, float(evenly.mean())
