"""Every notebook, run whole in JupyterLab as a reader would, and the command that opens it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab_server import NOTEBOOKS, free_port, isolated, stop, wait_for

pytestmark = pytest.mark.browser
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
READY = """() => {
  const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const kernel = panel && panel.sessionContext && panel.sessionContext.session
    && panel.sessionContext.session.kernel;
  return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
COUNTS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code').map(cell => cell.model.executionCount)"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code' && !(cell.model.getMetadata('tags') || [])
    .includes('raises-exception'))
  .flatMap(cell => cell.model.outputs.toJSON()).filter(out => out.output_type === 'error')
  .map(out => out.evalue)"""
RUN = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
BROKEN = """() => [...document.querySelectorAll('.jp-Notebook img')]
  .filter(img => img.complete && img.naturalWidth === 0).length"""


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_whole_in_jupyterlab(lab, browser, name):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{lab}/doc/tree/{name}?reset")
    page.wait_for_function(READY, timeout=60_000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate(RUN)
    code = [
        cell
        for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells
        if cell.cell_type == "code"
    ]
    wanted = list(range(1, len(code) + 1))
    page.wait_for_function(
        f"() => JSON.stringify(({COUNTS})()) === '{_json(wanted)}'", timeout=240_000
    )
    page.wait_for_function(READY, timeout=30_000)
    assert page.evaluate(ERRORS) == []
    assert page.evaluate(BROKEN) == 0
    assert said == []
    elsewhere = [url for url in asked if not url.startswith((lab, "data:", "blob:"))]
    assert elsewhere == []
    if os.environ.get("QWENKIT_SCREENSHOTS"):
        _screenshots(page, Path(os.environ["QWENKIT_SCREENSHOTS"]), name)
    page.close()


def test_qwenkit_lab_answers_on_its_port(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "qwenkit.cli", "lab", "--no-browser", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=isolated(tmp_path), stdout=log, stderr=log, start_new_session=True
        )
        try:
            page = wait_for(f"http://127.0.0.1:{port}/login", process)
        finally:
            stop(process)
    assert "Jupyter" in page
    assert "00_start_here.ipynb" in (tmp_path / "log").read_text()


def _json(numbers):
    return str(numbers).replace(" ", "")


def _screenshots(page, folder, name):
    """Save what the reader sees, screen by screen, to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    scroller = page.locator(".jp-WindowedPanel-outer").first
    height = scroller.evaluate("box => box.scrollHeight")
    for number, top in enumerate(range(0, height, 900)):
        scroller.evaluate(f"box => box.scrollTo(0, {top})")
        page.wait_for_timeout(300)
        page.screenshot(path=str(folder / f"{Path(name).stem}-{number:02}.png"))
