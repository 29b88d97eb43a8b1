"""Requests for texts: read, handed to the engine, and answered whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from tornado.iostream import StreamClosedError
from tornado.web import stream_request_body

from qwenkit.errors import shown
from qwenkit.generate.text import TextWriter
from qwenkit.serve.engine import BusyError, ClosedError, Job
from qwenkit.serve.http._answers import LAST_EVENT, Chat, Completion, event, usage
from qwenkit.serve.http._errors import ApiError
from qwenkit.serve.http._fields import read_object
from qwenkit.serve.http._handlers import Handler
from qwenkit.serve.http._tasks import Served, Task, chat_task, completion_task

PATIENCE = 60.0  # seconds that a client may take to read what a stream has sent
DRAINED = 16  # times the limit of a body: up to there it is read and dropped, then refused


class Event(NamedTuple):
    """Something new of one of a request's texts: a piece, and whether it ended."""

    place: int
    piece: str
    ended: bool


@stream_request_body
class _Texts(Handler):
    """POST: continues texts."""

    read: ClassVar[Callable[[dict[str, Any], Served], Task]]
    form: ClassVar[type[Completion]]

    def prepare(self) -> None:
        """Check where a request comes from, and what it says of its body.

        The body is read before a request is refused: a connection that is closed with something
        unread may lose the answer.
        """
        self._body, self._size = bytearray(), 0
        self._jobs: list[Job] = []
        self._gone = False
        self._refusal: ApiError | None = None
        try:
            super().prepare()
            self._check_body()
        except ApiError as error:
            self._refusal = error
        if self._announced() > DRAINED * self.shared.served.limits.body_bytes:
            raise self._too_large()

    def _check_body(self) -> None:
        kind = self.request.headers.get("Content-Type", "")
        if self.request.method == "POST" and _media_type(kind) != "application/json":
            raise ApiError(
                f"Content-Type is {shown(kind, 60)}; send application/json, and JSON in UTF-8", 415
            )

    def _announced(self) -> int:
        """Return how many bytes the headers say that there will be."""
        length = self.request.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else 0

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body, as long as it is not too large."""
        self._size += len(chunk)
        if self._size <= self.shared.served.limits.body_bytes:
            self._body += chunk

    def on_connection_close(self) -> None:
        """End the texts of a client that has hung up."""
        self._gone = True
        self.shared.served.engine.cancel(self._jobs)

    async def post(self) -> None:
        """Read what is asked for, and answer with whole texts or with a stream."""
        self.shared.active.add(self)
        try:
            if self._size > self.shared.served.limits.body_bytes:
                raise self._too_large()
            if self._refusal is not None:
                raise self._refusal
            # A long text takes long to tokenize; others must not wait for it.
            task = await asyncio.to_thread(self._task)
            if self._gone:
                return
            events = self._begin(task)
            await (self._stream(task, events) if task.stream else self._whole(task, events))
        except StreamClosedError:
            pass
        finally:
            self.shared.active.discard(self)
            self.shared.served.engine.cancel(self._jobs)

    def _task(self) -> Task:
        return type(self).read(read_object(bytes(self._body)), self.shared.served)

    def _begin(self, task: Task) -> asyncio.Queue[Event]:
        """Hand the texts to the engine; return the queue of what happens."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        served = self.shared.served

        def teller(place: int) -> Callable[[Job, str], None]:
            def told(job: Job, piece: str) -> None:
                with suppress(RuntimeError):  # the loop was closed, and nobody listens
                    news = Event(place, piece, job.reason is not None)
                    loop.call_soon_threadsafe(events.put_nowait, news)

            return told

        jobs = []
        for place, (prompt, config) in enumerate(task.choices):
            writer = TextWriter(served.tokenizer, task.stops)
            jobs.append(Job(task.prompts[prompt], config, writer, teller(place)))
        try:
            served.engine.submit(jobs)
        except BusyError as error:
            raise ApiError(str(error), 429, code="rate_limit_exceeded") from None
        except ClosedError:
            raise _ending() from None
        self._jobs = jobs
        return events

    async def _whole(self, task: Task, events: asyncio.Queue[Event]) -> None:
        texts, running = [""] * len(self._jobs), len(self._jobs)
        while running:
            place, piece, ended = await events.get()
            texts[place] += piece
            running -= ended
        if self._gone:
            return
        reasons, form = [_reason(job) for job in self._jobs], self.form(self.shared.served.name)
        self.finish(form.whole(texts, reasons, usage(task.prompts, self._jobs)))

    async def _stream(self, task: Task, events: asyncio.Queue[Event]) -> None:
        form, running = self.form(self.shared.served.name), len(self._jobs)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        await self._send(*(event(one) for index in range(running) for one in form.first(index)))
        while running:
            place, piece, ended = await events.get()
            running -= ended
            try:
                reason = _reason(self._jobs[place]) if ended else None
            except ApiError as error:  # the status is sent already
                return await self._send(event(error.body()))
            await self._send(*map(event, form.piece(place, piece, reason)))
        if task.usage:
            await self._send(event(form.counts(usage(task.prompts, self._jobs))))
        await self._send(LAST_EVENT)

    async def _send(self, *texts: str) -> None:
        """Send at once; a client that does not read for long is taken to be gone."""
        self.write("".join(texts))
        try:
            await asyncio.wait_for(self.flush(), PATIENCE)
        except TimeoutError:
            self.request.connection.close()  # type: ignore[union-attr]
            raise StreamClosedError from None

    def _too_large(self) -> ApiError:
        most = self.shared.served.limits.body_bytes
        return ApiError(f"the body is larger than {most:,} bytes; send a shorter text", 413)


class Completions(_Texts):
    """POST /v1/completions."""

    read, form = completion_task, Completion


class ChatCompletions(_Texts):
    """POST /v1/chat/completions."""

    read, form = chat_task, Chat


def _media_type(header: str) -> str:
    """Return the type that a Content-Type header names, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _ending() -> ApiError:
    return ApiError("the server is shutting down; start it again", 503)


def _reason(job: Job) -> str:
    """Return why a text ended, as OpenAI's API says it.

    Raises:
        ApiError: it did not end by itself.
    """
    if job.reason in ("stop", "length"):
        return job.reason
    if job.reason == "canceled":
        raise _ending()
    raise ApiError(f"the model failed: {job.error}", 500)
