"""A scheduler in a thread of its own, for programs that must never wait for a forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from qwenkit.errors import InputError, QwenkitError
from qwenkit.generate import GenerationConfig, one_prompt
from qwenkit.generate.config import check_count
from qwenkit.generate.text import TextWriter
from qwenkit.model import QwenForCausalLM
from qwenkit.serve.request import Request
from qwenkit.serve.scheduler import Scheduler

Reason = Literal["stop", "length", "canceled", "failed"]


class BusyError(QwenkitError):
    """More jobs at once than the engine was made for."""


class ClosedError(QwenkitError):
    """A job for an engine that was closed."""


@dataclass(eq=False)
class Job:
    """A text to be continued, and who is told of it.

    Attributes:
        prompt: its ids.
        config: how it is continued.
        writer: makes text of its tokens, and looks for stop strings.
        told: called in the engine's thread with the job and a piece of whole characters; the last
            call, perhaps with an empty piece, comes once `reason` is set.
        request: what the scheduler knows of it; None: it did not start yet.
        reason: why it ended: "stop" (a stop token or a stop string), "length" (the count),
            "canceled" or "failed".
        error: why it failed.
    """

    prompt: list[int]
    config: GenerationConfig
    writer: TextWriter
    told: Callable[[Job, str], None] = field(repr=False)
    request: Request | None = None
    reason: Reason | None = None
    error: Exception | None = None

    @property
    def new(self) -> list[int]:
        """The tokens added so far; a stop token is among them."""
        return self.request.new if self.request else []


class Engine:
    """Owns a model and a `Scheduler`, in one thread; its methods may be called from any other.

    Nobody else may run the model meanwhile: the scheduler is not made for several threads.

    Args:
        model: a language model; after an edit of its weights, make another engine.
        max_jobs: running and waiting ones together; more are refused.
        options: as for `Scheduler`.

    Attributes:
        context: tokens that prompt and answer may have together: the smaller one of the cache and
            what the model was made for (max_position_embeddings).

    Raises:
        InputError: an argument out of its range.
        MemoryForecastError: a cache of so many tokens would not fit in memory.
    """

    def __init__(self, model: QwenForCausalLM, *, max_jobs: int = 64, **options: Any) -> None:
        check_count("max_jobs", max_jobs)
        self.scheduler = Scheduler(model, **options)
        self.max_jobs = max_jobs
        room = self.scheduler.cache.num_pages * self.scheduler.cache.page_size
        self.context = min(room, model.config.max_position_embeddings)
        self._changed = threading.Condition()
        self._live: set[Job] = set()
        self._arrived: list[Job] = []
        self._canceled: list[Job] = []
        self._closing = False
        self._jobs: dict[Request, Job] = {}  # of the thread alone
        self._threads = torch.get_num_threads()  # torch sets them per thread
        self._thread = threading.Thread(target=self._work, name="qwenkit-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def check(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Refuse a prompt that is not one, or a text that could become too long.

        Raises:
            InputError: saying which.
        """
        one_prompt(self.scheduler.model, prompt)
        if len(prompt) + max_new_tokens > self.context:
            raise InputError(
                f"a prompt of {len(prompt):,} tokens with {max_new_tokens:,} new ones is longer "
                f"than the context of {self.context:,}; shorten the prompt or ask for fewer"
            )

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs, all or none of them; `check` them before.

        Raises:
            BusyError: too many jobs.
            ClosedError: the engine was closed.
        """
        with self._changed:
            if self._closing:
                raise ClosedError("the engine was closed; start another")
            if len(self._live) + len(jobs) > self.max_jobs:
                raise BusyError(
                    f"{len(self._live)} texts are being written or wait, and {len(jobs)} more "
                    f"would be over the limit of {self.max_jobs}; try again later"
                )
            self._live.update(jobs)
            self._arrived += jobs
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs as they are at the next step; those that have ended stay as they are."""
        with self._changed:
            self._canceled += jobs
            self._changed.notify()

    def close(self) -> None:
        """End all jobs as canceled, and the thread; wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                while not (self._arrived or self._canceled or self._jobs or self._closing):
                    self._changed.wait()
                arrived, self._arrived = self._arrived, []
                canceled, self._canceled = self._canceled, []
                closing = self._closing
            for job in arrived:
                self._begin(job)
            for job in [*self._jobs.values()] if closing else canceled:
                self._end(job, "canceled")
            if closing:
                return
            self._step()

    def _begin(self, job: Job) -> None:
        try:
            job.request = self.scheduler.submit(job.prompt, job.config)
        except QwenkitError as error:
            self._end(job, "failed", error=error)
        else:
            self._jobs[job.request] = job

    def _step(self) -> None:
        """Compute the next tokens; whatever goes wrong ends the jobs it concerns, and no others."""
        try:
            got = self.scheduler.step()
        except Exception as error:  # torch's own, or out of memory
            for job in [*self._jobs.values()]:
                self._end(job, "failed", error=error)
            return
        for request in got:
            self._added(self._jobs[request], request)
        for request, job in [*self._jobs.items()]:
            if request.state == "failed":
                self._end(job, "failed", error=request.error)

    def _added(self, job: Job, request: Request) -> None:
        """Pass on the text of a job's new token, and end the job where its text ends."""
        stopped = request.new[-1] in request.stops
        try:
            piece = "" if stopped else job.writer.add(request.new[-1])
            if request.done and not job.writer.stopped:
                piece += job.writer.end()
        except QwenkitError as error:
            return self._end(job, "failed", error=error)
        if stopped or job.writer.stopped:
            self._end(job, "stop", piece)
        elif request.done:
            self._end(job, "length", piece)
        elif piece:
            job.told(job, piece)

    def _end(
        self, job: Job, reason: Reason, piece: str = "", error: Exception | None = None
    ) -> None:
        if job.reason is not None:
            return
        job.reason, job.error = reason, error
        if job.request is not None:
            self._jobs.pop(job.request, None)
            self.scheduler.cancel(job.request)  # nothing changes where it is done
        with self._changed:
            self._live.discard(job)
        job.told(job, piece)
