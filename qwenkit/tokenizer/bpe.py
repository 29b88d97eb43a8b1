"""Byte-level BPE as Qwen2 builds it: learning the merges, and writing the tokenizer's files.

The vocabulary is ordered as Qwen's: 256 byte tokens, then the merges in the order they were
learned, then the special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, pre_tokenizers, trainers

from qwenkit.errors import InputError
from qwenkit.files import as_json, saving
from qwenkit.progress import stage
from qwenkit.tokenizer._files import PIPELINE, SETTINGS
from qwenkit.tokenizer._guard import is_broken
from qwenkit.tokenizer._pipeline import SPLIT as SPLIT
from qwenkit.tokenizer._pipeline import qwen2_pipeline as _backend
from qwenkit.tokenizer._saving import write_files
from qwenkit.tokenizer._tokenizer import Tokenizer

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SMALLEST = 256 + len(SPECIAL)

Merge = tuple[str, str]


def learn_merges(texts: Iterable[str], vocab_size: int) -> list[Merge]:
    """Learn which neighbors to merge: the most frequent pair, again and again.

    Source: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword
    Units", section 3.2; on bytes as in GPT-2 (Radford et al. 2019).

    Args:
        texts: what is counted.
        vocab_size: of the finished vocabulary, special tokens included; smaller if too few pairs
            occur twice.

    Returns:
        Pairs of tokens in the byte alphabet, in the order they were learned.

    Raises:
        InputError: a vocabulary too small for the bytes and the special tokens, or a single text
            (its characters would be read as texts).

    >>> learn_merges(["low lower lowest"], vocab_size=267)
    [('l', 'o'), ('lo', 'w')]
    """
    texts = _checked(texts, vocab_size)
    backend = _backend({}, [])
    alphabet, size = pre_tokenizers.ByteLevel.alphabet(), vocab_size - len(SPECIAL)
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, initial_alphabet=alphabet
    )
    with stage("Training the tokenizer"):
        backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]["merges"]  # the only way to them
    return [(left, right) for left, right in learned]


def write_tokenizer(folder: str | Path, merges: Sequence[Merge]) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json for these merges, and return the tokenizer.

    The special tokens, the split pattern and the chat template's marks are Qwen2's.

    Raises:
        InputError: merges that are not pairs of tokens that exist before they are merged.
    """
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    try:
        tokens += [left + right for left, right in merges]
        # Two merges may give the same token, as (a, bc) and (ab, c); it still has one id.
        vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
        backend = _backend(vocab, merges)
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"merges make no vocabulary: {error}") from None
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    settings = {
        "tokenizer_class": "Qwen2Tokenizer", "clean_up_tokenization_spaces": False,
        "chat_template": CHAT,
    }  # fmt: skip
    files = {PIPELINE: backend.to_str(pretty=True).encode(), SETTINGS: as_json(settings)}
    with saving(folder) as save:
        save.obsolete |= write_files(files, save.path)
    return Tokenizer(folder)


def _checked(texts: Iterable[str], vocab_size: int) -> Iterator[str]:
    """Return an iterator over the texts that checks each; the size is checked at once."""
    if isinstance(texts, str):
        raise InputError("texts is one str; it must be a list of texts")
    if not isinstance(texts, Iterable):
        raise InputError(f"texts is a {type(texts).__name__}; it must be a list of texts")
    if type(vocab_size) is not int or not SMALLEST <= vocab_size < 2**31:
        raise InputError(
            f"vocab_size is {vocab_size!r:.80}; it must be at least {SMALLEST}: "
            f"256 bytes and {len(SPECIAL)} special tokens"
        )
    return _texts(texts)


def _texts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"texts holds a {type(text).__name__}; each must be a str")
        if is_broken(text):
            raise InputError("a text is not valid Unicode: it has an unpaired surrogate")
        yield text
