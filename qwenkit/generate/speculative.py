"""Speculative decoding: tokens are guessed cheaply, and one forward pass verifies several."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwenkit.arguments import fits
from qwenkit.errors import InputError, shown
from qwenkit.generate._prompts import cache_for, one_prompt
from qwenkit.generate.config import GenerationConfig, check_count
from qwenkit.generate.drafters import Drafter, DraftModel, PromptLookup, Proposal, check_proposal
from qwenkit.generate.steps import Step, next_logits, next_token, only_tokens
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.progress import stage


class Speculation(Iterator[Step]):
    """The steps of `speculate`, and an account of its guesses.

    Attributes:
        proposed: how many tokens the drafter has proposed.
        accepted: how many of them have become steps.
        forwards: how many forward passes the model has done, the prompt's included; `generate`
            does one per step.
        cache: of the model. After the last step, or `close`, it holds the text without its newest
            token; in between perhaps more.

    Args:
        model: a language model.
        ids: the whole text so far.
        cache: holds its first tokens, any number but all.
        drafter: proposes tokens.
        tokens: at most this many at a time.
        config: says how each token is chosen.
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        ids: Int[Tensor, "1 T"],
        cache: KVCache,
        drafter: Drafter,
        tokens: int,
        config: GenerationConfig,
    ) -> None:
        self.proposed = self.accepted = self.forwards = 0
        self.cache = cache
        self._model, self._drafter, self._tokens, self._config = model, drafter, tokens, config
        self._generator, self._stops = config.generator(), config.stops(model)
        self._prompt = self._length = ids.shape[1]
        self._text = torch.empty(self._prompt + config.max_new_tokens, dtype=torch.int64)
        self._text[: self._prompt] = ids[0]
        self._steps = self._rounds()

    def __next__(self) -> Step:
        return next(self._steps)

    def close(self) -> None:
        """End it: no more steps come."""
        self._steps.close()

    def _rounds(self) -> Generator[Step, None, None]:
        """Propose, verify, and yield what is accepted and one token more, again and again."""
        try:
            while self._length < self._text.numel():
                proposal = self._propose()
                for place, logits in enumerate(self._read(proposal.tokens)):
                    step = self._step(logits, proposal, place)
                    taken = [step.token_id] == proposal.tokens[place : place + 1]
                    self.accepted += taken
                    if not taken:  # the cache holds what was proposed from here on
                        self.cache.trim(self._length)
                    yield step
                    if step.is_stop:
                        return
                    self._text[self._length] = step.token_id
                    self._length += 1
                    if not taken:
                        break
        finally:  # among accepted tokens: at a stop token, or where the caller reads no further
            self.cache.trim(min(self.cache.length, self._length))

    def _propose(self) -> Proposal:
        """Return tokens to verify: none before the prompt is read, and none without room."""
        longest = min(
            self._text.numel() - 1,  # verifying gives one more
            self._model.config.max_position_embeddings,
            self.cache.max_length,
        )
        count = min(self._tokens, longest - self._length)
        if count < 1 or self._length - self.cache.length > 1:
            return Proposal([])
        proposal = self._drafter.propose(self._text[: self._length], count)
        check_proposal(proposal, count, self._model.config.vocab_size)
        self.proposed += len(proposal.tokens)
        return proposal

    def _read(self, tokens: list[int]) -> Float[Tensor, "N V"]:
        """Feed what is new and N - 1 proposed tokens; return the logits after each of those."""
        index, past = self._length - self._prompt, self.cache.length
        new = self._text[None, past : self._length].to(self._model.device)  # (1, T)
        self.forwards += 1
        if tokens:
            ids = torch.cat([new, torch.tensor([tokens], device=new.device)], dim=1)  # (1, T+N-1)
            with torch.no_grad():
                out = self._model(ids, cache=self.cache, logits_to_keep=len(tokens) + 1)
            logits: Tensor = out[0].float().cpu()  # (N, V)
            if bool(logits.isfinite().all()):
                return logits
            self.cache.trim(past)  # what is not finite may be due to a token that is not chosen
            self.forwards += 1
        with nullcontext() if index else stage("Reading the prompt"):
            return next_logits(self._model, new, self.cache, index)  # (1, V) an ordinary step

    def _step(self, logits: Float[Tensor, " V"], proposal: Proposal, place: int) -> Step:
        """Choose the next token: the proposed one, if there is one and it is accepted."""
        index, count = self._length - self._prompt, self._model.num_tokens
        logits = logits.clone()  # a step that is kept does not keep the other rows
        seen = self._text[: self._length]
        if self._config.temperature == 0 or place == len(proposal.tokens):
            token = next_token(self._config, logits, seen, count, self._generator)
        else:
            probs = self._config.probabilities(only_tokens(logits, count), seen)
            drawn_from = None if proposal.probs is None else proposal.probs[place]
            token = verified(probs, proposal.tokens[place], drawn_from, self._generator)
        return Step(index, token, logits, token in self._stops, self._config, seen, count)


def speculate(
    model: QwenForCausalLM,
    input_ids: Tensor | Sequence[int],
    draft: Literal["lookup"] | QwenForCausalLM | Drafter = "lookup",
    *,
    tokens: int = 8,
    max_new_tokens: int = 64,
    cache_dtype: str = "auto",
    **options: Any,
) -> Speculation:
    """Return an iterator of steps as `generate` does, with fewer forward passes of the model.

    A drafter proposes the next tokens. The model reads all of them in one forward pass, which
    costs little more than a single token, because the weights are read once. They are accepted up
    to the first that the model would not have chosen; that one is chosen again, and after the last
    one more is chosen. Source: Leviathan et al. 2023, "Fast Inference from Transformers via
    Speculative Decoding".

    What is generated does not depend on the drafter, only the time does:

    - Greedy text is that of `generate`. One difference remains: several tokens are summed in
      another order than a single one, so that logits differ in their last bits. Where the two
      largest are that close, most likely in bfloat16, either may be chosen.
    - Sampled text has the distribution of `generate`, each token after all transforms. With the
      same seed it is another sample than that of `generate`, as other random numbers are drawn.

    Where nothing is proposed, a step is the ordinary one, by the compiled kernels where they serve.

    Args:
        model: a language model.
        input_ids: one prompt: (1, T) or (T,) ids, at least one.
        draft: "lookup": what followed the same few tokens earlier in the text (`PromptLookup`);
            a smaller model with the same vocabulary, which chooses by the same options
            (`DraftModel`); or any `Drafter`.
        tokens: at most this many are proposed at a time.
        max_new_tokens: at most this many.
        cache_dtype: as for `generate`; of the model's cache, not of a draft model's.
        options: as for `generate`.

    Raises:
        InputError: an argument out of its range, or a draft model with another vocabulary.
        MemoryForecastError: a cache of so many tokens would not fit in memory.
    """
    config = GenerationConfig(max_new_tokens=max_new_tokens, **options)
    check_count("tokens", tokens)
    ids = one_prompt(model, input_ids)
    cache = cache_for(model, 1, ids.shape[1] + max_new_tokens, cache_dtype)
    return Speculation(model, ids, cache, _drafter(draft, model, ids, config), tokens, config)


def verified(
    probs: Float[Tensor, " V"],
    proposed: int,
    drawn_from: Float[Tensor, " W"] | None,
    generator: torch.Generator,
) -> int:
    """Return a proposed token if it is accepted, else one that is sampled in its place.

    A token x that was sampled from q is accepted with probability min(1, p(x) / q(x)); in its place
    one is sampled from max(p - q, 0), divided by its sum. What is returned then has the
    distribution p. Source: Leviathan et al. 2023, section 2.3 and appendix A.1.

    Args:
        probs: p, the model's probabilities after every transform.
        proposed: x.
        drawn_from: q; ids from W on have probability 0. None: q(x) is 1.
        generator: of the random numbers.
    """
    q = torch.zeros_like(probs)
    if drawn_from is None:
        q[proposed] = 1.0
    else:
        q[: drawn_from.numel()] = drawn_from
    if torch.rand((), generator=generator) * q[proposed] < probs[proposed]:
        return proposed
    rest = (probs - q).clamp(min=0)
    if not bool(rest.any()):  # p and q are equal but for rounding
        rest = probs
    return int(torch.multinomial(rest, 1, generator=generator))


def _drafter(
    draft: Any, model: QwenForCausalLM, ids: Int[Tensor, "1 T"], config: GenerationConfig
) -> Drafter:
    """Return the drafter that is asked for, or refuse it."""
    if isinstance(draft, str) and draft == "lookup":
        return PromptLookup()
    if fits(draft, QwenForCausalLM) and not isinstance(draft, Drafter):
        config = replace(config, stop_ids=config.stops(model))
        draft = DraftModel(draft, config, ids.shape[1] + config.max_new_tokens)
    if isinstance(draft, DraftModel) and draft.model.num_tokens != model.num_tokens:
        raise InputError(
            f"draft has a vocabulary of {draft.model.num_tokens:,} tokens and the model one of "
            f"{model.num_tokens:,}; take a draft model with the same tokenizer"
        )
    if not isinstance(draft, Drafter) or isinstance(draft, type):  # a class has the method, too
        raise InputError(
            f'draft is {shown(draft, 60)}; it must be "lookup", a QwenForCausalLM, or a drafter '
            "with the method propose(ids, count)"
        )
    return draft
