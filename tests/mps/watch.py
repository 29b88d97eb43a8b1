"""Sees every operator that a computation calls, and has it judged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mps.judge import Judge
from mps.kernels import hides_others
from mps.places import tensors
from qwenkit.errors import InputError


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Has each operator judged as if on MPS, then runs it where it is.

    Args:
        judge: of the operators that work on the device. Those of the host's tensors alone run on
            the host, on a Mac as well, and are let pass.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.judge = judge
        self.places = judge.places
        self._paused = False
        self._on_device = False  # where an operator that takes no tensor makes its result
        self._opened: list[str] = []  # the composite operators that are opened now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let everything pass meanwhile."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @contextlib.contextmanager
    def making(self, *, on_device: bool) -> Iterator[None]:
        """Take tensors that are made of nothing meanwhile as made on the device, or on the host."""
        before, self._on_device = self._on_device, on_device
        try:
            yield
        finally:
            self._on_device = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Judge one operator, and run it."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if self._paused:
                return func(*args, **kwargs)
            if self._opened:
                return self._inner(func, args, kwargs)
            if self._is_on_device(func.name(), args, kwargs):
                return self._outer(func, args, kwargs)
            result = func(*args, **kwargs)
            for tensor in tensors(result):
                self.places.place(tensor, host=True)
            return result

    def _is_on_device(self, name: str, args: Any, kwargs: Any) -> bool:
        given = tensors((args, kwargs))
        if any(tensor.is_meta for tensor in given):
            return True
        if name == "aten::lift_fresh" or not given:  # made of Python's values, or of nothing
            return self._on_device
        return not all(self.places.on_host(tensor) for tensor in given)

    def _outer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Judge an operator that the computation called itself."""
        name = func.name()
        mixed = self.judge.operator(func, name, args, kwargs)
        try:
            result = self._run(func, name, args, kwargs)
        except RuntimeError as error:
            if mixed and self.places.home == "meta":  # there torch itself stops at mixed devices
                raise InputError(f"fn would stop on MPS at {name}: {mixed}") from error
            raise
        given = [tensor for tensor in tensors((args, kwargs)) if not self.places.on_host(tensor)]
        known = {tensor.dtype for tensor in given}  # judged with the arguments
        self.judge.dtypes(name, [made for made in tensors(result) if made.dtype not in known])
        return result

    def _inner(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Judge an operator that a composite one called: only whether it can run."""
        name = func.name()
        self.judge.kernel(name, self._opened[0])
        return self._run(func, name, args, kwargs)

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operator; one that MPS would run as a composite of others is opened."""
        if name in self._opened or not hides_others(name) or not _is_plain(tensors(args)):
            return func(*args, **kwargs)
        self._opened.append(name)
        try:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        except RuntimeError:  # some call others in ways that Python cannot: then it stays closed
            return func(*args, **kwargs)
        finally:
            self._opened.pop()


def _is_plain(some: Sequence[Tensor]) -> bool:
    """Tell whether torch calls a composite kernel with these tensors as they are."""
    return all(t.layout == torch.strided and not t._is_zerotensor() for t in some)
