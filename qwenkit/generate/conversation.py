"""A conversation that keeps its cache, so that each turn computes only what is new."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from qwenkit.errors import CacheFullError, InputError
from qwenkit.fast import ClosedLoop
from qwenkit.generate._prompts import cache_for
from qwenkit.generate.config import GenerationConfig
from qwenkit.generate.steps import Step, continued, expect
from qwenkit.generate.text import TextWriter, chat_stops, whole, written
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer

Message = dict[str, str]


class Conversation:
    """Messages between a user and a model, and the cache of what the model has read.

    The model always reads the chat template applied to all messages. The part of it that the cache
    already holds is not fed again: as a rule, the earlier turns. Where a reply's text is tokenized
    in another way than it was generated, the cache is trimmed to the last token that is the same,
    and the rest is fed again. An exchange counts once the reply is complete. A stream that is not
    read to its end, or fails, leaves the conversation as it was before.

    Attributes:
        cache: of one row; its tokens are `ids`.

    Args:
        model: a language model, preferably one trained for chat.
        tokenizer: its tokenizer, with a chat template.
        system: the system message; None: the template's own, if it has one.
        max_length: tokens there is room for, replies included.
        cache_dtype: as for `generate`.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        max_length: int = 2048,
        cache_dtype: str = "auto",
    ) -> None:
        if system is not None and not isinstance(system, str):
            raise InputError(f"system is {system!r}; it must be a text or None")
        self.cache = cache_for(model, 1, max_length, cache_dtype)
        self._model = model
        self._tokenizer = tokenizer
        self._messages = [] if system is None else [_message("system", system)]
        self._ids: list[int] = []  # what was fed, and what may be about to be
        self._newest: object = None  # the stream that may still be read

    @property
    def messages(self) -> list[Message]:
        """A copy of the messages, oldest first: {"role": ..., "content": ...}."""
        return [dict(message) for message in self._messages]

    @property
    def ids(self) -> list[int]:
        """The tokens in the cache: the first ones of the chat template applied to `messages`.

        After a reply its end is missing (`<|im_end|>` and a newline): it is fed with the next
        message. While a stream is being read they are those of its prompt and of its reply so far.
        """
        return self._ids[: self.cache.length]

    def say(self, text: str, *, stream: bool = False, **options: Any) -> str:
        """Return the model's reply to a message, and print it as it comes if `stream` is True.

        Other arguments are those of the method `stream`.
        """
        pieces = self._pieces(text, None if stream else ClosedLoop(), **options)
        return whole(pieces, stream, options.get("max_new_tokens"))

    def stream(
        self,
        text: str,
        *,
        max_new_tokens: int = 64,
        stop_strings: Sequence[str] = (),
        stop_ids: Collection[int] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Return an iterator over the reply to a message, in pieces of whole characters.

        Arguments are checked at once, tokens computed when asked for. A later call of `say`,
        `stream` or `undo` ends this stream.

        Args:
            text: the user's message. A special token in it, such as `<|im_end|>`, is read as one.
            max_new_tokens: of the reply.
            stop_strings: see `qwenkit.stream`.
            stop_ids: tokens that stop the reply; None: the model's own, the tokenizer's eos,
                and `<|im_end|>`.
            options: as for `generate`.

        Raises:
            InputError: an argument out of its range.
            CacheFullError: no room for the message and such a reply; nothing is changed.
            TokenizerError: no chat template, or one that fails.
        """
        return self._pieces(
            text, None, max_new_tokens=max_new_tokens, stop_strings=stop_strings,
            stop_ids=stop_ids, **options,
        )  # fmt: skip

    def _pieces(
        self,
        text: str,
        loop: ClosedLoop | None,
        *,
        max_new_tokens: int = 64,
        stop_strings: Sequence[str] = (),
        stop_ids: Collection[int] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Return what `stream` does; `loop`: as for `continued`."""
        if not isinstance(text, str):
            raise InputError(f"text is a {type(text).__name__}; it must be a str")
        if stop_ids is None:
            stop_ids = chat_stops(self._model, self._tokenizer)
        config = GenerationConfig(max_new_tokens=max_new_tokens, stop_ids=stop_ids, **options)
        writer = TextWriter(self._tokenizer, stop_strings)
        asked = [*self._messages, _message("user", text)]
        ids = self._tokenizer.encode(self._tokenizer.chat(asked))
        self._check_room(len(ids), max_new_tokens)
        self._newest = writer
        return self._reply(asked, ids, config, writer, loop)

    def undo(self) -> None:
        """Take back the last exchange: the message and its reply.

        Raises:
            InputError: there is none.
        """
        if not self._messages or self._messages[-1]["role"] != "assistant":
            raise InputError("there is no exchange to undo; say something first")
        messages = self._messages[:-2]
        kept = self._shared(self._read_by_model(messages))
        self._newest, self._messages = None, messages
        self._trim(kept)

    def _reply(
        self,
        asked: list[Message],
        ids: list[int],
        config: GenerationConfig,
        writer: TextWriter,
        loop: ClosedLoop | None,
    ) -> Iterator[str]:
        """Yield the reply; keep the exchange if all of it was taken, else forget its tokens."""
        self._check_newest(writer)
        kept = min(self._shared(ids), len(ids) - 1)  # the model must be fed at least one token
        self._trim(kept)
        self._ids = list(ids)
        reply = []
        try:
            for piece in written(self._steps(config, writer, loop), writer):
                reply.append(piece)
                yield piece
            self._check_newest(writer)
            messages = [*asked, _message("assistant", "".join(reply))]
            kept = self._shared(self._read_by_model(messages))
            self._messages = messages
        finally:  # after an error, too, and where the caller reads no further
            if self._newest is writer:
                self._newest = None
                self._trim(kept)

    def _steps(
        self, config: GenerationConfig, writer: TextWriter, loop: ClosedLoop | None
    ) -> Iterator[Step]:
        """Yield the reply's steps, and write down each token before it is fed."""
        ids = torch.tensor([self._ids], device=self._model.device)
        expect(loop, self._model, config, ids.shape[1])
        steps = continued(self._model, ids, self.cache, config, loop)
        while True:
            self._check_newest(writer)
            step = next(steps, None)
            if step is None:
                return
            self._ids.append(step.token_id)
            yield step

    def _check_newest(self, writer: TextWriter) -> None:
        if self._newest is not writer:
            raise InputError(
                "the conversation has gone on since this stream was made; read the newest one only"
            )

    def _check_room(self, length: int, new: int) -> None:
        if length + new > self.cache.max_length:
            raise CacheFullError(
                f"with this message the conversation has {length} tokens and the reply may take "
                f"{new} more; there is room for {self.cache.max_length}. Make the conversation "
                f"with max_length={length + new} or more, ask for fewer max_new_tokens, or take "
                "exchanges back with undo()"
            )

    def _read_by_model(self, messages: list[Message]) -> list[int]:
        """Return the ids of the chat template applied to messages."""
        if not messages:  # nothing was said; a template may fail on no messages at all
            return []
        text = self._tokenizer.chat(messages, add_generation_prompt=False)
        return self._tokenizer.encode(text)

    def _shared(self, ids: list[int]) -> int:
        """Return how many tokens at the beginning of the cache are those of `ids`."""
        count = 0
        for ours, theirs in zip(self.ids, ids, strict=False):  # one may be longer
            if ours != theirs:
                break
            count += 1
        return count

    def _trim(self, length: int) -> None:
        del self._ids[length:]
        self.cache.trim(length)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
