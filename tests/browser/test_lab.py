"""Every notebook, run whole in JupyterLab as a reader would, and the command that opens it."""

import copy
import os
import platform
import sys

import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.filemanager import FileContentsManager
from lab_server import (
    CLEAR,
    COMMAND,
    PANEL,
    READY,
    SAVE,
    carry_out,
    chromium_path,
    free_port,
    isolated,
    serving,
)
from nbclient import NotebookClient
from notebook_cells import FOLDER, NOTEBOOKS, code_cells, compare, read, tagged, with_solutions

pytestmark = pytest.mark.browser
LONGEST = 600  # seconds for a whole notebook
CODE = f"{PANEL}.content.widgets.filter(cell => cell.model.type === 'code')"
COUNTS = f"() => {CODE}.map(cell => cell.model.executionCount)"
OUTPUTS = f"() => {CODE}.map(cell => cell.model.outputs.toJSON())"
ENDED = f"""() => {{
  const cells = {CODE};
  const types = ({{ outputs }}) => [...Array(outputs.length).keys()].map(i => outputs.get(i).type);
  return cells.every(cell => cell.model.executionCount) || cells.some(cell =>
    types(cell.model).includes('error')
      && !(cell.model.getMetadata('tags') || []).includes('raises-exception'));
}}"""
FOLDED = f"() => {CODE}.filter(cell => cell.outputHidden).length"
RUN = f"{COMMAND}('notebook:run-all-cells') && 0"  # does not wait for the end
BROKEN = """() => [...document.querySelectorAll('.jp-Notebook img')]
  .filter(img => img.complete && img.naturalWidth === 0).length"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_stored_and_its_solutions_are_right(path, request, tmp_path):
    """Where there is no browser, the notebook runs all the same, without JupyterLab."""
    notebook, shipped = with_solutions(read(path))
    if chromium_path() or os.environ.get("QWENKIT_REQUIRE_BROWSER"):
        ran = _run_in_lab(request.getfixturevalue("in_lab"), path.name, notebook)
    else:
        ran = _run_in_kernel(notebook, tmp_path)
    differing = [
        f"code cell {number}\n{difference}"
        for number, (cell, outputs) in enumerate(zip(code_cells(notebook), ran, strict=True))
        if (difference := compare(cell, outputs))
    ]
    assert not differing, "\n\n".join(differing)
    verdicts = ["".join(out.get("text", "") for out in cell) for cell in ran[shipped + 2 :: 3]]
    assert len(verdicts) == len(tagged(notebook, "check"))
    assert [verdict for verdict in verdicts if not verdict.startswith("Right")] == []


def _run_in_lab(in_lab, name, notebook):
    """Run a notebook in JupyterLab; return the outputs of each code cell."""
    with in_lab(name, notebook) as (page, _):
        hidden = [one.metadata.get("jupyter", {}).get("outputs_hidden") for one in notebook.cells]
        assert page.evaluate(FOLDED) == hidden.count(True)  # what answers a prediction
        carry_out(page, CLEAR)
        page.evaluate(RUN)
        page.wait_for_function(ENDED, timeout=1000 * LONGEST, polling=500)
        page.wait_for_function(READY, polling=100)
        counts, outputs = page.evaluate(COUNTS), page.evaluate(OUTPUTS)
        assert page.evaluate(BROKEN) == 0
        assert page.evaluate(FOLDED) == 0  # it shows once the cell has run
    if all(counts):  # else a cell failed
        assert counts == list(range(1, len(counts) + 1))
    return outputs


def _run_in_kernel(notebook, folder):
    """Run a notebook without JupyterLab; return the outputs of each code cell."""
    client = NotebookClient(
        copy.deepcopy(notebook), timeout=LONGEST, allow_errors=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )  # fmt: skip
    return [cell.outputs for cell in code_cells(client.execute(env=isolated(folder)))]


def test_qwenkit_lab_answers_on_its_port(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "qwenkit.cli", "lab", "--no-browser", "--port", str(port)]
    with serving(command, f"http://127.0.0.1:{port}/login", tmp_path) as page:
        assert "Jupyter" in page
    assert "00_start_here.ipynb" in (tmp_path / "log").read_text()


def test_qwenkit_lab_shows_nothing_of_a_folded_output(browser, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "qwenkit.cli", "lab", "--no-browser", "--port", str(port)]
    command += ["--folder", str(tmp_path / "course"), "--", "--IdentityProvider.token="]
    server = f"http://127.0.0.1:{port}"
    with serving(command, f"{server}/api", tmp_path):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{server}/doc/tree/05_attention.ipynb?reset")
        folded = page.locator(".jp-OutputPlaceholder")
        folded.first.wait_for(state="visible", timeout=60_000)
        assert folded.first.inner_text().strip() == ""
        assert folded.first.locator(".jp-PlaceholderText").text_content() != ""
        first = folded.first.element_handle()
        first.wait_for_selector(".jp-Placeholder-contentContainer").click()  # the three dots
        first.wait_for_element_state("hidden")
        page.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_jupyterlab_writes_it(path):
    """The server's own reading and writing gives the same bytes, and the kernel's language too."""
    stored = read(path).metadata.language_info
    assert stored.pop("version").startswith("3.")
    assert {**stored, "version": platform.python_version()} == IPythonKernel().language_info
    manager = FileContentsManager(root_dir=str(FOLDER))
    model = manager.get(path.name)
    written = nbformat.writes(nbformat.from_dict(model["content"]), version=nbformat.NO_CONVERT)
    assert f"{written}\n".encode() == path.read_bytes()


def test_opening_a_notebook_does_not_modify_it(in_lab, lab_root):
    """Where the running Python is the one that a notebook names: else its version is new."""
    name = NOTEBOOKS[0].name
    notebook = read(NOTEBOOKS[0])
    notebook.metadata.language_info.version = platform.python_version()
    nbformat.write(notebook, lab_root / name)
    before = (lab_root / name).read_bytes()
    with in_lab(name) as (page, _):
        page.wait_for_timeout(1000)
        assert page.evaluate(f"() => {PANEL}.context.model.dirty") is False
        carry_out(page, SAVE)
        assert (lab_root / name).read_bytes() == before


def test_a_prediction_is_recorded_by_a_click(in_lab):
    asked = 'import qwenkit as qk\nqk.predict("99.1", ["it stays", "it grows"])'
    answered = 'qk.outcome("99.1", "it grows")\nprint(qk.checks.predictions("99"))'
    notebook = copy.deepcopy(read(NOTEBOOKS[0]))
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (asked, answered)]
    with in_lab("prediction.ipynb", notebook) as (page, _):
        page.evaluate(f"{COMMAND}('notebook:run-cell-and-select-next') && 0")
        page.get_by_role("button", name="it grows").click(timeout=60_000)
        page.get_by_text("Recorded. Now run the next cell.").wait_for()
        for _ in range(2):  # the click went back to the first cell
            page.evaluate(f"{COMMAND}('notebook:run-cell-and-select-next') && 0")
        page.get_by_text("you said 'it grows', and that is right.").wait_for()
        page.get_by_text("1 of 1 predictions came true").wait_for()
