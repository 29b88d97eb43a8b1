"""Memory for weights in large pages, where the system has them.

A processor looks up where each page of memory lies, and remembers some thousand pages. A gigabyte
of weights is a quarter of a million pages of four kilobytes: for every token each of them is looked
up again, and nothing is fetched ahead beyond its end. Of two megabytes it is five hundred.

Linux gives such pages to a program that asks for them, and only if the memory begins at a multiple
of their size. So weights lie one after the other in blocks of many pages. A block is freed with the
last tensor in it. Where the system knows no such request (macOS, Windows), torch gives the memory.
"""

import math
import mmap
import threading
from collections.abc import Sequence
from weakref import ref

import torch
from torch import Tensor

PAGE = 2 << 20  # bytes of a large page
BLOCK = 32 * PAGE
SMALL = 1 << 16  # bytes; a smaller tensor is none of its own, so that it keeps no block alive
APART = 64  # bytes of a cache line, at whose beginning each tensor lies


class _Blocks:
    """The block that is being filled, as long as a tensor in it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block: ref[mmap.mmap] | None = None
        self._used = 0

    def take(self, size: int) -> tuple[mmap.mmap, int]:
        """Return a block with so many free bytes, and where they begin."""
        with self._lock:
            block = None if self._block is None else self._block()
            start = -(-self._used // APART) * APART
            if block is None or start + size > len(block):
                block, start = _new_block(size), 0
                start = -_address(block) % PAGE
                self._block = ref(block)
            self._used = start + size
            return block, start


def _new_block(size: int) -> mmap.mmap:
    """Ask the system for memory; its first page may lie in front of a large one."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    block = mmap.mmap(-1, max(BLOCK, size) + PAGE, flags=private)
    block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _address(block: mmap.mmap) -> int:
    return torch.frombuffer(block, dtype=torch.uint8, count=1).data_ptr()


_blocks = _Blocks()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return what `torch.empty(shape, dtype=dtype)` does, in large pages if it is large.

    Args:
        shape: of the tensor.
        dtype: of its values.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    try:
        block, start = _blocks.take(size)
    except OSError:  # a system without large pages refuses the request
        return torch.empty(shape, dtype=dtype)
    memory = torch.frombuffer(block, dtype=torch.uint8, count=size, offset=start)
    tensor = torch.empty(0, dtype=dtype)
    tensor.set_(memory.untyped_storage())
    return tensor.resize_(shape)
