"""Exercise 00.2, the generation loop: a made-up model to try it on, and wrong loops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.errors import InputError

_VOCABULARY = 23


class _Made:
    """A function from ids to logits, called like a model; the best next id depends on all ids."""

    device = torch.device("cpu")
    num_tokens = _VOCABULARY

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return (B, T, V) logits for (B, T) ids."""
        if not isinstance(input_ids, Tensor):
            kind = type(input_ids).__name__
            raise InputError(f"input_ids is {kind}; it must be an int64 tensor of shape (B, T)")
        if input_ids.dim() != 2 or 0 in input_ids.shape:
            raise InputError(
                f"input_ids has shape {tuple(input_ids.shape)}; it must be (B, T) with B, T >= 1"
            )
        places = torch.arange(1, input_ids.shape[1] + 1)
        best = (input_ids * places).cumsum(dim=1).add(7 * places) % _VOCABULARY  # (B, T)
        distance = (torch.arange(_VOCABULARY) - best[..., None]).abs()  # (B, T, V)
        return -1.0 - distance.float()


def _loop(
    feed: Callable[[list[int], list[int]], list[int]] = lambda ids, new: [*ids, *new],
    at: int = -1,
    best: Callable[[Tensor], Any] = lambda scores: int(scores.argmax()),
) -> Callable[[_Made, Sequence[int], int, Collection[int]], list[int]]:
    """Return the right loop, or one that feeds, reads or chooses something else."""

    def loop(model: _Made, ids: Sequence[int], count: int, stop: Collection[int]) -> list[int]:
        new: list[int] = []
        for _ in range(count):
            logits = model(torch.tensor([feed(list(ids), new)]))[0]
            new.append(best(logits[max(at, -len(logits))]))
            if new[-1] in stop:
                break
        return new

    return loop


continued = _loop()


def _stop_dropped(model: _Made, ids: list[int], count: int, stop: set[int]) -> list[int]:
    new = continued(model, ids, count, stop)
    return new[:-1] if new and new[-1] in stop else new


def _asked_before(model: _Made, ids: list[int], count: int, stop: set[int]) -> list[int]:
    """Look for a stop token before each step, so that one in the prompt ends everything."""
    return [] if ids[-1] in stop else continued(model, ids, count, stop)


def _one_past(model: _Made, ids: list[int], count: int, stop: set[int]) -> list[int]:
    """Go on for one token after the stop token."""
    new = continued(model, ids, count, stop)
    return continued(model, ids, min(len(new) + 1, count), ())


_MODEL = _Made()
_FREE = continued(_MODEL, [3, 1, 4], 8, ())
LOOP_CASES = [
    Case("five tokens, no stop token", (_MODEL, [3, 1, 4], 5, set())),
    Case("a stop token in the third step", (_MODEL, [3, 1, 4], 6, {_FREE[2]})),
    Case("a stop token in the first step", (_MODEL, [3, 1, 4], 6, {_FREE[0], 99})),
    Case("a stop token that is in the prompt already", (_MODEL, [9, 2, 8], 4, {2, 8})),
    Case("a prompt of one token", (_MODEL, [11], 7, {99})),
    Case("a count of one", (_MODEL, [6, 6], 1, set())),
    Case("a count of zero", (_MODEL, [3, 1, 4], 0, set())),
]

LOOP_MISTAKES = (
    Mistake("with the prompt", "the new ids are right, but those of the prompt come before them. "
        "Return only what is new.",
        lambda model, ids, *more: [*ids, *continued(model, ids, *more)]),
    Mistake("never stops", "the loop always runs for all steps. What should happen when the chosen "
        "token is a stop token?",
        lambda model, ids, count, stop: continued(model, ids, count, ())),
    Mistake("stop token dropped", "the stop token itself is missing at the end. It was chosen, so "
        "it belongs to the new ids.",
        _stop_dropped),
    Mistake("one past the stop token", "the loop goes on for one token after the stop token. When "
        "do you look at the token that was just chosen?",
        _one_past),
    Mistake("stopped by the prompt", "a stop token in the prompt ends your loop before it begins. "
        "Only a token that the model has just chosen may stop it.",
        _asked_before),
    Mistake("stopped by the prompt", "a stop token anywhere in the prompt ends your loop. Only the "
        "token that the model has just chosen may stop it.",
        lambda model, ids, count, stop:
            continued(model, ids, 1 if set(ids) & set(stop) else count, stop)),
    Mistake("the same text each time", "every step feeds the prompt alone, so every step chooses "
        "the same token. What must be at the end of the ids in the second step?",
        _loop(feed=lambda ids, new: ids)),
    Mistake("only the last token fed", "after the first step you feed only the new token, and the "
        "model forgets all that came before it. Feed all ids in each step.",
        _loop(feed=lambda ids, new: new[-1:] or ids)),
    Mistake("only the new tokens fed", "after the first step the prompt is missing: you feed the "
        "new ids alone. Which ids does the text consist of by then?",
        _loop(feed=lambda ids, new: new or ids)),
    Mistake("put in front", "the chosen token goes to the front of the ids. Where does a text "
        "continue?",
        _loop(feed=lambda ids, new: [*new[::-1], *ids])),
    Mistake("first position", "you read the scores of the first position, which has seen one token "
        "only. Which one has seen the whole text?",
        _loop(at=-1_000)),
    Mistake("second to last position", "you read the position before the last: it predicts a token "
        "that is there already.",
        _loop(at=-2)),
    Mistake("least likely", "you choose the token with the smallest score. Take the largest.",
        _loop(best=lambda scores: int(scores.argmin()))),
    Mistake("scores, not ids", "your list has the largest scores themselves. At which number of "
        "the vocabulary does each of them stand?",
        _loop(feed=lambda ids, new: ids, best=lambda scores: float(scores.max()))),
    Mistake("tensors, not integers", "the list has tensors in it. Each holds one value: which "
        "method gives it as a plain integer?",
        _loop(best=lambda scores: scores.argmax())),
    Mistake("tensors, not integers", "the list has tensors in it, and a tensor of several values "
        "or of another shape is not in `stop`. Make each chosen id a plain integer first.",
        _loop(best=lambda scores: scores.argmax()[None, None])),
    Mistake("one step", "your function makes one step and ends. Does it return inside the loop?",
        lambda model, ids, count, stop: continued(model, ids, min(count, 1), stop)),
    Mistake("only the last id", "that is only the last of the new ids. Collect all of them.",
        lambda *given: next(iter(continued(*given)[::-1]), None)),
    Mistake("one token too many", "there is one token more than `count` asks for. How often does "
        "your loop run?",
        lambda model, ids, count, stop: continued(model, ids, count + 1, stop)),
    Mistake("one token too few", "there is one token less than `count` asks for. How often does "
        "your loop run?",
        lambda model, ids, count, stop: continued(model, ids, count - 1, stop)),
    Mistake("cut at count", "you count the ids of the prompt, too: `count` is for new ids only.",
        lambda model, ids, count, stop: continued(model, ids, count - len(ids), stop)),
)  # fmt: skip
