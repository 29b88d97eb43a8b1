"""The tensors of a checkpoint as a tree, and the histogram of one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwenkit.checkpoint import Checkpoint, TensorInfo, read_alone
from qwenkit.errors import CheckpointError, printable
from qwenkit.progress import stage

BINS = 61  # an odd number: 0 is in the middle of a bin
LARGE = 1e15  # values beyond it are counted as multiples of the largest
CHUNK = 1 << 22  # values that are upcast at a time


@dataclass(frozen=True)
class Row:
    """A row of the tree: a group of tensors, or one tensor."""

    name: str  # the full name; of a group, the prefix that its tensors share
    depth: int  # how far it is indented; 0 for the outermost
    count: int  # how many tensors
    nbytes: int  # of all of them


@dataclass(frozen=True)
class Histogram:
    """How a tensor's values are spread."""

    counts: list[int]  # how many fall into each of `BINS` equal bins from -edge to edge
    edge: float  # the largest absolute value
    mean: float
    std: float  # the standard deviation
    outliers: int  # how many are more than six standard deviations from the mean
    not_finite: int = 0  # how many are NaN or infinite; all others leave them out


@dataclass
class Tree:
    """A checkpoint's tensors, grouped by the parts of their names."""

    checkpoint: Checkpoint
    tensors: dict[str, TensorInfo] = field(init=False)
    groups: dict[str, list[TensorInfo]] = field(init=False)

    def __post_init__(self) -> None:
        """Sort the tensors by name, layer 2 before layer 10, and collect each group's."""
        names = sorted(self.checkpoint.tensors, key=_order)
        self.tensors = {encodable(name): self.checkpoint.tensors[name] for name in names}
        self.groups = {}
        for name, info in self.tensors.items():
            parts = name.split(".")
            for length in range(1, len(parts)):
                self.groups.setdefault(".".join(parts[:length]), []).append(info)

    def rows(self, opened: frozenset[str], text: str) -> Iterator[Row]:
        """Yield the visible rows, sorted by name.

        Args:
            opened: groups whose members are shown.
            text: only tensors whose name contains it, in upper or lower case, are shown; all their
                groups are then open.
        """
        seen: set[str] = set()
        text = text.lower()
        for name, info in self.tensors.items():
            if text not in name.lower():
                continue
            parts = name.split(".")
            for length in range(1, len(parts)):
                group = ".".join(parts[:length])
                if group not in seen:
                    seen.add(group)
                    inside = [
                        one for one in self.groups[group] if text in encodable(one.name).lower()
                    ]
                    size = sum(one.nbytes for one in inside)
                    yield Row(group, length - 1, len(inside), size)
                if not text and group not in opened:
                    break
            else:
                yield Row(name, len(parts) - 1, 1, info.nbytes)

    def parts(self) -> dict[str, int]:
        """Return part of the model -> bytes: attention, MLP, norms, embedding, head."""
        sizes = dict.fromkeys(("embed_tokens", "self_attn", "mlp", "norms", "lm_head"), 0)
        for name, info in self.checkpoint.tensors.items():
            known = [part for part in sizes if part in name.split(".")]
            part = known[0] if known else "norms" if "norm" in name else "others"
            sizes[part] = sizes.get(part, 0) + info.nbytes
        return {part: size for part, size in sizes.items() if size}

    def proportion(self, size: int) -> float:
        """Return a number of bytes as a proportion of the whole checkpoint's."""
        return size / (self.checkpoint.nbytes or 1)  # all tensors may be empty

    def facts(self, name: str) -> list[list[str]]:
        """Return what the header says of a tensor or a group, as pairs of strings."""
        inside = self.groups.get(name) or [self.tensors[name]]
        info, size = inside[0], sum(one.nbytes for one in inside)
        counts = [
            ["values", f"{sum(one.num_parameters for one in inside):,}"],
            ["bytes", f"{size:,}"],
            ["proportion of all bytes", f"{self.proportion(size):.2%}"],
        ]
        if name in self.groups:
            return [["tensors", f"{len(inside):,}"], *counts]
        shape = " × ".join(map(str, info.shape)) or "a scalar"
        place = [["file", encodable(info.file.name)], ["first byte", f"{info.start:,}"]]
        return [["shape", shape], ["dtype", info.dtype], *counts, *place]

    @stage("Counting the values")
    def histogram(self, name: str) -> Histogram:
        """Read one tensor, and only that, and count its values.

        Raises:
            CheckpointError: it cannot be read, or is of a dtype that has no plain values.
        """
        info = self.tensors[name]
        tensor = read_alone(info)
        try:
            if not tensor.is_complex():
                return histogram(tensor)
        except NotImplementedError:  # torch has the dtype, and cannot compute with it
            pass
        raise CheckpointError(
            f"{printable(name)} is stored as {info.dtype}, which has no histogram here"
        )


def encodable(name: str) -> str:
    r"""Return a name that a page can hold: an unpaired surrogate becomes \ud83d or the like."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in a name by their size."""
    short = {part for part in name.split(".") if len(part) < 20 and part.isdecimal()}
    return [(int(part) if part in short else -1, part) for part in name.split(".")]


def histogram(tensor: Tensor) -> Histogram:
    """Count a tensor's values, upcast in chunks: never all at once."""
    flat = tensor.reshape(-1)

    def chunks() -> Iterator[Tensor]:
        for start in range(0, flat.numel(), CHUNK):
            values = flat[start : start + CHUNK].float()
            yield values[values.isfinite()]

    size = sum(chunk.numel() for chunk in chunks())
    not_finite = flat.numel() - size
    if not size:
        return Histogram([0] * BINS, 0.0, 0.0, 0.0, 0, not_finite)
    edge = max(float(chunk.abs().max()) for chunk in chunks() if chunk.numel())
    unit = edge if edge > LARGE else 1.0  # squares of larger ones overflow float32
    mean = sum(float((chunk / unit).sum()) for chunk in chunks()) / size
    std = math.sqrt(sum(float((chunk / unit - mean).square().sum()) for chunk in chunks()) / size)
    counts = torch.zeros(BINS, dtype=torch.int64)  # float32 would not count beyond 2 ** 24
    outliers = 0
    for chunk in chunks():
        reach = edge / unit or 1.0
        counts += torch.histc(chunk / unit, BINS, -reach, reach).long()
        outliers += int(((chunk / unit - mean).abs() > 6 * std).sum())
    return Histogram(counts.tolist(), edge, mean * unit, std * unit, outliers, not_finite)
