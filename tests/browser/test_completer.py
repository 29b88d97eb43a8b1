"""Code that a model suggests as one types, in JupyterLab as `qwenkit lab --complete` starts it."""

import sys
import time
from functools import partial

import pytest
from lab_server import COMMAND, PANEL, PATIENCE, carry_out, free_port, open_in_lab, serving
from nbformat.v4 import new_code_cell, new_notebook
from test_widgets_in_lab import KERNEL

pytestmark = pytest.mark.browser
GHOST = ".jp-GhostText"
SOURCE = f"() => {PANEL}.content.widgets[0].model.sharedModel.getSource()"
OUTPUT = f"() => {PANEL}.content.widgets[1].model.outputs.toJSON().map(one => one.text).join('')"
RUN = f"{COMMAND}('notebook:run-all-cells')"


@pytest.fixture(scope="module")
def completing_lab(browser, tmp_path_factory):
    """Start `qwenkit lab --complete`, and wait for the model; give `open_in_lab` for it."""
    port, state, root = (
        free_port(),
        tmp_path_factory.mktemp("jupyter"),
        tmp_path_factory.mktemp("root"),
    )
    command = [sys.executable, "-m", "qwenkit.cli", "lab", "--complete", f"--port={port}"]
    command += ["--no-browser", f"--folder={root}", "--", "--ServerApp.token="]
    command += ["--ServerApp.password=", "--LabApp.expose_app_in_browser=True"]
    command += ["--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    address = f"http://127.0.0.1:{port}"
    with serving(command, f"{address}/api", state):
        end = time.monotonic() + PATIENCE
        while "The model for inline completions is ready" not in (state / "log").read_text("utf-8"):
            assert time.monotonic() < end, "the model did not start"
            time.sleep(0.2)
        yield partial(open_in_lab, browser, address, root)


def test_half_a_function_is_completed_accepted_and_run(completing_lab):
    cells = [new_code_cell(text) for text in ("", "print(add(2, 3))")]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    with completing_lab("half.ipynb", notebook) as (page, _):
        page.locator(".jp-CodeCell .cm-content").nth(0).click()
        page.keyboard.type("def add(a, b):")
        page.keyboard.press("Enter")
        page.keyboard.type("return")
        page.locator(GHOST, has_text="a + b").wait_for()
        before = page.evaluate(SOURCE)
        assert before == "def add(a, b):\n    return"
        page.keyboard.press("Tab")
        page.wait_for_function(f"() => ({SOURCE})() !== {before!r}")
        assert page.evaluate(SOURCE).startswith(f"{before} a + b")
        carry_out(page, RUN)
        page.wait_for_function(f"() => ({OUTPUT})() === '5\\n'")
