"""What single heads do: scores that find heads of a known type."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.heads import FIRST, PREVIOUS, attended
from qwenkit.progress import stage
from qwenkit.trace import Trace

LONGEST = 100_000  # tokens, or texts


@torch.no_grad()
def previous_token_scores(
    model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the previous token, on average.

    A head with a score near 1 copies each token's content to the next position, the first half of
    the induction circuit (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").

    Args:
        model: any Qwen2 model.
        input_ids: real text; the first token, which has none before it, is left out.

    Raises:
        InputError: fewer than two tokens.
    """
    _check_two_tokens(input_ids)
    return _mean_attention(model, input_ids, lambda pattern: attended(pattern, PREVIOUS))


@torch.no_grad()
def sink_scores(model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the first token, on average over all later ones.

    A head that finds nothing else puts its attention there, because softmax must put it somewhere
    (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks").

    Raises:
        InputError: fewer than two tokens.
    """
    _check_two_tokens(input_ids)
    return _mean_attention(model, input_ids, lambda pattern: attended(pattern, FIRST))


@torch.no_grad()
def induction_scores(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the token after the current one's earlier occurrence.

    The text is random tokens, then the same again: A B C ... A B C. At the second A, a head that
    attends to the B after the first A can predict what comes next (Olsson et al. 2022, "In-context
    Learning and Induction Heads"). On random tokens only copying can help.

    Args:
        model: any Qwen2 model.
        length: of the random text before it is repeated.
        batch_size: how many such texts the mean is taken over.
        seed: of the random tokens. Special tokens are not among them.
    """
    return _scores_of_repetition(model, length, batch_size, seed, offset=1)


@torch.no_grad()
def duplicate_token_scores(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the current token's own earlier occurrence.

    Text and arguments as for `induction_scores`; such heads mark that a token has come before (Wang
    et al. 2022, "Interpretability in the Wild", section 3.2).
    """
    return _scores_of_repetition(model, length, batch_size, seed, offset=0)


@torch.no_grad()
def attention_entropy(
    model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]
) -> Float[Tensor, "L H"]:
    """Return how widely each head spreads its attention, in nats, averaged over the tokens.

    0: all on one token. ln(n): evenly on n tokens.
    """

    def entropy(pattern: Tensor) -> Tensor:
        weights = pattern.float()
        return -torch.xlogy(weights, weights).sum(dim=-1)  # 0 log 0 is 0

    return _mean_attention(model, input_ids, entropy)


def repeated_tokens(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Int[Tensor, "B T"]:
    """Return random tokens followed by the same tokens again: (batch_size, 2 × length).

    Qwen's special tokens are its last ones, so leaving out the model's end-of-text token and all
    above it leaves them out.

    Raises:
        InputError: a length below 2.
    """
    if not 2 <= length <= LONGEST:
        raise InputError(f"length is {length}; it must be at least 2, and at most {LONGEST:,}")
    if not 1 <= batch_size <= LONGEST or not 0 <= seed < 2**63:
        raise InputError(
            f"batch_size is {batch_size} and seed {seed}; they must be from 1 to {LONGEST:,} and "
            "from 0 to 2**63 - 1"
        )
    ordinary = min((*model.stop_ids, model.num_tokens))
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(ordinary, (batch_size, length), generator=generator)
    return torch.cat([once, once], dim=1).to(model.device)


def _scores_of_repetition(
    model: QwenForCausalLM, length: int, batch_size: int, seed: int, offset: int
) -> Float[Tensor, "L H"]:
    """Return each head's mean attention to `offset` positions after the earlier occurrence."""
    input_ids = repeated_tokens(model, length=length, batch_size=batch_size, seed=seed)
    queries = torch.arange(length, 2 * length)
    keys = queries - length + offset
    return _mean_attention(model, input_ids, lambda pattern: pattern[..., queries, keys])


@stage("Running the model")
def _mean_attention(
    model: QwenForCausalLM, input_ids: Tensor, read: Callable[[Tensor], Tensor]
) -> Float[Tensor, "L H"]:
    """Return the mean of what is read of each layer's pattern: (B, H, T, S) -> (B, H, n)."""
    trace = Trace(keep=("attn.pattern",))
    model(input_ids, trace=trace, logits_to_keep=1)
    patterns = [trace[f"layers.{i}.attn.pattern"] for i in range(model.config.num_hidden_layers)]
    return torch.stack([read(pattern).mean(dim=(0, 2)).float().cpu() for pattern in patterns])


def _check_two_tokens(input_ids: Tensor) -> None:
    if input_ids.shape[-1] < 2:
        raise InputError(f"input_ids has shape {tuple(input_ids.shape)}; give at least two tokens")
