"""Limits on a tokenizer.json, which is downloaded: what it may hold, and how it may fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qwenkit.errors import TokenizerError, shown

_GROWTH = 64  # times; Qwen's at most doubles a text (a byte may take a character of two)
_LARGEST = 2**24  # an id; beyond it the vocabulary has mostly gaps
_LISTS = ("normalizers", "pretokenizers", "decoders", "processors")


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn an error of the `tokenizers` library into a `TokenizerError`.

    It raises bare Exceptions; a panic in its Rust code is a BaseException of another kind.
    """
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # Ctrl-C
        raise TokenizerError(f"{what} ({error!s:.300})") from None


def check_vocabulary(name: str, vocab: object) -> None:
    """Refuse two tokens with the same id, and invalid ids.

    Raises:
        TokenizerError: for either; decoding would be ambiguous.
    """
    if not isinstance(vocab, dict):  # a list, numbered by its order; or wrong in another way
        return
    seen: dict[int, str] = {}
    for token, number in vocab.items():
        if type(number) is not int or not 0 <= number < _LARGEST:
            raise TokenizerError(f"{name}: the id of {token!r:.80} is {number!r:.80}")
        if number in seen:
            raise TokenizerError(
                f"{name}: {seen[number]!r:.80} and {token!r:.80} both have the id {number}; "
                "each needs its own, or ids could not be decoded. Fetch the file again"
            )
        seen[number] = token


def check_parts(name: str, data: Mapping[str, Any]) -> None:
    """Refuse parts that make a text many times longer, split it at random, or end the process.

    Raises:
        TokenizerError: naming the part.
    """
    model = data.get("model")
    if isinstance(model, dict) and model.get("dropout"):
        raise TokenizerError(
            f"{name}: dropout is {model['dropout']!r:.80}; ids would be random. Set it to null"
        )
    if isinstance(model, dict):
        _check_merges(name, model.get("merges"), model.get("continuing_subword_prefix"))
    for key in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        try:
            growth = _growth(data.get(key))
        except (RecursionError, OverflowError):
            growth = float("inf")
        if growth > _GROWTH:
            raise TokenizerError(
                f"{name}: its {key} makes a text up to {growth:.3g} times longer; "
                f"{_GROWTH} times is allowed"
            )


def _check_merges(name: str, merges: object, prefix: object) -> None:
    """Refuse merges over which the library takes all memory, or panics and ends the process."""
    for pair in merges if isinstance(merges, list) else ():
        if isinstance(pair, list) and len(pair) != 2:
            raise TokenizerError(f"{name}: a merge is {shown(pair, 80)}; it must have two tokens")
        if not (prefix and isinstance(prefix, str)):
            continue
        second = pair[1] if isinstance(pair, list) else str(pair).split(" ")[-1]
        if not str(second).startswith(prefix):  # the library cuts it off without a look
            raise TokenizerError(
                f"{name}: continuing_subword_prefix is {prefix!r:.80}, with which {second!r:.80} "
                "in its merges does not begin; Qwen's is null or empty"
            )


def _growth(part: Any) -> float:
    """Return how many times longer a text may become."""
    if not isinstance(part, dict):
        return 1.0
    kind, growth = part.get("type"), 1.0
    for key in _LISTS:
        for one in part[key] if isinstance(part.get(key), list) else ():
            growth = min(growth * _growth(one), 1e300)
    if kind == "ByteLevel":
        return 2.0
    if kind == "Replace":
        pattern = part.get("pattern")
        old = pattern.get("String") if isinstance(pattern, dict) else None
        new = len(str(part.get("content")).encode("utf-8", "replace"))
        # A regular expression may match the empty string, between any two characters.
        shortest = len(old.encode("utf-8", "replace")) if isinstance(old, str) else 0
        return max(1.0, new / shortest) if shortest else 1.0 + new
    if kind == "TemplateProcessing":
        single = part.get("single")
        pieces = single if isinstance(single, list) else ()
        texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in pieces)
        return float("inf") if texts > 1 else 1.0
    return growth


def is_broken(text: str) -> bool:
    """Tell whether a text has an unpaired surrogate, and so is not valid Unicode."""
    if text.isascii():  # fast
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
