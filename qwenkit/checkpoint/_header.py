"""The header of a safetensors file, read by hand and checked.

A safetensors file is eight bytes that hold a length N (unsigned, little-endian), then N bytes of
JSON, then the tensors' bytes end to end. The JSON lists each tensor's dtype, its shape and where
its bytes begin and end. So names and shapes are known without reading a single weight.

Source: the format's description in the safetensors repository's README.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenkit.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
BYTES_OF_DTYPE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
    "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about one tensor.

    Attributes:
        name: as in the model.
        dtype: in the format's spelling, such as "BF16".
        shape: sizes, outermost first.
        file: the file that holds it.
        start: its first byte, counted from the start of the file.
        nbytes: how many bytes it takes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int

    @property
    def num_parameters(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file in the order of their bytes; no weight is read.

    Raises:
        CheckpointError: the file is damaged or is not a safetensors file; the message says how.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise _damaged(path, f"it has {size} bytes, fewer than the 8 of the length")
            if length > MAX_HEADER_BYTES:
                raise _damaged(path, f"its header claims {length:,} bytes; 100 MB is the limit")
            if 8 + length > size:
                raise _damaged(path, f"its header claims {length:,} bytes; the file has {size:,}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    entries = _parse(path, text)
    entries.pop("__metadata__", None)
    infos = [_tensor(path, name, entry, 8 + length) for name, entry in entries.items()]
    infos.sort(key=lambda info: (info.start, info.nbytes))
    _check_layout(path, infos, first=8 + length, size=size)
    return {info.name: info for info in infos}


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a valid safetensors file: {what}; fetch it again")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """Parse the header's JSON, refusing a name that occurs twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise _damaged(path, f"its header names {twice[0]!r} twice")
        return dict(pairs)

    try:
        entries = json.loads(text, object_pairs_hook=once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _damaged(path, "its header is not a JSON object")
    return entries


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    """Check one tensor's entry by itself."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _damaged(path, f"{name!r} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_OF_DTYPE:
        raise _damaged(path, f"{name!r} has the unknown dtype {dtype!r}")
    if not _all_sizes(shape) or not _all_sizes(offsets) or len(offsets) != 2:
        raise _damaged(path, f"{name!r} has shape {shape!r} and data_offsets {offsets!r}")
    begin, end = offsets
    if any(number >= 2**63 for number in (*shape, *offsets)):
        raise _damaged(path, f"{name!r} has a shape or offset beyond 64 bits")
    need = math.prod(shape) * BYTES_OF_DTYPE[dtype]
    if end - begin != need:
        takes = f"{dtype} of shape {shape} takes {need:,}"
        raise _damaged(path, f"{name!r} has {end - begin:,} bytes; {takes}")
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, need)


def _all_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(path: Path, infos: list[TensorInfo], first: int, size: int) -> None:
    """Refuse gaps and overlaps: the tensors' bytes follow each other to the end of the file."""
    expected = first
    for info in infos:
        if info.start != expected:
            what = "overlaps the one before" if info.start < expected else "leaves a gap before it"
            raise _damaged(path, f"{info.name!r} {what} (byte {info.start}, expected {expected})")
        expected += info.nbytes
    if expected != size:
        what = "cut short" if expected > size else "followed by bytes that no tensor owns"
        raise _damaged(path, f"its tensors end at byte {expected:,} of {size:,}: it is {what}")
