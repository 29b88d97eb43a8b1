"""A real JupyterLab and a real Chromium for the tests in this folder."""

import shutil
import subprocess
import sys

import pytest
from lab_server import FLAGS, NOTEBOOKS, chromium_path, free_port, isolated, stop, wait_for
from pages import opened


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory):
    """Give the folder that JupyterLab shows: copies of the notebooks, and what tests write."""
    root = tmp_path_factory.mktemp("lab")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, root)
    return root


@pytest.fixture(scope="session")
def lab(lab_root, tmp_path_factory: pytest.TempPathFactory):
    """Start JupyterLab on copies of the notebooks; give its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        "--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={lab_root}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    state = tmp_path_factory.mktemp("jupyter")
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(command, env=isolated(state), stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


@pytest.fixture(scope="session")
def browser():
    """Start Chromium once for all tests."""
    path = chromium_path()
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(widget, browser, tmp_path):
    """Open the exported page of a test file's own `widget`."""
    with opened(browser, widget.to_html(tmp_path / "page.html")) as page:
        yield page
