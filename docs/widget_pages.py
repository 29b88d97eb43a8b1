"""Pages of the notebooks' widgets: each exported by the widget itself, to be shown in a frame.

A stored output does not hold what the widget knows, so the notebook's code runs in a kernel, up to
its last widget. What came is kept, under a name made of all that it depends on.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
DEPENDS = ("qwenkit/**/*.*", "data/tiny-coder/*", "docs/widget_pages.py")
PATIENCE = 300  # seconds for one cell, of which the slowest takes a few

# Runs before the notebook: a widget is not displayed but exported; the cell's output says where.
EXPORT = """
def _export():
    from itertools import count
    from IPython.display import display
    from qwenkit.widgets._base import Inspector
    numbers = count(1)
    def exported(widget, **_):
        file = widget.to_html(f"{folder}/{{next(numbers)}}.html")
        display({{"text/html": file.name, "text/plain": repr(widget)}}, raw=True)
    Inspector._ipython_display_ = exported
_export()
"""

# What a page in a frame tells the page around it, and is told: its height, and the theme.
IN_FRAME = """<style>
:root[data-theme="light"] { color-scheme: light; } :root[data-theme="dark"] { color-scheme: dark; }
body { margin: 0; padding: 8px; } .qk-page { display: none; }
</style>
<script>
if (parent !== window) {
  const root = document.documentElement;
  addEventListener("message", ({ data }) => { root.dataset.theme = data.theme; });
  new ResizeObserver(() => parent.postMessage({ height: root.offsetHeight }, "*")).observe(root);
}
</script>
"""


def is_widget(output: dict) -> bool:
    """Tell whether an output is one of the package's widgets, not the buttons of a prediction."""
    return output["output_type"] == "display_data" and VIEW in output["data"]


def of(path: Path, live: str, cache: Path, folder: Path) -> dict[int, list[tuple[str, str]]]:
    """Write the pages of a notebook's widgets.

    Args:
        path: the notebook.
        live: a pattern for the names of notebooks whose widgets get pages.
        cache: a folder that keeps them for a later build.
        folder: where the site has them.

    Returns:
        For each cell that shows widgets: their pages' names in the folder, and their titles.
    """
    notebook = nbformat.read(path, as_version=4)
    shown = {
        index: sum(map(is_widget, cell.get("outputs", [])))
        for index, cell in enumerate(notebook.cells)
    }
    shown = {index: number for index, number in shown.items() if number}
    if not shown or not fnmatch(path.stem, live):
        return {}
    notebook.cells = notebook.cells[: max(shown) + 1]
    kept = cache / "widgets" / f"{path.stem}-{fingerprint(notebook)}"
    if not (kept / "pages.json").is_file():
        run(notebook, path, kept)
    found = {int(index): pages for index, pages in json.loads((kept / "pages.json").read_text())}
    if {index: len(pages) for index, pages in found.items()} != shown:
        raise ValueError(f"{path.name} shows other widgets than those stored: run and save it")
    folder.mkdir(parents=True, exist_ok=True)
    for file in kept.glob("*.html"):
        text = file.read_text(encoding="utf-8").replace("</html>", f"{IN_FRAME}</html>")
        (folder / f"{path.stem}-{file.name}").write_text(text, encoding="utf-8")
    return {
        index: [(f"{path.stem}-{name}", title) for name, title in pages]
        for index, pages in found.items()
    }


def run(notebook: nbformat.NotebookNode, path: Path, kept: Path) -> None:
    """Run a notebook in a kernel that keeps to itself; write its widgets' pages and their list."""
    for old in kept.parent.glob(f"{path.stem}-*"):
        shutil.rmtree(old)
    kept.mkdir(parents=True)
    first = nbformat.v4.new_code_cell(EXPORT.format(folder=kept.resolve()))
    notebook.cells = [first, *notebook.cells]
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # where nbclient says that it runs
    print(f"Running {path.name} for its widgets", flush=True)
    with tempfile.TemporaryDirectory() as state:
        NotebookClient(
            notebook, timeout=PATIENCE, kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
        ).execute(env=isolated(state), stderr=subprocess.DEVNULL)  # fmt: skip
    found = []
    for index, cell in enumerate(notebook.cells[1:]):
        pages = [
            (output["data"]["text/html"], output["data"]["text/plain"])
            for output in cell.get("outputs", [])
            if (kept / output.get("data", {}).get("text/html", "no page")).is_file()
        ]
        if pages:
            found.append((index, pages))
    (kept / "pages.json").write_text(json.dumps(found))  # last: it says that all is there


def isolated(state: str) -> dict[str, str]:
    """Return an environment in which a kernel uses tiny-coder, and nothing of the reader's."""
    names = ("IPYTHONDIR", "QWENKIT_PROGRESS", "QWENKIT_MINE")
    environment = {**os.environ, **{name: f"{state}/{name.lower()}" for name in names}}
    environment.pop("QWENKIT_MODEL", None)
    return {**environment, "QWENKIT_QUIET": "1"}


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Return a short name of a notebook's code and all that it runs on."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        digest.update(f"{cell.cell_type}\n{cell.source}\n".encode())
    for pattern in DEPENDS:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
