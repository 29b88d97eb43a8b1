"""What a single call would do on MPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mps.defects import MatMul, met_by
from mps.kernels import ON_MPS, runs_on_mps
from mps.places import Places, tensors
from mps.report import Notes

# All that Metal has; torch refuses to make any other on MPS.
MPS_DTYPES = frozenset({
    torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32, torch.bool,
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
})  # fmt: skip
INSTEAD = {torch.float64: "float32", torch.complex128: "complex64"}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
COPIES = ("aten::copy_", "aten::_to_copy")  # from any device to any other
INDEXING = ("aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_")
DRAWS = ("aten::multinomial", "aten::multinomial.out")
STRICT = ("aten::cat", "aten::stack")  # take no tensor of another device, not even one number
READS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Judge:
    """Notes what is wrong, or slow, about a call.

    Args:
        places: which tensors are on the host.
        notes: takes what is found.
        torch_version: whose known defects are looked for.
    """

    def __init__(self, places: Places, notes: Notes, torch_version: str) -> None:
        self.places = places
        self.notes = notes
        self.torch_version = torch_version

    def operator(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        """Judge an operator before it runs; return what is said of mixed devices, if anything."""
        self.notes.operators[name] += 1
        self.kernel(name)
        self.values_read(func, name, args)
        given = tensors((tuple(args), kwargs))
        self.dtypes(name, given)
        if name in PRODUCTS:
            self.meets(name, MatMul(args[-2], args[-1]))
        self.generators(name, (*args, *kwargs.values()))
        return self.mixed(name, given, args)

    def kernel(self, name: str, inside: str | None = None) -> None:
        """Note an operator without a kernel for MPS; `inside` is the composite that called it."""
        if not runs_on_mps(name):
            caller = "" if inside is None else f" inside of {inside}"
            self.notes.problem(
                ON_MPS.get(name, name) + caller,
                "kernel",
                "it has no kernel for MPS: the computation stops there, or runs it on the CPU, "
                "slowly, where PYTORCH_ENABLE_MPS_FALLBACK=1 is set",
            )

    def dtypes(self, name: str, some: Sequence[Tensor]) -> None:
        """Note dtypes that MPS has not, or not with every macOS."""
        used = {tensor.dtype for tensor in some if not self.places.on_host(tensor)}
        self.notes.used_bfloat16 |= torch.bfloat16 in used
        for dtype in used - MPS_DTYPES:
            plain = str(dtype).removeprefix("torch.")
            instead = INSTEAD.get(dtype, "another dtype")
            self.notes.problem(name, "dtype", f"MPS has no {plain}: use {instead}")

    def values_read(self, func: Any, name: str, args: Sequence[Any]) -> None:
        """Note an operator whose result Python needs before it can go on."""
        why = None
        if name == "aten::_local_scalar_dense":
            why = "one number of a tensor becomes Python's, by .item(), int(), float() or bool()"
        elif name in INDEXING:
            if any(index.dtype in (torch.bool, torch.uint8) for index in tensors(args[1])):
                why = "a mask is the index, and how many it picks depends on its values"
        elif name == "aten::copy_":
            if self.places.on_host(args[0]) and not self.places.on_host(args[1]):
                why = "copies from the device to the host"
        elif name in DRAWS and (args[1] == 1 or args[2:3] != (True,)):  # one, or each once
            why = "it checks the probabilities before it draws, and waits for the answer"
        elif any(tag in func.tags for tag in READS_VALUES):
            why = "the result, or its shape, depends on values that Python waits for"
        if why is not None:
            self.notes.sync(name, why)

    def meets(self, name: str, call: object) -> None:
        """Note the known defects that a call meets."""
        for defect in met_by(call, self.torch_version):
            source = f"(pytorch/pytorch #{defect.number})"
            self.notes.problem(name, "known bad", f"{defect.message} {source}")

    def generators(self, name: str, values: Sequence[Any]) -> None:
        """Note random numbers that a generator of the host should draw on the device."""
        if any(isinstance(v, torch.Generator) and v.device.type == "cpu" for v in values):
            self.notes.problem(
                name,
                "generator",
                "a generator of the CPU cannot draw on MPS: draw on the CPU, then move the numbers",
            )

    def mixed(self, name: str, given: Sequence[Tensor], args: Sequence[Any]) -> str:
        """Note a tensor of the host among those of the device, where torch does not allow it."""
        if name in COPIES:
            return ""
        if name in INDEXING and not self.places.on_host(args[0]):
            given = [args[0], *tensors(args[2:3])]  # the indices may be on the host
        host = [tensor for tensor in given if self.places.on_host(tensor)]
        if not host or len(host) == len(given):
            return ""
        if name not in STRICT:  # a single number of the host may meet tensors of the device
            host = [tensor for tensor in host if tensor.dim() > 0]
            if not host:
                return ""
        message = (
            f"a tensor on the host, {tuple(host[0].shape)} {host[0].dtype}, meets tensors on the "
            "device: make it with device=x.device, or move it with .to(x.device)"
        )
        self.notes.problem(name, "host tensor", message)
        return message
