"""Exercise 11.4, an answer from a list: the right loop, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._samples import normal

Score = Callable[[list[int]], Tensor]
Choose = Callable[[Score, list[str], list[str], int, list[float]], Any]
Fits = Callable[[str, str, list[str]], bool]

# All letters that the allowed texts need are there: something can always follow.
_WORDS = "i n int t in f fl oat o a 1 l no No None ne ing N e g on s str r st"
_PIECES = ["<end>", "", *_WORDS.split()]


def _score(seed: int, size: int) -> Score:
    """Return a model: logits that depend on every token written so far, and on their order."""

    def score(ids: list[int]) -> Tensor:
        code = seed
        for one in ids:
            code = (31 * code + int(one) + 7) % 100_003
        return 1.5 * normal(size, seed=code)

    return score


def _case(label: str, allowed: list[str], numbers: list[float], seed: int, last: bool) -> Case:
    pieces = [*_PIECES[1:], ""] if last else _PIECES
    end = len(pieces) - 1 if last else 0
    return Case(label, (_score(seed, len(pieces)), pieces, allowed, end, numbers))


CASES = [
    _case("one allowed text", ["int"], [0.3, 0.6, 0.2, 0.9], 1, False),
    _case("two allowed texts", ["int", "float"], [0.8, 0.4, 0.7, 0.1, 0.6, 0.5], 2, False),
    _case("two allowed texts again", ["int", "float"], [0.1, 0.9, 0.5, 0.4, 0.2], 3, False),
    _case("one begins the other", ["in", "int"], [0.5, 0.4, 0.05, 0.6], 3, False),
    _case("one begins the other, other numbers", ["in", "int"], [0.5, 0.9, 0.95, 0.6], 3, False),
    _case("six allowed texts", ["in", "int", "string", "str", "None", "float"],
        [0.35, 0.75, 0.15, 0.55, 0.85, 0.65, 0.25], 5, False),
    _case("the end is the last token, and has no text", ["no", "None", "string"],
        [0.92, 0.45, 0.7, 0.2, 0.6, 0.3, 0.8], 6, True),
    _case("the end is the last token, other numbers", ["float", "st", "string"],
        [0.6, 0.85, 0.3, 0.5, 0.9, 0.4], 7, True),
    _case("the numbers are used up", ["string", "float"], [0.15], 8, False),
]  # fmt: skip


def chosen(function: Choose) -> Choose:
    """Return the function; a probability may be a tensor, and a pair may be a list.

    If no token is left at some step, all that follows is arbitrary: the text then says so.
    """

    @wraps(function)
    def run(*given: Any) -> Any:
        found = function(*given)
        if isinstance(found, tuple | list) and len(found) == 2:
            text, probability = found
            if isinstance(probability, Tensor) and probability.numel() == 1:
                probability = float(probability)
            if isinstance(probability, float) and math.isnan(probability):
                return "(nan: no token was left)", 0.0
            return text, probability
        return found

    return run


def _prefix(text: str, piece: str, allowed: list[str]) -> bool:
    return bool(piece) and any(one.startswith(text + piece) for one in allowed)


def _softmax(logits: Tensor, keep: Tensor) -> Tensor:
    return logits.masked_fill(~keep, -math.inf).softmax(dim=-1)


def _whole(logits: Tensor, keep: Tensor) -> Tensor:
    return logits.softmax(dim=-1) * keep


def _first(probs: Tensor, number: float) -> int:
    ends = probs.cumsum(dim=-1)
    return min(int((ends <= number * ends[-1]).sum()), len(probs) - 1)


def _unscaled(probs: Tensor, number: float) -> int:
    return min(int((probs.cumsum(dim=-1) <= number).sum()), len(probs) - 1)


def choosing(
    fits: Fits = _prefix,
    ends: Callable[[str, list[str]], bool] = lambda text, allowed: text in allowed,
    spread: Callable[[Tensor, Tensor], Tensor] = _softmax,
    draw: Callable[[Tensor, float], int] = _first,
    given: Callable[[list[int]], list[int]] = lambda ids: ids,
    number_at: Callable[[Sequence[float], int], float] = lambda numbers, step: numbers[step],
    of_model: bool = False,
    stop_when_allowed: bool = False,
    at_end: str = "stop",
    result: Callable[[str, list[float], list[int], bool, str], Any] = lambda text, probs, *_: (
        text,
        math.prod(probs),
    ),
) -> Choose:
    """Return the loop; each argument is a step of it that can go wrong.

    `at_end`: "stop", or go on and "skip" the end, or "append" it like any other token.
    """

    def choose(
        score: Score, pieces: list[str], allowed: list[str], end: int, numbers: list[float]
    ) -> Any:
        ids: list[int] = []
        text, ended, found = "", False, []
        for step in range(len(numbers)):
            if stop_when_allowed and text in allowed:
                break
            keep = torch.tensor([fits(text, piece, allowed) for piece in pieces])
            keep[end] = ends(text, allowed)
            logits = score(given(ids))
            probs = spread(logits, keep)
            token = draw(probs, number_at(numbers, step))
            found.append(float((logits.softmax(dim=-1) if of_model else probs)[token]))
            if token == end and at_end != "append":
                ended = True
                if at_end == "stop":
                    break
                continue
            ids.append(token)
            text += pieces[token]
        return result(text, found, ids, ended, pieces[end])

    return choose


def _without_end(text: str, probs: list[float], ids: list[int], ended: bool, _: str) -> Any:
    return text, math.prod(probs[: len(ids)])


CHOOSE_MISTAKES = [
    Mistake(name, hint, chosen(function))
    for name, hint, function in (
        ("probability of the model", "the texts are right. The probability is the model's own, of "
            "the whole vocabulary; you drew from the tokens that were left. From which "
            "distribution did each draw come?",
            choosing(of_model=True)),
        ("not normalized", "after the mask, your probabilities do not sum to 1: a number near 1 is "
            "past their end, and the probability is too small. Is the mask before softmax, or "
            "after it?",
            choosing(spread=_whole, draw=_unscaled)),
        ("zero for minus infinity", "what is not allowed gets the logit 0, and e to the power of 0 "
            "is 1: it can still be drawn. Which logit has the power 0?",
            choosing(spread=lambda logits, keep: logits.masked_fill(~keep, 0).softmax(dim=-1))),
        ("nothing is masked", "tokens are drawn from the whole vocabulary. Nothing is ruled out.",
            choosing(fits=lambda *_: True, ends=lambda *_: True)),
        ("end at any time", "the end may come before the text is complete. When is it allowed?",
            choosing(ends=lambda *_: True)),
        ("end never", "the end is never allowed, so at a complete text nothing may come at all. "
            "When is it allowed?",
            choosing(ends=lambda *_: False)),
        ("stops at once", "you stop as soon as the text is an allowed one. It may be the beginning "
            "of another: let the model choose between the end and more.",
            choosing(stop_when_allowed=True)),
        ("stops at once", "you return as soon as the text is an allowed one, so the end is never "
            "drawn. Its probability belongs to the result.",
            choosing(ends=lambda *_: False, stop_when_allowed=True)),
        ("goes on after the end", "you go on after the end was drawn, as if it were an ordinary "
            "token. Where does your loop stop?",
            choosing(at_end="append")),
        ("goes on after the end", "the text is right, but you go on drawing after the end. Where "
            "does your loop stop?",
            choosing(at_end="skip")),
        ("whole answers only", "only tokens that are a whole answer are allowed. Most answers need "
            "several tokens: the text so far and a token must *begin* one.",
            choosing(fits=lambda text, piece, allowed: text + piece in allowed)),
        ("the text so far is ignored", "you compare each piece alone with the allowed texts. After "
            "the first token, what must begin an allowed text?",
            choosing(fits=lambda text, piece, allowed: _prefix("", piece, allowed))),
        ("prefix the wrong way around", "you ask whether the new text begins with an allowed one. "
            "Which of the two must be the beginning of the other?",
            choosing(fits=lambda text, piece, allowed: bool(piece)
                and any((text + piece).startswith(one) for one in allowed))),
        ("anywhere in the text", "you ask whether the new text occurs anywhere in an allowed one. "
            "It must be its beginning.",
            choosing(fits=lambda text, piece, allowed: bool(piece)
                and any(text + piece in one for one in allowed))),
        ("empty pieces", "a token without text is allowed: it changes nothing, and could come "
            "again and again. Which pieces must be left out?",
            choosing(fits=lambda text, piece, allowed:
                any(one.startswith(text + piece) for one in allowed))),
        ("single characters", "you allow tokens of one character only. A token may have several.",
            choosing(fits=lambda text, piece, allowed: len(piece) == 1
                and _prefix(text, piece, allowed))),
        ("greedy", "you take the most likely token that is allowed. Draw with the number.",
            choosing(draw=lambda probs, _: int(probs.argmax()))),
        ("the same number", "every step uses the first number. Each step has its own.",
            choosing(number_at=lambda numbers, _: numbers[0])),
        ("numbers from the end", "you take the numbers from the last to the first.",
            choosing(number_at=lambda numbers, step: numbers[-1 - step])),
        ("number reversed", "your running sum starts at the wrong end of the vocabulary.",
            choosing(draw=lambda probs, number: len(probs) - 1 - _first(probs.flip(0), number))),
        ("the model sees nothing", "the model is asked without the tokens written so far, so every "
            "step has the same logits.",
            choosing(given=lambda ids: [])),
        ("the model sees the last token only", "the model is asked with the last token alone. It "
            "needs all that was written.",
            choosing(given=lambda ids: ids[-1:])),
        ("the end is not counted", "the text is right. The end was drawn too: its probability "
            "belongs to the product.",
            choosing(result=_without_end)),
        ("logarithm", "the text is right; the probability is a logarithm. Return the product "
            "itself.",
            choosing(result=lambda text, probs, *_: (text, sum(map(math.log, probs))))),
        ("added", "the text is right; the probabilities are added. What is the chance of one "
            "thing *and then* another?",
            choosing(result=lambda text, probs, *_: (text, sum(probs)))),
        ("mean", "the text is right; you return a mean. What is the chance of one thing *and then* "
            "another?",
            choosing(result=lambda text, probs, *_: (text, sum(probs) / len(probs)))),
        ("last step only", "the text is right; the probability is that of the last token alone.",
            choosing(result=lambda text, probs, *_: (text, probs[-1]))),
        ("first step only", "the text is right; the probability is that of the first token alone.",
            choosing(result=lambda text, probs, *_: (text, probs[0]))),
        ("the end in the text", "the end's own piece stands in your text. It ends the text, and is "
            "not a part of it.",
            choosing(result=lambda text, probs, ids, ended, piece:
                (text + piece * ended, math.prod(probs)))),
        ("ids", "the tokens are right; return their text, not their ids.",
            choosing(result=lambda text, probs, ids, *_: (ids, math.prod(probs)))),
        ("text alone", "the text is right; return its probability as well.",
            choosing(result=lambda text, *_: text)),
        ("probability alone", "the probability is right; return the text as well, before it.",
            choosing(result=lambda text, probs, *_: math.prod(probs))),
        ("exchanged", "both values are right; return the text first.",
            choosing(result=lambda text, probs, *_: (math.prod(probs), text))),
    )
]  # fmt: skip
