"""What one client may ask of a server, and how many may ask at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from qwenkit.generate.config import check_count


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server; what exceeds one is refused with an error that names it.

    Attributes:
        max_requests: texts that are written or wait; beyond it, status 429.
        batch_size: texts that are written at the same time; the others wait.
        cache_tokens: tokens there is room for in the cache, of all texts that are written together;
            prompt and answer of one may not be longer, nor longer than the model's context.
        max_tokens: new tokens of one text.
        max_choices: texts that one request may ask for: prompts × n.
        max_stops: stop strings.
        body_bytes: of a request; beyond it, status 413.

    Raises:
        InputError: a limit below 1.
    """

    max_requests: int = 64
    batch_size: int = 8
    cache_tokens: int = 8192
    max_tokens: int = 1024
    max_choices: int = 16
    max_stops: int = 16
    body_bytes: int = 2**20

    def __post_init__(self) -> None:
        for one in fields(self):
            check_count(one.name, getattr(self, one.name))
