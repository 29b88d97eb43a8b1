"""What the model would predict: if it stopped after a layer, or with one head ablated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qwenkit.generate.steps import only_tokens
from qwenkit.interpret import ablate_heads
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Trace

LENS, SHOWN = 3, 6  # tokens shown of a layer's guess, and of a comparison
ROWS = 16  # positions whose logits are computed at a time: a large vocabulary takes memory

Guess = list[tuple[str, float]]
"""Tokens as they are shown, with their probabilities, the most likely first."""


def guesses(model: QwenForCausalLM, tokenizer: Tokenizer, streams: Tensor) -> list[Guess]:
    """Return what the model would predict from each residual stream (N, C): the logit lens."""
    found = _probabilities(model, streams).topk(LENS)
    pairs = zip(found.indices, found.values.tolist(), strict=True)
    return [list(zip(tokenizer.token_strings(ids), probs, strict=True)) for ids, probs in pairs]


@dataclass(frozen=True)
class Comparison:
    """The next token's probabilities at each position of a text, with a head and without it.

    Attributes:
        layer: of the head that was ablated.
        head: which.
        moved: at each position the Kullback-Leibler divergence of the probabilities without the
            head from those with it, in nats: 0 where nothing changed.
        rows: at each position those tokens that are most likely with or without the head: name, id,
            probability with it, and without it.
    """

    layer: int
    head: int
    moved: list[float]
    rows: list[list[tuple[str, int, float, float]]]

    def data(self) -> dict[str, Any]:
        """Return what the script draws, and which head it belongs to."""
        return {"off": [self.layer, self.head], "moved": self.moved, "rows": self.rows}


@torch.no_grad()
def without_head(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    input_ids: Tensor,
    streams: Tensor,
    layer: int,
    head: int,
) -> Comparison:
    """Run a text (1, T) once more with a head ablated.

    Args:
        model: the model.
        tokenizer: the model's.
        input_ids: the text.
        streams: (T, C) the last layer's output, with all heads on.
        layer: of the head.
        head: which.
    """
    last = f"layers.{model.config.num_hidden_layers - 1}.resid_post"
    trace = Trace(keep=(last,), edits=ablate_heads([(layer, head)]))
    model(input_ids, trace=trace, logits_to_keep=1)
    moved: list[float] = []
    rows = []
    for start in range(0, len(streams), ROWS):
        few = slice(start, start + ROWS)
        before = _probabilities(model, streams[few])
        after = _probabilities(model, trace[last][0, few])
        terms = before * (before.log() - after.clamp(min=1e-37).log())
        moved += terms.nan_to_num(0.0).sum(-1).clamp(min=0).tolist()  # where before is 0: no term
        tokens = torch.maximum(before, after).topk(SHOWN).indices  # (rows, SHOWN)
        for i, ids in enumerate(tokens):
            columns = (ids.tolist(), before[i, ids].tolist(), after[i, ids].tolist())
            rows.append(list(zip(tokenizer.token_strings(ids), *columns, strict=True)))
    return Comparison(layer, head, moved, rows)


@torch.no_grad()
def _probabilities(model: QwenForCausalLM, streams: Tensor) -> Tensor:
    """Return the next token's probabilities (N, V) for residual streams (N, C), on the CPU."""
    logits = model.head(model.model.norm(streams)[None])[0].float().cpu()
    return only_tokens(logits, model.num_tokens).softmax(dim=-1)
