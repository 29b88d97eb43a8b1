"""What is sent: OpenAI's JSON objects, for texts and for the pieces of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qwenkit.serve.engine import Job

Json = dict[str, Any]


def usage(prompts: Sequence[Sequence[int]], jobs: Sequence[Job]) -> Json:
    """Return the counts of tokens: each prompt once; a stop token counts as one that was written.

    Cached ones are those whose keys and values another text had computed before.
    """
    read, wrote = sum(map(len, prompts)), sum(len(job.new) for job in jobs)
    cached = sum(job.request.shared_tokens for job in jobs if job.request)
    return {
        "prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote,
        "prompt_tokens_details": {"cached_tokens": min(read, cached)},
    }  # fmt: skip


@dataclass(frozen=True)
class Completion:
    """The form of /v1/completions.

    Attributes:
        model: its name.
        id: of the answer.
        created: seconds since 1970.
    """

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: Sequence[str], reasons: Sequence[str], counts: Json) -> Json:
        """Return the answer of a request that does not stream."""
        choices = [
            self._choice(*one) for one in zip(range(len(texts)), texts, reasons, strict=True)
        ]
        return {**self._head("text_completion"), "choices": choices, "usage": counts}

    def first(self, index: int) -> list[Json]:
        """Return what a stream begins with, for one of its texts."""
        return []

    def piece(self, index: int, text: str, reason: str | None) -> list[Json]:
        """Return the pieces of a stream: more text, the end, or both."""
        return [self._chunk("text_completion", self._choice(index, text, reason))]

    def counts(self, counts: Json) -> Json:
        """Return the last piece of a stream that was asked for the counts of tokens."""
        return {**self.piece(0, "", None)[0], "choices": [], "usage": counts}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, kind: str, choice: Json) -> Json:
        return {**self._head(kind), "choices": [choice]}

    def _choice(self, index: int, text: str, reason: str | None) -> Json:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


@dataclass(frozen=True)
class Chat(Completion):
    """The form of /v1/chat/completions; attributes as of `Completion`."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")

    def whole(self, texts: Sequence[str], reasons: Sequence[str], counts: Json) -> Json:
        """Return the answer of a request that does not stream."""
        choices = [
            {"index": index, "logprobs": None, "finish_reason": reason,
             "message": {"role": "assistant", "content": text, "refusal": None}}
            for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]  # fmt: skip
        return {**self._head("chat.completion"), "choices": choices, "usage": counts}

    def first(self, index: int) -> list[Json]:
        """Return the role, with which each text of a stream begins."""
        return [self._delta(index, {"role": "assistant", "content": ""}, None)]

    def piece(self, index: int, text: str, reason: str | None) -> list[Json]:
        """Return the pieces of a stream: more text, then the end."""
        more = [self._delta(index, {"content": text}, None)] if text else []
        return more + ([self._delta(index, {}, reason)] if reason else [])

    def counts(self, counts: Json) -> Json:
        """Return the last piece of a stream that was asked for the counts of tokens."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": counts}

    def _delta(self, index: int, delta: Json, reason: str | None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._chunk("chat.completion.chunk", choice)


def event(value: Json) -> str:
    """Return an event of a stream (server-sent events): one line of JSON."""
    return f"data: {json.dumps(value)}\n\n"


LAST_EVENT = "data: [DONE]\n\n"
