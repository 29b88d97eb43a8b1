"""What a single call would do on MPS."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mps._defects import matmul
from mps._kernels import ON_MPS, runs_on_mps
from mps._places import Places, tensors
from mps._report import Report
from qwenkit.device import known_defects

# All that Metal has; torch refuses to make any other on MPS.
MPS_DTYPES = {
    torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32, torch.bool,
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
}  # fmt: skip
INSTEAD = {torch.float64: "float32", torch.complex128: "complex64"}
BFLOAT16 = "bfloat16 was used: on MPS it needs macOS 14 or newer"
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
COPIES = ("aten::copy_", "aten::_to_copy")  # from any device to any other
INDEXING = ("aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_")
DRAWS = ("aten::multinomial", "aten::multinomial.out")
STRICT = ("aten::cat", "aten::stack")  # take no tensor of another device, not even a single value
READS_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
NO_KERNEL = (
    "it has no kernel for MPS: the computation stops there, or runs it on the CPU, slowly, where "
    "PYTORCH_ENABLE_MPS_FALLBACK=1 is set"
)


class Judge:
    """Reports what is wrong, or slow, about a call, with the report's version of torch."""

    def __init__(self, places: Places, report: Report) -> None:
        self.places, self.report = places, report

    def operator(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        """Judge an operator before it runs; return what is said of mixed devices, if anything."""
        self.report.operators[name] += 1
        self.kernel(name)
        if why := self._why_it_waits(func, name, args):
            self.report.add(name, "sync", why)
        given = tensors((args, kwargs))
        self.dtypes(name, given)
        if name in PRODUCTS:
            self.defects(name, matmul(args[-2], args[-1]))
        generators = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Generator)]
        if any(generator.device.type == "cpu" for generator in generators):
            message = "a generator of the CPU cannot draw on MPS: draw on the CPU, then move them"
            self.report.add(name, "generator", message)
        return self._mixed(name, given, args)

    def kernel(self, name: str, inside: str = "") -> None:
        """Report an operator without a kernel for MPS; `inside` is the composite that called it."""
        if not runs_on_mps(name):
            caller = inside and f" inside of {inside}"
            self.report.add(ON_MPS.get(name, name) + caller, "kernel", NO_KERNEL)

    def dtypes(self, name: str, some: Sequence[Tensor]) -> None:
        """Report dtypes that MPS does not have, or not with every macOS."""
        used = {tensor.dtype for tensor in some if not self.places.on_host(tensor)}
        if torch.bfloat16 in used and BFLOAT16 not in self.report.notes:
            self.report.notes.append(BFLOAT16)
        for dtype in used - MPS_DTYPES:
            plain, instead = str(dtype).removeprefix("torch."), INSTEAD.get(dtype, "another dtype")
            self.report.add(name, "dtype", f"MPS has no {plain}: use {instead}")

    def defects(self, name: str, meets: dict[int, bool]) -> None:
        """Report the known defects that a call meets, by the number of their issue."""
        known = known_defects(torch.device("mps"), self.report.torch_version)
        for defect in [defect for defect in known if meets.get(defect.issue)]:
            upgrade = defect.fixed and f"upgrade torch to {defect.fixed}"
            advice = ", or ".join(filter(None, (upgrade, defect.instead)))
            source = f"(pytorch/pytorch #{defect.issue})"
            self.report.add(name, "known bad", f"{defect.wrong}: {advice} {source}")

    def _why_it_waits(self, func: Any, name: str, args: Sequence[Any]) -> str:
        """Return why Python needs an operator's result before it can go on, if it does."""
        on_host, why = self.places.on_host, ""
        if name == "aten::_local_scalar_dense":
            why = "Python reads one value of a tensor, by .item(), int(), float() or bool()"
        elif name in INDEXING:
            if any(index.dtype in (torch.bool, torch.uint8) for index in tensors(args[1])):
                why = "a mask is the index, and how many it picks depends on its values"
        elif name == "aten::copy_" and on_host(args[0]) and not on_host(args[1]):
            why = "copies from the device to the host"
        elif name in DRAWS and (args[1] == 1 or args[2:3] != (True,)):  # one, or each once
            why = "it checks the probabilities before it draws, and waits for the answer"
        elif READS_VALUES.intersection(func.tags):
            why = "the result, or its shape, depends on values that Python waits for"
        return why

    def _mixed(self, name: str, given: Sequence[Tensor], args: Sequence[Any]) -> str:
        """Report a tensor of the host among those of the device, where torch does not allow it."""
        if name in INDEXING and not self.places.on_host(args[0]):
            given = [args[0], *tensors(args[2:3])]  # the indices may be on the host
        host = [tensor for tensor in given if self.places.on_host(tensor)]
        if name in COPIES or len(host) == len(given):
            return ""
        if name not in STRICT:  # a single value of the host may meet tensors of the device
            host = [tensor for tensor in host if tensor.dim() > 0]
        if not host:
            return ""
        message = (
            f"a tensor on the host, {tuple(host[0].shape)} {host[0].dtype}, meets tensors on the "
            "device: make it with device=x.device, or move it with .to(x.device)"
        )
        self.report.add(name, "host tensor", message)
        return message
