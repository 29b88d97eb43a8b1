"""Exercise 02b.1, tokens to text: the bytes of tokens, and wrong ways to decode them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwenkit.checks._judge import Case, Mistake

TEXT_CASES = [
    Case("two plain words", ([b"let", b" set"],)),
    Case("a character in two tokens", ([b"gr", b"\xc3", b"\xb6", b"\xc3", b"\x9f", b"e"],)),
    Case("a character in three tokens", (["→".encode()[i : i + 1] for i in range(3)],)),
    Case("an incomplete character", ([b"half: ", b"\xe6\x97"],)),
    Case("a token of a whole character", ([b"caf", "é".encode()],)),
    Case("spaces at both ends", ([b" let", b" "],)),
    Case("no tokens", ([],)),
]


def text_from(pieces: Sequence[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", errors="replace")


def _one_by_one(between: str = "", errors: str = "replace") -> Callable[[Sequence[bytes]], str]:
    """Return a decoding of each token by itself."""
    return lambda pieces: between.join(piece.decode("utf-8", errors=errors) for piece in pieces)


TEXT_MISTAKES = (
    Mistake("ASCII", "you decode as ASCII, which knows only 128 characters. Which encoding has all "
        "of them?",
        lambda pieces: b"".join(pieces).decode("ascii", errors="replace")),
    Mistake("ASCII", "you decode as ASCII, which knows only 128 characters, and each token by "
        "itself. Join the bytes first, and use the encoding that has all characters.",
        lambda pieces: "".join(piece.decode("ascii", errors="replace") for piece in pieces)),
    Mistake("spaces cut off", "the spaces at the ends of the text are lost. They belong to it: do "
        "not strip.",
        lambda pieces: text_from(pieces).strip()),
    Mistake("a list of texts", "that is a list, with each token decoded by itself. Join the bytes "
        "first, then decode once.",
        lambda pieces: [piece.decode("utf-8", errors="replace") for piece in pieces]),
    Mistake("each token alone", "you decode each token by itself, and half a character cannot be "
        "decoded. What must happen to all the bytes first?",
        _one_by_one()),
    Mistake("broken bytes left out", "an incomplete character vanishes from your text. A reader "
        "should see that something was there: which other value can `errors` have?",
        lambda pieces: b"".join(pieces).decode("utf-8", errors="ignore")),
    Mistake("each alone, broken bytes left out", "every character that is split in two is lost: "
        "you decode token by token, and leave out what cannot be decoded. What must happen to all "
        "the bytes first?",
        _one_by_one(errors="ignore")),
    Mistake("strict", "whole characters are right, but an incomplete one stops your program. A "
        "model may stop in the middle of a character. What should the text show instead?",
        lambda pieces: b"".join(pieces).decode("utf-8")),
    Mistake("one character per byte", "you turn every byte into a character, as Latin-1 does. In "
        "UTF-8 some characters take several bytes: which encoding did the tokenizer use?",
        lambda pieces: b"".join(pieces).decode("latin-1")),
    Mistake("spaces between", "you put a space between tokens. Look at the second token of `let "
        "set`: where is its space already?",
        lambda pieces: b" ".join(pieces).decode("utf-8", errors="replace")),
    Mistake("spaces between", "you put a space between tokens, and decode each by itself. Where is "
        "the space of ` set` already? And what is half a character, decoded alone?",
        _one_by_one(between=" ")),
    Mistake("str of bytes", "`str` of bytes gives what Python would print, with b and quotes. "
        "Which method of bytes decodes them to text?",
        lambda pieces: "".join(map(str, pieces))),
    Mistake("still bytes", "the bytes are joined, but they are still bytes. Which method decodes "
        "them to text?",
        lambda pieces: b"".join(pieces)),
)  # fmt: skip
