"""Functions of PyTorch that an exercise is to be solved without."""

from __future__ import annotations

from functools import wraps
from typing import Any

from torch.overrides import TorchFunctionMode


class Forbidden(Exception):
    """A learner's function uses what its exercise forbids."""


class _Watch(TorchFunctionMode):
    """Refuses functions of PyTorch by their names, as long as it is entered."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in self.names:
            raise Forbidden
        return function(*args, **(kwargs or {}))


def without(learner: Any, *names: str) -> Any:
    """Return a learner's function that raises `Forbidden` if it calls one of these functions."""
    if not callable(learner):
        return learner  # `judge` says so

    @wraps(learner)
    def watched(*given: Any) -> Any:
        with _Watch(names):
            return learner(*given)

    return watched


def uses_forbidden(*given: Any) -> Any:
    """Answer as a function does that uses what is forbidden: the function of a `Mistake`."""
    raise Forbidden
