"""Drafters: what guesses the next tokens of a text, so that a model only has to verify them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError, shown
from qwenkit.generate._prompts import cache_for
from qwenkit.generate.config import GenerationConfig, check_count
from qwenkit.generate.steps import next_logits, only_tokens
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage


class Proposal(NamedTuple):
    """Tokens that may come next.

    Attributes:
        tokens: N ids, perhaps none.
        probs: (N, V) on the CPU, the distribution that each was sampled from; V may leave out the
            last ids of the vocabulary, which then have probability 0. None: nothing was sampled,
            and each token had probability 1.
    """

    tokens: list[int]
    probs: Float[Tensor, "N V"] | None = None


@runtime_checkable
class Drafter(Protocol):
    """Anything that proposes tokens; `speculate` takes a reader's own, too."""

    def propose(self, ids: Int[Tensor, " N"], count: int) -> Proposal:
        """Return at most `count` tokens that may follow a text.

        Args:
            ids: the whole text so far, on the CPU; from one call to the next it may have grown by
                any number of tokens, with or without those that were proposed.
            count: at least 1.
        """
        ...


@dataclass(frozen=True)
class PromptLookup:
    """Proposes what followed the last few tokens where the text had them before.

    It costs nothing, and is right where a text repeats itself: code that is edited, a document
    that is quoted. The longest of these n-grams that occurs earlier counts, and of several
    occurrences the latest. Source: Saxena 2023, "Prompt Lookup Decoding".

    Attributes:
        longest: tokens that are looked for first.
        shortest: tokens below which nothing is proposed.

    Raises:
        InputError: a length below 1, or `longest` below `shortest`.

    >>> PromptLookup().propose(torch.tensor([5, 6, 7, 8, 5, 6]), count=3)
    Proposal(tokens=[7, 8, 5], probs=None)
    """

    longest: int = 5
    shortest: int = 2

    def __post_init__(self) -> None:
        check_count("longest", self.longest)
        check_count("shortest", self.shortest)
        if self.longest < self.shortest:
            raise InputError(
                f"longest is {self.longest} and shortest {self.shortest}; longest must be at least "
                "shortest"
            )

    def propose(self, ids: Int[Tensor, " N"], count: int) -> Proposal:
        """See `Drafter`."""
        total = ids.numel()
        for size in range(min(self.longest, total - 1), self.shortest - 1, -1):
            windows = ids.unfold(0, size, 1)  # (N - size + 1, size)
            found = (windows[:-1] == windows[-1]).all(dim=1).nonzero()  # (occurrences, 1)
            if found.numel():
                after = int(found[-1]) + size
                period = total - after  # an occurrence near the end is taken to repeat
                return Proposal([int(ids[after + i % period]) for i in range(count)])
        return Proposal([])


class DraftModel:
    """Proposes what a smaller model continues the text with; it has a KV cache of its own.

    It may be used for several texts, one after another: what its cache holds of the new text's
    beginning is kept. Its dtype and device may differ from those of the model that verifies.

    Attributes:
        model: the smaller model.

    Args:
        model: a language model with the vocabulary of the one that verifies.
        config: how it chooses: greedily, or by sampling, best with the options of the model that
            verifies. Its random numbers are those of `row_seed(seed, 1)`: exactness asks that they
            do not depend on those that decide what is accepted.
        max_length: tokens there is room for; a text is given no proposals beyond, nor beyond the
            length that the model was made for.

    Raises:
        InputError: an argument of a wrong kind, or a length below 1.
        MemoryForecastError: a cache of that length would not fit in memory.
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        config: GenerationConfig | None = None,
        max_length: int = 512,
    ) -> None:
        config = GenerationConfig() if config is None else config
        if not isinstance(config, GenerationConfig):
            raise InputError(f"config is {shown(config, 60)}; it must be a GenerationConfig")
        self.model = model
        self._config = config
        self._cache = cache_for(model, 1, max_length)
        self._limit = min(max_length, model.config.max_position_embeddings)
        self._generator = config.generator(row=1)
        self._text = torch.empty(0, dtype=torch.int64)  # begins with the tokens in the cache

    def propose(self, ids: Int[Tensor, " N"], count: int) -> Proposal:
        """See `Drafter`.

        Raises:
            InputError: an id that the model does not have, or logits that are not finite.
        """
        self._cache.trim(min(self._shared(ids), ids.numel() - 1))  # one at least must be fed
        self._text = ids.clone()
        count = min(count, self._limit + 1 - ids.numel())  # the last one is not fed
        stops = self._config.stops(self.model)
        tokens: list[int] = []
        rows: list[Tensor] = []
        while len(tokens) < count and not stops.intersection(tokens):
            probs = self._next(len(tokens))  # (V)
            tokens.append(self._config.choose(probs, self._generator))
            rows.append(probs)
            self._text = torch.cat([self._text, torch.tensor(tokens[-1:])])  # (N + 1)
        sampled = tokens and self._config.temperature != 0
        return Proposal(tokens, torch.stack(rows) if sampled else None)  # (count, V)

    def _next(self, index: int) -> Float[Tensor, " V"]:
        """Feed what the cache does not have of the text; return the next token's probabilities."""
        new = self._text[None, self._cache.length :].to(self.model.device)  # (1, T)
        with nullcontext() if self._cache.length else stage("Reading the prompt"):
            try:
                logits = next_logits(self.model, new, self._cache, index)[0]  # (V)
            except InputError as error:
                raise InputError(f"draft: {error}") from None
        count = self.model.num_tokens
        return self._config.probabilities(only_tokens(logits, count), self._text)[:count]

    def _shared(self, ids: Int[Tensor, " N"]) -> int:
        """Return how many tokens at the beginning of the cache are those of `ids`."""
        size = min(self._cache.length, ids.numel())
        return int((self._text[:size] == ids[:size]).long().cumprod(dim=0).sum())


def check_proposal(proposal: object, count: int, vocab_size: int) -> None:
    """Refuse what a drafter must not propose: it would make the text another one, or fail late."""
    if not isinstance(proposal, Proposal):
        raise InputError(f"draft proposed a {type(proposal).__name__}; it must be a Proposal")
    tokens, probs = proposal
    inside = isinstance(tokens, list) and all(type(one) is int for one in tokens)
    if not inside or len(tokens) > count or not all(0 <= one < vocab_size for one in tokens):
        raise InputError(
            f"draft proposed {shown(tokens, 60)}; it must be a list of at most {count} ids from 0 "
            f"to {vocab_size - 1}"
        )
    if probs is None:
        return
    fit = isinstance(probs, Tensor) and probs.dim() == 2 and len(probs) == len(tokens)
    if not fit or probs.shape[1] > vocab_size or probs.shape[1] <= max(tokens, default=0):
        got = tuple(probs.shape) if isinstance(probs, Tensor) else type(probs).__name__
        raise InputError(
            f"draft gave probs of shape {got}; it must be a tensor ({len(tokens)}, V), a "
            "distribution for each token"
        )
    chances = probs[torch.arange(len(tokens)), tokens]  # (N)
    sums = probs.sum(dim=1)  # (N)
    if not bool(((chances > 0) & (probs >= 0).all(dim=1) & ((sums - 1).abs() < 1e-3)).all()):
        raise InputError(
            "draft gave probs that are not those its tokens were sampled from; each row must sum "
            "to 1, without negative values, and its token's probability must be above 0"
        )
