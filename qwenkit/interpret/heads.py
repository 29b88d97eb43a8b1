"""What single heads do: scores that find those that look back in a known way."""

from __future__ import annotations

from collections.abc import Iterator

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
    _two_tokens(input_ids)
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


@torch.no_grad()
def duplicate_token_scores(
    model: QwenForCausalLM, *, length: int = 50, batch_size: int = 8, seed: int = 0
) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the present token's own earlier occurrence.

    On the text of `induction_scores`; such heads mark that a token came before (Wang et al. 2022,
    "Interpretability in the Wild", section 3.2).

    Args:
        model: any Qwen2 model.
        length: of the random text before it is repeated.
        batch_size: how many such texts the mean is taken over.
        seed: of the random tokens.
    """
    input_ids = repeated_tokens(model, length=length, batch_size=batch_size, seed=seed)
    queries = torch.arange(length, 2 * length)
    return _mean_attention(model, input_ids, queries, queries - length)


@torch.no_grad()
def sink_shares(model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "L H"]:
    """Return how much each head attends to the first token, on average over all later ones.

    A head that finds nothing to read rests there: softmax must put its weight somewhere (Xiao et
    al. 2023, "Efficient Streaming Language Models with Attention Sinks").

    Raises:
        InputError: fewer than two tokens.
    """
    _two_tokens(input_ids)
    queries = torch.arange(1, input_ids.shape[-1])
    return _mean_attention(model, input_ids, queries, torch.zeros_like(queries))


@torch.no_grad()
def attention_entropy(
    model: QwenForCausalLM, input_ids: Int[Tensor, "B T"]
) -> Float[Tensor, "L H"]:
    """Return how widely each head spreads its attention, in nats, averaged over the tokens.

    0: all on one token. ln(n): evenly on n tokens.
    """
    return torch.stack([_entropy(pattern) for pattern in _patterns(model, input_ids)])


def _entropy(pattern: Float[Tensor, "B H T S"]) -> Float[Tensor, " H"]:
    share = pattern.float()
    return -torch.xlogy(share, share).sum(dim=-1).mean(dim=(0, 2)).cpu()  # 0 log 0 is 0


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
    patterns = _patterns(model, input_ids)
    return torch.stack([p[:, :, queries, keys].mean(dim=(0, 2)).float().cpu() for p in patterns])


def _patterns(model: QwenForCausalLM, input_ids: Tensor) -> Iterator[Float[Tensor, "B H T S"]]:
    """Yield each layer's attention."""
    trace = Trace(keep=("attn.pattern",))
    model(input_ids, trace=trace, logits_to_keep=1)
    for layer in range(model.config.num_hidden_layers):
        yield trace[f"layers.{layer}.attn.pattern"]


def _two_tokens(input_ids: Tensor) -> None:
    if input_ids.shape[-1] < 2:
        raise InputError(f"input_ids are {tuple(input_ids.shape)}; two tokens at least are needed")
