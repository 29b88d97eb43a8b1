"""CheckpointBrowser: the tensors of a checkpoint as a tree, and what its header says of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure

from qwenkit.arguments import checked
from qwenkit.checkpoint import Checkpoint
from qwenkit.errors import CheckpointError, InputError
from qwenkit.plot.style import BLUE, TEXT, WIDEST, plain
from qwenkit.plot.tokens import drawable
from qwenkit.pretrained import resolve
from qwenkit.widgets._base import Inspector, View
from qwenkit.widgets._tensors import BINS, Histogram, Row, Tree, encodable


@dataclass
class CheckpointView(View):
    """A checkpoint, and which part of it is shown."""

    chosen = ("selected", "opened", "text", "asked")
    checkpoint: Checkpoint  # its weights are read only for a histogram
    selected: str = ""  # the name of a tensor, or the prefix that a group's tensors share
    opened: list[str] = field(default_factory=list)  # groups whose members are shown
    text: str = ""  # only tensors whose name contains it are shown; empty: all
    asked: list[str] = field(default_factory=list)  # tensors whose histogram is wanted

    def __post_init__(self) -> None:
        """Open the outermost group, and select the first row."""
        self.tree = Tree(self.checkpoint)
        self.histograms: dict[str, Histogram] = {}
        if not self.tree.tensors:
            raise CheckpointError(f"{self.checkpoint.folder} holds no tensors to be shown")
        first = next(iter(self.tree.groups), next(iter(self.tree.tensors)))
        self.selected = self.selected or first
        self.opened = self.opened or [name for name in self.tree.groups if "." not in name]

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse names that the checkpoint does not have; read the histograms that are wanted."""
        new = self.state() | state
        tensors, groups = self.tree.tensors, self.tree.groups
        for key in ("opened", "asked"):
            names = new[key]
            if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                raise InputError(f"{key} is {names!r}; it must be a list of names")
        if not isinstance(new["selected"], str) or new["selected"] not in {**tensors, **groups}:
            raise InputError(
                f"selected is {new['selected']!r}; it must be a tensor of the checkpoint, or a "
                "prefix of some names, such as 'model.layers.0'"
            )
        if not isinstance(new["text"], str):
            raise InputError(f"text is {new['text']!r}; it must be a string, empty for all")
        for key, known, kind in (("opened", groups, "group"), ("asked", tensors, "tensor")):
            wrong = [name for name in new[key] if name not in known]
            if wrong:
                raise InputError(f"{key} names {wrong[0]!r}; the checkpoint has no such {kind}")
        for name in new["asked"]:
            if name not in self.histograms:
                self.histograms[name] = self.tree.histogram(name)
        return new | {"opened": list(new["opened"]), "asked": list(new["asked"])}

    def data(self) -> dict[str, Any]:
        """Return what the script draws: each tensor's name and facts, and the parts' sizes."""
        names = [*self.tree.groups, *self.tree.tensors]
        return {
            "folder": encodable(self.checkpoint.folder.name),
            "whole": self.checkpoint.nbytes,
            "tensors": [[name, info.nbytes] for name, info in self.tree.tensors.items()],
            "facts": {name: self.tree.facts(name) for name in names},
            "parts": self.tree.parts(),
        }

    def rows(self) -> list[Row]:
        """Return the visible rows of the tree."""
        return list(self.tree.rows(frozenset(self.opened), self.text))

    def title(self) -> str:
        """Name the checkpoint and what is selected."""
        tensors = self.checkpoint.tensors
        return f"{len(tensors)} tensors, {self.checkpoint.nbytes:,} bytes; {self.selected}"

    def alt(self) -> str:
        """Return what is shown as text."""
        whole = self.checkpoint.nbytes
        sizes = self.tree.parts().items()
        parts = [f"{part} {self.tree.proportion(size):.0%}" for part, size in sizes]
        facts = [f"{name} {value}" for name, value in self.tree.facts(self.selected)]
        words = f"A checkpoint of {len(self.checkpoint.tensors)} tensors, {whole:,} bytes: "
        words += f"{', '.join(parts)}. Selected: {self.selected}: {', '.join(facts)}."
        found = self.histograms.get(self.selected)
        if found is not None:
            words += f" Its values: the largest absolute value is {found.edge:.2g}, the standard "
            words += f"deviation is {found.std:.2g}; {found.outliers:,} are beyond six of them."
            if found.not_finite:
                words += f" {found.not_finite:,} are NaN or infinite."
        return words


class CheckpointBrowser(Inspector):
    """The tensors of a checkpoint as a tree: arrow keys walk, open and close; Enter reads values.

    Only headers are read until a histogram is wanted.

    Args:
        source: a folder, a GGUF file or a Hub id; None: what `load_pretrained()` would load.

    Raises:
        SourceError, CheckpointError, ConfigError: as `Checkpoint` and `resolve` do.
    """

    script = "checkpoint"
    histograms = traitlets.Dict().tag(sync=True)

    @checked
    def __init__(self, source: str | Path | None = None) -> None:
        self.view: CheckpointView = CheckpointView(Checkpoint(resolve(source)))
        super().__init__(self.view)
        self.answer()

    def answer(self) -> None:
        """Send the histograms that were read."""
        self.histograms = {name: asdict(one) for name, one in self.view.histograms.items()}

    def exported(self) -> dict[str, Any]:
        """Return the state, the tree, and the histograms that were read."""
        return {**super().exported(), "histograms": self.histograms}

    def snapshot(self) -> Figure:
        """Draw the bytes of each part, and the selected tensor's facts or values."""
        view = self.view
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDEST, 3.2), layout="constrained")
        parts = view.tree.parts()
        left.barh(list(parts), [size / 1e6 for size in parts.values()], color=BLUE)
        left.invert_yaxis()
        left.set_axisbelow(True)
        plain(left, "megabytes", "")
        left.set_title(f"{len(view.checkpoint.tensors)} tensors", fontsize=TEXT + 1)
        found = view.histograms.get(view.selected)
        right.set_title(drawable(view.selected), fontsize=TEXT + 1)
        if found is None:
            right.set_axis_off()
            lines = [drawable(f"{name}: {value}") for name, value in view.tree.facts(view.selected)]
            right.text(0, 1, "\n".join(lines), va="top", fontsize=TEXT, transform=right.transAxes)
            return figure
        edges = np.linspace(-found.edge or -1.0, found.edge or 1.0, BINS + 1)
        right.stairs(found.counts, edges, fill=True, color=BLUE, baseline=0.5)
        right.set_axisbelow(True)
        right.set_yscale("log")  # because few values are large
        right.set_ylim(bottom=0.5)
        plain(right, f"value (standard deviation {found.std:.2g})", "count")
        return figure
