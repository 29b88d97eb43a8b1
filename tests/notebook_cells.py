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
LONG = 30  # minutes of an exercise that is a small project
PREDICT = re.compile(r'qk\.predict\("(\d\d[a-z]?\.\d+)", ')
# Pixels differ between machines, and the identifiers of widgets between runs.
NOT_COMPARED = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}
# What a notebook's names were before a stub; the solutions at its end see the same.
KEEP = "_kept_{0} = dict(globals())\n"
RESTORE = """for _name in [_one for _one in globals() if _one not in _kept_{0}]:
    if not _name.startswith("_"):
        del globals()[_name]
globals().update({{_one: _kept_{0}[_one] for _one in _kept_{0} if not _one.startswith("_")}})
"""


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


def main_line(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells outside of exercises (task, stub, hints and check)."""
    cells = notebook.cells
    return [
        cell for number, cell in enumerate(cells)
        if not any(re.fullmatch(r"(exercise|solution|check)-\d+", tag) for tag in tags(cell))
        and not any("exercise" in tag for tag in tags(cells[min(number + 1, len(cells) - 1)]))
    ]  # fmt: skip


def minutes(notebook: NotebookNode) -> tuple[float, int, int]:
    """Return the minutes of the main line, of the exercises, and of those of half an hour or more.

    150 words a minute, 45 seconds for a code cell, a minute for a prediction.
    """
    cells = main_line(notebook)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    words = [w for w in re.sub(r"\]\([^)]*\)", "", text).split() if re.search(r"\w", w)]
    code = [cell for cell in cells if cell.cell_type == "code"]
    predictions = sum(PREDICT.match(cell.source) is not None for cell in code)
    stated = [
        int(found)
        for cell in notebook.cells
        for found in re.findall(r"^### Exercise .*?(\d+) minutes", cell.source, re.MULTILINE)
    ]
    reading = len(words) / 150 + 0.75 * (len(code) - predictions) + predictions
    return reading, sum(m for m in stated if m < LONG), sum(m for m in stated if m >= LONG)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_solutions(notebook: NotebookNode) -> tuple[NotebookNode, int]:
    """Return a copy that runs the solutions at its end, and how many code cells come before.

    There are three cells for each exercise. The first brings back the names as they were before its
    stub, with the solutions of all exercises before it. Then come its solution (the last Python
    block) and its check.
    """
    notebook = copy.deepcopy(notebook)
    cells, shipped = notebook.cells, len(code_cells(notebook))
    stubs, solutions, checks = (tagged(notebook, p) for p in ("exercise", "solution", "check"))
    assert set(stubs) == set(solutions) == set(checks)
    added, solved = [], []
    for number in stubs:
        stub = cells[stubs[number]]
        stub.source = KEEP.format(number) + stub.source
        solution = BLOCK.findall(cells[solutions[number]].source)[-1]
        added += ["\n".join([RESTORE.format(number), *solved])]
        added += [solution, cells[checks[number]].source]
        solved.append(solution)
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
