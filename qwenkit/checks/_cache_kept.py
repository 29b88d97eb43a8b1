"""Exercise 10b.1, how many tokens may stay in a cache: the right answer, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

from qwenkit.checks._judge import Mistake


def _shared(old: list[int], new: list[int]) -> int:
    pairs = list(zip(old, new, strict=False))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))


def right_kept(old: list[int], new: list[int]) -> int:
    """Return how many tokens the texts share at the start, at most all but one of the new."""
    return _capped(_shared)(old, new)


def _equal_positions(old: list[int], new: list[int]) -> int:
    return sum(one == other for one, other in zip(old, new, strict=False))


def _longest_run(old: list[int], new: list[int]) -> int:
    starts = [(i, j) for i in range(len(old)) for j in range(len(new))]
    return max((_shared(old[i:], new[j:]) for i, j in starts), default=0)


def _in_common(old: list[int], new: list[int]) -> int:
    return len(set(old) & set(new))


def _walked(old: list[int], new: list[int], positions: int) -> int:
    """Return what is shared, by an index that may run past the end of a list."""
    return next((i for i in range(positions) if old[i] != new[i]), positions)


def _no_return_at_the_end(old: list[int], new: list[int]) -> int | None:
    count = _shared(old, new)
    return count if count < min(len(old), len(new)) else None


def _of_one_length(old: list[int], new: list[int]) -> int:
    return _shared(list(old), [one for _, one in zip(old, new, strict=True)])


def _capped(count: Callable[[list[int], list[int]], int]) -> Callable[..., int]:
    """Return a count that leaves one token to feed, as the right one does."""
    return lambda old, new: min(count(old, new), len(new) - 1)


_SAME_POSITION = (
    "you go on counting after the first difference. A later token may be the same, but its keys "
    "and values are not: from the second layer on they depend on all tokens before it, including "
    "the one that differs."
)
_MOVED = (
    "you look for shared tokens at any position. At another position a token was rotated by "
    "another angle and has attended to another beginning: what is kept must be the same from the "
    "start."
)
_NO_TOKEN_LEFT = (
    "right if something new follows. But the same text again, or its beginning, would leave "
    "nothing to feed, and without a token the model returns no logits. How many tokens must be "
    "left?"
)
_PAST_THE_END = (
    "right until one list ends: your index runs past its end. Stop where the shorter list stops, "
    "and leave one new token to feed."
)
KEPT_MISTAKES = (
    Mistake("nothing left to feed", _NO_TOKEN_LEFT, _shared),
    Mistake("continues after the difference", _SAME_POSITION, _capped(_equal_positions)),
    Mistake("continues after the difference", _SAME_POSITION, _equal_positions),
    Mistake("continues after the difference", _SAME_POSITION,
        lambda old, new: _equal_positions(old, new[:-1])),
    Mistake("at any position", _MOVED, _capped(_longest_run)),
    Mistake("at any position", _MOVED, _longest_run),
    Mistake("at any position", _MOVED, _capped(_in_common)),
    Mistake("at any position", _MOVED, _in_common),
    Mistake("at any position", _MOVED, lambda old, new: sum(token in old for token in new)),
    Mistake("from the end", "you count what is shared at the end. A cache is filled from the "
        "start, and trimmed at the end.",
        lambda old, new: _shared(old[::-1], new[::-1])),
    Mistake("one too many", "you also keep the first token that differs. Its index is the number "
        "of tokens before it.",
        lambda old, new: min(_shared(old, new) + 1, len(new))),
    Mistake("one too few", "you always feed one shared token again. That is needed only if nothing "
        "else is left to feed.",
        lambda old, new: max(_shared(old, new) - 1, 0)),
    Mistake("past the end", _PAST_THE_END, lambda old, new: _walked(old, new, 10**6)),
    Mistake("past the end", _PAST_THE_END, lambda old, new: _walked(old, new, len(old))),
    Mistake("past the end", _PAST_THE_END, lambda old, new: _walked(old, new, len(new))),
    Mistake("past the end", _PAST_THE_END, lambda old, new: _walked(old, new, len(new) - 1)),
    Mistake("no return at the end", "right if the texts differ. If one is the beginning of the "
        "other, your loop ends without a return, and the answer is None.",
        _no_return_at_the_end),
    Mistake("lists of one length only", "your zip requires lists of one length. These are texts "
        "before and after a change: they rarely are.",
        _of_one_length),
    Mistake("lists of one length only", "your zip requires lists of one length, and these rarely "
        "are. The same text again would also leave nothing to feed.",
        _capped(_of_one_length)),
    Mistake("the old text shortened", "you leave out the last *cached* token. If something new "
        "follows it, it can be kept: which list must have one token left?",
        lambda old, new: _shared(old[:-1], new)),
    Mistake("the old text shortened", "you leave out the last token of both texts. Only the new "
        "one must have a token left to feed.",
        lambda old, new: _shared(old[:-1], new[:-1])),
    Mistake("not compared", "you return a length and compare no tokens.",
        lambda old, new: min(len(old), len(new))),
    Mistake("not compared", "you return a length and compare no tokens.",
        lambda old, new: min(len(old), len(new) - 1)),
    Mistake("not compared", "you return a length and compare no tokens.",
        lambda old, new: len(new) - 1),
    Mistake("not compared", "you return a length and compare no tokens.",
        lambda old, new: len(old)),
    Mistake("nothing kept", "you always feed the whole text again, so the cache saves nothing.",
        lambda old, new: 0),
    Mistake("what is dropped", "you count the tokens that must be dropped. Count those that are "
        "kept.",
        lambda old, new: len(old) - right_kept(old, new)),
    Mistake("what is fed", "you count the tokens that must be fed. Count those that are kept.",
        lambda old, new: len(new) - right_kept(old, new)),
    Mistake("all or nothing", "you keep all or nothing. If the texts differ in the middle, their "
        "shared beginning can be kept.",
        lambda old, new: len(old) if new[: len(old)] == old and len(new) > len(old) else 0),
    Mistake("the tokens themselves", "you return the shared tokens. Return how many there are.",
        lambda old, new: new[: right_kept(old, new)]),
)  # fmt: skip
