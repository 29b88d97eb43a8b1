"""What the compiled loop of `few_rows` reads for a weight.

Mostly the weight itself. But checkpoints are stored in bfloat16, and a model loaded as float32 has
the same values in twice the bytes: sixteen zeros follow each. A product that waits for memory may
as well read the stored values, and gives the numbers of the float32 weight.
"""

import functools
import platform
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary

LARGE_MODEL = 64 << 20  # bytes; a smaller one stays in the processor's cache from token to token
Loop = Callable[[NDArray[np.float32], NDArray[Any], int], NDArray[np.float32]]
DTYPES = (torch.float32, torch.bfloat16, torch.int8)


class _Reading(NamedTuple):
    values: NDArray[Any]
    memory: StorageWeakRef  # the weight's; as long as this lives, no other has its number
    address: int  # of the weight, within that memory
    version: int | None  # the weight's, where the values are not its own memory

    def is_of(self, weight: Tensor) -> bool:
        """Tell whether the weight still lies where it lay."""
        same = self.memory.cdata == weight.untyped_storage()._cdata
        return same and weight.data_ptr() == self.address and weight.shape == self.values.shape


_readings = WeakIdKeyDictionary()  # a weight -> its _Reading, for as long as the weight lives


def prepare(model: nn.Module, stored: Mapping[str, Tensor] | None = None) -> None:
    """Let the compiled loops read a large model's frozen weights.

    Call it again when matrices were replaced. A small model is left to torch, and so is one that
    is not on the CPU, or on a processor that the loop was not measured on.

    Args:
        model: its weights may be float32, bfloat16 or int8.
        stored: tensor name -> the same numbers in bfloat16, for float32 weights; they may be
            mapped from a file. They are read for as long as the weight stays what it is now.
            Torch counts a tensor's changes for autograd, and here the count is read; an edit
            behind its back, in `weight.data` or through NumPy, is not seen, here no more than
            there: edit under `torch.no_grad()`.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    weights = {n: t for n, t in tensors.items() if t.dtype in DTYPES and t.is_cpu}
    if sum(tensor.nbytes for tensor in weights.values()) < LARGE_MODEL:
        return
    for name, weight in weights.items():
        if not weight.requires_grad and weight.is_contiguous():
            # Norms and biases are so small that half their bytes are nothing.
            _keep(weight, (stored or {}).get(name) if weight.dim() == 2 else None)


def _keep(weight: Tensor, stored: Tensor | None = None) -> None:
    known: _Reading | None = _readings.get(weight)
    if stored is None and known is not None and known.is_of(weight):
        return  # it may have stored values
    memory, address = StorageWeakRef(weight.untyped_storage()), weight.data_ptr()
    if stored is None or weight.is_inference():  # of such a tensor no changes are counted
        _readings[weight] = _Reading(_bits(weight), memory, address, None)
    else:
        _readings[weight] = _Reading(_bits(stored), memory, address, weight._version)


def reading(weight: Tensor) -> NDArray[Any] | None:
    """Return what the loop reads for a weight, bfloat16 as uint16; None: leave it to torch."""
    found: _Reading | None = _readings.get(weight)
    if found is None or compiled_loop() is None:
        return None
    if not found.is_of(weight):
        del _readings[weight]  # moved, cast or cut: nothing is known of what it is now
        return None
    if found.version is None:
        return found.values
    if found.version == weight._version and not weight.requires_grad:
        return found.values
    # It was changed, or is about to be trained, which some optimizers do not count.
    _readings[weight] = found._replace(values=_bits(weight), version=None)
    return reading(weight)


def _bits(values: Tensor) -> NDArray[Any]:
    plain = values.detach()
    plain = plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain
    return np.asarray(plain)


@functools.cache
def compiled_loop() -> Loop | None:
    """Return `few_rows` where it runs on all cores and was measured to be quicker; else None.

    It was on x86-64. On other processors torch's own products are taken.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    threads = torch.get_num_threads()
    try:  # numba is loaded only here, where it is of use
        from qwenkit.model.few_rows import few_rows, shares_cores_with_torch

        serves = shares_cores_with_torch()
        torch.set_num_threads(threads)  # where both use OpenMP, numba has set its own number
        return few_rows if serves else None
    except Exception as error:  # of many kinds, by what the compiler misses; torch's products stay
        warnings.warn(f"decoding is slower than it could be: numba says {error}", stacklevel=2)
        return None
