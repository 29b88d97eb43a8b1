"""Generation: predict, choose, append, and predict again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.fast import decode_step
from qwenkit.generate.sampling import Sampling
from qwenkit.generate.settings import Settings, one_prompt
from qwenkit.model import KVCache, QwenForCausalLM


@dataclass(frozen=True)
class Step:
    """One generated token, and how it came to be chosen.

    Attributes:
        index: 0 for the first new token.
        token_id: the token chosen.
        probs: (V,) float32 on the CPU, what it was chosen from, after every transform.
        logits: (V,) float32 on the CPU, as the model gave them.
        is_stop: whether the token ends the text.
        sampling: the settings it was chosen by.
        seen: (N,) ids of the text before it, prompt included.
        num_tokens: ids from here on are padding rows of the vocabulary, and never chosen.
    """

    index: int
    token_id: int
    probs: Float[Tensor, " V"]
    logits: Float[Tensor, " V"]
    is_stop: bool
    sampling: Sampling = field(repr=False)
    seen: Int[Tensor, " N"] = field(repr=False)
    num_tokens: int = field(repr=False)

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
        temperature 0 nothing is drawn: of the five only the penalty is applied, `probs` is the
        softmax after it, and the token is its argmax. Computed anew each time it is asked for.
        """
        allowed = only_tokens(self.logits, self.num_tokens)
        padding = {} if allowed is self.logits else {"padding_rows": allowed}
        return padding | self.sampling.transforms(allowed, self.seen)


def generate(
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    min_p: float = 0.0,
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
) -> Iterator[Step]:
    """Return an iterator of steps, one new token each, that ends with a stop token or the count.

    Each token is computed when the iterator is asked for it. Arguments are checked at once.

    Args:
        model: a language model.
        input_ids: one prompt: (1, T) or (T,) ids, at least one.
        max_new_tokens: at most this many.
        temperature: 0: greedy; higher is wilder.
        top_k: see `Sampling`, as for the next three.
        top_p: see `Sampling`.
        repetition_penalty: see `Sampling`.
        min_p: see `Sampling`.
        stop_ids: tokens that end the text; None: the model's own; (): none.
        seed: same seed, same text, on any device with the same logits; None: fresh each time.

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
    ids = one_prompt(model, input_ids)
    return continued(model, ids, KVCache(model.config, 1, ids.shape[1] + max_new_tokens), settings)


def continued(
    model: QwenForCausalLM, ids: Int[Tensor, "1 T"], cache: KVCache, settings: Settings
) -> Iterator[Step]:
    """Yield the steps that continue a text, of which the cache may hold a beginning.

    Args:
        model: a language model.
        ids: the whole text so far.
        cache: holds its first tokens, any number but all; the others are fed first. It takes every
            new token but the last.
        settings: checked already.
    """
    generator, sampling = settings.generator(), settings.sampling
    text = torch.empty(ids.shape[1] + settings.max_new_tokens, dtype=torch.int64)
    text[: ids.shape[1]] = ids[0]  # on the CPU, where choosing is done
    new = ids[:, cache.length :]
    for index in range(settings.max_new_tokens):
        logits = next_logits(model, new, cache, index)[0]  # (V,)
        seen = text[: ids.shape[1] + index]
        probs = sampling.probabilities(only_tokens(logits, model.num_tokens), seen)
        token = sampling.choose(probs, generator)
        stops = token in settings.stop_ids
        yield Step(index, token, probs, logits, stops, sampling, seen, model.num_tokens)
        if stops:
            return
        text[ids.shape[1] + index] = token
        new = torch.tensor([[token]], device=model.device)  # (1, 1): the cache holds the rest


def next_logits(
    model: QwenForCausalLM,
    ids: Int[Tensor, "B T"],
    cache: KVCache,
    index: int,
    attention_mask: Int[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B V"]:
    """Feed new tokens; return each row's logits of the next one, float32 on the CPU.

    Raises:
        InputError: logits that are not finite, at step `index`.
    """
    with torch.no_grad():  # not around a yield, which would switch it off for the caller too
        out = decode_step(model, ids, cache, attention_mask)  # None where the kernels do not serve
        if out is None:
            out = model(ids, cache=cache, attention_mask=attention_mask, logits_to_keep=1)
    logits: Tensor = out[:, -1].float().cpu()  # (B, V) choosing is the same on every device
    if not bool(logits.isfinite().all()):
        raise InputError(
            f"the model gave logits that are not finite at step {index}; damaged weights, or "
            "float16 overflowed: try float32 or bfloat16"
        )
    return logits


def only_tokens(logits: Float[Tensor, "*B V"], num_tokens: int) -> Float[Tensor, "*B V"]:
    """Return logits whose padding rows (the vocabulary's, that are no tokens) are -inf."""
    if num_tokens >= logits.shape[-1]:
        return logits
    allowed = logits.clone()
    allowed[..., num_tokens:] = float("-inf")
    return allowed
