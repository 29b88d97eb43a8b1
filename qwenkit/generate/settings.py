"""What generation may be given: each wrong argument is refused in words, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate.sampling import Sampling
from qwenkit.model import QwenForCausalLM, check_input_ids


@dataclass(frozen=True)
class Settings:
    """How far a text goes on, how each token is chosen, and what ends it.

    Attributes:
        max_new_tokens: at most this many.
        sampling: how a token is chosen.
        stop_ids: tokens that end the text.
        seed: of the draws; None: fresh each time.
    """

    max_new_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int]
    seed: int | None

    @classmethod
    def of(
        cls,
        model: QwenForCausalLM,
        *,
        max_new_tokens: int = 64,
        stop_ids: Collection[int] | None = None,
        seed: int | None = None,
        **sampling: Any,
    ) -> Settings:
        """Check the arguments that every way of generating takes; `sampling` as for `Sampling`.

        Raises:
            InputError: an argument out of its range.
        """
        chosen = Sampling(**sampling)
        check_count("max_new_tokens", max_new_tokens)
        if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
            raise InputError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1")
        return cls(max_new_tokens, chosen, known_stop_ids(model, stop_ids), seed)

    def generator(self, row: int = 0) -> torch.Generator:
        """Return the source of one text's draws; `row` is its place in a batch."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(row_seed(self.seed, row))
        return generator


def row_seed(seed: int, row: int) -> int:
    """Return the seed that a batch's row draws with; row 0 has the batch's own.

    The rows lie far apart (by the golden ratio of 2**32), so that no row of seed 0 is a row of
    seed 1, as it would be with seed + row. torch's generator reads the lowest 32 bits of a seed.
    """
    return (seed + row * 0x9E3779B9) % 2**63


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if type(value) is not int or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")


def known_stop_ids(model: QwenForCausalLM, stop_ids: Collection[int] | None) -> frozenset[int]:
    """Return the tokens that end a text: those given, or the model's own for None."""
    stops = model.stop_ids if stop_ids is None else stop_ids
    if not isinstance(stops, Collection) or not all(type(stop) is int for stop in stops):
        raise InputError(f"stop_ids is {stop_ids!r}; it must be a collection of ids, such as (3,)")
    return frozenset(stops)


def one_prompt(model: QwenForCausalLM, input_ids: Tensor | Sequence[int]) -> Int[Tensor, "1 T"]:
    """Return one prompt's ids as the (1, T) tensor that the model takes, or refuse them.

    Args:
        model: gives vocabulary and device.
        input_ids: (1, T) or (T,) ids, at least one.
    """
    ids = as_ids(input_ids)
    if ids.dim() != 2 or ids.shape[0] != 1 or ids.shape[1] == 0:
        raise InputError(
            f"input_ids has shape {tuple(ids.shape)} and dtype {ids.dtype}; it must be one prompt "
            "of at least one id, (1, T) or (T,) int64"
        )
    check_input_ids(ids, model.config, ids.device, past=0)
    return ids.to(model.device)


def as_ids(input_ids: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
    """Return ids as a whole-number tensor, a bare list of them as one row."""
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"input_ids is {input_ids!r}; it must be ids, (1, T) or (T,), as tokenizer(text) "
            "gives them"
        ) from None
    if ids.numel() and ids.dtype not in (torch.int64, torch.int32):
        raise InputError(f"input_ids has dtype {ids.dtype}; ids are whole numbers, int64")
    return ids[None] if ids.dim() == 1 else ids
