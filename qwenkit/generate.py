"""Generation: predict, choose, append, and predict again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tokenizers.decoders import DecodeStream
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.model.inputs import check_input_ids
from qwenkit.sampling import Sampling
from qwenkit.tokenizer import Tokenizer


@dataclass(frozen=True)
class Step:
    """One generated token.

    Attributes:
        index: 0 for the first new token.
        token_id: the token chosen.
        probs: (V,) float32 on the CPU, what it was chosen from, after every transform.
        logits: (V,) float32 on the CPU, as the model gave them.
        is_stop: whether the token ends the text.
    """

    index: int
    token_id: int
    probs: Float[Tensor, " V"]
    logits: Float[Tensor, " V"]
    is_stop: bool

    @property
    def probability(self) -> float:
        """The probability that the chosen token had."""
        return float(self.probs[self.token_id])


def generate(
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop_ids: Sequence[int] | None = None,
    seed: int | None = None,
) -> Iterator[Step]:
    """Return an iterator of steps, one new token each, that ends with a stop token or the count.

    Each token is computed when the iterator is asked for it. Arguments are checked at once.

    Args:
        model: a language model.
        input_ids: one prompt: (1, T) or (T,) ids, at least one.
        max_new_tokens: at most this many.
        temperature: 0: greedy; higher is wilder.
        top_k: see `Sampling`, as for the next two.
        top_p: see `Sampling`.
        repetition_penalty: see `Sampling`.
        stop_ids: tokens that end the text; None: the model's own; (): none.
        seed: same seed, same text, on any device with the same logits; None: fresh each time.

    Raises:
        InputError: an argument out of its range.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    ids = _one_prompt(input_ids)
    check_input_ids(ids, model.config, ids.device, past=0)
    if type(max_new_tokens) is not int or max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens!r}; it must be at least 1")
    stops = model.stop_ids if stop_ids is None else stop_ids
    if not isinstance(stops, Collection) or not all(type(stop) is int for stop in stops):
        raise InputError(f"stop_ids is {stop_ids!r}; it must be a collection of ids, such as (3,)")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise InputError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    return _steps(
        model, ids.to(model.device), max_new_tokens, sampling, frozenset(stops), generator
    )


def _one_prompt(input_ids: Tensor | Sequence[int]) -> Tensor:
    """Return the ids as (1, T) int64, or refuse them."""
    try:
        ids = torch.as_tensor(input_ids)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"input_ids is {input_ids!r}; it must be one prompt's ids, (1, T) or (T,), as "
            "tokenizer(text) gives them"
        ) from None
    ids = ids[None] if ids.dim() == 1 else ids
    whole = ids.dtype in (torch.int64, torch.int32)
    if ids.dim() != 2 or ids.shape[0] != 1 or ids.shape[1] == 0 or not whole:
        raise InputError(
            f"input_ids has shape {tuple(ids.shape)} and dtype {ids.dtype}; it must be one prompt "
            "of at least one id, (1, T) or (T,) int64"
        )
    return ids


def _steps(
    model: QwenForCausalLM,
    ids: Tensor,
    count: int,
    sampling: Sampling,
    stops: frozenset[int],
    generator: torch.Generator,
) -> Iterator[Step]:
    cache = KVCache(model.config, max_length=ids.shape[1] + count)
    seen = ids[0].cpu().long()
    for index in range(count):
        with torch.no_grad():  # not around the yield, which would switch it off for the caller too
            out = model(ids, cache=cache, logits_to_keep=1)
        logits = out[0, -1].float().cpu()  # (V,) choosing is done on the CPU, the same everywhere
        if not bool(logits.isfinite().all()):
            raise InputError(
                f"the model gave logits that are not finite at step {index}; damaged weights, or "
                "float16 overflowed: try float32 or bfloat16"
            )
        allowed = logits.clone()
        allowed[model.num_tokens :] = float("-inf")  # padding rows of the vocabulary: no tokens
        probs = sampling.probabilities(allowed, seen)
        token = sampling.choose(probs, generator)
        yield Step(index, token, probs, logits, token in stops)
        if token in stops:
            return
        seen = torch.cat([seen, torch.tensor([token])])
        ids = torch.tensor([[token]], device=model.device)  # (1, 1): the cache holds the rest


def stream(
    model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str, **settings: Any
) -> Iterator[str]:
    """Return an iterator over the continuation of a prompt, in pieces of whole characters.

    Arguments are checked at once, tokens computed when asked for.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        prompt: a text, or what `Tokenizer.chat` and `Tokenizer.fim` return.
        settings: as for `generate`.
    """
    return _pieces(generate(model, tokenizer(prompt), **settings), tokenizer)


def _pieces(steps: Iterator[Step], tokenizer: Tokenizer) -> Iterator[str]:
    decoder = DecodeStream(skip_special_tokens=True)
    ids: list[int] = []
    shown = ""
    for step in steps:
        if not step.is_stop:
            ids.append(step.token_id)
            piece = decoder.step(tokenizer.backend, step.token_id)
            if piece:
                shown += piece
                yield piece
    rest = tokenizer.decode(ids, skip_special=True)[len(shown) :]
    if rest:  # bytes of a character that was never finished
        yield rest


def complete(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 64,
    **settings: Any,
) -> str:
    """Return the model's continuation of a prompt, without the prompt; arguments as in `stream`."""
    return "".join(stream(model, tokenizer, prompt, max_new_tokens=max_new_tokens, **settings))
