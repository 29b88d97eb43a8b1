"""JupyterLab that keeps to itself, Chromium, and the pages that tests open with the two."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAB = (
    "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.token=",
    "--ServerApp.password=", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
    "--LabApp.expose_app_in_browser=True",
)  # fmt: skip
PANEL = "window.jupyterapp.shell.currentWidget"
READY = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
COMMAND = "() => window.jupyterapp.commands.execute"
CLEAR, SAVE = f"{COMMAND}('notebook:clear-all-cell-outputs')", f"{COMMAND}('docmanager:save')"
SHUT_DOWN = f"() => {PANEL}.sessionContext.shutdown()"
PATIENCE = 120  # seconds for what takes a few on a machine that does nothing else


def carry_out(page, command):
    """Run one of JupyterLab's commands; unlike `evaluate`, do not wait forever if it never ends.

    One that asks something in a dialog ends only with the answer.
    """
    page.evaluate(
        """([command, most]) => Promise.race([eval(command)(), new Promise((_, fail) =>
          setTimeout(() => fail(new Error(`no end after ${most} ms: ${command}; it shows: `
            + [...document.querySelectorAll('.jp-Dialog')].map(one => one.innerText))), most))])
            .then(() => 0)""",
        [command, 1000 * PATIENCE],
    )


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def isolated(folder: Path) -> dict[str, str]:
    """Return an environment in which Jupyter and the exercises keep all state under `folder`."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    names += (
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "QWENKIT_PROGRESS",
        "QWENKIT_MINE",
    )
    environment = {**os.environ, **{name: str(folder / name.lower()) for name in names}}
    environment.pop("QWENKIT_MODEL", None)
    environment["QWENKIT_QUIET"] = "1"  # a stage may take over a second on a busy machine
    settings = folder / "jupyterlab_settings_dir/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    return environment


@contextmanager
def serving(command, url, folder):
    """Start a server that keeps its state in `folder`; yield the page at `url`, which answers."""
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env=isolated(folder), stdout=log, stderr=log) as process,
    ):
        try:
            yield _wait_for(url, process)
        finally:
            kernels = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
            kill(kernels)  # a server that is killed leaves them behind


def kill(processes):
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()


@contextmanager
def closing(seconds=60):
    """Kill what this process has started if the block does not end in time.

    A browser that never closes would hold up the end of the whole run, without a word.
    """
    timer = threading.Timer(seconds, lambda: kill(psutil.Process().children(recursive=True)))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer within {PATIENCE} s")


@contextmanager
def open_in_lab(browser, lab, root, name, notebook=None, under="doc/tree"):
    """Write a notebook and open it; yield its page and a list of errors, empty at the end.

    Nothing may be requested from another server.
    """
    if notebook:
        nbformat.write(notebook, root / name)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(f"{lab}/{under}/{name}?reset")
        page.wait_for_function(READY, polling=100)
        yield page, said
        errors = said.copy()  # without the debugger's complaint about what follows
        carry_out(page, SHUT_DOWN)
    finally:
        page.close()
    elsewhere = [url for url in asked if not url.startswith((lab, "data:", "blob:"))]
    assert (errors, elsewhere) == ([], []), f"errors: {errors}; requests: {elsewhere}"
