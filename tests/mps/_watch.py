"""Sees every operator that a computation calls, and has it judged."""

from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mps._judge import Judge
from mps._kernels import hides_others
from mps._places import tensors
from qwenkit.errors import InputError


class Watch(TorchDispatchMode):
    """Has each operator judged as if on MPS, then runs it where it is.

    One that works only on tensors of the host runs there on a Mac as well, and is let pass.
    """

    paused = False  # lets everything pass
    on_device = False  # where an operator that takes no tensor makes its result

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge, self.places = judge, judge.places
        self._opened: list[str] = []  # the composite operators that are opened now

    def having(self, **state: bool):
        """Return a context in which `paused` or `on_device` is another."""
        return mock.patch.multiple(self, **state)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Judge one operator, and run it."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if self.paused:
                return func(*args, **kwargs)
            if self._opened:  # called by a composite operator: judged only for its kernel
                self.judge.kernel(func.name(), self._opened[0])
                return self._run(func, args, kwargs)
            if self._is_on_device(func.name(), tensors((args, kwargs))):
                return self._judged(func, args, kwargs)
            result = func(*args, **kwargs)
            for tensor in tensors(result):
                self.places.place(tensor, host=True)
            return result

    def _is_on_device(self, name, given):
        if any(tensor.is_meta for tensor in given):
            return True
        if name == "aten::lift_fresh" or not given:  # made of Python's values, or of nothing
            return self.on_device
        return not all(self.places.on_host(tensor) for tensor in given)

    def _judged(self, func, args, kwargs):
        """Judge an operator that the computation called itself, and run it."""
        name = func.name()
        mixed = self.judge.operator(func, name, args, kwargs)
        try:
            result = self._run(func, args, kwargs)
        except RuntimeError as error:
            if mixed and self.places.meta:  # there torch itself stops at mixed devices
                raise InputError(f"fn would stop on MPS at {name}: {mixed}") from error
            raise
        given = [tensor for tensor in tensors((args, kwargs)) if not self.places.on_host(tensor)]
        known = {tensor.dtype for tensor in given}  # judged with the arguments
        self.judge.dtypes(name, [made for made in tensors(result) if made.dtype not in known])
        return result

    def _run(self, func, args, kwargs):
        """Run an operator; one that MPS would run as a composite of others is opened."""
        name = func.name()
        # torch calls a composite kernel with plain tensors as they are, not with others.
        plain = all(t.layout == torch.strided and not t._is_zerotensor() for t in tensors(args))
        if name in self._opened or not hides_others(name) or not plain:
            return func(*args, **kwargs)
        self._opened.append(name)
        try:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        except RuntimeError:  # some call others in ways that Python cannot: then it stays closed
            return func(*args, **kwargs)
        finally:
            self._opened.pop()
