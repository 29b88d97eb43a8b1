"""Masks: which earlier tokens may a token attend to?

True means "may attend". Positions are counted along the keys: query t stands at position past + t.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal_mask(
    queries: int, past: int = 0, window: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, "T S"]:
    """Return the mask of `queries` tokens that follow `past` tokens.

    Args:
        queries: T, the number of new tokens.
        past: tokens already in the cache; S = past + T. Forgetting this offset is the classic
            error of cached decoding: the first new token would see only the first old one.
        window: how many tokens (its own included) a token sees; None: all before it.
        device: where the mask is made.
    """
    query = past + torch.arange(queries, device=device)[:, None]  # (T, 1) position of each query
    key = torch.arange(past + queries, device=device)[None, :]  # (1, S) position of each key
    allowed = key <= query  # (T, S) never the future
    if window is not None:
        allowed &= key > query - window
    return allowed


def attention_mask(
    queries: int,
    past: int,
    *,
    real: Bool[Tensor, "B S"] | None = None,
    window: int | None = None,
    device: torch.device | None = None,
) -> Bool[Tensor, "B 1 T S"] | None:
    """Return the mask of one layer: causal, sliding window and padding together.

    Args:
        queries: T, the number of new tokens.
        past: tokens already in the cache.
        real: False for padding; None where there is none.
        window: see `causal_mask`.
        device: where the mask is made.

    Returns:
        None where it would be causal and nothing else: attention then needs no mask tensor.
        A padding token may attend to itself: with no key at all, softmax would divide zero by zero.
    """
    cut = window is not None and past + queries > window
    if real is None and not cut:
        return None
    allowed = causal_mask(queries, past, window, device)[None, None]  # (1, 1, T, S)
    if real is None:
        return allowed
    itself = causal_mask(queries, past, window=1, device=device)  # (T, S) a window of one
    return (allowed & real[:, None, None, :]) | itself  # (B, 1, T, S)


def positions(
    queries: int, past: int, real: Bool[Tensor, "B S"] | None, device: torch.device | None = None
) -> Int[Tensor, "B T"]:
    """Return each new token's position in its own text: padding is not counted.

    So a prompt padded on the left is rotated by RoPE exactly as it would be without padding.
    """
    if real is None:
        return torch.arange(past, past + queries, device=device)[None]  # (1, T)
    return (real.long().cumsum(dim=-1) - 1).clamp(min=0)[:, past:]  # (B, T)
