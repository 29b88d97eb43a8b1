"""Which tensors would be on the device, and which in the host's memory."""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves


def tensors(value: object) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


class Places:
    """Remembers which tensors would be on the host, while in fact all are on the CPU.

    What exists before the rehearsal counts as on the device: inputs, weights, caches. What is made
    in it counts as made where it was asked for. What is remembered is a tensor's memory, so its
    views are in the same place. On meta, without values, a tensor's own device tells.
    """

    def __init__(self, *, meta: bool) -> None:
        self.meta = meta
        self._host: dict[int, StorageWeakRef] = {}

    def on_host(self, tensor: Tensor) -> bool:
        """Tell whether a tensor would be in the host's memory."""
        with torch._C.DisableTorchFunction():
            return tensor.device.type == "cpu" and (self.meta or memory(tensor) in self._host)

    def place(self, tensor: Tensor, *, host: bool) -> None:
        """Remember where a tensor is."""
        with torch._C.DisableTorchFunction():
            number = memory(tensor)
            if host and number and tensor.device.type == "cpu":
                # While a weak reference is kept, no other memory gets the same number.
                self._host[number] = StorageWeakRef(tensor.untyped_storage())
            else:
                self._host.pop(number, None)


def memory(tensor: Tensor) -> int:
    """Return a number for the memory that a tensor is a view of; 0 if it has no single one."""
    with torch._C.DisableTorchFunction():
        try:
            return int(tensor.untyped_storage()._cdata)
        except NotImplementedError:  # a sparse tensor has several
            return 0
