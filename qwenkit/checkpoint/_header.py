"""The header of a safetensors file, read by hand and checked.

A safetensors file is eight bytes that hold a length N (unsigned, little-endian), then N bytes of
JSON, then the tensors' bytes end to end. The JSON lists each tensor's dtype, its shape and where
its bytes begin and end. So names and shapes are known without reading a single weight.

Source: the format's description in the safetensors repository's README.
"""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from qwenkit.errors import CheckpointError, shown

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
BYTES_OF_DTYPE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
    "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
_DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,31}")  # such as later versions of the format may add
_MAX_BYTES = 2**63 - 1  # what a file's offsets can count
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        return prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file in the order of their bytes; no weight is read.

    A tensor of an unknown dtype can be listed but not loaded.

    Raises:
        CheckpointError: the file is damaged or is not a safetensors file; the message says how.
    """
    return read_header_and_metadata(path)[0]


def read_header_and_metadata(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors, as `read_header` does, and the header's `__metadata__`."""
    try:
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise CheckpointError(f"{path} cannot be read: it is not a regular file")
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
    metadata = entries.pop("__metadata__", None)
    infos = [_tensor(path, name, entry, 8 + length) for name, entry in entries.items()]
    infos.sort(key=lambda info: (info.start, info.nbytes))
    _check_layout(path, infos, first=8 + length, size=size)
    return {info.name: info for info in infos}, metadata if _all_text(metadata) else {}


def _all_text(metadata: Any) -> bool:
    is_dict = isinstance(metadata, dict)
    return is_dict and all(isinstance(value, str) for value in metadata.values())


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a valid safetensors file: {what}; fetch it again")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """Parse the header's JSON, refusing a name that occurs twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise _damaged(path, f"its header names {shown(twice[0])} twice")
        return dict(pairs)

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from None
    if not isinstance(entries, dict):
        raise _damaged(path, "its header is not a JSON object")
    halves = [name for name in entries if _SURROGATE.search(name)]
    if halves:
        raise _damaged(path, f"the name {shown(halves[0])} is not valid Unicode")
    return entries


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    """Check one tensor's entry by itself."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _damaged(path, f"{shown(name)} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _damaged(path, f"{shown(name)} has the unknown dtype {shown(dtype)}")
    if not _all_sizes(shape) or not _all_sizes(offsets) or len(offsets) != 2:
        what = f"shape {shown(shape)} and data_offsets {shown(offsets)}"
        raise _damaged(path, f"{shown(name)} has {what}")
    begin, end = offsets
    count = _product(shape)
    if max(begin, end) > _MAX_BYTES or count is None:
        raise _damaged(path, f"{shown(name)} has a shape or offset beyond 64 bits")
    need = count * BYTES_OF_DTYPE[dtype] if dtype in BYTES_OF_DTYPE else max(end - begin, 0)
    if end - begin != need:
        takes = f"{dtype} of shape {shown(shape)} takes {need:,}"
        raise _damaged(path, f"{shown(name)} has {end - begin:,} bytes; {takes}")
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, need)


def _product(sizes: Iterable[int]) -> int | None:
    """Return how many values a shape has; None: more than a file can hold."""
    count, empty = 1, False
    for size in sizes:
        empty = empty or size == 0
        count *= size or 1
        if count > _MAX_BYTES:
            return None
    return 0 if empty else count


def _all_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(path: Path, infos: list[TensorInfo], first: int, size: int) -> None:
    """Refuse gaps and overlaps: the tensors' bytes follow each other to the end of the file."""
    expected = first
    for info in infos:
        if info.start != expected:
            what = "overlaps the one before" if info.start < expected else "leaves a gap before it"
            raise _damaged(
                path, f"{shown(info.name)} {what} (byte {info.start}, expected {expected})"
            )
        expected += info.nbytes
    if expected != size:
        what = "cut short" if expected > size else "followed by bytes that no tensor owns"
        raise _damaged(path, f"its tensors end at byte {expected:,} of {size:,}: it is {what}")
