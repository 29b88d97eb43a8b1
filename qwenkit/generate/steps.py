"""Generation: predict, choose, append, and predict again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.fast import ClosedLoop, Greedy, decode_step
from qwenkit.generate._prompts import cache_for, one_prompt
from qwenkit.generate.config import GenerationConfig
from qwenkit.generate.sampling import Sampling
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.progress import stage


@dataclass(frozen=True)
class Step:
    """One generated token, and how it came to be chosen.

    Attributes:
        index: 0 for the first new token.
        token_id: the token chosen.
        logits: (V,) float32 on the CPU, as the model gave them.
        is_stop: whether the token stops generation.
        sampling: the options it was chosen by.
        seen: (N,) ids of the text before it, prompt included.
        num_tokens: ids from here on are padding rows of the vocabulary, and never chosen.
    """

    index: int
    token_id: int
    logits: Float[Tensor, " V"]
    is_stop: bool
    sampling: Sampling = field(repr=False)
    seen: Int[Tensor, " N"] = field(repr=False)
    num_tokens: int = field(repr=False)

    @cached_property
    def probs(self) -> Float[Tensor, " V"]:
        """What it was chosen from, (V,) float32 on the CPU, after every transform."""
        return self.sampling.probabilities(only_tokens(self.logits, self.num_tokens), self.seen)

    @property
    def probability(self) -> float:
        """The probability that the chosen token had."""
        return float(self.probs[self.token_id])

    @property
    def transforms(self) -> dict[str, Float[Tensor, " V"]]:
        """The logits after each transform that was applied, by its name, in order.

        From `logits` to `probs`: "padding_rows" where the vocabulary has any (they become -inf),
        then those that are on of "repetition_penalty", "temperature", "top_k", "top_p", "min_p".
        The softmax of the last one is `probs`, or that of `logits` where none was applied. At
        temperature 0 nothing is sampled: of the five only the penalty is applied, `probs` is the
        softmax after it, and the token is its argmax. Computed again each time it is asked for.
        """
        allowed = only_tokens(self.logits, self.num_tokens)
        padding = {} if allowed is self.logits else {"padding_rows": allowed}
        return padding | self.sampling.transforms(allowed, self.seen)


def generate(
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    max_new_tokens: int = 64,
    *,
    cache_dtype: str = "auto",
    **options: Any,
) -> Iterator[Step]:
    """Return an iterator of steps, one new token each, that ends with a stop token or the count.

    Each token is computed when the iterator is asked for it. Arguments are checked at once. A
    process that was forked (`os.fork`) after torch or the kernels had used several threads must not
    generate: OpenMP aborts it. Start it with multiprocessing's "spawn" instead.

    Args:
        model: a language model.
        input_ids: one prompt: (1, T) or (T,) ids, at least one.
        max_new_tokens: at most this many.
        cache_dtype: "auto": keys and values are kept in the model's dtype; "int8": rounded, in
            56 % of bfloat16's bytes, and each step takes longer (see `qwenkit.fast.Int8Cache`).
        options: temperature (0: greedy; higher is more random), top_k, top_p, min_p,
            repetition_penalty, stop_ids, seed: see `GenerationConfig`.

    Raises:
        InputError: an argument out of its range.
        MemoryForecastError: a cache of so many tokens would not fit in memory.
    """
    return begun(None, model, input_ids, max_new_tokens, cache_dtype=cache_dtype, **options)


def begun(
    loop: ClosedLoop | None,
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    max_new_tokens: int = 64,
    *,
    cache_dtype: str = "auto",
    **options: Any,
) -> Iterator[Step]:
    """Return what `generate` does; `loop`: as for `continued`."""
    config = GenerationConfig(max_new_tokens=max_new_tokens, **options)
    ids = one_prompt(model, input_ids)
    cache = cache_for(model, 1, ids.shape[1] + max_new_tokens, cache_dtype)
    expect(loop, model, config, ids.shape[1])
    return continued(model, ids, cache, config, loop)


def continued(
    model: QwenForCausalLM,
    ids: Int[Tensor, "1 T"],
    cache: KVCache,
    config: GenerationConfig,
    loop: ClosedLoop | None = None,
) -> Iterator[Step]:
    """Yield the steps that continue a text, of which the cache may hold a beginning.

    Args:
        model: a language model.
        ids: the whole text so far.
        cache: holds its first tokens, any number but all; the others are fed first. It takes every
            new token but the last.
        config: says how.
        loop: that of the caller, if it runs no code but ours between two steps.
    """
    generator, stops = config.generator(), config.stops(model)
    text = torch.empty(ids.shape[1] + config.max_new_tokens, dtype=torch.int64)
    text[: ids.shape[1]] = ids[0]  # on the CPU, where the token is chosen
    new = ids[:, cache.length :]
    for index in range(config.max_new_tokens):
        with stage("Reading the prompt") if index == 0 else nullcontext():
            logits = next_logits(model, new, cache, index, loop=loop)[0]  # (V,)
        seen = text[: ids.shape[1] + index]
        token = next_token(config, logits, seen, model.num_tokens, generator)
        yield Step(index, token, logits, token in stops, config, seen, model.num_tokens)
        if token in stops:
            return
        text[ids.shape[1] + index] = token
        new = torch.tensor([[token]], device=model.device)  # (1, 1): the cache holds the rest


def expect(
    loop: ClosedLoop | None, model: QwenForCausalLM, config: GenerationConfig, prompt: int
) -> None:
    """Tell a loop which token is chosen next, if that is certain: the kernels may go on with it.

    Args:
        loop: of the caller.
        model: a language model.
        config: says how tokens are chosen.
        prompt: tokens of it.
    """
    if loop is not None and config.is_argmax:
        end = prompt + config.max_new_tokens - 1  # the last token is not fed
        loop.greedy = Greedy(model.num_tokens, config.stops(model), end)


def next_token(
    config: GenerationConfig,
    logits: Float[Tensor, " V"],
    seen: Int[Tensor, " N"] | Sequence[int],
    num_tokens: int,
    generator: torch.Generator,
) -> int:
    """Choose a text's next token from its logits.

    Args:
        config: says how.
        logits: float32 on the CPU.
        seen: ids of the text so far.
        num_tokens: ids from here on are no tokens.
        generator: of the random numbers.

    Raises:
        InputError: the penalty makes a logit overflow float32.
    """
    if config.is_argmax:  # by NumPy: of 150,000 in a tenth of the time torch takes
        return int(logits[:num_tokens].numpy().argmax())
    return config.choose(config.probabilities(only_tokens(logits, num_tokens), seen), generator)


def next_logits(
    model: QwenForCausalLM,
    ids: Int[Tensor, "B T"],
    cache: KVCache,
    index: int,
    attention_mask: Int[Tensor, "B S"] | None = None,
    loop: ClosedLoop | None = None,
) -> Float[Tensor, "B V"]:
    """Feed new tokens; return each row's logits of the next one, float32 on the CPU.

    Raises:
        InputError: logits that are not finite, at step `index`.
    """
    logits = last_logits(model, ids, cache, attention_mask, loop)
    check_finite(logits, index)
    return logits


def last_logits(
    model: QwenForCausalLM,
    ids: Int[Tensor, "B T"],
    cache: KVCache,
    attention_mask: Int[Tensor, "B S"] | None = None,
    loop: ClosedLoop | None = None,
) -> Float[Tensor, "B V"]:
    """Feed new tokens; return each row's logits of the next one as they are."""
    logits = logits_by_kernels(model, ids, cache, attention_mask, loop)
    if logits is None:
        with torch.no_grad():  # not around a yield, which would switch it off for the caller too
            out = model(ids, cache=cache, attention_mask=attention_mask, logits_to_keep=1)
        logits = _on_the_cpu(out[:, -1])
    return logits


def logits_by_kernels(
    model: QwenForCausalLM,
    ids: Int[Tensor, "B T"],
    cache: KVCache,
    attention_mask: Int[Tensor, "B S"] | None = None,
    loop: ClosedLoop | None = None,
) -> Float[Tensor, "B V"] | None:
    """Return the same; None, with nothing fed, where the kernels step aside (see `explain`)."""
    with torch.no_grad():
        # The one place where the fast path is chosen.
        out = decode_step(model, ids, cache, attention_mask, loop)
    return None if out is None else _on_the_cpu(out[:, -1])  # choosing is the same everywhere


# Between two decode steps, NumPy does what torch would share among OpenMP's threads: these spin for
# a millisecond more, on cores that the kernels need.


def _on_the_cpu(logits: Tensor) -> Float[Tensor, "B V"]:
    """Return logits as float32 on the CPU."""
    if logits.dtype != torch.bfloat16 or not logits.is_cpu:
        return logits.float().cpu()
    upper = logits.contiguous().view(torch.uint16).numpy().astype(np.uint32)
    upper <<= 16  # bfloat16 is the upper half of a float32
    return torch.from_numpy(upper.view(np.float32))


def check_finite(logits: Float[Tensor, "*B V"], index: int) -> None:
    """Refuse logits that are not finite, at step `index`."""
    if not are_finite(logits):
        raise InputError(
            f"the model gave logits that are not finite at step {index}; damaged weights, or "
            "float16 overflowed: try float32 or bfloat16"
        )


def are_finite(logits: Float[Tensor, "*B V"]) -> bool:
    """Tell whether all logits are finite."""
    values = logits.numpy()
    return math.isfinite(values.min()) and math.isfinite(values.max())  # NaN is both


def only_tokens(logits: Float[Tensor, "*B V"], num_tokens: int) -> Float[Tensor, "*B V"]:
    """Return logits in which the vocabulary's padding rows, which are not tokens, are -inf."""
    if num_tokens >= logits.shape[-1]:
        return logits
    plain = logits.is_cpu and not logits.requires_grad
    allowed = torch.from_numpy(logits.numpy().copy()) if plain else logits.clone()
    allowed[..., num_tokens:] = float("-inf")
    return allowed
