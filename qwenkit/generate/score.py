"""How likely a given text is: what the model predicts for each token before it reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate._prompts import as_ids
from qwenkit.model import QwenForCausalLM, check_input_ids
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer


class TokenScore(NamedTuple):
    """One token of a text.

    Attributes:
        token: its text, as `Tokenizer.token_strings` shows it.
        token_id: its id.
        log_probability: of it after those before it, in nats; None for the first.
    """

    token: str
    token_id: int
    log_probability: float | None


@stage("Scoring the text")
@torch.no_grad()
def log_probabilities(
    model: QwenForCausalLM, input_ids: Tensor | Sequence[int] | Sequence[Sequence[int]]
) -> Float[Tensor, "B T-1"]:
    """Return the log-probability of each given token but the first, after those before it.

    Their sum is the log-probability of the text after its first token; minus their mean is the
    next-token loss of training. One forward pass gives all of them.

    Args:
        model: a language model; gradients are not computed.
        input_ids: (B, T) or (T,) ids, T at least 2, without padding.

    Returns:
        (B, T-1) float32 on the CPU, in nats.

    Raises:
        InputError: not ids, or fewer than two.
    """
    ids = as_ids(input_ids)
    if ids.dim() != 2 or ids.shape[0] == 0 or ids.shape[1] < 2:
        raise InputError(
            f"input_ids has shape {tuple(ids.shape)}; it must be (B, T) or (T,) with at least two "
            "tokens: the first has none before it"
        )
    check_input_ids(ids, model.config, ids.device, past=0)
    ids = ids.to(model.device).long()
    logits = model(ids[:, :-1]).float()  # (B, T-1, V) the last token predicts nothing here
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T-1)
    return -losses.cpu()


def score_text(model: QwenForCausalLM, tokenizer: Tokenizer, text: str) -> list[TokenScore]:
    """Return each token of a text with its log-probability.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        text: of at least two tokens. To score the first one too, put `<|endoftext|>` before it.

    Raises:
        InputError: fewer than two tokens.
    """
    ids = tokenizer(text)
    values = [None, *log_probabilities(model, ids)[0].tolist()]
    return list(map(TokenScore, tokenizer.token_strings(ids), ids[0].tolist(), values))
