"""What the model would say next: if it stopped after a layer, or went without one head."""

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
ROWS = 16  # positions that are scored at a time: the scores of a large vocabulary are large

Guess = list[tuple[str, float]]
"""Tokens as they are shown, with their probabilities, the likeliest first."""


def guesses(model: QwenForCausalLM, tokenizer: Tokenizer, streams: Tensor) -> list[Guess]:
    """Return what each residual stream (N, C) would make the model say: the logit lens."""
    found = _probabilities(model, streams).topk(LENS)
    pairs = zip(found.indices, found.values.tolist(), strict=True)
    return [
        list(zip(tokenizer.token_strings(tokens), shares, strict=True)) for tokens, shares in pairs
    ]


@dataclass(frozen=True)
class Comparison:
    """The next token's probabilities at each place of a text, with a head and without it.

    Attributes:
        layer: of the head that was switched off.
        head: which.
        moved: at each place the Kullback-Leibler divergence of the probabilities without the head
            from those with it, in nats: 0 where nothing changed.
        rows: at each place those tokens that are likeliest with or without the head: name, id,
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
    """Run a text (1, T) once more with a head switched off.

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
        few_places = slice(start, start + ROWS)
        before = _probabilities(model, streams[few_places])
        after = _probabilities(model, trace[last][0, few_places])
        terms = before * (before.log() - after.clamp(min=1e-37).log())
        moved += terms.nan_to_num(0.0).sum(-1).clamp(min=0).tolist()  # where before is 0: no term
        tokens = torch.maximum(before, after).topk(SHOWN).indices  # (rows, SHOWN)
        for i, few in enumerate(tokens):
            names, shares = tokenizer.token_strings(few), (before[i, few], after[i, few])
            values = (few.tolist(), *(share.tolist() for share in shares))
            rows.append(list(zip(names, *values, strict=True)))
    return Comparison(layer, head, moved, rows)


@torch.no_grad()
def _probabilities(model: QwenForCausalLM, streams: Tensor) -> Tensor:
    """Return the next token's probabilities (N, V) for residual streams (N, C), on the CPU."""
    logits = model.head(model.model.norm(streams)[None])[0].float().cpu()
    return only_tokens(logits, model.num_tokens).softmax(dim=-1)
