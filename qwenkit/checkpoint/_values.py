"""Reading tensors: memory-mapped if possible, else copied, cast or dequantized in chunks."""

from __future__ import annotations

from collections.abc import Callable, Container
from io import BufferedReader
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwenkit.checkpoint._header import TensorInfo
from qwenkit.errors import CheckpointError, printable, shown
from qwenkit.gguf import QUANTIZED
from qwenkit.large_pages import empty

FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
STORED = {**FLOATS, "I8": torch.int8, "U8": torch.uint8}
AS_FLOATS = {*FLOATS, *QUANTIZED}  # what can be read as any float dtype
_CACHE_LINE = 64  # bytes that the processor fetches from memory together
_BUFFER_BYTES = 1 << 22  # small enough to stay in the processor's cache
_VALUES = 1 << 20  # that are dequantized at a time; whole blocks of every type


def stored_as(name: str, expected: Container[str]) -> tuple[str, ...]:
    """Return the dtypes that a tensor may be stored in.

    Args:
        name: its name in the model.
        expected: the names of all; a `_scale` or `_zero` of a matrix says how it is quantized.
    """
    if name.endswith("_zero") or f"{name}_zero" in expected:
        return ("U8",)
    return ("I8",) if f"{name}_scale" in expected else tuple(FLOATS)


def new_buffer() -> Tensor:
    """Return the buffer that `read` casts through."""
    return torch.empty(_BUFFER_BYTES, dtype=torch.uint8)


def read(
    mapped: safe_open | None,
    raw: BufferedReader,
    info: TensorInfo,
    dtype: torch.dtype,
    buffer: Tensor,
) -> Tensor:
    """Map a tensor, or read it; what must be cast goes through the buffer, chunk by chunk.

    A tensor that does not begin at a cache line would make each wide read of it touch two lines,
    for every token; it is copied once instead, to an aligned address. (In most files the tensors
    begin 8, 16, ... bytes after one.) Without `mapped` every tensor is copied.
    """
    if info.dtype in QUANTIZED:
        return _dequantized(raw, info, dtype)
    stored = STORED[info.dtype]
    if mapped is not None and dtype == stored and info.start % _CACHE_LINE == 0:
        return mapped.get_tensor(info.name)  # type: ignore[no-any-return, no-untyped-call]
    tensor = empty(info.shape, dtype)
    raw.seek(info.start)
    for chunk in torch.split(tensor.view(-1), buffer.numel() // stored.itemsize):
        cast = dtype != stored
        part = buffer[: chunk.numel() * stored.itemsize] if cast else chunk.view(torch.uint8)
        _fill(raw, part, info)
        if cast:
            chunk.copy_(part.view(stored))
    return tensor


def dequantizer(dtype: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return what makes float32 of the blocks of a quantized type, (count, bytes per block).

    Raises:
        CheckpointError: the gguf library, which does it, is not installed.
    """
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise CheckpointError(
            f"tensors stored as {dtype} are dequantized by the gguf library, which cannot be "
            f"imported ({error}); install it: pip install gguf"
        ) from None
    kind = GGMLQuantizationType[dtype.upper()]

    def dequantized(blocks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with np.errstate(all="ignore"):  # a damaged scale may be infinite
            # One long row: the library computes 16 rows at a time, however short they are.
            values: np.ndarray[Any, Any] = dequantize(blocks.reshape(1, -1), kind)
        return values.reshape(-1)

    return dequantized


def _dequantized(raw: BufferedReader, info: TensorInfo, dtype: torch.dtype) -> Tensor:
    """Read a quantized tensor in chunks, each of which is float32 for a moment."""
    values_of, (per_block, size) = dequantizer(info.dtype), QUANTIZED[info.dtype]
    tensor = empty(info.shape, dtype)
    raw.seek(info.start)
    for chunk in torch.split(tensor.view(-1), _VALUES):
        blocks = torch.empty(chunk.numel() // per_block * size, dtype=torch.uint8)
        _fill(raw, blocks, info)
        chunk.copy_(torch.from_numpy(values_of(blocks.numpy())))
    return tensor


def read_alone(info: TensorInfo) -> Tensor:
    """Return one stored tensor, of any dtype that torch has; memory-mapped if possible.

    A quantized one of a GGUF file becomes float32.

    Raises:
        CheckpointError: torch does not have its dtype, or the file cannot be read.
    """
    if info.dtype in QUANTIZED:
        try:
            with info.file.open("rb") as raw:
                return _dequantized(raw, info, torch.float32)
        except OSError as error:
            raise CheckpointError(f"{info.file} cannot be read: {error.strerror}") from None
    try:
        with safe_open(info.file, "pt") as mapped:
            tensor: Tensor = mapped.get_tensor(info.name)
    except (OSError, RuntimeError, SafetensorError) as error:
        if info.dtype not in STORED:
            wrong = f"{printable(info.name)} is stored as {info.dtype}, which qwenkit cannot read"
            raise CheckpointError(wrong) from None
        # One tensor of an unknown dtype stops the library from reading the others in its file.
        try:
            with info.file.open("rb") as raw:
                tensor = torch.empty(info.shape, dtype=STORED[info.dtype])
                raw.seek(info.start)
                _fill(raw, tensor.view(-1).view(torch.uint8), info)
        except OSError:
            raise CheckpointError(f"{info.file} cannot be read: {error}") from None
    return tensor


def same_values(one: TensorInfo, other: TensorInfo) -> bool:
    """Tell whether two stored tensors are equal, by reading both in chunks; NaN equals NaN.

    Raises:
        CheckpointError, OSError: a file has become shorter, or cannot be read.
    """
    if one.shape != other.shape or one.dtype not in STORED or other.dtype not in STORED:
        return False
    stored = STORED[one.dtype], STORED[other.dtype]
    values = _BUFFER_BYTES // 4
    buffers = [torch.empty(values, dtype=dtype) for dtype in stored]
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.start)
        right.seek(other.start)
        for first in range(0, one.num_parameters, values):
            count = min(values, one.num_parameters - first)
            _fill(left, buffers[0][:count].view(torch.uint8), one)
            _fill(right, buffers[1][:count].view(torch.uint8), other)
            ours, theirs = (buffer[:count].float() for buffer in buffers)
            if not torch.equal(ours, theirs) and not torch.allclose(
                ours, theirs, rtol=0, atol=0, equal_nan=True
            ):
                return False
    return True


def _fill(raw: BufferedReader, part: Tensor, info: TensorInfo) -> None:
    if raw.readinto(part.numpy()) != part.numel():  # type: ignore[arg-type]
        raise CheckpointError(f"{info.file} cannot be read: it ends within {shown(info.name)}")
