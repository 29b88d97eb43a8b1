"""Continuous batching: requests join and leave the batch between two steps.

Source: Yu et al. 2022, "Orca: A distributed serving system for transformer-based generative
models". A batch that stays together until its longest text is done has ever fewer rows. Here it is
put together again at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.config import DynamicScaling
from qwenkit.errors import CacheFullError, InputError, QwenkitError, shown
from qwenkit.fast import ClosedLoop
from qwenkit.generate import GenerationConfig, cache_for, one_prompt
from qwenkit.generate.config import check_count
from qwenkit.generate.steps import (
    are_finite,
    check_finite,
    last_logits,
    logits_by_kernels,
    next_token,
)
from qwenkit.model import PageBatch, PageTable, QwenForCausalLM
from qwenkit.serve.pages import PagedCache
from qwenkit.serve.request import Request, State


class Scheduler:
    """Continues many texts together; each as `generate` would continue it alone.

    First come, first served: requests wait until there is room in the batch and in the cache. A
    running one takes its pages one by one, as it grows. Where none is left, the youngest running
    request gives back its own and waits (it is preempted); later its text is read again, and it
    goes on with the random numbers that come next. The oldest always goes on, so each request ends.

    A prompt is read in chunks within the steps of the others (Agrawal et al. 2023, "SARATHI:
    Efficient LLM inference by piggybacking decodes with chunked prefills"). Prompts that begin with
    the same tokens share pages: one reads them, the others wait for it and find them. (The logits
    do differ in their last bits from those of `generate`: sums over several rows are taken in
    another order.)

    All that is fed in a step shares one forward pass, which reads each weight once for all: by the
    compiled kernels, where `explain` says that they serve. Where they do not, chunks of prompts
    have a forward pass of their own.

    Pages belong to the weights that they were computed with: after an edit of the model, call
    `cache.forget()`.

    Args:
        model: a language model.
        max_tokens: tokens there is room for in the cache, of all requests together.
        page_size: tokens per page. With texts of 80 tokens, pages of 8 are 3 % empty, pages of 16
            twice that, and are decoded as quickly (tests/bench/batching.py).
        max_batch_size: requests that run at the same time.
        chunk_tokens: prompt tokens read per step, padding included. With more, prompts are read
            sooner, and the others wait longer for their next token.

    Attributes:
        cache: the pages.

    Raises:
        InputError: an argument out of its range.
        MemoryForecastError: a cache of so many tokens would not fit in memory.

    >>> import qwenkit as qk
    >>> model, tokenizer = qk.load_pretrained()
    >>> scheduler = qk.serve.Scheduler(model)
    >>> options = qk.GenerationConfig(max_new_tokens=5)
    >>> requests = [scheduler.submit(tokenizer.encode(text), options) for text in ("if", "def f(")]
    >>> scheduler.run()
    >>> [len(request.new) for request in requests]
    [5, 5]
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        max_tokens: int = 4096,
        page_size: int = 8,
        max_batch_size: int = 32,
        chunk_tokens: int = 128,
    ) -> None:
        sizes = {
            "max_tokens": max_tokens, "page_size": page_size, "max_batch_size": max_batch_size,
            "chunk_tokens": chunk_tokens,
        }  # fmt: skip
        for name, value in sizes.items():
            check_count(name, value)
        if page_size > max_tokens:
            raise InputError(f"page_size is {page_size}; max_tokens ({max_tokens}) must hold one")
        cache_for(model, 1, max_tokens)  # refuses what would not fit
        self.model = model
        self.cache = PagedCache(model.config, max_tokens // page_size, page_size)
        self.max_batch_size = max_batch_size
        self.chunk_tokens = chunk_tokens
        self._live: list[Request] = []  # in order of arrival; those that run come first

    @property
    def running(self) -> list[Request]:
        """The requests that hold pages, in order of arrival."""
        return [request for request in self._live if request.table is not None]

    @property
    def waiting(self) -> list[Request]:
        """The requests that wait for room, in order of arrival."""
        return [request for request in self._live if request.table is None]

    def submit(
        self, input_ids: Tensor | Sequence[int], config: GenerationConfig | None = None
    ) -> Request:
        """Add a request; it joins the batch at the next step for which there is room.

        Args:
            input_ids: one prompt: (1, T) or (T,) ids, at least one.
            config: how it is continued; None: `GenerationConfig()`.

        Raises:
            InputError: an argument out of its range, or a text that could become longer than the
                cache, or than what the model can take.
        """
        config = GenerationConfig() if config is None else config
        if not isinstance(config, GenerationConfig):
            raise InputError(f"config is {shown(config, 60)}; it must be a GenerationConfig")
        prompt = one_prompt(self.model, input_ids)[0].tolist()
        longest = len(prompt) + config.max_new_tokens - 1  # the last token is not fed
        most = self.cache.num_pages * self.cache.page_size
        if isinstance(self.model.config.rope_scaling, DynamicScaling):
            most = min(most, self.model.config.max_position_embeddings)
        if longest > most:
            raise InputError(
                f"a prompt of {len(prompt)} tokens with {config.max_new_tokens} new ones needs "
                f"room for {longest}, and there is room for {most}; ask for fewer max_new_tokens, "
                "or make the scheduler with more max_tokens"
            )
        request = Request(prompt, config, config.stops(self.model), config.generator())
        self._live.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """End a request as it is, if it is not done; its pages are free for others at once.

        Raises:
            InputError: not a request of this scheduler.
        """
        if not isinstance(request, Request) or not (request.done or request in self._live):
            raise InputError(f"{shown(request, 60)} is not a request of this scheduler")
        if not request.done:
            self._leave(request, "canceled")

    def run(self) -> None:
        """Step until every request is done."""
        loop = ClosedLoop()
        while self._live:
            self._step(loop)

    def step(self) -> list[Request]:
        """Feed every running request its next tokens; return those that got a new one.

        Those that decode are fed one token each, the others chunks of their prompts. If it is
        interrupted, it can be called again.

        Returns:
            In order of arrival; a request's token is the last of its `new`. Empty while prompts
            are read, and where there is nothing to do.
        """
        return self._step(None)

    def _step(self, loop: ClosedLoop | None) -> list[Request]:
        plan = self._plan()
        decoding = {request: count for request, count in plan.items() if count == 1}
        reading = {request: count for request, count in plan.items() if count > 1}
        # In one forward pass each weight is read once for all. The kernels compute no padding; the
        # taught forward pass would compute as much of it for each text as the longest chunk has.
        got = self._forward(plan, loop, logits_by_kernels) if decoding and reading else None
        if got is None:
            batches = [batch for batch in (decoding, reading) if batch]
            got = [one for batch in batches for one in self._forward(batch, loop) or ()]
        return [request for request in plan if request in got]

    def _plan(self) -> dict[Request, int]:
        """Return how many tokens each request is fed, and make room for them, the oldest first."""
        self._admit()
        plan: dict[Request, int] = {}
        beginnings: set[object] = set()  # pages that are filled in this step
        rows = longest = 0  # of the prompts' batch
        for request in self.running:
            if (table := request.table) is None:  # preempted a moment ago
                continue
            text = request.text
            request.shared_tokens += self.cache.share(table, text)
            count = len(text) - table.length
            if reading := count > 1:
                limit = self.chunk_tokens // (rows + 1)
                beginning = self.cache.beginning(table, text)
                if longest > limit or beginning in beginnings:
                    continue  # no room in the batch; or it finds that page at the next step
                count = min(count, limit)
            if not self._room(request, table, count):
                break
            plan[request] = count
            if reading:
                rows, longest = rows + 1, max(longest, count)
                beginnings |= {beginning} - {None}
        return plan

    def _admit(self) -> None:
        """Let waiting requests run while they fit, first come, first served."""
        running = self.running
        for request in self.waiting[: self.max_batch_size - len(running)]:
            table = self.cache.open()
            shared = self.cache.share(table, request.text)
            tables = [(one, one.table) for one in running] + [(request, table)]
            if running and sum(self._owed(*pair) for pair in tables) > self.cache.room:
                self.cache.close(table)
                return
            request.shared_tokens += shared
            request.table, request.state = table, "running"
            running.append(request)

    def _owed(self, request: Request, table: PageTable | None) -> int:
        """Return how many pages a request lacks to read its text, and to grow by one page."""
        return self.cache.pages(len(request.text)) + 1 - len(table.pages if table else [])

    def _room(self, request: Request, table: PageTable, count: int) -> bool:
        """Make room for more tokens; False: the request itself had to give back its pages."""
        while True:
            try:
                self.cache.extend(table, count)
                return True
            except CacheFullError:
                youngest = self.running[-1]
                self._release(youngest, "waiting")
                youngest.preemptions += 1
                if youngest is request:
                    return False

    def _forward(
        self,
        batch: dict[Request, int],
        loop: ClosedLoop | None,
        feed: Callable[..., Float[Tensor, "B V"] | None] = last_logits,
    ) -> list[Request] | None:
        """Feed requests their next tokens; return those that got a new one, None if not fed."""
        tables = [request.table for request in batch if request.table is not None]
        view = PageBatch(self.cache, tables, list(batch.values()))
        width, rows = max(batch.values()), []
        for (request, count), table in zip(batch.items(), tables, strict=True):
            fed = request.text[table.length : table.length + count]
            rows.append([0] * (width - count) + fed)
        device = self.model.device
        ids = torch.tensor(rows, device=device)  # (B, T)
        mask = None if view.mask is None else view.mask.to(device)  # (B, S)
        logits = feed(self.model, ids, view, mask, loop)  # (B, V)
        if logits is None:
            return None
        finite = are_finite(logits)  # if all are, each is
        fed_rows = zip(batch.items(), tables, logits, strict=True)
        return [
            request
            for (request, count), table, own in fed_rows
            if self._fed(request, table, count, own, finite)
        ]

    def _fed(
        self,
        request: Request,
        table: PageTable,
        count: int,
        logits: Float[Tensor, " V"],
        finite: bool,
    ) -> bool:
        """Count a request's tokens, and choose the next one if its text was read to the end."""
        text, end = request.text, table.length + count
        if end < len(text):
            self.cache.advance(table, text[:end])
            return False
        try:
            if not finite:
                check_finite(logits, len(request.new))
            token = self._choose(request, text, logits)
        except QwenkitError as error:  # the others go on
            request.error = error
            self._leave(request, "failed")
            return False
        self.cache.advance(table, text)
        request.add(token)
        if token in request.stops or len(request.new) == request.config.max_new_tokens:
            self._leave(request, "finished")
        return True

    def _choose(self, request: Request, text: list[int], logits: Float[Tensor, " V"]) -> int:
        count = self.model.num_tokens
        return next_token(request.config, logits, text, count, request.generator)

    def _leave(self, request: Request, state: State) -> None:
        self._live.remove(request)
        self._release(request, state)

    def _release(self, request: Request, state: State) -> None:
        """Take a request's pages, if it has any."""
        if request.table is not None:
            self.cache.close(request.table)
        request.table, request.state = None, state
