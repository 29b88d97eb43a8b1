"""The files of a tokenizer: their names, and how they are read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenkit.errors import InputError, TokenizerError
from qwenkit.files import expanded, undisturbed

PIPELINE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
SPECIAL_MAP = "special_tokens_map.json"
ADDED = "added_tokens.json"
VOCAB, MERGES = "vocab.json", "merges.txt"
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"  # a folder: one template per file
DECODER = "added_tokens_decoder"  # the key of the settings that lists added tokens
NAMES = (PIPELINE, SETTINGS, SPECIAL_MAP, ADDED, VOCAB, MERGES, TEMPLATE)
PATTERNS = (*NAMES, f"{TEMPLATES}/*.jinja")  # of all of them, for a download


def as_folder(folder: str | Path) -> Path:
    """Return the path of a folder.

    Raises:
        TokenizerError: not a valid name for a folder.
    """
    try:
        return expanded(folder)
    except InputError as error:
        raise TokenizerError(str(error)) from None


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of a tokenizer's files, by their paths relative to the folder.

    Raises:
        TokenizerError: one of them cannot be read.
    """
    return undisturbed(folder, lambda: _read_files(folder))


def _read_files(folder: Path) -> dict[str, bytes]:
    path, found = folder, {}
    try:
        for path in (*(folder / name for name in NAMES), *more_templates(folder)):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{str(path)[:200]} cannot be read: {error.strerror}") from None
    return found


def more_templates(folder: Path) -> list[Path]:
    """Return the files of further chat templates."""
    return sorted((folder / TEMPLATES).glob("*.jinja"))


def parsed(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if the file is absent.

    Raises:
        TokenizerError: it is not JSON, or not an object.
    """
    if name not in files:
        return {}
    try:
        data = json.loads(files[name])
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError, too
        raise TokenizerError(f"{name} cannot be read ({error}); fetch it again") from None
    if not isinstance(data, dict):
        wrong = f"it holds a JSON {type(data).__name__}, not an object"
        raise TokenizerError(f"{name} cannot be read ({wrong}); fetch it again")
    return data


def as_text(files: Mapping[str, bytes], name: str) -> str:
    """Return a file's text.

    Raises:
        TokenizerError: it is not UTF-8.
    """
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{name} is not UTF-8 text (byte {error.start})") from None
