"""The tokenizer in the metadata of a GGUF file, as the files of a folder's tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwenkit.errors import CheckpointError, TokenizerError, shown, warn
from qwenkit.files import as_json
from qwenkit.gguf import GgufFile, read_gguf
from qwenkit.tokenizer._files import PIPELINE, SETTINGS
from qwenkit.tokenizer._pipeline import qwen2_pipeline

_PREFIX = "tokenizer.ggml."
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_KINDS = (_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED)  # bytes and unknown have no place in Qwen's
_PADDING = re.compile(r"\[PAD(\d+)\]")  # how llama.cpp calls a row of no token
_NAMED = {"eos_token": "eos_token_id", "pad_token": "padding_token_id"}
_NONE = 2**32 - 1  # -1, as some tools write for a token that there is not
_TEMPLATE = "tokenizer.chat_template"


def gguf_tokenizer(path: Path) -> dict[str, bytes]:
    """Return tokenizer.json and tokenizer_config.json, made of a GGUF file's metadata.

    Two things the metadata do not tell as Qwen's own files do. Which added tokens `decode(...,
    skip_special=True)` shows: llama.cpp makes all special that look like `<|...|>`. And the BOS:
    they name one, which Qwen's tokenizer does not have; so none is named here.

    Raises:
        TokenizerError: the file is damaged, or has no tokenizer of Qwen2.
    """
    try:
        file = read_gguf(path)
        _refuse_others(file)
        tokens, kinds = _vocabulary(file)
        merges = [_pair(file, merge) for merge in _list(file, "merges", str)]
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    tail = _tail(kinds)
    data = json.loads(qwen2_pipeline({}, []).to_str())
    data["model"]["vocab"] = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _NORMAL or (kind != _UNUSED and number not in tail)
    }
    data["model"]["merges"] = merges
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [
        {"id": number, "content": token, **flags, "special": kind == _CONTROL}
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    text = json.dumps(data, ensure_ascii=False)  # indented it would take seconds
    return {PIPELINE: text.encode(), SETTINGS: as_json(_settings(file, tokens, kinds))}


def _wrong(file: GgufFile, what: str) -> TokenizerError:
    return TokenizerError(f"{file.path}: {what}; take a GGUF file of a Qwen2 model")


def _refuse_others(file: GgufFile) -> None:
    """Refuse a tokenizer of another kind; how it splits a text is only known by its name."""
    kind = file.metadata.get(f"{_PREFIX}model")
    if kind != "gpt2":
        raise _wrong(file, f"{_PREFIX}model is {shown(kind)}; Qwen2's is 'gpt2', a byte-level BPE")
    split = file.metadata.get(f"{_PREFIX}pre")
    if split is None:
        warn(f"{file.path} does not say how it splits a text ({_PREFIX}pre); as Qwen2 is assumed")
    elif split != "qwen2":
        raise _wrong(file, f"{_PREFIX}pre is {shown(split)}; it must be 'qwen2'")


def _list(file: GgufFile, name: str, kind: type) -> Sequence[Any]:
    """Return a list of the metadata."""
    found = file.metadata.get(f"{_PREFIX}{name}")
    values = found if isinstance(found, list) else getattr(found, "tolist", lambda: None)()
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise _wrong(file, f"{_PREFIX}{name} is not a list of {kind.__name__}")
    return values


def _vocabulary(file: GgufFile) -> tuple[Sequence[str], list[int]]:
    """Return each token, and of which kind it is."""
    tokens, kinds = _list(file, "tokens", str), list(_list(file, "token_type", int))
    if len(tokens) != len(kinds):
        raise _wrong(file, f"it has {len(tokens):,} tokens and {len(kinds):,} token types")
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind not in _KINDS:
            raise _wrong(file, f"token {number} is of the type {kind}, which Qwen2's are not")
        padding = _PADDING.fullmatch(token) if kind != _NORMAL else None
        if padding and padding[1] == str(number):  # older files call these user-defined
            kinds[number] = _UNUSED
    used = [token for token, kind in zip(tokens, kinds, strict=True) if kind != _UNUSED]
    if len(set(used)) != len(used):
        twice = next(token for token in used if used.count(token) > 1)
        raise _wrong(file, f"it has the token {shown(twice, 80)} twice, and ids need one each")
    return tokens, kinds


def _tail(kinds: Sequence[int]) -> range:
    """Return the ids of the added tokens that follow the vocabulary without a gap.

    The tokenizers library gives them these ids. Others get theirs by being in the vocabulary, too.
    """
    normal = [number for number, kind in enumerate(kinds) if kind == _NORMAL]
    first = end = normal[-1] + 1 if normal else 0
    while end < len(kinds) and kinds[end] != _UNUSED:
        end += 1
    return range(first, end)


def _pair(file: GgufFile, merge: str) -> list[str]:
    parts = merge.split(" ")
    if len(parts) != 2 or not all(parts):
        raise _wrong(file, f"a merge is {shown(merge, 80)}; it has two tokens")
    return parts


def _settings(file: GgufFile, tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    """Return tokenizer_config.json: named tokens, and chat templates."""
    settings: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "unk_token": None,
        "bos_token": None, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    for flag in ("add_bos_token", "add_eos_token"):
        if file.metadata.get(f"{_PREFIX}{flag}"):
            raise _wrong(
                file, f"{_PREFIX}{flag} is true; Qwen2's tokenizer puts none around a text"
            )
    for name, key in _NAMED.items():
        number = file.metadata.get(_PREFIX + key, _NONE)
        if number in (_NONE, -1):
            continue
        if type(number) is not int or not 0 <= number < len(tokens) or kinds[number] == _UNUSED:
            raise _wrong(file, f"{_PREFIX}{key} is {shown(number)}, which is not a token")
        settings[name] = tokens[number]
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": text
        for key, text in file.metadata.items()
        if (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")) and isinstance(text, str)
    }
    if set(templates) == {"default"}:
        settings["chat_template"] = templates["default"]
    elif templates:
        listed = [{"name": name, "template": text} for name, text in templates.items()]
        settings["chat_template"] = listed
    return settings
