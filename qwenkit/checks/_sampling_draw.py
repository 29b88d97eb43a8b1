"""Exercise 11.2, draw with a running sum: the right answer, and the wrong ones."""

from __future__ import annotations

from torch import Tensor

from qwenkit.checks._judge import Mistake


def right_draw(probs: Tensor, numbers: Tensor) -> Tensor:
    """Return the index of the interval that holds each row's number, (B)."""
    ends = probs.cumsum(dim=1)  # (B, V)
    return (ends <= numbers[:, None] * ends[:, -1:]).sum(dim=1)  # the sum may end just below 1


def _count(passed: Tensor) -> Tensor:
    """Return how many intervals a row's number has passed, at most to the last one."""
    return passed.sum(dim=1).clamp(max=passed.shape[1] - 1)


def _rank(probs: Tensor, numbers: Tensor) -> Tensor:
    return right_draw(probs.sort(dim=1, descending=True, stable=True).values, numbers)


def _sorted_first(probs: Tensor, numbers: Tensor) -> Tensor:
    order = probs.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, _rank(probs, numbers)[:, None])[:, 0]


DRAW_MISTAKES = (
    Mistake("no fallback", "right, except for rounding: if the running sum ends slightly below 1, "
        "a number between it and 1 is past the end, and you return a token that does not exist.",
        lambda probs, numbers: (probs.cumsum(dim=1) <= numbers[:, None]).sum(dim=1)),
    Mistake("clamped to the last id", "right, except for rounding: where the running sum ends "
        "slightly below 1, you return the last id, even if its probability is 0. Multiply the "
        "number by the sum's last value, and nothing is past the end.",
        lambda probs, numbers: _count(probs.cumsum(dim=1) <= numbers[:, None])),
    Mistake("falls back to the first", "right, except for rounding: if no running sum exceeds the "
        "number, you return token 0. The number is past the end, not at the start.",
        lambda probs, numbers: (probs.cumsum(dim=1) > numbers[:, None]).int().argmax(dim=1)),
    Mistake("numbers along the row", "right for one row. You compare the first number with the "
        "first column, and so on: each number belongs to a row.",
        lambda probs, numbers: _count(probs.cumsum(dim=1) <= numbers)),
    Mistake("what is still to come", "you count the intervals that end after the number. Count "
        "those that end before it.",
        lambda probs, numbers: (probs.cumsum(dim=1) > numbers[:, None]).sum(dim=1)),
    Mistake("a column", "the tokens are right, but they are (B, 1). Return (B).",
        lambda probs, numbers: right_draw(probs, numbers)[:, None]),
    Mistake("not int64", "the tokens are right, but ids are int64.",
        lambda probs, numbers: right_draw(probs, numbers).float()),
    Mistake("not int64", "the tokens are right, but ids are int64, not int32.",
        lambda probs, numbers: right_draw(probs, numbers).int()),
    Mistake("first row only", "you draw for the first row only. Return a token for each row.",
        lambda probs, numbers: right_draw(probs[:1], numbers[:1])),
    Mistake("first row only", "you draw for the first row only. Return a token for each row.",
        lambda probs, numbers: right_draw(probs[:1], numbers[:1])[0]),
    Mistake("number reversed", "you count from 1 downward: 0.9 must be near the end of the row.",
        lambda probs, numbers: right_draw(probs, 1 - numbers).clamp(max=probs.shape[1] - 1)),
    Mistake("border", "a number exactly on a border belongs to the interval that starts there. In "
        "yours it belongs to the one that ends there, so 0 can draw a token of probability 0.",
        lambda probs, numbers: _count(probs.cumsum(dim=1) < numbers[:, None])),
    Mistake("greedy", "that is the most likely token, whatever the number is. Nothing is drawn.",
        lambda probs, numbers: probs.argmax(dim=1)),
    Mistake("no running sum", "you compare the number with each probability alone. Where does the "
        "interval of the second token start, and where does it end?",
        lambda probs, numbers: (probs > numbers[:, None]).int().argmax(dim=1)),
    Mistake("equal intervals", "you cut the line into intervals of equal length. Each token's "
        "interval is as long as its probability.",
        lambda probs, numbers: (numbers * probs.shape[1]).long()),
    Mistake("one too early", "you stop one token too early: at the last interval that ends before "
        "the number. The number is in the interval after it.",
        lambda probs, numbers: right_draw(probs, numbers) - 1),
    Mistake("one too far", "you go one token too far. How many intervals end before the number, "
        "and from which index do you count?",
        lambda probs, numbers: right_draw(probs, numbers) + 1),
    Mistake("nearest border", "you take the running sum nearest to the number. A number can be "
        "near the end of one interval and still be in the next: which comparison says where it is?",
        lambda probs, numbers: (probs.cumsum(dim=1) - numbers[:, None]).abs().argmin(dim=1)),
    Mistake("one number for all rows", "every row uses the first number. Then equal rows draw the "
        "same token.",
        lambda probs, numbers: right_draw(probs, numbers[:1].expand(len(probs)))),
    Mistake("one sum for all rows", "your running sum continues from row to row, so the second row "
        "starts at 1. Each row has its own sum.",
        lambda probs, numbers:
            _count(probs.flatten().cumsum(dim=0).view_as(probs) <= numbers[:, None])),
    Mistake("wrong dimension", "your running sum goes down the columns, from text to text. The "
        "tokens to choose from are along a row.",
        lambda probs, numbers: _count(probs.cumsum(dim=0) <= numbers[:, None])),
    Mistake("position in the sorted list", "you sort the probabilities, and return a position in "
        "the sorted list. Which token was that?",
        _rank),
    Mistake("sorted first", "you sort the probabilities first. That is a fair draw too, but it "
        "gives other tokens for the same numbers. Go through the tokens in their own order.",
        _sorted_first),
    Mistake("from the end", "your running sum starts at the last token. Start at the first.",
        lambda probs, numbers: probs.shape[1] - 1 - right_draw(probs.flip(1), numbers)),
    Mistake("the probability, not the token", "that is the probability of each token drawn. Return "
        "its index in the row.",
        lambda probs, numbers: probs.gather(1, right_draw(probs, numbers)[:, None])[:, 0]),
)  # fmt: skip
