"""The parts of Qwen2's tokenizer, and the byte alphabet that its tokens are written in."""

from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

# How Qwen2 splits text before it merges bytes: contractions, words, digits, signs, newlines.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen2_pipeline(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """Return the pipeline: NFC, Qwen's split, bytes as characters, merges, and back."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=dict(vocab), merges=list(merges)))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = qwen2_pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    return backend


def qwen2_pre_tokenizer(*, add_prefix_space: bool = False) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into words, and writes their bytes as characters."""
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)
    return pre_tokenizers.Sequence([split, to_bytes])


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for.

    Printable Latin-1 characters stand for their own bytes; the other bytes take the characters
    from U+0100 upwards, in order (Radford et al. 2019, GPT-2).

    >>> byte_alphabet()["A"], byte_alphabet()["Ġ"]  # Ġ stands for the space
    (65, 32)
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + number): byte for number, byte in enumerate(others)}
