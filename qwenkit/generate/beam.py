"""Beam search: keep the few most likely beginnings at each step, instead of one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate._prompts import cache_for, one_prompt
from qwenkit.generate.config import GenerationConfig, check_count
from qwenkit.generate.steps import next_logits, only_tokens
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import counted

LARGEST_PENALTY = 40  # 10 million ** 40 is still a float


@dataclass(frozen=True)
class Beam:
    """One candidate for the continuation of a prompt.

    Attributes:
        ids: the new tokens, the stop token included.
        score: the sum of their log-probabilities, as `log_probabilities` gives them.
        normalized_score: score / len(ids) ** length_penalty, which beams are compared by.
        finished: whether it ends with a stop token, rather than with the count.
    """

    ids: tuple[int, ...]
    score: float
    normalized_score: float
    finished: bool


def beam_search(
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    *,
    num_beams: int = 4,
    max_new_tokens: int = 64,
    length_penalty: float = 1.0,
    stop_ids: Collection[int] | None = None,
    cache_dtype: str = "auto",
) -> list[Beam]:
    """Return the most likely continuations that were found, best first.

    The most likely token each time need not give the most likely text. Beam search continues the
    `num_beams` most likely texts with every token and keeps the most likely of all of these. It
    does not sample. Source: Graves 2012, "Sequence Transduction with Recurrent Neural Networks",
    section 2.5; length penalty and end as in transformers (early_stopping=False).

    Args:
        model: a language model.
        input_ids: one prompt: (1, T) or (T,) ids, at least one.
        num_beams: texts kept at each step; 1 is greedy.
        max_new_tokens: at most this many.
        length_penalty: scores are divided by length ** this, because each further token makes a
            text less likely; 0 compares the sums, above 1 favors long texts still more.
        stop_ids: tokens that stop generation; None: the model's own; (): none.
        cache_dtype: as for `generate`.

    Returns:
        At most `num_beams`. It ends when none of the texts still open is, at its present length,
        better than the worst of that many finished ones, or with the count.

    Raises:
        InputError: an argument out of its range.
    """
    ids = one_prompt(model, input_ids)
    check_count("num_beams", num_beams)
    config = GenerationConfig(max_new_tokens=max_new_tokens, stop_ids=stop_ids)
    number = isinstance(length_penalty, int | float) and not isinstance(length_penalty, bool)
    if not number or not -LARGEST_PENALTY <= length_penalty <= LARGEST_PENALTY:
        rule = f"it must be a number from {-LARGEST_PENALTY} to {LARGEST_PENALTY}"
        raise InputError(f"length_penalty is {length_penalty!r}; {rule}")
    stops = config.stops(model)
    longest = ids.shape[1] + max_new_tokens
    cache_for(model, num_beams, longest, cache_dtype)  # refuses what would not fit
    cache = cache_for(model, 1, longest, cache_dtype)
    running = [Beam((), 0.0, 0.0, False)]
    ended: list[Beam] = []
    for length in counted("Searching", range(1, max_new_tokens + 1), max_new_tokens):
        logits = next_logits(model, ids, cache, length - 1)  # (B, V)
        rows: list[int] = []
        parents, running = running, []
        scale = float(length) ** length_penalty
        best = _most_likely(parents, logits, model.num_tokens, (1 + max(1, len(stops))) * num_beams)
        for rank, (row, token, score) in enumerate(best):
            beam = Beam((*parents[row].ids, token), score, score / scale, token in stops)
            if beam.finished or length == max_new_tokens:
                ended += [beam] if rank < num_beams else []  # as good as those that run on
            elif len(running) < num_beams:
                running.append(beam)
                rows.append(row)
        ended = sorted(ended, key=lambda beam: -beam.normalized_score)[:num_beams]
        if not running or _nothing_to_gain(running, ended, num_beams):
            break
        cache.reorder(rows)  # each beam goes on from its parent's keys and values
        ids = torch.tensor([[beam.ids[-1]] for beam in running], device=model.device)  # (B, 1)
    return ended


def _most_likely(
    parents: list[Beam], logits: Float[Tensor, "B V"], num_tokens: int, count: int
) -> list[tuple[int, int, float]]:
    """Return (row, token, score) of the most likely continuations of all rows, best first.

    Of (stop tokens + 1) × beams continuations, at least one per beam does not stop.
    """
    scores = torch.tensor([[beam.score] for beam in parents])  # (B, 1)
    totals = scores + only_tokens(logits.log_softmax(dim=-1), num_tokens)  # (B, V)
    best = totals.flatten().topk(min(count, len(parents) * num_tokens))
    places = [divmod(place, totals.shape[1]) for place in best.indices.tolist()]
    return [(*place, score) for place, score in zip(places, best.values.tolist(), strict=True)]


def _nothing_to_gain(running: list[Beam], ended: list[Beam], num_beams: int) -> bool:
    """Whether enough texts have ended, none of them worse than the best that runs on."""
    return len(ended) == num_beams and (running[0].normalized_score <= ended[-1].normalized_score)
