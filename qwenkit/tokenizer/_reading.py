"""Building the pipeline of the `tokenizers` library from a folder's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from qwenkit.errors import CheckpointError, TokenizerError
from qwenkit.gguf import gguf_in, is_gguf
from qwenkit.tokenizer._files import MERGES, PIPELINE, VOCAB, as_text, parsed, read_files
from qwenkit.tokenizer._gguf import gguf_tokenizer
from qwenkit.tokenizer._guard import check_parts, check_vocabulary, refusing
from qwenkit.tokenizer._pipeline import qwen2_pipeline, qwen2_pre_tokenizer
from qwenkit.tokenizer._special import FLAGS, SpecialTokens


def read_source(folder: Path) -> dict[str, bytes]:
    """Return the contents of a tokenizer's files, or the same made of a GGUF file's metadata.

    Raises:
        TokenizerError: one of them cannot be read, or it is not clear which.
    """
    if is_gguf(folder):
        return gguf_tokenizer(folder)
    files = read_files(folder)
    if PIPELINE in files or VOCAB in files:
        return files
    try:
        path = gguf_in(folder)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    return files if path is None else gguf_tokenizer(path)


def build(folder: Path, files: Mapping[str, bytes], special: SpecialTokens) -> tokenizers.Tokenizer:
    """Return the pipeline that transformers would build from a folder's files.

    Raises:
        TokenizerError: files that are missing, damaged, or contradict one another.
    """
    if PIPELINE in files:
        backend, stated = _of_pipeline(files, special)
    elif VOCAB in files and MERGES in files:
        backend, stated = _of_vocabulary(files, special), list(special.added.values())
    else:
        raise TokenizerError(
            f"{folder / PIPELINE} does not exist, nor do {VOCAB} and {MERGES}; qwenkit reads the "
            "tokenizer from them. In transformers, AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(folder) writes it"
        )
    _add_named(backend, special)
    backend.encode_special_tokens = special.split
    if special.prefix_space:
        backend.pre_tokenizer = qwen2_pre_tokenizer(add_prefix_space=True)
    if PIPELINE not in files:  # tokenizer.json has its own post-processor, which wins
        _put_around(backend, special)
    for entry in stated:
        number = backend.token_to_id(entry["content"])
        if number != entry["id"]:
            raise TokenizerError(
                f"token {entry['content']!r:.80} has the id {entry['id']} in the file, and would "
                f"get {number}; added tokens must follow the vocabulary without a gap"
            )
    return backend


def _of_pipeline(
    files: Mapping[str, bytes], special: SpecialTokens
) -> tuple[tokenizers.Tokenizer, list[dict[str, Any]]]:
    """Build from tokenizer.json; truncation and padding are ignored, as in transformers."""
    data = parsed(files, PIPELINE)
    model, listed = data.get("model"), data.get("added_tokens")
    check_vocabulary(PIPELINE, model.get("vocab") if isinstance(model, dict) else None)
    check_parts(PIPELINE, data)
    if listed is not None and not (isinstance(listed, list) and all(map(_is_token, listed))):
        raise TokenizerError(
            f"{PIPELINE} cannot be read (each of its added_tokens needs a content, an id, and "
            f"{', '.join(FLAGS)} as true or false)"
        )
    stated = _merged(listed or [], special)
    changed = stated != (listed or [])
    text = as_text(files, PIPELINE).removeprefix("\ufeff")
    text = json.dumps(data | {"added_tokens": stated}) if changed else text
    with refusing(f"{PIPELINE} cannot be read; fetch it again"):
        backend = tokenizers.Tokenizer.from_str(text)
        backend.no_truncation()
        backend.no_padding()
        return backend, stated


def _is_token(entry: object) -> bool:
    """Tell whether the tokenizers library takes this entry, before the settings complete it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        return False
    return "id" in entry and all(isinstance(entry.get(flag), bool) for flag in FLAGS)


def _merged(listed: list[dict[str, Any]], special: SpecialTokens) -> list[dict[str, Any]]:
    """Return tokenizer.json's added tokens, with those that only the settings have."""
    merged = {entry["content"]: entry for entry in listed}
    for entry in special.added.values():
        text = entry["content"]
        known = merged.get(text, entry)
        if known["id"] != entry["id"]:
            raise TokenizerError(
                f"token {text!r:.80} has the id {entry['id']} in the settings and "
                f"{known['id']!r:.80} in {PIPELINE}"
            )
        merged[text] = known | entry if special.decides else known
    return list(merged.values()) if special.added else listed


def _of_vocabulary(files: Mapping[str, bytes], special: SpecialTokens) -> tokenizers.Tokenizer:
    """Build Qwen2's pipeline from vocab.json and merges.txt, as Qwen2Tokenizer does."""
    vocab = parsed(files, VOCAB)
    check_vocabulary(VOCAB, vocab)
    # Not splitlines, which splits at more: a merge may hold any character but a newline.
    lines = [line.rstrip("\r") for line in as_text(files, MERGES).split("\n")]
    merges = [line for line in lines if line and not line.startswith("#version")]
    wrong = next((line for line in merges if line.count(" ") != 1), None)
    if wrong is not None:
        raise TokenizerError(f"{MERGES} holds {wrong!r:.80}; a merge has two tokens")
    pairs = [(left, right) for left, right in (line.split(" ") for line in merges)]
    with refusing(f"{VOCAB} and {MERGES} are not a valid tokenizer"):
        backend = qwen2_pipeline(vocab, pairs)
        backend.add_tokens([_added_token(entry) for entry in special.added.values()])
    return backend


def _added_token(entry: Mapping[str, Any]) -> AddedToken:
    return AddedToken(**{key: value for key, value in entry.items() if key != "id"})


def _add_named(backend: tokenizers.Tokenizer, special: SpecialTokens) -> None:
    """Make bos, eos and the like special; those that the vocabulary lacks get the next ids."""
    tokens = [*special.texts(backend).values(), *special.extra]
    with refusing("the special tokens cannot be added"):
        backend.add_tokens([AddedToken(token, special=True) for token in tokens])


def _put_around(backend: tokenizers.Tokenizer, special: SpecialTokens) -> None:
    """Put bos before a text, or eos after it, where the settings say so."""
    texts = special.texts(backend)
    first = [texts["bos_token"]] if special.first and "bos_token" in texts else []
    last = [texts["eos_token"]] if special.last and "eos_token" in texts else []
    if first or last:
        ids = [(token, backend.token_to_id(token)) for token in dict.fromkeys(first + last)]
        backend.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last], special_tokens=ids
        )
