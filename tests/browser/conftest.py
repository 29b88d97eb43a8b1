"""A real JupyterLab and a real Chromium for the tests in this folder."""

import os
import shutil
import sys
from functools import partial

import pytest
from fixtures_toy import toy_of
from lab_server import (
    FLAGS,
    LAB,
    chromium_path,
    closing,
    free_port,
    open_in_lab,
    serving,
)
from notebook_cells import FOLDER
from pages import opened

import qwenkit as qk


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory):
    """Give the folder that JupyterLab shows: copies of the notebooks, and what tests write."""
    return shutil.copytree(FOLDER, tmp_path_factory.mktemp("lab"), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def in_lab(browser, lab_root, tmp_path_factory: pytest.TempPathFactory):
    """Start JupyterLab once for all tests; give `open_in_lab` for names and notebooks."""
    port, state = free_port(), tmp_path_factory.mktemp("jupyter")
    own = (f"--ServerApp.port={port}", f"--ServerApp.root_dir={lab_root}")
    address = f"http://127.0.0.1:{port}"
    with serving([sys.executable, *LAB, *own], f"{address}/api", state):
        yield partial(open_in_lab, browser, address, lab_root)


@pytest.fixture(scope="session")
def browser():
    """Start Chromium once for all tests, or skip loudly; in CI its absence is a failure."""
    path = chromium_path()
    if path is None:
        stop = pytest.fail if os.environ.get("QWENKIT_REQUIRE_BROWSER") else pytest.skip
        stop("NO BROWSER: Chromium is not installed, the browser tests do not run")
    playwright = pytest.importorskip("playwright.sync_api")
    driver = playwright.sync_playwright().start()
    chromium = driver.chromium.launch(executable_path=path, args=list(FLAGS))
    yield chromium
    with closing():
        chromium.close()
        driver.stop()


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Load an untied toy: a tied one of random weights predicts its last token again."""
    return qk.load_pretrained(toy_of(tmp_path_factory, tied=False), dtype="float32")


@pytest.fixture
def shown(widget, browser, tmp_path):
    """Give a function: choose, and open the exported page of a test file's own `widget`."""

    def show(how=opened, width=1280, **chosen):
        widget.choose(**chosen)
        return how(browser, widget.to_html(tmp_path / "page.html"), width=width)

    return show


@pytest.fixture
def page(shown):
    with shown() as page:
        yield page
