"""Exercise 02.2, train a byte-pair encoding: counted words, and wrong ways to learn merges."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._tokens_encode import merged

Pair = tuple[str, str]
Pieces = list[tuple[list[str], int]]  # of each word, and how often it occurs


def _invented(seed: int) -> dict[str, int]:
    """Return sixty words over six letters, with their counts."""
    draw = random.Random(seed)
    words = {"".join(draw.choices("·abcde", k=draw.randint(2, 7))) for _ in range(60)}
    return {word: draw.randint(1, 9) for word in sorted(words)}


_TOY = {"let": 1, "·set": 2, "·let": 4, "·reset": 1}
TRAIN_CASES = [
    Case("the words of the toy text, all merges", (_TOY, 100)),
    Case("the words of the toy text, two merges", (_TOY, 2)),
    Case("one word that is very frequent", ({"ab": 1, "cd": 9, "abc": 3, "bcd": 2}, 4)),
    Case("pairs that are equally frequent", ({"xy": 3, "ab": 3, "qab": 1, "xyz": 1, "mn": 2}, 9)),
    Case("one character many times", ({"aaaaa": 2, "baaa": 1}, 5)),
    Case("a pair twice in one word", ({"abxab": 1, "cd": 1}, 5)),
    Case("no merges asked for", (_TOY, 0)),
    Case("nothing occurs twice", ({"abc": 1, "de": 1}, 5)),
    Case("sixty words, thirty merges", (_invented(0), 30)),
]


def _counted(words: Pieces) -> Counter[Pair]:
    pairs: Counter[Pair] = Counter()
    for pieces, times in words:
        for pair in pairwise(pieces):
            pairs[pair] += times
    return pairs


def _without_weights(words: Pieces) -> Counter[Pair]:
    return _counted([(pieces, 1) for pieces, _ in words])


def _once_per_word(words: Pieces) -> Counter[Pair]:
    pairs: Counter[Pair] = Counter()
    for pieces, times in words:
        for pair in dict.fromkeys(pairwise(pieces)):
            pairs[pair] += times
    return pairs


def _across_words(words: Mapping[str, int], count: int) -> list[Pair]:
    """Train on one text that has all words, one after the other."""
    text = "".join(word * times for word, times in words.items())
    return trained({text: 1}, count)


def _most(pairs: Mapping[Pair, int]) -> Pair:
    return max(pairs, key=lambda pair: pairs[pair])  # the first of those that are equal


def _trainer(
    count_pairs: Callable[[Pieces], Counter[Pair]] = _counted,
    choose: Callable[[Mapping[Pair, int]], Pair] = _most,
    least: int = 2,
    join: Callable[[list[str], Pair], list[str]] = merged,
) -> Callable[[Mapping[str, int], int], list[Pair]]:
    """Return the right training, or one that counts, chooses, joins or stops in another way."""

    def train(words: Mapping[str, int], count: int) -> list[Pair]:
        pieces = [(list(word), times) for word, times in words.items()]
        merges: list[Pair] = []
        while len(merges) < count and (pairs := count_pairs(pieces)):
            pair = choose(pairs)
            if pairs[pair] < least:
                break
            merges.append(pair)
            pieces = [(join(one, pair), times) for one, times in pieces]
        return merges

    return train


trained = _trainer()


def _last_of_equal(pairs: Mapping[Pair, int]) -> Pair:
    return max(reversed([*pairs]), key=lambda pair: pairs[pair])


def _alphabetical(pairs: Mapping[Pair, int]) -> Pair:
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def _alphabetical_last(pairs: Mapping[Pair, int]) -> Pair:
    return max(pairs, key=lambda pair: (pairs[pair], pair))


def _longest(pairs: Mapping[Pair, int]) -> Pair:
    return max(pairs, key=lambda pair: (pairs[pair], len("".join(pair))))


def _once(pieces: list[str], pair: Pair) -> list[str]:
    return merged(pieces, pair, at_most=1)


def _in_a_text(pieces: list[str], pair: Pair) -> list[str]:
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


def _never_joined(words: Mapping[str, int], count: int) -> list[Pair]:
    pairs = _counted([(list(word), times) for word, times in words.items()])
    return [pair for pair, times in pairs.most_common(count) if times > 1]


def _first_only(words: Mapping[str, int], count: int) -> list[Pair]:
    return trained(words, min(count, 1))


def _cut(words: Mapping[str, int], count: int) -> list[str]:
    """Return the pieces instead of the merges."""
    merges = trained(words, count)
    found = []
    for word in words:
        pieces = list(word)
        for pair in merges:
            pieces = merged(pieces, pair)
        found += pieces
    return found


def _with_counts(words: Mapping[str, int], count: int) -> list[Any]:
    pieces = [(list(word), times) for word, times in words.items()]
    found = []
    for pair in trained(words, count):
        found.append((pair, _counted(pieces)[pair]))
        pieces = [(merged(one, pair), times) for one, times in pieces]
    return found


_TIES = (
    "several pairs are equally frequent, and you take another one than the exercise asks for: the "
    "first that is met, word by word and from left to right."
)
TRAIN_MISTAKES = (
    Mistake("words not weighted", "every word counts once. But a pair in a word that occurs four "
        "times occurs four times, too.",
        _trainer(_without_weights)),
    Mistake("once per word", "a pair that is twice in a word counts once there. How often does "
        "`a b` occur in `abxab`?",
        _trainer(_once_per_word)),
    Mistake("across words", "you count pairs across the end of a word. No piece may reach into the "
        "next word: count within each word.",
        _across_words),
    Mistake("nothing joined", "you count once and take the most frequent pairs of that count. What "
        "changes in the words after the first merge, and what must you count then?",
        _never_joined),
    Mistake("nothing joined", "the same pair comes again and again. What must happen to the words "
        "before you count again?",
        _trainer(join=lambda pieces, pair: pieces)),
    Mistake("joined once per word", "each merge joins its pair once in a word and stops. Join it "
        "wherever it occurs.",
        _trainer(join=_once)),
    Mistake("replaced in a text", "you join by replacing in a text, which also fits the end of one "
        "piece and the start of the next: `b c` is in `ab c`. Compare whole pieces.",
        _trainer(join=_in_a_text)),
    Mistake("ties: the last", _TIES, _trainer(choose=_last_of_equal)),
    Mistake("ties: by the alphabet", _TIES, _trainer(choose=_alphabetical)),
    Mistake("ties: by the alphabet", _TIES, _trainer(choose=_alphabetical_last)),
    Mistake("ties: the longest", _TIES, _trainer(choose=_longest)),
    Mistake("pairs that occur once", "you also merge pairs that occur only once. When should the "
        "loop end?",
        _trainer(least=1)),
    Mistake("ends too early", "a pair that occurs exactly twice is not merged. Which count should "
        "end the loop?",
        _trainer(least=3)),
    Mistake("least frequent", "you merge the least frequent pair. Which end of the counts do you "
        "need?",
        _trainer(choose=lambda pairs: min(pairs, key=lambda pair: pairs[pair]), least=0)),
    Mistake("one merge", "only one pair was learned. Does your function return inside the loop?",
        _first_only),
    Mistake("one merge too many", "you learn one pair more than was asked for.",
        lambda words, count: trained(words, count + 1)),
    Mistake("one merge too few", "you learn one pair less than was asked for.",
        lambda words, count: trained(words, count - 1)),
    Mistake("count ignored", "you learn all merges, however many were asked for.",
        lambda words, count: trained(words, 1_000)),
    Mistake("joined pairs", "these are the new pieces. Return the pairs: two pieces each, not yet "
        "joined, because `ab`, `c` and `a`, `bc` give the same piece.",
        lambda words, count: ["".join(pair) for pair in trained(words, count)]),
    Mistake("with counts", "the pairs are right, but each comes with its count. Return the pairs "
        "alone.",
        _with_counts),
    Mistake("the words", "these are the pieces of the words. Return the pairs, in the order in "
        "which they were learned.",
        _cut),
    Mistake("last first",
        "the right pairs, in reverse. The one that was learned first comes first.",
        lambda words, count: trained(words, count)[::-1]),
)  # fmt: skip
