"""`qwenkit lab`: JupyterLab on the first notebook, in a clone or in a folder of copies."""

from __future__ import annotations

import filecmp
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qwenkit.errors import SourceError
from qwenkit.files import expanded, replacing

FIRST = "00_start_here.ipynb"
CLONE = Path(__file__).parents[2] / "notebooks"
INSTALLED = Path(__file__).parents[1] / "notebooks"  # as the wheel carries them
COPIES = "qwenkit-notebooks"
COMPLETE = "QWENKIT_COMPLETE"  # read by jupyter/


def lab(
    folder: str | None,
    port: int,
    browser: bool,
    more: Sequence[str],
    complete: Sequence[str] | None = None,
) -> int:
    """Start JupyterLab: replace this process with it if possible, else return its exit code.

    Args:
        folder: where copies of the notebooks go; None: a clone's own are opened, and those of an
            installed package copied to `qwenkit-notebooks`.
        port: preferred; JupyterLab takes the next free one.
        browser: whether to open one.
        more: arguments for JupyterLab.
        complete: arguments of `qwenkit serve` for the model that completes code inline; None: none
            does.

    Raises:
        SourceError: there are no notebooks, they cannot be copied, or JupyterLab is not installed.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise SourceError("JupyterLab is not installed; install it: pip install jupyterlab")
    if folder is None and (CLONE / FIRST).is_file():
        root, first = CLONE.parent, f"{CLONE.name}/{FIRST}"
    else:
        root, first = _copied_to(expanded(folder or COPIES).absolute()), FIRST
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += [f"--ServerApp.port={port}"]
    command += [f"--LabApp.default_url=/lab/tree/{first}"]  # in the printed address
    command += ["--LabApp.custom_css=True"]  # of jupyter/custom
    command += [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # containers; Jupyter refuses it otherwise
        command.append("--allow-root")
    command += more
    paths = [str(Path(__file__).parent / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, paths))
    os.environ.pop(COMPLETE, None)
    if complete is not None:
        os.environ[COMPLETE] = json.dumps(list(complete))
    if os.name != "posix":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)  # become Jupyter: Ctrl-C and signals reach it alone


def _copied_to(folder: Path) -> Path:
    """Copy the notebooks that are not yet in a folder, say what was done, and return the folder."""
    source = next((place for place in (INSTALLED, CLONE) if (place / FIRST).is_file()), None)
    if source is None:
        raise SourceError(
            f"{INSTALLED / FIRST} does not exist; install qwenkit again, or clone the repository "
            "and run `make lab` there"
        )
    copied, kept = 0, []
    try:
        patterns = ("*.ipynb", "*.md", "pictures/*.png")
        for file in sorted(found for pattern in patterns for found in source.glob(pattern)):
            target = folder / file.relative_to(source)
            if not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    shutil.copyfile(file, temporary)
                copied += 1
            elif not target.is_file() or not filecmp.cmp(file, target, shallow=False):
                kept.append(target.name)
    except OSError as error:
        raise SourceError(
            f"the notebooks cannot be copied to {folder} ({error.strerror}); name another folder: "
            "qwenkit lab --folder NAME"
        ) from None
    print(f"The notebooks are in {folder}; {copied} files copied")
    if kept:
        print(f"Kept as they are, unlike this version's: {', '.join(kept)}")
        print("(rename one to get a fresh copy)")
    return folder
