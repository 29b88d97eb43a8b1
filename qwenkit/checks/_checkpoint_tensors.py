"""Exercise 01.2, a reader of whole files: small files, whole and damaged, and wrong readers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from qwenkit.checks._judge import Case, Mistake

Array = np.ndarray[Any, np.dtype[Any]]
Entry = tuple[str, str, list[int], list[int]]  # name, dtype, shape, offsets
_SIZES = {"BF16": 2, "F16": 2, "F32": 4}
_KINDS = {"F16": "<f2", "F32": "<f4"}


def tensor_cases(folder: str) -> list[Case]:
    """Write the files, and return a case for each."""
    plain: list[Entry] = [("a", "BF16", [2, 3], [0, 12]), ("b", "BF16", [4], [12, 20])]
    three: list[Entry] = [
        ("x.half", "F16", [5], [0, 10]), ("x.single", "F32", [2, 2], [10, 26]),
        ("x.brain", "BF16", [3], [26, 32]),
    ]  # fmt: skip
    odd: list[Entry] = [
        ("scalar", "F32", [], [0, 4]), ("empty", "BF16", [0, 4], [4, 4]),
        ("cube", "BF16", [2, 2, 2], [4, 20]),
    ]  # fmt: skip
    mixed: list[Entry] = [("last", "F32", [2], [8, 16]), ("first", "BF16", [4], [0, 8])]
    overlap: list[Entry] = [
        ("a", "F32", [2], [0, 8]), ("b", "F32", [2], [4, 12]), ("c", "F32", [1], [16, 20]),
    ]  # fmt: skip
    wrong_shape: list[Entry] = [("a", "BF16", [2, 5], [0, 12]), *plain[1:]]
    wrong_dtype: list[Entry] = [("a", "F32", [2, 3], [0, 12]), *plain[1:]]
    return [
        Case("two bfloat16 tensors", (_file(folder, "plain", plain),)),
        Case("three dtypes, no __metadata__", (_file(folder, "three", three, note=None),)),
        Case("a scalar and an empty tensor", (_file(folder, "odd", odd),)),
        Case("tensors in another order", (_file(folder, "mixed", mixed, note=None),)),
        Case("a header of 70,000 bytes", (_file(folder, "long", plain, note="." * 70_000),)),
        Case("damaged: cut off", (_file(folder, "damaged1", plain, extra=-6),)),
        Case("damaged: bytes left over", (_file(folder, "damaged2", plain, extra=4),)),
        Case("damaged: a shape that does not fit", (_file(folder, "damaged3", wrong_shape),)),
        Case("damaged: a dtype that does not fit", (_file(folder, "damaged4", wrong_dtype),)),
        Case("damaged: an overlap and a gap", (_file(folder, "damaged5", overlap),)),
    ]


def _file(
    folder: str, name: str, entries: Sequence[Entry], note: str | None = "pt", extra: int = 0
) -> Path:
    """Write a safetensors file; the format pads its header with spaces."""
    header: dict[str, Any] = {} if note is None else {"__metadata__": {"format": note}}
    for each, dtype, shape, offsets in entries:
        header[each] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    size = max(offsets[1] for *_, offsets in entries) + extra
    data = bytes((37 * i + 11) % 120 for i in range(size))  # no infinities
    path = Path(folder, f"{name}.safetensors")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refusals(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make one error of all refusals, which each reader words differently."""
    if not callable(function):
        return function

    @wraps(function)
    def grouped(path: Path) -> Any:
        try:
            return function(path)
        except ValueError as error:
            own = not any(one in str(error) for one in ("reshape", "buffer"))  # not NumPy's
            if type(error) is ValueError and (own or path.stem.startswith("damaged")):
                raise ValueError("the file is refused") from None
            raise

    return grouped


def _decoded(data: bytes, dtype: str) -> Array:
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _KINDS[dtype]).astype(np.float32)


def _covered(entries: Sequence[Any], size: int) -> bool:
    """Say whether tensors cover so many bytes without a gap or an overlap."""
    offsets = sorted(entry["data_offsets"] for entry in entries)
    ends = [0, *(end for _, end in offsets)]
    return bool([begin for begin, _ in offsets] == ends[:-1] and ends[-1] == size)


def _reader(
    decode: Callable[[bytes, str], Array] = _decoded,
    covered: Callable[[Sequence[Any], int], bool] = _covered,
    start: int | None = None,
    shaped: bool = True,
    fits: bool = True,
    note: str = "",
) -> Callable[[Path], dict[str, Any]]:
    """Return the right reader, or one that decodes, counts or checks in another way."""

    def read(path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if not note:
            header.pop("__metadata__", None)
        rest = content[8 + length if start is None else start :]
        tensors = {}
        for name, entry in header.items():
            if note:
                _ = entry[note]  # asked for first; the note lacks it
            begin, end = entry["data_offsets"]
            shape, dtype = entry["shape"], entry["dtype"]
            if fits and end - begin != math.prod(shape) * _SIZES[dtype]:
                raise ValueError
            values = decode(rest[begin:end], dtype)
            tensors[name] = values.reshape(shape) if shaped else values
        if not covered(list(header.values()), len(content) - 8 - length):
            raise ValueError
        return tensors

    return read


read_tensors = _reader()


def _kept(data: bytes, dtype: str) -> Array:
    return np.frombuffer(data, _KINDS[dtype]) if dtype == "F16" else _decoded(data, dtype)


def _as_float16(data: bytes, dtype: str) -> Array:
    return _decoded(data, "F16" if dtype == "BF16" else dtype)


def _all_bfloat16(data: bytes, dtype: str) -> Array:
    return _decoded(data, "BF16")


def _halves_alike(data: bytes, dtype: str) -> Array:
    return _decoded(data, "BF16" if dtype == "F16" else dtype)


def _integers(data: bytes, dtype: str) -> Array:
    return np.frombuffer(data, "<u2") if dtype == "BF16" else _decoded(data, dtype)


def _total(entries: Sequence[Any], size: int) -> bool:
    return bool(sum(e["data_offsets"][1] - e["data_offsets"][0] for e in entries) == size)


def _as_listed(entries: Sequence[Any], size: int) -> bool:
    ends = [0, *(entry["data_offsets"][1] for entry in entries)]
    begins = [entry["data_offsets"][0] for entry in entries]
    return bool(begins == ends[:-1] and ends[-1] == size)


def _header(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _sorted(path: Path) -> dict[str, Array]:
    """Return the tensors in the order of their bytes."""
    found, header = read_tensors(path), _header(path)
    return {name: found[name] for name in sorted(found, key=lambda n: header[n]["data_offsets"])}


def _refuse(path: Path) -> None:
    raise ValueError


def _anything(entries: Sequence[Any], size: int) -> bool:
    return True


_NOTE = (
    "one entry of the header is not a tensor: a note about the file, with another form. Which one, "
    "and what should your loop do with it?"
)
_NAMES = "these are only the names. Return a dictionary, with an array for each."
_ONE = "only one tensor comes back. Does your function return, or make its dictionary, in the loop?"
_ARRAYS = "these are the arrays without their names. Return a dictionary."
TENSOR_MISTAKES = (
    Mistake("offsets from the start of the file", "you count the offsets from the first byte of "
        "the file. From where do they count?",
        _reader(start=0)),
    Mistake("offsets from the header", "you count the offsets from the start of the header. From "
        "where do they count?",
        _reader(start=8)),
    Mistake("the note read as a tensor", _NOTE, _reader(note="data_offsets")),
    Mistake("the note read as a tensor", _NOTE, _reader(note="dtype")),
    Mistake("the note read as a tensor", _NOTE, _reader(note="shape")),
    Mistake("not reshaped", "the values are right, but each tensor is one long row. Where does its "
        "shape stand?",
        _reader(shaped=False)),
    Mistake("float16 kept", "tensors of the dtype F16 stay float16. All values should be float32.",
        _reader(decode=_kept)),
    Mistake("bfloat16 read as float16", "BF16 and F16 are both two bytes wide, but you read both "
        "as float16. How many bits of exponent has each?",
        _reader(decode=_as_float16)),
    Mistake("all read as bfloat16", "you read every tensor as bfloat16, whatever its dtype. Which "
        "field of an entry tells how wide its values are?",
        _reader(decode=_all_bfloat16, fits=False)),
    Mistake("float16 read as bfloat16", "F16 is read as if it were BF16. Both are two bytes wide, "
        "but they divide their bits differently.",
        _reader(decode=_halves_alike)),
    Mistake("not decoded", "the tensors of the dtype BF16 are still integers: their bits were not "
        "decoded.",
        _reader(decode=_integers)),
    Mistake("gaps not noticed", "whole files are right, but a damaged one is read as if nothing "
        "were wrong: it has bytes that belong to no tensor, or to two. Where must each tensor "
        "begin, and where must the last one end?",
        _reader(covered=_anything)),
    Mistake("only the total checked", "the total is right, and yet two tensors share bytes, and "
        "some bytes belong to none. Where must each tensor begin?",
        _reader(covered=_total)),
    Mistake("the order of the header", "a whole file is refused: its tensors are named in another "
        "order than their bytes have. In which order can you compare ends and beginnings?",
        _reader(covered=_as_listed)),
    Mistake("the header", "that is the header, which only describes the tensors. Their values come "
        "after it.",
        _header),
    Mistake("the header", "that is the header, which only describes the tensors. Their values come "
        "after it.",
        lambda path: {n: e for n, e in _header(path).items() if n != "__metadata__"}),
    Mistake("names only", _NAMES, lambda path: list(read_tensors(path))),
    Mistake("names only", _NAMES, lambda path: list(_sorted(path))),
    Mistake("one tensor", _ONE, lambda path: dict([*read_tensors(path).items()][:1])),
    Mistake("one tensor", _ONE, lambda path: dict([*_sorted(path).items()][:1])),
    Mistake("one tensor", _ONE, lambda path: dict([*_sorted(path).items()][-1:])),
    Mistake("only the arrays", _ARRAYS, lambda path: list(read_tensors(path).values())),
    Mistake("only the arrays", _ARRAYS, lambda path: list(_sorted(path).values())),
    Mistake("whole files refused", "whole files are refused, too. Print what you compare: from "
        "which byte do the offsets count, how many bytes does each dtype take, and does the note "
        "count as a tensor?",
        _refuse),
)  # fmt: skip
