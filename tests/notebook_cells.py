"""What the tests need from notebooks: cells by their tags, solutions, and outputs to compare."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from difflib import unified_diff
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
IGNORE = "nbval-ignore-output"
# Pixels differ between machines, and the identifiers of widgets between runs.
NOT_COMPARED = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}
KEEP = "_kept = dict(globals())\n"
RESTORE = """for _name in set(globals()) - {*_kept, "_kept", "_name"}:
    del globals()[_name]
globals().update(_kept)"""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def tagged(notebook: NotebookNode, part: str) -> dict[int, int]:
    """Return exercise -> index of its cell; the part is exercise (the stub), solution or check."""
    found = {}
    for index, cell in enumerate(notebook.cells):
        for tag in tags(cell):
            kind, _, number = tag.rpartition("-")
            if kind == part:
                found[int(number)] = index
    return found


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_solutions(notebook: NotebookNode) -> tuple[NotebookNode, int]:
    """Return a copy that runs the solutions at its end, and how many code cells come before.

    These are a cell that brings back the names as they were before the first stub, then, for each
    exercise, its solution (the last Python block) and its check.
    """
    notebook = copy.deepcopy(notebook)
    cells, shipped = notebook.cells, len(code_cells(notebook))
    stubs, solutions, checks = (tagged(notebook, p) for p in ("exercise", "solution", "check"))
    assert stubs
    assert set(stubs) == set(solutions) == set(checks)
    added = [RESTORE]
    for number in stubs:
        added += BLOCK.findall(cells[solutions[number]].source)[-1], cells[checks[number]].source
    first = cells[min(stubs.values())]
    first.source = KEEP + first.source
    cells += [nbformat.v4.new_code_cell(text, metadata={"tags": [IGNORE]}) for text in added]
    return notebook, shipped


def compare(cell: NotebookNode, outputs: list[NotebookNode]) -> str:
    """Return how outputs differ from those stored in a cell, line by line, or "".

    Of a cell whose outputs are to be ignored, only errors count.
    """
    texts = []
    for side in (cell.outputs, outputs):
        kinds = _by_kind(side)
        compared = sorted({"error"} & kinds.keys() if IGNORE in tags(cell) else kinds)
        texts.append([f"{kind}: {value}" for kind in compared for value in kinds[kind]])
    if texts[0] == texts[1]:
        return ""
    lines = ["\n".join(text).splitlines() for text in texts]
    return "\n".join([cell.source, *unified_diff(*lines, "stored", "found", lineterm="")])


def _by_kind(outputs: list[NotebookNode]) -> dict[str, list[str]]:
    """Return what nbval compares: for each kind of output its values, in order."""
    found = defaultdict(list)
    for output in coalesce_streams([nbformat.from_dict(output) for output in outputs]):
        if output.output_type == "stream":
            found[output.name].append(output.text)
        elif output.output_type == "error":
            found["error"].append(f"{output.ename}: {output.evalue}")
        else:
            for kind in output.data.keys() - NOT_COMPARED:
                found[kind].append(output.data[kind])
    return found
