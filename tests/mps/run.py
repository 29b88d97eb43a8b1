"""Runs a computation once, and says whether it would run on MPS."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mps.defects import version_number
from mps.judge import Judge
from mps.places import Places, memory, tensors
from mps.pretend import Pretend
from mps.report import Notes, Report
from mps.watch import Watch
from mps.wrap import Wrappers
from qwenkit.device import KNOWN_BAD_ON_MPS
from qwenkit.errors import InputError
from qwenkit.fast.linear import _buffers


def rehearse(fn: Callable[..., Any], *inputs: Any, torch_version: str | None = None) -> Report:
    """Say, on any machine, whether `fn(*inputs)` would run on Apple's GPU.

        report = mps.rehearse(model, input_ids)
        print(report)

    `fn` is run once, with all it does: a training step changes the weights. Its tensors stay on
    the CPU, and are taken for tensors on MPS: the inputs, and all that existed before, but for
    what a module's `.to(device)` leaves behind, its tensors that are neither parameter nor buffer.
    What is made inside of `fn` is where it was asked for: `torch.arange(5)` on the host,
    `torch.arange(5, device=x.device)` on the device. If model and inputs are on meta, nothing is
    computed, and their own device says where they are.

    Found as problems: dtypes and operators that MPS has not, tensors left on the host, calls of
    numpy on the device's tensors, and shapes that gave wrong numbers with this version of torch.

    Not found: a tensor left on the host before `fn` began; a kernel that is there but refuses this
    dtype or shape; what the kernels compute, and how fast. Only a Mac can show these. Now and then
    too much is found: float64 that torch itself takes inside of a function for the CPU alone, as
    `torch.linalg.pinv` does.

    Args:
        fn: the computation; if it returns an iterator, such as `qk.generate` does, that is run to
            its end. Devices are to be read inside of it: one stored before still says cpu, which
            here means the host.
        inputs: its arguments, with tensors on the CPU or on meta.
        torch_version: look for the known defects of this version instead of the installed one's.

    Raises:
        InputError: `fn` is no function, does nothing with a tensor, or has tensors on another
            device; or it stops because tensors of the host and of the device meet.
        Exception: whatever `fn` raises, with the findings so far as a note.
    """
    if not callable(fn):
        raise InputError(f"fn is a {type(fn).__name__}; it must be a function, such as a model")
    version = torch.__version__.partition("+")[0] if torch_version is None else torch_version
    try:
        number = version_number(version)
    except ValueError as error:
        raise InputError(f"torch_version: {error}") from None
    notes = Notes()
    known = KNOWN_BAD_ON_MPS.get(f"{number[0]}.{number[1]}")
    if known is not None:
        notes.remarks.append(f"torch {version} on MPS: {known}; upgrade torch to 2.13 or newer")
    watch = Watch(Judge(_places(fn, inputs), notes, version))
    mode = Pretend(watch)
    with _explained(notes, version), _own_buffers(), Wrappers(mode).installed(), watch, mode:
        result = fn(*inputs)
        if isinstance(result, Iterator):
            for _ in result:
                pass
    if not (notes.operators or notes.problems or notes.syncs):
        raise InputError("fn used no tensor that would be on MPS; pass it the model or its inputs")
    return notes.report(version)


@contextlib.contextmanager
def _explained(notes: Notes, version: str) -> Iterator[None]:
    """Add the findings to an error of the computation; explain one that the rehearsal caused."""
    try:
        yield
    except Exception as error:
        if notes.problems or notes.syncs:
            error.add_note(f"The rehearsal until then: {notes.report(version)}")
        if re.search(r"\bmps\b", str(error)):
            raise InputError(
                f"fn stopped, as it might on a Mac: {error} (A rehearsal calls the device of the "
                "inputs and weights mps:0. A device that was stored before still says cpu, the "
                "host: read it from the model, inside of fn.)"
            ) from error
        raise


@contextlib.contextmanager
def _own_buffers() -> Iterator[None]:
    """Let products meanwhile have buffers of their own.

    Those of before would be taken for the device's; those made meanwhile are filed under MPS and
    lie on the CPU.
    """
    held = _buffers.held
    before = dict(held)
    held.clear()
    try:
        yield
    finally:
        held.clear()
        held.update(before)


def _places(fn: Callable[..., Any], inputs: tuple[Any, ...]) -> Places:
    """Return where the tensors are that a computation starts from."""
    parts = [one for part in (*inputs, *_used(fn)) for one in _opened(part)]
    moved = [tensor for part in parts for tensor in _moved(part)]
    devices = {tensor.device.type for tensor in moved}
    other = devices - {"cpu", "meta"}
    if other:
        raise InputError(
            f"fn has tensors on {', '.join(sorted(other))}; a rehearsal takes them on the CPU or "
            "on meta (on a Mac, simply run it)"
        )
    places = Places("meta" if "meta" in devices else "cpu")
    there = {memory(tensor) for tensor in moved}
    for tensor in (tensor for part in parts for tensor in _left(part)):
        if memory(tensor) not in there:
            places.place(tensor, host=True)
    return places


def _used(fn: Callable[..., Any]) -> list[object]:
    """Return what a function refers to: its own object, outer variables, globals."""
    if isinstance(fn, functools.partial):
        return [*fn.args, *fn.keywords.values(), *_used(fn.func)]
    found: list[object] = [fn, getattr(fn, "__self__", None)]
    if inspect.isfunction(fn):
        with contextlib.suppress(ValueError):  # an outer variable that has no value yet
            variables = inspect.getclosurevars(fn)
            found += [*variables.nonlocals.values(), *variables.globals.values()]
    return found


def _opened(part: object) -> list[object]:
    """Return an object, and what it holds."""
    if (
        isinstance(part, type | nn.Module)
        or inspect.ismodule(part)
        or not hasattr(part, "__dict__")
    ):
        return [part]
    return [part, *vars(part).values()]


def _moved(part: object) -> list[Tensor]:
    """Return the tensors that are on the device when the computation begins."""
    if isinstance(part, nn.Module):
        return [*part.parameters(), *part.buffers()]
    return tensors(part)


def _left(part: object) -> list[Tensor]:
    """Return the tensors that a module does not take along to a device: plain attributes."""
    if not isinstance(part, nn.Module):
        return []
    attributes = [
        value
        for module in part.modules()
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers")
    ]
    return tensors(attributes)
