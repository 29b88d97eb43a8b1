"""Pretends, on the CPU, that the tensors of a computation are on MPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from mps.defects import Attention, Linear
from mps.places import memory, tensors
from mps.watch import Watch

CPU, MPS = torch.device("cpu"), torch.device("mps", 0)  # a tensor on MPS says mps:0
NUMPY = ("numpy", "__array__")
TO_PYTHON = (*NUMPY, "tolist", "__repr__", "__format__")
FOLLOW = ("to", "type_as")  # may take their device from another tensor


class Pretend(TorchFunctionMode):
    """Answers as a Mac would where Python asks for a device, and follows tensors between devices.

    torch shows it each of its functions that Python calls, with the arguments as they were
    written. Here `torch.arange(5)` and `torch.arange(5, device=x.device)` still differ; to the
    operators underneath, which `Watch` sees, they are the same on the CPU.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self.judge = watch.judge
        self.places = watch.places

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call one of torch's functions with the device that is really there."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, args)
        given = tensors((args, kwargs))
        on_device = any(not self.places.on_host(tensor) for tensor in given)
        if name in TO_PYTHON and on_device:
            return self._to_python(func, args, kwargs)
        asked, args, kwargs = self._asked(name, args, kwargs)
        host = not on_device if asked is None else asked.type == "cpu"
        with self.watch.making(on_device=not host):
            result = self._call(func, on_device, args, kwargs)
        if isinstance(result, Tensor) and (asked is not None or not on_device):
            return self._placed(_written(func), result, given, host)
        return result

    def _attribute(self, func: Any, args: tuple[Any, ...]) -> Any:
        name = getattr(func.__self__, "__name__", "")
        if name in ("device", "is_mps", "is_cpu") and self.places.home == "cpu":
            with torch._C.DisableTorchFunction():
                real = args[0].device
            if real == CPU and not self.places.on_host(args[0]):
                return {"device": MPS, "is_mps": True, "is_cpu": False}[name]
        return func(*args)

    def _to_python(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ in NUMPY and not kwargs.get("force"):
            message = "numpy reads the host's memory alone: call .cpu() first"
            self.judge.notes.problem(_written(func), "numpy", message)
        else:
            self.judge.notes.sync(_written(func), "reads values from the device")
        with self.watch.paused():
            return func(*args, **kwargs)

    def _asked(self, name: str, args: Any, kwargs: Any) -> tuple[torch.device | None, Any, Any]:
        """Return the device that a call asks for, and arguments that name the real one."""
        if name == "cpu":
            return CPU, args, kwargs
        if name == "_parse_to":  # a module reads where it is to go, and then moves each tensor
            return None, args, kwargs
        if name in FOLLOW and len(args) > 1 and isinstance(args[1], Tensor):
            return CPU if self.places.on_host(args[1]) else MPS, args, kwargs
        asked: torch.device | None = None

        def real(value: Any) -> Any:
            nonlocal asked
            if isinstance(value, str) and value.partition(":")[0] in ("cpu", "mps", "meta"):
                value = torch.device(value)
            if not isinstance(value, torch.device):
                return value
            asked = value
            return CPU if value.type == "mps" else value

        args = tuple(real(value) for value in args)
        kwargs = {key: real(value) for key, value in kwargs.items()}
        return asked, args, kwargs

    def _call(self, func: Any, on_device: bool, args: Any, kwargs: Any) -> Any:
        if on_device and func == F.linear:
            self.judge.meets("F.linear", Linear(*args, **kwargs))
        if on_device and func == F.scaled_dot_product_attention:
            return self._attention(func, args, kwargs)
        return func(*args, **kwargs)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call attention, and note what MPS takes for it; the CPU takes a kernel of its own."""
        call = Attention(*args, **kwargs)
        if call.learns or call.dropout_p:
            with sdpa_kernel(SDPBackend.MATH):  # as on MPS: matmul, softmax, matmul
                return func(*args, **kwargs)
        self.judge.meets("F.scaled_dot_product_attention", call)
        fused: Any = torch.ops.aten._scaled_dot_product_attention_math_for_mps.default
        self.judge.operator(fused, fused.name(), args, kwargs)
        with self.watch.paused():
            return func(*args, **kwargs)

    def _placed(self, name: str, result: Tensor, given: Sequence[Tensor], host: bool) -> Tensor:
        """Return a result as it is after a move to the device or the host."""
        if result.is_meta or self.places.on_host(result) == host:
            return result
        if any(memory(result) == memory(tensor) for tensor in given):
            with self.watch.paused():
                result = result.clone()  # on the CPU there was nothing to move
        self.places.place(result, host=host)
        if host and given:
            self.judge.notes.sync(name, "copies from the device to the host")
        self.judge.dtypes(name, [result])
        return result


def _written(func: Any) -> str:
    """Return the name of one of torch's functions as it is written."""
    name: str = func.__name__
    return f"{'Tensor' if getattr(Tensor, name, None) == func else 'torch'}.{name}"
