"""What `qwenkit lab` tells Jupyter, after a reader's own settings.

A folded output shows nothing: JupyterLab would print its first line, which answers a prediction. A
reader's own custom.css comes first. And opening does not modify:

JupyterLab puts the running Python's version into a notebook that it opens, and so marks it as
modified wherever another version is stored. Here a notebook is read with the running version, and
saved with the one that was stored. (Jupyter runs this file by itself, without the package.)

With `--complete`, it also loads what completes code inline.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_config_dir
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class NotebookFiles(AsyncLargeFileManager):
    """Keeps the version of Python that a notebook's file names."""

    async def get(self, path: str, *options: Any, **named: Any) -> Any:
        """Read a file; a notebook names the running version."""
        model = await super().get(path, *options, **named)  # type: ignore[no-untyped-call]
        if language := _language(model):
            language["version"] = platform.python_version()
        return model

    async def save(self, model: Any, path: str = "") -> Any:
        """Save a file; a notebook names the version that it had."""
        language = _language(model)
        if language and await self.file_exists(path):
            before = await super().get(path)  # type: ignore[no-untyped-call]
            language["version"] = (_language(before) or language)["version"]
        return await super().save(model, path)  # type: ignore[no-untyped-call]


def _language(model: Any) -> Any:
    """Return a notebook's language_info if it has a version; else None."""
    content = model.get("content") if model.get("type") == "notebook" else None
    language = (content or {}).get("metadata", {}).get("language_info", {})
    return language if "version" in language else None


c = get_config()  # type: ignore[name-defined]
c.ServerApp.contents_manager_class = NotebookFiles
styles = [str(Path(folder) / "custom") for folder in (jupyter_config_dir(), Path(__file__).parent)]
c.ServerApp.tornado_settings.update({"static_custom_path": styles})
if "QWENKIT_COMPLETE" in os.environ:
    sys.path.append(str(Path(__file__).parent))  # of qwenkit_completer
    c.ServerApp.jpserver_extensions.update({"qwenkit_completer": True})
    c.LabApp.extra_labextensions_path = [str(Path(__file__).parent / "labextensions")]
