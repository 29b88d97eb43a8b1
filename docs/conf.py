"""How Sphinx makes the site: `make site` runs it, on files that stay where they are.

The pages are the README, the map of the course, the glossary, the notebooks with their stored
outputs, and the page of tiny-coder. `notebook_pages` says what is changed on the way.
"""

import re
import shutil
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))

import course_graph  # noqa: E402
import notebook_pages  # noqa: E402
import widget_pages  # noqa: E402

project = "qwenkit"
author = "The qwenkit authors"
project_copyright = author
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "data/tiny-coder/README.md",
    "notebooks/README.md", "notebooks/glossary.md", "notebooks/[0-9]*.ipynb",
]  # fmt: skip
exclude_patterns = [".*", "build", "dist", "docs", "qwenkit", "runs", "site", "tests"]

myst_heading_anchors = 3  # links as notebooks/README.md#three-paths
myst_enable_extensions = []  # no notebook has formulas that need a renderer: $ is a dollar sign
suppress_warnings = ["misc.highlighting_failure"]  # tiny-coder's ▶ is not Python, and is meant
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # nothing is loaded from another host

highlight_language = "none"  # a fence without a language is not Python
html_theme = "furo"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-dark"
html_title = "qwenkit"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse on file://
html_theme_options = {"navigation_with_keys": True}

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([\w./-]+)\)")
CONTENTS = """

```{toctree}
:hidden:
:caption: The course

notebooks/README
notebooks/glossary
```

```{toctree}
:hidden:
:glob:
:caption: Notebooks

notebooks/[0-9]*
```

```{toctree}
:hidden:
:caption: The package

data/tiny-coder/README
CONTRIBUTING
```
"""


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """Change what a page is made of, before it is parsed."""
    if name == root_doc:
        content[0] += CONTENTS
    elif app.env.doc2path(name).suffix == ".ipynb":
        folder = Path(app.outdir) / "widgets"
        widgets = widget_pages.of(
            ROOT / f"{name}.ipynb", app.config.live_widgets, cache(app), folder
        )
        content[0] = notebook_pages.changed(content[0], widgets)
    elif name == "notebooks/README":
        pages = {path.name[:2]: f"{path.stem}.html" for path in ROOT.glob("notebooks/??_*.ipynb")}
        content[0] = course_graph.drawn(content[0], pages)
    content[0] = without_links_to_folders(content[0], (ROOT / name).parent)


def without_links_to_folders(text: str, folder: Path) -> str:
    """Return Markdown in which a link to a folder, which is not a page, is only its text."""
    return LINK.sub(lambda link: link[1] if (folder / link[2]).is_dir() else link[0], text)


def cache(app: Sphinx) -> Path:
    """Return the folder for what a later build can use again."""
    return Path(app.doctreedir)


def keep_pictures_in_cache(app: Sphinx) -> None:
    """Let MyST-NB write the notebooks' pictures there, rather than next to the site."""
    config = app.env.mystnb_config
    app.env.mystnb_config = config.copy(output_folder=str(cache(app) / "pictures"))


def name_what_is_spoken(
    app: Sphinx, page: str, template: str, context: dict, doctree: object
) -> None:
    """Let a screen reader say what a toggle shows, and the level of the sidebar's headings."""
    body = context.get("body", "")
    context["body"] = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    tree = context["furo_navigation_tree"]
    leveled = tree.replace('role="heading"', 'role="heading" aria-level="2"')
    context["furo_navigation_tree"] = leveled


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Add the name under which a host looks for the first page."""
    if error is None:
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Connect the functions above to what Sphinx does."""
    app.add_config_value("live_widgets", "*", "env", str, "the notebooks whose widgets are live")
    app.connect("builder-inited", keep_pictures_in_cache, priority=900)  # after MyST-NB's own
    app.connect("source-read", read)
    app.connect("html-page-context", name_what_is_spoken, priority=900)  # after Furo's own
    app.connect("build-finished", add_index)
