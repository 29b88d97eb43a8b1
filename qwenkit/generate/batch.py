"""Several prompts at once: padded on the left, and each row stops by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.fast import ClosedLoop, chosen_ahead
from qwenkit.generate._prompts import cache_for, one_prompt
from qwenkit.generate.config import GenerationConfig
from qwenkit.generate.steps import expect, next_logits, next_token
from qwenkit.generate.text import TextWriter, default_stops
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import counted
from qwenkit.tokenizer import Tokenizer


@dataclass
class _Row:
    """One text of a batch.

    Attributes:
        prompt: its ids.
        generator: of its own random numbers.
        new: the tokens added so far.
        done: whether it takes no more.
    """

    prompt: list[int]
    generator: torch.Generator
    new: list[int] = field(default_factory=list)
    done: bool = False


class Completion(NamedTuple):
    """What a model wrote.

    Attributes:
        prompt: ids of what it continues.
        ids: the new tokens; the last one is the stop token, or completes the stop string.
        text: of them, without stop token or stop string.
        ended: whether it ended by itself; False: it was cut off at max_new_tokens.
    """

    prompt: list[int]
    ids: list[int]
    text: str
    ended: bool


def generate_batch(
    model: QwenForCausalLM,
    prompts: Sequence[Sequence[int] | Tensor],
    *,
    cache_dtype: str = "auto",
    **options: Any,
) -> list[list[int]]:
    """Return the new tokens of each prompt, as `generate` would give them for it alone.

    A forward pass over several rows costs little more than one over a single row, because the
    weights are read once for all. A row that has stopped leaves the batch and costs nothing more.

    Args:
        model: a language model.
        prompts: ids of each, of any lengths.
        cache_dtype: as for `generate`.
        options: for each row, as for `generate`; a stop token is the last of its row. With a seed,
            row i samples as `generate` does with `row_seed(seed, i)`, so that no row depends on
            its neighbors. (The logits do in their last bits: sums over several rows are taken in
            another order.)

    Raises:
        InputError: an argument out of its range.
    """
    config = GenerationConfig(**options)
    rows = _rows(model, prompts, config)
    for _ in _rounds(model, rows, config, cache_dtype):
        pass
    return [row.new for row in rows]


def complete_batch(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    stop_strings: Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    **options: Any,
) -> list[str]:
    """Return the continuation of each prompt, without the prompt, as `complete` would give it.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        prompts: texts.
        stop_strings: see `stream`; each row stops at its own.
        stop_ids: see `stream`.
        options: as for `generate_batch`.

    Raises:
        InputError: an argument out of its range.
    """
    found = completions(
        model, tokenizer, prompts, stop_strings=stop_strings, stop_ids=stop_ids, **options
    )
    return [one.text for one in found]


def completions(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    stop_strings: Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    cache_dtype: str = "auto",
    **options: Any,
) -> list[Completion]:
    """Return what `complete_batch` does, with the ids; arguments as there."""
    stop_ids = default_stops(model, tokenizer) if stop_ids is None else stop_ids
    config = GenerationConfig(stop_ids=stop_ids, **options)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise InputError(f"prompts is {prompts!r}; it must be a list of texts")
    rows = _rows(model, [tokenizer(prompt) for prompt in prompts], config)
    writers = [TextWriter(tokenizer, stop_strings) for _ in rows]
    texts, stops = ["" for _ in rows], config.stops(model)
    for active in _rounds(model, rows, config, cache_dtype):
        for place in active:
            row, token = rows[place], rows[place].new[-1]
            if token not in stops:
                texts[place] += writers[place].add(token)
                row.done |= writers[place].stopped
    return [
        Completion(row.prompt, row.new, text + writer.end(), row.done)
        for row, text, writer in zip(rows, texts, writers, strict=True)
    ]


def _rows(
    model: QwenForCausalLM, prompts: Sequence[Sequence[int] | Tensor], config: GenerationConfig
) -> list[_Row]:
    """Check every prompt, and make its row."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InputError(f"prompts is {prompts!r}; it must be a list of at least one prompt's ids")
    rows = []
    for place, prompt in enumerate(prompts):
        try:
            ids = one_prompt(model, prompt)
        except InputError as error:
            raise InputError(f"prompts[{place}]: {error}") from None
        rows.append(_Row(ids[0].tolist(), config.generator(place)))
    return rows


def _chosen(
    config: GenerationConfig, logits: Float[Tensor, "B V"], num_tokens: int, rows: list[_Row]
) -> list[int]:
    """Return each row's next token."""
    if config.is_argmax:  # of all at once
        return logits[:, :num_tokens].numpy().argmax(1).tolist()  # type: ignore[no-any-return]
    return [
        next_token(config, own, row.prompt + row.new, num_tokens, row.generator)
        for own, row in zip(logits, rows, strict=True)
    ]


def _rounds(
    model: QwenForCausalLM, rows: list[_Row], config: GenerationConfig, cache_dtype: str
) -> Iterator[list[int]]:
    """Add one token to every row that is not done, again and again.

    Yields:
        The indices of the rows that got a token. The caller may set a row's `done`, and runs no
        code but ours.
    """
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[0] * (width - len(r.prompt)) + r.prompt for r in rows])  # (B, T)
    padding = torch.tensor([width - len(row.prompt) for row in rows])
    cache = cache_for(model, len(rows), width + config.max_new_tokens, cache_dtype)
    slots = torch.arange(width + config.max_new_tokens)
    mask = (slots >= padding[:, None]).long()  # (B, width + max_new_tokens) 1 real, 0 padding
    active, stops, loop = list(range(len(rows))), config.stops(model), ClosedLoop()
    expect(loop, model, config, width)
    ahead: list[list[int]] = []  # tokens that the kernels have chosen already, the next one last
    steps = range(config.max_new_tokens)
    for index in counted("Generating", steps, len(steps)):
        so_far = mask[:, : width + index]  # (B, S)
        ahead = ahead or chosen_ahead(model, ids, cache, so_far, loop)[::-1]
        if ahead:
            chosen = ahead.pop()
            cache.advance(1)
        else:
            on_device = ids.to(model.device), so_far.to(model.device)
            logits = next_logits(model, on_device[0], cache, index, on_device[1], loop)
            chosen = _chosen(config, logits, model.num_tokens, [rows[i] for i in active])
        for place, token in zip(active, chosen, strict=True):
            rows[place].new.append(token)
            rows[place].done = token in stops
        yield active
        kept = [i for i, place in enumerate(active) if not rows[place].done]
        if not kept:
            return
        if len(kept) < len(active):
            cache.reorder(kept)
            loop = ClosedLoop()  # the cache has other buffers now
            expect(loop, model, config, width)
            mask, active, ahead = mask[kept], [active[i] for i in kept], []
        if not ahead:
            ids = torch.tensor([rows[place].new[-1] for place in active])[:, None]  # (B, 1)
