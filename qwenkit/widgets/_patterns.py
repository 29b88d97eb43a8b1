"""The attention of every head on one text, a byte per weight, and each head's scores on it."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.heads import (
    CURRENT,
    FIRST,
    INDUCTION,
    PREVIOUS,
    attended,
    head_scores,
    induction_targets,
)
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace
from qwenkit.widgets._base import View
from qwenkit.widgets._reading import check_finite, one_text

LARGEST = 512  # positions a side; a longer text is pooled
MOST = 500_000_000  # attention weights that are computed: half a minute on a small machine
STEPS = 255  # weights are rounded to the nearest 255th: at most 1 / 510 is lost
FAR = "far"  # attention to neither the first, the previous nor the current token
LEVEL = 6  # zlib's own middle way between speed and size


@dataclass(frozen=True)
class Patterns:
    """The attention of a forward pass, of L layers and H heads over n positions."""

    tokens: list[str]  # the text's tokens as they are shown
    weights: np.ndarray  # (L, H, n (n + 1) / 2) uint8, as `triangle` makes it
    # Head type -> (L, H), how much of its attention a head gives as that type does, averaged over
    # the tokens that can; a type that the text cannot show is absent.
    scores: dict[str, np.ndarray]
    even: float = 0.0  # the induction score of an evenly spread attention
    factor: int = 1  # how many tokens each position stands for: their largest weight
    # Head type, or FAR -> (L, H), the token whose query gives most of its attention that way.
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    # (L, H) how much of its attention goes far, to one token of each query
    far: np.ndarray | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the n positions: the tokens, or `factor` of them joined."""
        starts = range(0, len(self.tokens), self.factor)
        return ["".join(self.tokens[i : i + self.factor]) for i in starts]

    def number(self, position: int) -> str:
        """Return the number of a position's token, or of its first and last one."""
        first = position * self.factor
        last = min(first + self.factor, len(self.tokens)) - 1
        return f"{first}" if first == last else f"{first}–{last}"

    def matrix(self, layer: int, head: int) -> np.ndarray:
        """Return a head's attention, (n, n)."""
        return square(self.weights[layer, head])

    def strongest(self, head_type: str) -> tuple[int, int]:
        """Return layer and head with the highest score of a type."""
        scores = self.scores[head_type]
        layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
        return int(layer), int(head)

    def example(self, kind: str, layer: int, head: int) -> int:
        """Return the position where a head shows best that it is of a type, or attends FAR."""
        if kind not in self.examples:
            return len(self.labels) - 1
        return int(self.examples[kind][layer, head]) // self.factor

    def start(self) -> tuple[int, int, int]:
        """Return the layer, head and position to show first: where attention goes far."""
        if self.far is None:
            return 0, 0, len(self.labels) - 1
        layer, head = map(int, np.unravel_index(int(self.far.argmax()), self.far.shape))
        return layer, head, self.example(FAR, layer, head)

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


def most_tokens(heads: int) -> int:
    """Return how long a text may be for a model with so many heads in all layers."""
    return math.isqrt(MOST // heads)


@stage("Running the model")
@torch.no_grad()
def read_patterns(
    model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str, most: int | None = None
) -> Patterns:
    """Run a model over a text and keep every head's attention.

    Each layer's attention is reduced as it is computed, so that only one layer's is ever held.
    `most` tokens are allowed; None: as many as are computed in half a minute.

    Raises:
        InputError: an empty prompt, one of more than `most` tokens, or attention that is NaN.
    """
    config = model.config if isinstance(model, QwenForCausalLM) else None
    heads = config.num_hidden_layers * config.num_attention_heads if config else 1
    input_ids = one_text(model, tokenizer, prompt, most or most_tokens(heads))
    tokens = tokenizer.token_strings(input_ids)
    factor = -(-len(tokens) // LARGEST)
    targets = torch.from_numpy(induction_targets(input_ids[0].cpu())).float()  # (T, T)
    copies = targets.any(-1)  # (T) the queries whose token came before
    targets = targets[copies]
    words = [re.sub(r"\\x[0-9a-f]{2}", "", token) for token in tokens]  # bytes are no letters
    wordless = [not any(letter.isalnum() for letter in word) for word in words]
    weights: list[np.ndarray] = []
    scores: list[dict[str, Tensor]] = []
    examples: list[dict[str, np.ndarray]] = []
    far: list[np.ndarray] = []

    def read(pattern: Tensor) -> Tensor:
        whole = pattern[0].float().cpu()  # (H, T, T)
        check_finite(f"the attention of layer {len(weights)}", whole)
        small = max_pool2d(whole, factor, ceil_mode=True) if factor > 1 else whole
        weights.append(triangle(small.numpy()))
        scores.append(head_scores(whole) if len(tokens) > 1 else {})
        if len(targets):
            scores[-1][INDUCTION] = (whole[:, copies] * targets).sum(-1).mean(-1)
        rows = _rows(whole, copies, targets)
        examples.append({name: _example(one, wordless) for name, one in rows.items()})
        far.extend(one.mean(-1, keepdims=True).T for name, one in rows.items() if name == FAR)
        return pattern

    layers = range(model.config.num_hidden_layers)
    edits: dict[str, Edit] = {f"layers.{i}.attn.pattern": read for i in layers}
    model(input_ids, trace=Trace(keep=(), edits=edits), logits_to_keep=1)
    stacked = {name: torch.stack([one[name] for one in scores]).numpy() for name in scores[0]}
    evenly = targets.sum(-1) / (torch.arange(len(tokens))[copies] + 1)
    even = float(evenly.mean()) if len(targets) else 0.0
    shown = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
    attends_far = np.concatenate(far) if far else None
    return Patterns(tokens, np.stack(weights), stacked, even, factor, shown, attends_far)


def _rows(pattern: Tensor, copies: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    """Return how much each query of a pattern (H, T, T) attends as a type does, or FAR: (H, T).

    In steps of a 255th, so that the engine in JavaScript finds the same largest ones; -1 where a
    query cannot.
    """
    heads, length = pattern.shape[:2]
    rows = {}
    if length > 1:
        for name in (PREVIOUS, FIRST, CURRENT):
            rows[name] = torch.full((heads, length), -1.0)
            rows[name][:, 1:] = attended(pattern, name)
    if length > 2:
        rows[PREVIOUS][:, 1] = -1  # there the previous token is the first one
    if len(targets):
        rows[INDUCTION] = torch.full((heads, length), -1.0)
        rows[INDUCTION][:, copies] = (pattern[:, copies] * targets).sum(-1)
    if length > 3:  # from the fourth token on there is one far away
        rows[FAR] = torch.full((heads, length), -1.0)
        rows[FAR][:, 3:] = pattern.tril(-2)[:, 3:, 1:].amax(-1)
    numbers = {name: one.double().numpy() for name, one in rows.items()}
    return {name: np.where(one < 0, -1, np.rint(one * STEPS)) for name, one in numbers.items()}


def _example(rows: np.ndarray, wordless: list[bool]) -> np.ndarray:
    """Return (H,) the last query with the most of (H, T), one with letters or digits if it can."""
    readable = np.where(wordless, -1, rows)
    best = np.where(readable.max(-1, keepdims=True) > 0, readable, rows)
    return np.asarray(rows.shape[-1] - 1 - best[:, ::-1].argmax(-1))


def triangle(patterns: Any) -> np.ndarray:
    """Round attention to bytes, and leave out the half above the diagonal, which is masked.

    Args:
        patterns: (..., T, T) causal attention weights, from 0 to 1.

    Returns:
        (..., T (T + 1) / 2) uint8: row by row, row t holding its first t + 1 columns.

    Raises:
        InputError: another shape, values outside 0 to 1, or attention to a later position.

    >>> triangle([[1, 0], [0.2, 0.8]]).tolist()
    [255, 51, 204]
    """
    patterns = np.asarray(patterns)
    if patterns.ndim < 2 or patterns.shape[-1] != patterns.shape[-2] or 0 in patterns.shape:
        raise InputError(f"patterns has shape {patterns.shape}; it must be (..., T, T)")
    low, high = float(patterns.min()), float(patterns.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise InputError(f"patterns go from {low} to {high}; weights must be between 0 and 1")
    rows, columns = np.tril_indices(patterns.shape[-1])
    if np.triu(patterns, 1).any():
        raise InputError("a query attends to a later key; patterns must be causal")
    # in float64 the product is exact, so the nearest step is taken
    scaled = patterns[..., rows, columns].astype(np.float64) * STEPS
    return np.asarray(np.rint(scaled), np.uint8)


def square(weights: np.ndarray) -> np.ndarray:
    """Undo `triangle`: (..., T (T + 1) / 2) bytes become (..., T, T) float32."""
    size = round((np.sqrt(8 * weights.shape[-1] + 1) - 1) / 2)
    rows, columns = np.tril_indices(size)
    full = np.zeros((*weights.shape[:-1], size, size), dtype=np.float32)
    full[..., rows, columns] = weights / np.float32(STEPS)
    return full


def pack(values: np.ndarray) -> bytes:
    """Compress an array's bytes; `inflate` in common.js reads them."""
    return zlib.compress(np.ascontiguousarray(values).tobytes(), LEVEL)
