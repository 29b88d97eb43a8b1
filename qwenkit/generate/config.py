"""What generation is asked for: each wrong option is refused before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from qwenkit.errors import InputError
from qwenkit.generate.sampling import Sampling
from qwenkit.model import QwenForCausalLM


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(Sampling):
    """How far a text goes on, how each token is chosen, and what stops it.

    Every function that generates takes these as keyword arguments; those of `Sampling` first.

    Attributes:
        max_new_tokens: at most this many.
        stop_ids: tokens that stop generation; None: the model's own; (): none.
        seed: same seed, same text, on any device with the same logits; None: different each time.

    Raises:
        InputError: a value out of its range.
    """

    max_new_tokens: int = 64
    stop_ids: Collection[int] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_new_tokens", self.max_new_tokens)
        seed, stops = self.seed, self.stop_ids
        if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
            raise InputError(f"seed is {seed!r}; it must be an integer from 0 to 2**63 - 1")
        ids = isinstance(stops, Collection) and all(type(stop) is int for stop in stops)
        if stops is not None and not ids:
            raise InputError(f"stop_ids is {stops!r}; it must be a collection of ids, such as (3,)")

    def stops(self, model: QwenForCausalLM) -> frozenset[int]:
        """Return the tokens that stop generation with this model."""
        return frozenset(model.stop_ids if self.stop_ids is None else self.stop_ids)

    def generator(self, row: int = 0) -> torch.Generator:
        """Return the random generator of one text; `row` is its index in a batch."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(row_seed(self.seed, row))
        return generator


def row_seed(seed: int, row: int) -> int:
    """Return the seed that a batch's row samples with; row 0 has the batch's own.

    The rows lie far apart (by the golden ratio of 2**32), so that no row of seed 0 is a row of
    seed 1, as it would be with seed + row. torch's generator reads the lowest 32 bits of a seed.

    >>> [row_seed(7, row) for row in range(3)]
    [7, 2654435776, 5308871545]
    """
    return (seed + row * 0x9E3779B9) % 2**63


def check_count(name: str, value: object) -> None:
    """Refuse anything but an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
