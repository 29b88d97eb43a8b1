"""Several prompts at once: padded on the left, and each row ends by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate.settings import Settings, one_prompt
from qwenkit.generate.steps import next_logits, only_tokens
from qwenkit.generate.text import TextWriter
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.tokenizer import Tokenizer


@dataclass
class Row:
    """One text of a batch.

    Attributes:
        prompt: its ids.
        generator: of its own draws.
        new: the tokens added so far.
        done: whether it takes no more.
    """

    prompt: list[int]
    generator: torch.Generator
    new: list[int] = field(default_factory=list)
    done: bool = False


def generate_batch(
    model: QwenForCausalLM,
    prompts: Sequence[Sequence[int] | Tensor],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    min_p: float = 0.0,
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
) -> list[list[int]]:
    """Return the new tokens of each prompt, as `generate` would give them for it alone.

    A forward pass over several rows costs little more than one over a single row, because the
    weights are read once for all. A row that has ended leaves the batch and costs nothing more.

    Args:
        model: a language model.
        prompts: ids of each, of any lengths.
        max_new_tokens: for each row, as all that follows; see `generate`.
        temperature: see `generate`.
        top_k: see `generate`.
        top_p: see `generate`.
        repetition_penalty: see `generate`.
        min_p: see `generate`.
        stop_ids: see `generate`; the stop token is the last of the row.
        seed: row i draws as `generate` does with `row_seed(seed, i)`, so that no row depends on
            its neighbours. (The logits do in their last bits: sums over several rows are taken in
            another order.)

    Raises:
        InputError: an argument out of its range.
    """
    settings = Settings.of(
        model,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        min_p=min_p,
        stop_ids=stop_ids,
        seed=seed,
    )
    rows = _rows(model, prompts, settings)
    for _ in rounds(model, rows, settings):
        pass
    return [row.new for row in rows]


def complete_batch(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    stop_strings: Sequence[str] = (),
    **settings: Any,
) -> list[str]:
    """Return the continuation of each prompt, without the prompt, as `complete` would give it.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        prompts: texts.
        stop_strings: see `stream`; each row ends at its own.
        settings: as for `generate_batch`.

    Raises:
        InputError: an argument out of its range.
    """
    checked = Settings.of(model, **settings)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise InputError(f"prompts is {prompts!r}; it must be a list of texts")
    rows = _rows(model, [tokenizer(prompt) for prompt in prompts], checked)
    writers = [TextWriter(tokenizer, stop_strings) for _ in rows]
    texts = ["" for _ in rows]
    for active in rounds(model, rows, checked):
        for place in active:
            row, token = rows[place], rows[place].new[-1]
            if token not in checked.stop_ids:
                texts[place] += writers[place].add(token)
                row.done |= writers[place].stopped
    return [text + writer.end() for text, writer in zip(texts, writers, strict=True)]


def _rows(
    model: QwenForCausalLM, prompts: Sequence[Sequence[int] | Tensor], settings: Settings
) -> list[Row]:
    """Check every prompt, and make its row."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InputError(f"prompts is {prompts!r}; it must be a list of at least one prompt's ids")
    rows = []
    for place, prompt in enumerate(prompts):
        try:
            ids = one_prompt(model, prompt)
        except InputError as error:
            raise InputError(f"prompts[{place}]: {error}") from None
        rows.append(Row(ids[0].tolist(), settings.generator(place)))
    return rows


def rounds(model: QwenForCausalLM, rows: list[Row], settings: Settings) -> Iterator[list[int]]:
    """Add one token to every row that is not done, again and again.

    Yields:
        The places of the rows that got a token. The caller may set a row's `done`.
    """
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[0] * (width - len(r.prompt)) + r.prompt for r in rows])  # (B, T)
    blanks = torch.tensor([width - len(row.prompt) for row in rows])
    mask = (torch.arange(width) >= blanks[:, None]).long()  # (B, S) 1 real, 0 padding
    cache = KVCache(model.config, len(rows), width + settings.max_new_tokens)
    active = list(range(len(rows)))
    for index in range(settings.max_new_tokens):
        logits = next_logits(model, ids.to(model.device), cache, index, mask.to(model.device))
        for place, scores in zip(active, only_tokens(logits, model.num_tokens), strict=True):
            _add_token(rows[place], scores, settings)
        yield active
        kept = [i for i, place in enumerate(active) if not rows[place].done]
        if not kept:
            return
        if len(kept) < len(active):
            cache.reorder(kept)
            mask, active = mask[kept], [active[i] for i in kept]
        ids = torch.tensor([[rows[place].new[-1]] for place in active])  # (B, 1)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)  # (B, S + 1)


def _add_token(row: Row, logits: Tensor, settings: Settings) -> None:
    probs = settings.sampling.probabilities(logits, torch.tensor(row.prompt + row.new))
    token = settings.sampling.choose(probs, row.generator)
    row.new.append(token)
    row.done = token in settings.stop_ids
