"""Pretends, on the CPU, that the tensors of a computation are on MPS."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from mps._defects import attention, fused, linear
from mps._places import memory, tensors
from mps._watch import Watch

CPU, MPS = torch.device("cpu"), torch.device("mps", 0)  # a tensor on MPS says mps:0
NUMPY = ("numpy", "__array__")
TO_PYTHON = (*NUMPY, "tolist", "__repr__", "__format__")
FUSED = torch.ops.aten._scaled_dot_product_attention_math_for_mps.default


class Pretend(TorchFunctionMode):
    """Answers as a Mac would where Python asks for a device, and follows tensors between devices.

    torch shows it each of its functions that Python calls, with the arguments as they were
    written. Here `torch.arange(5)` and `torch.arange(5, device=x.device)` still differ; to the
    operators underneath, which `Watch` sees, they are the same on the CPU.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch, self.judge, self.places = watch, watch.judge, watch.places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call one of torch's functions with the device that is really there."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        given = tensors((args, kwargs))
        on_device = not all(self.places.on_host(tensor) for tensor in given)
        if name in TO_PYTHON and on_device:
            return self._to_python(func, args, kwargs)
        asked = self._asked(name, args, kwargs)
        if name != "_parse_to":
            args, kwargs = [_real(v) for v in args], {key: _real(v) for key, v in kwargs.items()}
        host = not on_device if asked is None else asked.type == "cpu"
        with self.watch.having(on_device=not host):
            result = self._call(func, on_device, args, kwargs)
        if isinstance(result, Tensor) and (asked is not None or not on_device):
            return self._placed(_written(func), result, given, host)
        return result

    def _attribute(self, func, args):
        name = getattr(func.__self__, "__name__", "")
        if name in ("device", "is_mps", "is_cpu") and not self.places.meta:
            with torch._C.DisableTorchFunction():
                real = args[0].device
            if real == CPU and not self.places.on_host(args[0]):
                return {"device": MPS, "is_mps": True, "is_cpu": False}[name]
        return func(*args)

    def _to_python(self, func, args, kwargs):
        kind, message = "sync", "reads values from the device"
        if func.__name__ in NUMPY and not kwargs.get("force"):
            kind, message = "numpy", "numpy reads only the host's memory: call .cpu() first"
        self.judge.report.add(_written(func), kind, message)
        with self.watch.having(paused=True):
            return func(*args, **kwargs)

    def _asked(self, name, args, kwargs) -> torch.device | None:
        """Return the device that a call asks for, if it asks for one."""
        if name == "cpu":
            return CPU
        if name == "_parse_to":  # a module reads where it is to go, and then moves each tensor
            return None
        if name in ("to", "type_as") and len(args) > 1 and isinstance(args[1], Tensor):
            return CPU if self.places.on_host(args[1]) else MPS
        named = map(_device, (*args, *kwargs.values()))
        return next((device for device in named if device is not None), None)

    def _call(self, func, on_device, args, kwargs):
        """Call a function; of attention, report what MPS takes, as the CPU has its own kernel."""
        if on_device and func == F.linear:
            self.judge.defects("F.linear", linear(*args, **kwargs))
        if not on_device or func != F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        if not fused(*args, **kwargs):
            with sdpa_kernel(SDPBackend.MATH):  # as on MPS: matmul, softmax, matmul
                return func(*args, **kwargs)
        self.judge.defects("F.scaled_dot_product_attention", attention(*args, **kwargs))
        self.judge.operator(FUSED, FUSED.name(), args, kwargs)
        with self.watch.having(paused=True):
            return func(*args, **kwargs)

    def _placed(self, name: str, result: Tensor, given: Sequence[Tensor], host: bool) -> Tensor:
        """Return a result as it is after a move to the device or the host."""
        if result.is_meta or self.places.on_host(result) == host:
            return result
        if any(memory(result) == memory(tensor) for tensor in given):
            with self.watch.having(paused=True):
                result = result.clone()  # on the CPU there was nothing to move
        self.places.place(result, host=host)
        if host and given:
            self.judge.report.add(name, "sync", "copies from the device to the host")
        self.judge.dtypes(name, [result])
        return result

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Enter the mode, and wrap what does not pass through torch's function modes."""
        begin, run_backward = torch.autocast.__init__, torch.autograd._engine_run_backward
        push = torch._C._autograd._push_saved_tensors_default_hooks
        group = torch._C._group_tensors_by_device_and_dtype

        def autocast(context, device_type, *args, **kwargs):
            # By the CPU's list: what counts, products and attention, is in that of MPS too.
            begin(context, "cpu" if device_type == "mps" else device_type, *args, **kwargs)

        def backward(*args, **kwargs):
            with self, self.watch.having(on_device=True):  # so that hooks are seen too
                return run_backward(*args, **kwargs)

        def within(hook):
            def call(tensor):
                with self:  # checkpointing compares devices in hooks for saved tensors
                    return hook(tensor)

            return call

        def grouped(*args, **kwargs):
            # Optimizers and clipping choose by the device's name.
            found = {}
            for (device, dtype), lists in group(*args, **kwargs).items():
                on_host = self.places.meta or all(map(self.places.on_host, tensors(lists)))
                found[device if on_host or device != CPU else MPS, dtype] = lists
            return found

        def synchronize():
            message = "waits until the device has done everything"
            self.judge.report.add("torch.mps.synchronize", "sync", message)

        wrappers = {
            "autocast.__init__": autocast,
            "autograd._engine_run_backward": backward,
            "_C._autograd._push_saved_tensors_default_hooks": lambda *h: push(*map(within, h)),
            "_C._group_tensors_by_device_and_dtype": grouped,
            "mps.synchronize": synchronize,
        }
        with contextlib.ExitStack() as stack:
            for name, wrapper in wrappers.items():
                stack.enter_context(mock.patch(f"torch.{name}", wrapper))
            stack.enter_context(self)
            yield


def _device(value: Any) -> torch.device | None:
    """Return the device that an argument names, if it names one."""
    if isinstance(value, str) and value.partition(":")[0] in ("cpu", "mps", "meta"):
        return torch.device(value)
    return value if isinstance(value, torch.device) else None


def _real(value: Any) -> Any:
    """Return an argument; the device that is really there instead of MPS."""
    device = _device(value)
    return CPU if device is not None and device.type == "mps" else value


def _written(func) -> str:
    """Return the name of one of torch's functions as it is written."""
    name = func.__name__
    return f"{'Tensor' if getattr(Tensor, name, None) == func else 'torch'}.{name}"
