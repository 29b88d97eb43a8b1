"""What single heads do: scores that find those that look back in a known way."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Trace


@torch.no_grad()
def previous_token_scores(
    model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the token just before, on average.

    A head with a score near 1 moves each token's content one place on, the first half of the
    induction circuit (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

    Args:
        model: any Qwen2 model.
        input_ids: real text; the first token, which has none before it, is left out.

    Raises:
        InputError: fewer than two tokens.
    """
    if input_ids.shape[-1] < 2:
        raise InputError(f"input_ids are {tuple(input_ids.shape)}; two tokens at least are needed")
    queries = torch.arange(1, input_ids.shape[-1])
    return _mean_attention(model, input_ids, queries, queries - 1)


@torch.no_grad()
def induction_scores(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the token after the present one's earlier occurrence.

    The text is random tokens, then the same again: A B C ... A B C. At the second A, a head that
    looks at the B after the first A foresees what comes (Olsson et al. 2022, "In-context Learning
    and Induction Heads"). Nothing but copying can help on random tokens.

    Args:
        model: any Qwen2 model.
        length: of the random text before it is repeated.
        batch_size: how many such texts the mean is taken over.
        seed: of the random tokens. Special tokens are not among them.
    """
    input_ids = repeated_tokens(model, length=length, batch_size=batch_size, seed=seed)
    queries = torch.arange(length, 2 * length)
    return _mean_attention(model, input_ids, queries, queries - length + 1)


def repeated_tokens(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Int[Tensor, "B T"]:
    """Return random tokens twice in a row: (batch_size, 2 × length).

    Qwen's special tokens are its last ones, so that leaving out the model's end-of-text token and
    all above it leaves them out.

    Raises:
        InputError: a length below 2.
    """
    if length < 2:
        raise InputError(f"length is {length}; it must be at least 2")
    ordinary = min((*model.stop_ids, model.num_tokens))
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(ordinary, (batch_size, length), generator=generator)
    return torch.cat([once, once], dim=1).to(model.device)


def _mean_attention(
    model: QwenForCausalLM, input_ids: Tensor, queries: Tensor, keys: Tensor
) -> Float[Tensor, "L H"]:
    """Return each head's attention from queries[i] to keys[i], averaged over i and the batch."""
    trace = Trace(keep=("attn.pattern",))
    model(input_ids, trace=trace, logits_to_keep=1)
    layers = range(model.config.num_hidden_layers)
    patterns = (trace[f"layers.{layer}.attn.pattern"] for layer in layers)  # (B, H, T, S) each
    return torch.stack([p[:, :, queries, keys].mean(dim=(0, 2)).float().cpu() for p in patterns])
