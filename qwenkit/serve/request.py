"""A request: one prompt, how to continue it, and what was written so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from qwenkit.generate import GenerationConfig
from qwenkit.model import PageTable

State = Literal["waiting", "running", "finished", "canceled", "failed"]


@dataclass(eq=False)
class Request:
    """A text that a `Scheduler` continues; `Scheduler.submit` makes it.

    Attributes:
        prompt: its ids.
        config: how it is continued.
        stops: tokens that stop generation.
        generator: of its own random numbers.
        new: the tokens added so far; a stop token is the last.
        text: ids of prompt and continuation; all but the last are fed before the next.
        state: "waiting" for room, also after it was preempted; "running"; and at the end "finished"
            by a stop token or the count, "canceled", or "failed".
        error: why it failed.
        preemptions: how often it had to give its pages to an older request.
        shared_tokens: how many tokens' keys and values it found and did not compute.
        table: its pages, while it runs.
    """

    prompt: list[int]
    config: GenerationConfig
    stops: frozenset[int] = field(repr=False)
    generator: torch.Generator = field(repr=False)
    new: list[int] = field(default_factory=list, init=False)
    text: list[int] = field(init=False, repr=False)
    state: State = "waiting"
    error: Exception | None = None
    preemptions: int = 0
    shared_tokens: int = 0
    table: PageTable | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.text = [*self.prompt]

    @property
    def done(self) -> bool:
        """Whether it takes no more tokens."""
        return self.state in ("finished", "canceled", "failed")

    def add(self, token: int) -> None:
        """Add a token."""
        self.new.append(token)
        self.text.append(token)
