"""ModelExplorer in JupyterLab: it asks for the model once, needs no kernel, and is never stored."""

import json

import pytest
from driving import drive_in_jupyter
from lab_server import PANEL, SAVE, SHUT_DOWN
from nbformat.v4 import new_code_cell, new_notebook
from test_explorer_page import IDLE, TYPE
from test_widgets_in_lab import KERNEL, SHOWN, notebook_of, run

pytestmark = pytest.mark.browser
MAKE = "import qwenkit as qk\nwidget = qk.widgets.ModelExplorer()\nwidget"
CHOOSE = 'widget.choose(prompt="x = 1\\n", off=[[2, 3]])'
PRINT = "print(widget.state)"
SAVED = f"() => {PANEL}.context.model.dirty === false"


def test_a_reader_does_everything_in_both_themes_and_after_a_reload(in_lab):
    with in_lab("driven.ipynb", notebook_of(MAKE)) as (page, errors):
        run(page, 0)
        page.wait_for_selector(SHOWN)
        drive_in_jupyter(page, errors)


def test_it_runs_follows_code_and_goes_on_without_its_kernel(in_lab, lab_root):
    cells = [new_code_cell(source) for source in (MAKE, CHOOSE, PRINT)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    with in_lab("explorer.ipynb", notebook) as (page, _):
        run(page, 0)
        page.wait_for_selector(SHOWN)
        page.get_by_role("button", name="·n 37%").wait_for()
        run(page, 1)  # code chooses, the page follows
        page.wait_for_function("() => document.querySelector('.qk').qk.ids.length === 5")
        assert page.get_by_label("Prompt", exact=True).input_value() == "x = 1\n"
        page.evaluate(TYPE, "def add(a, b):\n    return a +")  # a reader types, code sees it
        page.wait_for_timeout(1500)
        [printed] = run(page, 2)
        assert "return a +" in printed["text"]
        assert "[[2, 3]]" in printed["text"]

        page.evaluate(SAVE)
        page.wait_for_function(SAVED)
        stored = (lab_root / "explorer.ipynb").read_text(encoding="utf-8")
        assert len(stored) < 1_000_000
        assert "widgets" not in json.loads(stored)["metadata"]

        page.evaluate(SHUT_DOWN)
        page.wait_for_function(f"() => !{PANEL}.sessionContext.session?.kernel")
        page.evaluate(TYPE, "def double(x):\n    return")
        page.get_by_role("button", name="Generate").click()
        page.wait_for_function(IDLE)
        assert len(page.get_by_label("Prompt", exact=True).input_value()) > 26
        prompt = page.get_by_label("Prompt", exact=True)
        prompt.focus()
        page.keyboard.press("Home")
        page.keyboard.type("# ")
        assert "# " in prompt.input_value()
