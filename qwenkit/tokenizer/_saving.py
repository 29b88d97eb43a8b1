"""Saving a tokenizer: the files it was read from, with only what was changed rewritten."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from qwenkit.files import as_json
from qwenkit.tokenizer._files import (
    ADDED,
    DECODER,
    MERGES,
    NAMES,
    PIPELINE,
    SETTINGS,
    VOCAB,
    more_templates,
    parsed,
)  # fmt: skip
from qwenkit.tokenizer._templates import read_templates, write_templates


def changed_files(
    read: Mapping[str, bytes],
    pipeline: tokenizers.Tokenizer | None,
    templates: Mapping[str, str],
) -> dict[str, bytes]:
    """Return the files to write.

    Args:
        read: the files as they were read.
        pipeline: what replaces the one that was read; None: it was not changed.
        templates: the chat templates now, by name.
    """
    files = dict(read)
    if pipeline is not None:
        files[PIPELINE] = _pipeline(pipeline, read)
        for name in (VOCAB, MERGES, ADDED):  # they would contradict it
            files.pop(name, None)
        settings = parsed(files, SETTINGS)
        if DECODER in settings:
            added = json.loads(files[PIPELINE])["added_tokens"]
            listed = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added}
            files[SETTINGS] = as_json(settings | {DECODER: listed})
    write_templates(files, read_templates(read), templates)
    return files


def _pipeline(pipeline: tokenizers.Tokenizer, read: Mapping[str, bytes]) -> bytes:
    """Return tokenizer.json of a pipeline, with the truncation and padding that were there."""
    data, before = json.loads(pipeline.to_str()), parsed(read, PIPELINE)
    kept = {key: data.get(key) or before.get(key) for key in ("truncation", "padding")}
    return as_json(data | kept)


def write_files(files: Mapping[str, bytes], staging: Path) -> set[str]:
    """Write files into a save's staging folder; return those around it that are now obsolete."""
    for name, content in files.items():
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(content)
    folder = staging.parent
    there = {path.relative_to(folder).as_posix() for path in more_templates(folder)}
    return (there | set(NAMES)) - set(files)
