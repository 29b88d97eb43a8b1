"""Exercise 02.1, split a new word: merges to apply, and wrong ways to do it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from qwenkit.checks._judge import Case, Mistake

Merges = Sequence[tuple[str, str]]
_TOY = (("e", "t"), ("l", "et"), ("·", "let"), ("s", "et"), ("·", "set"))
_LATE = (("b", "c"), ("a", "b"), ("ab", "c"), ("c", "d"))
_SPLIT = (("a", "b"), ("b", "c"), ("a", "bc"), ("c", "d"))
_MIDDLE = (("b", "c"), ("a", "b"), ("c", "d"))
ENCODE_CASES = [
    Case("the word letset", ("letset", _TOY)),
    Case("the word ·settle", ("·settle", _TOY)),
    Case("the word abcd, b and c first", ("abcd", _MIDDLE)),
    Case("the word abcd, and a merge that comes too late", ("abcd", _LATE)),
    Case("the word abcd, a and b first", ("abcd", _SPLIT)),
    Case("one character five times", ("aaaaa", (("a", "a"), ("aa", "aa")))),
    Case("a single character", ("t", _TOY)),
    Case("no merge fits", ("rust", _TOY[1:])),
]


def merged(pieces: Sequence[str], pair: tuple[str, str], at_most: int = 1_000_000) -> list[str]:
    """Join a pair wherever it occurs, from left to right, at most so many times."""
    joined: list[str] = []
    place = 0
    while place < len(pieces):
        fits = at_most > 0 and tuple(pieces[place : place + 2]) == pair
        joined.append(pair[0] + pair[1] if fits else pieces[place])
        place, at_most = place + 1 + fits, at_most - fits
    return joined


def encoded(word: str, merges: Merges, at_most: int = 1_000_000) -> list[str]:
    pieces = list(word)
    for pair in merges:
        pieces = merged(pieces, pair, at_most)
    return pieces


def _longest_first(word: str, merges: Merges) -> list[str]:
    known, pieces = {left + right for left, right in merges}, []
    while word:
        size = next((n for n in range(len(word), 1, -1) if word[:n] in known), 1)
        pieces.append(word[:size])
        word = word[size:]
    return pieces


def _leftmost(word: str, merges: Merges) -> list[str]:
    pieces = list(word)
    while True:
        pair = next((pair for pair in pairwise(pieces) if pair in merges), None)
        if pair is None:
            return pieces
        pieces = merged(pieces, pair, at_most=1)


def _by_spelling(word: str, merges: Merges) -> list[str]:
    pieces = list(word)
    for left, right in merges:
        joined: list[str] = []
        for piece in pieces:
            if joined and joined[-1] + piece == left + right:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces


def _latest_first(word: str, merges: Merges) -> list[str]:
    pieces = list(word)
    while True:
        fits = [pair for pair in merges if pair in set(pairwise(pieces))]
        if not fits:
            return pieces
        pieces = merged(pieces, fits[-1])


def _replaced(word: str, merges: Merges) -> list[str]:
    """Join pairs as the notebook does by hand: in a text with spaces between the pieces."""
    drawn = " ".join(word)
    for left, right in merges:
        drawn = drawn.replace(f"{left} {right}", left + right)
    return drawn.split(" ")


ENCODE_MISTAKES = (
    Mistake("replaced in a text", "you replace in a text, and what you look for also fits the end "
        "of one piece and the start of the next: `b c` is in `ab c`. Compare whole pieces.",
        _replaced),
    Mistake("longest piece first", "you take the longest piece of the list at each position. BPE "
        "does not look at length. In `abcd`, which of the pairs was learned first, and what does "
        "it take from the others?",
        _longest_first),
    Mistake("leftmost pair first", "you merge whatever fits, from the left. But two pairs may need "
        "the same character: which of them comes first?",
        _leftmost),
    Mistake("in reverse", "your merges run from the last learned to the first. What can `· let` "
        "join before `l et` has made a `let`?",
        lambda word, merges: encoded(word, list(merges)[::-1])),
    Mistake("latest learned first", "if two merges fit, you take the one that was learned later. "
        "Which of the two was the more frequent pair when it was learned?",
        _latest_first),
    Mistake("each merge once", "each merge joins its pair once and stops. How many times does `e "
        "t` occur in `letset`?",
        lambda word, merges: encoded(word, merges, at_most=1)),
    Mistake("only the first merge", "only the first pair was joined. Does your function return "
        "inside the loop? If not: what do you compare with a pair, which is a tuple? A piece of a "
        "list is a list, and never equal to a tuple.",
        lambda word, merges: merged(list(word), merges[0])),
    Mistake("from single characters each time", "each merge starts from single characters again, "
        "and the result of the merge before is lost. What should the loop pass on?",
        lambda word, merges: merged(list(word), merges[-1])),
    Mistake("compared by spelling", "you join pieces whose characters fit together, but `ab` and "
        "`c` are not the pair `a`, `bc`. Compare both pieces, not what they spell.",
        _by_spelling),
    Mistake("first merge missing", "the first merge does nothing. Does your loop begin with it? "
        "And what do you compare with a pair? A part of a string or list never equals a tuple.",
        lambda word, merges: encoded(word, merges[1:])),
    Mistake("last merge missing", "the last merge never happens. Where does your loop end?",
        lambda word, merges: encoded(word, merges[:-1])),
    Mistake("all joined", "that is the whole word in a list. Only learned pairs are joined.",
        lambda word, merges: [word]),
    Mistake("not joined", "no pair was joined: these are single characters. Does the loop keep "
        "what it joined? And what do you compare with a pair, which is a tuple of two pieces?",
        lambda word, merges: list(word)),
    Mistake("one string", "that is the word unchanged, as one string. Return a list of its pieces.",
        lambda word, merges: word),
    Mistake("one string", "that is one string. Return the pieces as a list: a piece may contain a "
        "space itself.",
        lambda word, merges: " ".join(encoded(word, merges))),
)  # fmt: skip
