"""Two widgets in Jupyter Notebook 7, which shows a notebook without JupyterLab around it."""

import sys
from functools import partial

import pytest
from driving import drive_in_jupyter
from lab_server import LAB, READY, free_port, open_in_lab, serving
from test_explorer_page import TYPE
from test_widgets_in_lab import GONE, RESTART, SHOWN, notebook_of, run

pytestmark = pytest.mark.browser
EXPLORER = "import qwenkit as qk\nwidget = qk.widgets.ModelExplorer()\nwidget"
ATTENTION = """model, tokenizer = qk.load_pretrained()
attention = qk.widgets.AttentionExplorer(model, tokenizer, "def f(x):\\n    return x")
attention"""
# Notebook 7.6 complains of a setting of its own as it starts.
STARTS = "Cannot read properties of undefined (reading 'schema')"
PRINT = "print(widget.state['prompt'], attention.prompt)"


@pytest.fixture
def in_notebook(browser, tmp_path_factory):
    root, state = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    port = free_port()
    options = [option.replace("LabApp", "JupyterNotebookApp") for option in LAB]
    options[options.index("jupyterlab")] = "notebook"
    own = (f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}")
    address = f"http://127.0.0.1:{port}"
    with serving([sys.executable, *options, *own], f"{address}/api", state):
        yield partial(open_in_lab, browser, address, root, under="notebooks")


def test_a_reader_does_everything_and_a_kernel_that_is_gone_is_noticed(in_notebook):
    with in_notebook("one.ipynb", notebook_of(EXPLORER, ATTENTION)) as (page, errors):
        run(page, 0)
        page.wait_for_selector(SHOWN)
        drive_in_jupyter(page, errors, own=(STARTS,))
        run(page, 1)
        page.wait_for_function(f"() => document.querySelectorAll({SHOWN!r}).length === 2")
        page.locator(".qk-attention-grid").press("x")  # the notebook's key for "cut this cell"
        assert page.locator(".qk").count() == 2
        assert errors == []
        page.evaluate(RESTART)
        page.wait_for_function(READY)
        page.locator(".qk-ask").get_by_role("button", name="Run").click()
        page.get_by_text(GONE).wait_for(timeout=5000)
        page.evaluate(TYPE, "x = ")  # the page that computes by itself goes on
        errors.clear()  # Jupyter's own, about the kernel that is gone


def test_widgets_compute_and_take_a_prompt(in_notebook):
    with in_notebook("two.ipynb", notebook_of(EXPLORER, ATTENTION, PRINT)) as (page, errors):
        errors.clear()  # Notebook 7.6 complains of a setting of its own as it starts
        run(page, 0)
        page.get_by_role("button", name="·n 37%").wait_for()
        page.evaluate(TYPE, "def add(a, b):\n    return a +")
        run(page, 1)
        page.wait_for_function(f"() => document.querySelectorAll({SHOWN!r}).length === 2")
        box = page.locator(".qk-ask textarea")
        box.fill("x = 1")
        box.press("Enter")
        page.wait_for_function("() => document.querySelectorAll('.qk')[1].dataset.drawn > 1")
        page.wait_for_timeout(1500)
        [printed] = run(page, 2)
        assert printed["text"] == "def add(a, b):\n    return a + x = 1\n"
