"""Which file is GGUF, by its name or its first bytes, and the only one of a folder."""

from __future__ import annotations

from pathlib import Path

from qwenkit.errors import CheckpointError, few, printable
from qwenkit.gguf._header import MAGIC

ENDING = ".gguf"


def is_gguf(path: Path) -> bool:
    """Tell whether a file is GGUF, or is called so; Ollama's files have no ending."""
    if _is_named(path) or not path.is_file():
        return path.is_file()
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _is_named(path: Path) -> bool:
    return path.suffix.lower() == ENDING


def gguf_in(folder: Path) -> Path | None:
    """Return the only GGUF file of a folder without safetensors; None: there is none.

    Raises:
        CheckpointError: there are several.
    """
    if not folder.is_dir() or any(folder.glob("*.safetensors*")):
        return None
    files = sorted(file for file in folder.glob("*") if _is_named(file) and file.is_file())
    if len(files) > 1:
        names = few((printable(path.name) for path in files), most=3)
        raise CheckpointError(
            f"{folder} holds {len(files)} GGUF files ({names}); name one of them: its path ends in "
            f"{ENDING}. (If they are parts of one model, join them first: llama-gguf-split --merge)"
        )
    return files[0] if files else None
