"""The attention of every head on one text, a byte per weight, and each head's scores on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from qwenkit.model import QwenForCausalLM
from qwenkit.plot.heads import INDUCTION, head_scores, induction_targets
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace
from qwenkit.widgets._base import View
from qwenkit.widgets._pack import pack, square, triangle
from qwenkit.widgets._reading import one_text

LARGEST = 512  # positions a side; a longer text is pooled


@dataclass(frozen=True)
class Patterns:
    """What is kept of a forward pass.

    Attributes:
        tokens: the text's tokens as they are shown.
        weights: (L, H, n (n + 1) / 2) uint8, each head's attention as `triangle` makes it.
        scores: head type -> (L, H), how much of its attention a head gives as that type does,
            averaged over the tokens that can; a type that the text cannot show is absent.
        even: the induction score of an evenly spread attention.
        factor: how many tokens each of the n positions stands for: their largest weight.
    """

    tokens: list[str]
    weights: np.ndarray
    scores: dict[str, np.ndarray]
    even: float = 0.0
    factor: int = 1

    @property
    def labels(self) -> list[str]:
        """Names of the n positions: the tokens, or `factor` of them joined."""
        starts = range(0, len(self.tokens), self.factor)
        return ["".join(self.tokens[i : i + self.factor]) for i in starts]

    def number(self, position: int) -> str:
        """Return the number of a position's token, or of its first and last one."""
        first = position * self.factor
        last = min(first + self.factor, len(self.tokens)) - 1
        return f"{first}" if self.factor == 1 else f"{first}–{last}"

    def matrix(self, layer: int, head: int) -> np.ndarray:
        """Return a head's attention, (n, n)."""
        return square(self.weights[layer, head])

    def strongest(self, head_type: str) -> tuple[int, int]:
        """Return layer and head with the highest score of a type."""
        scores = self.scores[head_type]
        layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
        return int(layer), int(head)

    def title(self, layer: int, head: int) -> str:
        """Name a head and its scores."""
        parts = [f"{short(name)} {one[layer, head]:.0%}" for name, one in self.scores.items()]
        if INDUCTION in self.scores:
            parts[-1] += f" (evenly spread: {self.even:.0%})"
        scores = ", ".join(parts) or "the only token attends to itself"
        return f"Layer {layer}, head {head}: {scores}"

    def pooling(self) -> str:
        """Say that positions stand for several tokens; empty where they do not."""
        f = self.factor
        words = f"{len(self.tokens):,} tokens: each pixel is the largest of {f} × {f} weights"
        return "" if f == 1 else words

    def data(self) -> dict[str, Any]:
        """Return what the scripts draw of it."""
        layers, heads = self.weights.shape[:2]
        titles = [[self.title(i, j) for j in range(heads)] for i in range(layers)]
        return {
            "layers": layers, "heads": heads, "weights": pack(self.weights), "titles": titles,
        }  # fmt: skip


class HeadView(View):
    """What views of one chosen head share."""

    patterns: Patterns
    layer: int
    head: int

    def matrix(self) -> np.ndarray:
        """Return the chosen head's attention, (n, n): a row per query position."""
        return self.patterns.matrix(self.layer, self.head)

    def title(self) -> str:
        """Name the chosen head and its scores."""
        return self.patterns.title(self.layer, self.head)


def short(head_type: str) -> str:
    """Return what a head of a type attends to: "previous token", "induction"."""
    return head_type.removesuffix(" head").replace("-", " ")


@torch.no_grad()
def read_patterns(model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> Patterns:
    """Run a model over a text and keep every head's attention.

    Each layer's attention is reduced as it is computed, so that only one layer's is ever held.

    Raises:
        InputError: an empty prompt.
    """
    input_ids = one_text(model, tokenizer, prompt)
    tokens = tokenizer.token_strings(input_ids)
    factor = -(-len(tokens) // LARGEST)
    targets = torch.from_numpy(induction_targets(input_ids[0].cpu())).float()  # (T, T)
    copies = targets.any(-1)  # (T) the queries whose token came before
    targets = targets[copies]
    weights: list[np.ndarray] = []
    scores: list[dict[str, Tensor]] = []

    def read(pattern: Tensor) -> Tensor:
        whole = pattern[0].float().cpu()  # (H, T, T)
        small = max_pool2d(whole, factor, ceil_mode=True) if factor > 1 else whole
        weights.append(triangle(small.numpy()))
        scores.append(head_scores(whole) if len(tokens) > 1 else {})
        if len(targets):
            scores[-1][INDUCTION] = (whole[:, copies] * targets).sum(-1).mean(-1)
        return pattern

    layers = range(model.config.num_hidden_layers)
    edits: dict[str, Edit] = {f"layers.{i}.attn.pattern": read for i in layers}
    model(input_ids, trace=Trace(keep=(), edits=edits), logits_to_keep=1)
    stacked = {name: torch.stack([one[name] for one in scores]).numpy() for name in scores[0]}
    evenly = targets.sum(-1) / (torch.arange(len(tokens))[copies] + 1)
    even = float(evenly.mean()) if len(targets) else 0.0
    return Patterns(tokens, np.stack(weights), stacked, even, factor)
