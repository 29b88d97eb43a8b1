"""The tensors of a checkpoint as a tree, and the histogram of one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from qwenkit.checkpoint import Checkpoint
from qwenkit.safetensors_file import TensorInfo

BINS = 61  # an odd number, so that one bin has zero in its middle
_PIECE = 1 << 22  # numbers that are widened at a time


@dataclass(frozen=True)
class Row:
    """A line of the tree: a group of tensors, or one tensor.

    Attributes:
        name: the full name, or for a group the part of it that its tensors share.
        depth: how far it is set in; 0 for the outermost.
        count: how many tensors.
        nbytes: of all of them.
    """

    name: str
    depth: int
    count: int
    nbytes: int


@dataclass(frozen=True)
class Histogram:
    """How a tensor's numbers are spread.

    Attributes:
        counts: how many fall into each of `BINS` equal bins from -edge to edge.
        edge: the largest size of any number.
        mean: of all numbers.
        std: their standard deviation.
        outliers: how many lie more than six standard deviations from the mean.
    """

    counts: list[int]
    edge: float
    mean: float
    std: float
    outliers: int


@dataclass
class Tree:
    """A checkpoint's tensors, grouped by the parts of their names."""

    checkpoint: Checkpoint
    groups: dict[str, list[TensorInfo]] = field(init=False)

    def __post_init__(self) -> None:
        """Collect each group's tensors."""
        self.groups = {}
        for name, info in self.checkpoint.tensors.items():
            parts = name.split(".")
            for length in range(1, len(parts)):
                self.groups.setdefault(".".join(parts[:length]), []).append(info)

    def rows(self, opened: frozenset[str], text: str) -> Iterator[Row]:
        """Yield the visible lines in the order of the file.

        Args:
            opened: groups whose members are seen.
            text: only tensors whose name has it are seen, in groups that are then all open.
        """
        seen: set[str] = set()
        for name, info in self.checkpoint.tensors.items():
            if text not in name:
                continue
            parts = name.split(".")
            for length in range(1, len(parts)):
                group = ".".join(parts[:length])
                if group not in seen:
                    seen.add(group)
                    inside = [one for one in self.groups[group] if text in one.name]
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

    def facts(self, name: str) -> list[list[str]]:
        """Return what the header says of a tensor or a group, as pairs of words."""
        whole = self.checkpoint.nbytes
        if name in self.groups:
            inside = self.groups[name]
            size = sum(info.nbytes for info in inside)
            return [
                ["tensors", f"{len(inside):,}"],
                ["numbers", f"{sum(info.num_parameters for info in inside):,}"],
                ["bytes", f"{size:,}"],
                ["share of all bytes", f"{size / whole:.2%}"],
            ]
        info = self.checkpoint.tensors[name]
        return [
            ["shape", " × ".join(map(str, info.shape)) or "one number"],
            ["numbers", f"{info.num_parameters:,}"],
            ["dtype", info.dtype],
            ["bytes", f"{info.nbytes:,}"],
            ["share of all bytes", f"{info.nbytes / whole:.2%}"],
            ["file", info.file.name],
            ["first byte", f"{info.start:,}"],
        ]

    def histogram(self, name: str) -> Histogram:
        """Read one tensor, and only that, and count its numbers."""
        info = self.checkpoint.tensors[name]
        with safe_open(info.file, "pt") as file:
            return histogram(file.get_tensor(name))


def histogram(tensor: Tensor) -> Histogram:
    """Count a tensor's numbers piece by piece: a large one is never widened as a whole."""
    flat = tensor.reshape(-1)
    if not flat.numel():
        return Histogram([0] * BINS, 0.0, 0.0, 0.0, 0)
    pieces = [(start, start + _PIECE) for start in range(0, flat.numel(), _PIECE)]

    def piece(start: int, stop: int) -> Tensor:
        return flat[start:stop].float()

    total = sum(float(piece(*span).sum()) for span in pieces)
    mean = total / flat.numel()
    edge = max(float(piece(*span).abs().max()) for span in pieces)
    squares = sum(float((piece(*span) - mean).square().sum()) for span in pieces)
    std = math.sqrt(squares / flat.numel())
    counts = torch.zeros(BINS)
    outliers = 0
    for span in pieces:
        values = piece(*span)
        counts += torch.histc(values, BINS, -edge or -1.0, edge or 1.0)
        outliers += int(((values - mean).abs() > 6 * std).sum())
    return Histogram([int(count) for count in counts], edge, mean, std, outliers)


def as_plain(found: Histogram) -> dict[str, Any]:
    """Return a histogram as JSON values."""
    return {
        "counts": found.counts, "edge": found.edge, "mean": found.mean, "std": found.std,
        "outliers": found.outliers,
    }  # fmt: skip
