"""The header of a GGUF file, read by hand and checked; no weight is read.

A GGUF file is the four letters GGUF, a version, how many tensors and how many entries of metadata
there are, the entries (config and tokenizer among them), then name, sizes, type and offset of each
tensor, and, aligned, the tensors' bytes. All numbers are little-endian. Every count is compared
with the size of the file before anything is made of it, because a damaged one could be anything.

Source: docs/gguf.md in the repository of ggml.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qwenkit.errors import CheckpointError, shown
from qwenkit.gguf._types import TYPES

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 3 only added files of the other byte order
MAX_HEADER_BYTES = 100_000_000  # as for safetensors; that of Qwen2.5-Coder has 6 MB
_MOST = 1 << 17  # entries of metadata, and tensors; the largest Qwen2.5 has 1,000
_MOST_STRINGS = 1 << 20  # of one list; Qwen's vocabulary has 151,936, and about as many merges
_MOST_DIMENSIONS = 4
_MAX_BYTES = 2**63 - 1  # what a file's offsets can count
_ALIGNMENT = 32
_STRING, _LIST = 8, 9
# Number of a metadata entry's type -> its format in `struct`.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """What a header says about one tensor.

    Attributes:
        name: as in the file, such as "blk.0.attn_q.weight".
        type: how its values are stored, such as "F32" or "q4_K".
        shape: sizes, outermost first, as PyTorch has them (the file has them innermost first).
        start: its first byte, counted from the start of the file.
        nbytes: how many bytes it takes; 0 for an unknown type.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file's header.

    Attributes:
        path: the file.
        metadata: key -> an int, float, bool or str, a list of str, or a NumPy array.
        tensors: name -> `GgufTensor`, in the order of the file.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Return metadata and tensors of a GGUF file, from its header alone.

    A tensor of an unknown type can be listed but not loaded.

    Raises:
        CheckpointError: the file is damaged, or is not a GGUF file that qwenkit reads.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise CheckpointError(f"{path} cannot be read: it is not a regular file")
        with path.open("rb") as file:
            return _read(_Header(path, file, status.st_size))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


class _Header:
    """The bytes of a header, taken in order."""

    def __init__(self, path: Path, file: BufferedReader, size: int) -> None:
        self.path, self.file, self.size, self.at = path, file, size, 0

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is not a valid GGUF file: {what}; fetch it again")

    def take(self, count: int, what: str) -> bytes:
        """Return the next bytes, or refuse to: there may be any number in a damaged file."""
        end = self.at + count
        if end > self.size:
            raise self.damaged(f"{what} ends at byte {end:,}, and the file has {self.size:,}")
        if end > MAX_HEADER_BYTES:
            raise self.damaged(f"{what} ends at byte {end:,} of the header; 100 MB is the limit")
        data = self.file.read(count)
        if len(data) != count:
            raise self.damaged(f"it became shorter while {what} was read")
        self.at = end
        return data

    def number(self, code: str, what: str) -> Any:
        """Return a number of a format of `struct`."""
        code = f"<{code}"
        return struct.unpack(code, self.take(struct.calcsize(code), what))[0]

    def text(self, what: str) -> str:
        data = self.take(self.number("Q", what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is not UTF-8 text: {shown(data, 80)}") from None

    def value(self, kind: int, what: str) -> Any:
        """Return the value of a metadata entry."""
        if kind == _STRING:
            return self.text(what)
        if kind == _LIST:
            return self._list(what)
        if kind not in _SCALARS:
            raise self.damaged(f"{what} has the unknown type {kind}")
        found = self.number(_SCALARS[kind], what)
        # The shortest number that is this float32: 1e-06, and not 9.999999974752427e-07.
        return float(str(np.float32(found))) if _SCALARS[kind] == "f" else found

    def _list(self, what: str) -> Any:
        kind, count = self.number("I", what), self.number("Q", what)
        if kind == _STRING:
            if count > _MOST_STRINGS:
                raise self.damaged(f"{what} has {count:,} strings; {_MOST_STRINGS:,} is the limit")
            return [self.text(what) for _ in range(count)]
        if kind not in _SCALARS:
            raise self.damaged(f"{what} is a list of the unknown type {kind}")
        code = np.dtype(f"<{_SCALARS[kind]}" if _SCALARS[kind] != "?" else "?")
        return np.frombuffer(self.take(count * code.itemsize, what), code)


def _read(header: _Header) -> GgufFile:
    if header.size < 4 or header.take(4, "the magic") != MAGIC:
        raise header.damaged("it does not begin with the letters GGUF")
    version = header.number("I", "the version")
    if version and version % 65536 == 0:
        raise CheckpointError(
            f"{header.path} is a big-endian GGUF file; qwenkit reads little-endian ones, as almost "
            "all are: fetch that one, or convert it (gguf-convert-endian of the gguf package)"
        )
    if version not in VERSIONS:
        raise CheckpointError(
            f"{header.path} is a GGUF file of version {version}; qwenkit reads versions 2 and 3: "
            "fetch a newer file of the model"
        )
    counts = [header.number("Q", "the counts") for _ in range(2)]
    for count, noun in zip(counts, ("tensors", "metadata entries"), strict=True):
        if count > _MOST:
            raise header.damaged(f"it claims {count:,} {noun}; {_MOST:,} is the limit")
    metadata: dict[str, Any] = {}
    for number in range(counts[1]):
        key = header.text(f"the key of metadata entry {number}")
        if key in metadata:
            raise header.damaged(f"its metadata has {shown(key)} twice")
        kind = header.number("I", f"the type of {shown(key)}")
        metadata[key] = header.value(kind, f"the value of {shown(key)}")
    entries = [_entry(header, number) for number in range(counts[0])]
    first = header.at + -header.at % _alignment(header, metadata)
    return GgufFile(header.path, metadata, _placed(header, entries, first))


def _alignment(header: _Header, metadata: dict[str, Any]) -> int:
    """Return what the place of every tensor's bytes is a multiple of."""
    found = metadata.get("general.alignment", _ALIGNMENT)
    if type(found) is not int or found < 1 or found & (found - 1):
        raise header.damaged(f"general.alignment is {shown(found)}; it must be a power of two")
    return found


def _entry(header: _Header, number: int) -> GgufTensor:
    """Read and check one tensor's entry; its start is still counted from the first tensor's."""
    name = header.text(f"the name of tensor {number}")
    what = f"the entry of {shown(name)}"
    dimensions = header.number("I", what)
    if dimensions > _MOST_DIMENSIONS:
        raise header.damaged(f"{shown(name)} has {dimensions:,} dimensions; at most 4 are possible")
    sizes = [header.number("Q", what) for _ in range(dimensions)]
    kind, start = header.number("I", what), header.number("Q", what)
    label, per_block, size = TYPES.get(kind, (f"type {kind}", 1, 0))
    count, row = prod(sizes), sizes[0] if sizes else 1
    if max(count, prod(filter(None, sizes)), start) > _MAX_BYTES // 8:
        raise header.damaged(f"{shown(name)} has a shape or offset beyond 64 bits")
    if row % per_block:
        rows = f"rows of {row:,} values, and {label} has blocks of {per_block}"
        raise header.damaged(f"{shown(name)} has {rows}")
    return GgufTensor(name, label, tuple(reversed(sizes)), start, count // per_block * size)


def _placed(header: _Header, entries: list[GgufTensor], first: int) -> dict[str, GgufTensor]:
    """Return the tensors with their places in the file; refuse overlaps and missing bytes."""
    found: dict[str, GgufTensor] = {}
    for one in entries:
        if one.name in found:
            raise header.damaged(f"it has {shown(one.name)} twice")
        found[one.name] = GgufTensor(one.name, one.type, one.shape, first + one.start, one.nbytes)
    end, before = first, ""
    for one in sorted(found.values(), key=lambda one: (one.start, one.nbytes)):
        if one.start < end:
            raise header.damaged(f"{shown(one.name)} overlaps {shown(before)}")
        end, before = one.start + one.nbytes, one.name
        if end > header.size:
            raise header.damaged(
                f"{shown(one.name)} ends at byte {end:,} of {header.size:,}: it is cut short"
            )
    return found
