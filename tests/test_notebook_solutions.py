"""Each notebook with its folded solutions in place of the stubs: every check says that it is right.

A stub is tagged `exercise-N`, the markdown cell with its solution `solution-N` (its last Python
block counts), the check `check-N`. A check answers "Right", "Not yet" or "Still empty", and why.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def _as_a_fresh_reader(monkeypatch, tmp_path):
    """The kernel inherits this process's environment."""
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "progress.json"))


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def tagged(notebook, part):
    """Return number -> cell for the cells of one part: exercise, solution or check."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            kind, _, number = tag.rpartition("-")
            if kind == part:
                found[int(number)] = cell
    return found


def run(notebook):
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()


def said(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_with_the_solutions_in_place_every_check_is_content(path):
    notebook = read(path.name)
    stubs, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    checks = tagged(notebook, "check")
    assert stubs
    assert set(stubs) == set(solutions) == set(checks)
    for number, cell in stubs.items():
        cell.source = BLOCK.findall(solutions[number].source)[-1]
    run(notebook)
    answers = {number: said(cell) for number, cell in checks.items()}
    assert {n: text for n, text in answers.items() if not text.startswith("Right")} == {}
