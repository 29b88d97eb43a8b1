"""Wraps, while a rehearsal runs, what does not pass through torch's function mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from mps.places import tensors
from mps.pretend import CPU, MPS, Pretend

Call = Callable[..., Any]


class Wrappers:
    """Functions that are called instead of torch's own; each is given the original first.

    Args:
        mode: the one that runs; the wrappers answer as it does.
    """

    def __init__(self, mode: Pretend) -> None:
        self.mode = mode

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put the wrappers in place, and the originals back."""
        wrappers: list[tuple[Any, str, Call]] = [
            (torch.autocast, "__init__", self.autocast),
            (torch.autograd, "_engine_run_backward", self.backward),
            (torch._C._autograd, "_push_saved_tensors_default_hooks", self.saved_tensors_hooks),
            (torch._C, "_group_tensors_by_device_and_dtype", self.grouped),
            (torch.mps, "synchronize", self.synchronize),
        ]
        with contextlib.ExitStack() as stack:
            for owner, name, wrapper in wrappers:
                stack.enter_context(_wrapped(owner, name, wrapper))
            yield

    def autocast(
        self, begin: Call, context: Any, device_type: str, *args: Any, **kwargs: Any
    ) -> None:
        """Cast by the CPU's list: what counts, products and attention, is in that of MPS too."""
        begin(context, "cpu" if device_type == "mps" else device_type, *args, **kwargs)

    def backward(self, run: Call, *args: Any, **kwargs: Any) -> Any:
        """Run the backward pass within the mode, so that hooks are seen too."""
        with self.mode, self.mode.watch.making(on_device=True):
            return run(*args, **kwargs)

    def saved_tensors_hooks(self, push: Call, *pack_and_unpack: Call) -> None:
        """Call hooks for saved tensors within the mode; checkpointing compares devices there."""

        def within(hook: Call) -> Call:
            def call(tensor: Any) -> Any:
                with self.mode:
                    return hook(tensor)

            return call

        push(*map(within, pack_and_unpack))

    def grouped(self, group: Call, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Name each group's device as its tensors do: optimizers and clipping choose by it."""
        places = self.mode.places
        found = {}
        for (device, dtype), lists in group(*args, **kwargs).items():
            on_device = any(not places.on_host(tensor) for tensor in tensors(lists))
            pretended = on_device and device == CPU and places.home == "cpu"
            found[MPS if pretended else device, dtype] = lists
        return found

    def synchronize(self, _: Call) -> None:
        """Note the wait; there is no MPS to wait for."""
        notes = self.mode.judge.notes
        notes.sync("torch.mps.synchronize", "waits until the device has done everything")


@contextlib.contextmanager
def _wrapped(owner: Any, name: str, wrapper: Call) -> Iterator[None]:
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, original)
