"""Runs a computation once, and says whether it would run on MPS."""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

from mps._judge import Judge
from mps._places import Places, tensors
from mps._pretend import MPS, Pretend
from mps._report import Report
from mps._watch import Watch
from qwenkit.device import known_problem
from qwenkit.errors import InputError
from qwenkit.fast.linear import _buffers


def rehearse(fn: Callable[..., Any], *inputs: Any, torch_version: str | None = None) -> Report:
    """Say, on any machine, whether `fn(*inputs)` would run on Apple's GPU.

    `fn` runs once, with all it does: a training step changes the weights. Its tensors stay on the
    CPU, and are taken for tensors on MPS: the inputs, and all that existed before, except what a
    module's `.to(device)` leaves behind, its tensors that are neither parameter nor buffer. What
    is made inside of `fn` is where it was asked for: `torch.arange(5)` on the host,
    `torch.arange(5, device=x.device)` on the device. If model and inputs are on meta, nothing is
    computed, and their own device says where they are.

    Found: dtypes and operators that MPS does not have, tensors left on the host, calls of numpy on
    the device's tensors, and shapes that gave wrong numbers with this version of torch; by mistake,
    float64 that torch itself takes on the CPU alone, as in `torch.linalg.pinv`. Not found: tensors
    left on the host before, kernels that refuse a dtype or shape, what they compute, and how fast.

    Args:
        fn: the computation; an iterator that it returns is run to its end. Read devices inside of
            it: one stored before still says cpu, which here means the host.
        inputs: its arguments, with tensors on the CPU or on meta.
        torch_version: look for the known defects of this version instead of the installed one's.

    Raises:
        InputError: `fn` is not a function, uses no tensor, has tensors on another device, or stops
            because tensors of the host and of the device meet.
        Exception: whatever `fn` raises, with the findings so far as a note.
    """
    if not callable(fn):
        raise InputError(f"fn is a {type(fn).__name__}; it must be a function, such as a model")
    version = torch.__version__.partition("+")[0] if torch_version is None else torch_version
    known = known_problem(MPS, version)
    report = Report(version, [known] if known else [])
    watch = Watch(Judge(_places(fn, inputs), report))
    # Buffers of before would be taken for the device's; those made now are filed under MPS.
    own_buffers = mock.patch.object(_buffers, "held", {})
    with _explained(report), own_buffers, watch, Pretend(watch).installed():
        result = fn(*inputs)
        if isinstance(result, Iterator):
            list(result)
    if not (report.operators or report.problems or report.syncs):
        raise InputError("fn used no tensor that would be on MPS; pass it the model or its inputs")
    return report


@contextlib.contextmanager
def _explained(report: Report) -> Iterator[None]:
    """Add the findings to an error of the computation; explain one that the rehearsal caused."""
    try:
        yield
    except Exception as error:
        if report.problems or report.syncs:
            error.add_note(f"The rehearsal until then: {report}")
        if re.search(r"\bmps\b", str(error)):
            raise InputError(
                f"fn stopped, as it might on a Mac: {error} (A rehearsal calls the device of the "
                "inputs and weights mps:0. A device that was stored before still says cpu, the "
                "host: read it from the model, inside of fn.)"
            ) from error
        raise


def _places(fn: Callable[..., Any], inputs: tuple[Any, ...]) -> Places:
    """Return where the tensors are that a computation starts from."""
    parts = [one for part in (*inputs, *_used(fn)) for one in _opened(part)]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    moved = tensors([parts, [[*one.parameters(), *one.buffers()] for one in modules]])
    devices = {tensor.device.type for tensor in moved}
    if other := devices - {"cpu", "meta"}:
        raise InputError(
            f"fn has tensors on {', '.join(sorted(other))}; a rehearsal takes them on the CPU or "
            "on meta (on a Mac, simply run it)"
        )
    places = Places(meta="meta" in devices)
    for part in [part for module in modules for part in module.modules()]:
        left = {**vars(part), "_parameters": None, "_buffers": None}  # behind by .to(device)
        for tensor in tensors(left):
            places.place(tensor, host=True)
    for tensor in moved:
        places.place(tensor, host=False)
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
    closed = isinstance(part, type | nn.Module) or inspect.ismodule(part)
    return [part] if closed else [part, *getattr(part, "__dict__", {}).values()]
