"""Collect functions from notebook cells in one Python file, and load that file."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from qwenkit.checks import is_right
from qwenkit.errors import InputError
from qwenkit.files import replacing
from qwenkit.mine._source import NAME, merged, written


def file() -> Path:
    """Return where functions are kept: $QWENKIT_MINE, or my_qwen.py in the current folder."""
    return Path(os.environ.get("QWENKIT_MINE") or "my_qwen.py").absolute()


def keep(*functions: Callable[..., Any]) -> None:
    """Add functions or classes to the reader's file, and say what was kept.

    Only what a check has called right in this session is kept. What a function needs from the
    notebook is kept with it: imports, other functions, and constants. A function that is there
    already is replaced; all else in the file stays as it is.

    Args:
        *functions: the functions themselves, such as `rotate`.

    Raises:
        InputError: not a function that the reader wrote, one that uses a value of the notebook
            which cannot be kept, or a file that is not valid Python.
    """
    right = [one for one in functions if _is_right(one)]
    waiting = [getattr(one, "__name__", repr(one)) for one in functions if not _is_right(one)]
    if right:
        path = file()
        before = _text(path)
        for one in right:
            before = merged(before, written(one), path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(before, encoding="utf-8")
        print(f"Kept in {path.name}: {', '.join(one.__name__ for one in right)}")
    if waiting:
        print("Not kept, because no check has said Right yet:", ", ".join(waiting))


def load() -> ModuleType | None:
    """Return the reader's file as a module, or None where there is none yet.

    Raises:
        InputError: the file cannot be run; the message has the line.
    """
    path = file()
    text = _text(path)
    if not text:
        return None
    spec = importlib.util.spec_from_loader(NAME, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    before = sys.modules.get(NAME)
    sys.modules[NAME] = module  # the file may import itself, wherever it is
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:
        line = getattr(error, "lineno", None) or _last_line(error, str(path))
        raise InputError(
            f"line {line} of {path.name} fails: {type(error).__name__}: {error}. Correct it there, "
            f"or solve the exercise again and keep it."
        ) from error
    finally:
        del sys.modules[NAME]
        if before is not None:
            sys.modules[NAME] = before
    return module


def _is_right(one: Callable[..., Any]) -> bool:
    """Say whether a check has called a function right, or a class, by its `forward`."""
    return is_right(one) or (isinstance(one, type) and is_right(getattr(one, "forward", None)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}. Move it away to begin again.") from error


def _last_line(error: BaseException, path: str) -> int | str:
    """Return the line of the reader's file in which an error arose."""
    found: int | str = "?"
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == path:
            found = at.tb_lineno
        at = at.tb_next
    return found
