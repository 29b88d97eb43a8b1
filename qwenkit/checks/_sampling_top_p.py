"""Exercise 11.3, top-p: the right answer, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.generate.sampling import keep_min_p, keep_top_k, keep_top_p

_NEVER = float("-inf")
_LOWEST = torch.finfo(torch.float32).min
Filter = Callable[[Tensor, float], Any]


def _kept(
    rule: Callable[[Tensor, float], Tensor],
    descending: bool = True,
    shares: Callable[[Tensor], Tensor] = lambda ordered: ordered.softmax(dim=-1),
) -> Callable[[Tensor, float], Tensor]:
    """Return a filter; `rule` says which of the sorted probabilities are kept."""

    def keep(logits: Tensor, p: float) -> Tensor:
        ordered, order = logits.sort(descending=descending, stable=True)
        kept = torch.empty_like(logits, dtype=torch.bool)
        kept[order] = rule(shares(ordered), p)
        return logits.masked_fill(~kept, _NEVER)

    return keep


def _before(probs: Tensor) -> Tensor:
    return F.pad(probs.cumsum(dim=0)[:-1], (1, 0))


def _reached(probs: Tensor, p: float) -> Tensor:
    return _before(probs) < p


def _in_sorted_order(logits: Tensor, p: float) -> Tensor:
    probs = logits.sort(descending=True, stable=True).values.softmax(dim=-1)
    return logits.masked_fill(_before(probs) >= p, _NEVER)


def any_of_equals(keep: Filter) -> Filter:
    """Return the filter; of logits that are all equal, any may be kept: the kept come first."""

    @wraps(keep)
    def settled(logits: Tensor, p: float) -> Any:
        found = keep(logits, p)
        equal = isinstance(found, Tensor) and bool((logits == logits[0]).all())
        return found.sort(descending=True).values if equal else found

    return settled


def _all_at_1(keep: Filter) -> Filter:
    """Return the filter, which keeps everything where p is 1."""
    return lambda logits, p: logits if p == 1 else keep(logits, p)


def _dropped(logits: Tensor, p: float) -> Tensor:
    return keep_top_p(logits, p).isinf()


def _decisions_misplaced(logits: Tensor, p: float) -> Tensor:
    ordered, order = logits.sort(descending=True, stable=True)
    return logits.masked_fill((_before(ordered.softmax(dim=-1)) >= p)[order], _NEVER)


def _with_equals(logits: Tensor, p: float) -> Tensor:
    return keep_top_k(logits, int(keep_top_p(logits, p).isfinite().sum()))


_LARGE = (
    "a large negative number is not minus infinity: a filter after yours, or a high temperature, "
    "could let such a token through."
)
_IDEAS = (
    Mistake("crossing token dropped", "you drop the token that crosses the border. The set must "
        "*reach* p, so that token belongs to it. What is left in yours if the most likely token "
        "alone has more than p?",
        _kept(lambda probs, p: probs.cumsum(dim=0) <= p)),
    Mistake("crossing token dropped", "you drop the token that crosses the border. The set must "
        "*reach* p, so that token belongs to it. You keep the most likely one, so your set is "
        "never empty; the others need the same rule.",
        _kept(lambda probs, p: (probs.cumsum(dim=0) <= p) | (torch.arange(len(probs)) == 0))),
    Mistake("order lost", "you decide in sorted order, but apply the decisions to the unsorted "
        "logits. Each decision must go back to the token it was made for.",
        _in_sorted_order),
    Mistake("order lost", "you take each decision from another token: indexing with the order "
        "reads, and here the decisions must be written back, each to the token it was made for.",
        _decisions_misplaced),
    Mistake("all at p = 1", "right for p below 1. p = 1 keeps everything, but your running sum "
        "reaches 1 by rounding before the last tokens, and these are dropped.",
        _kept(_reached)),
    Mistake("exact sum", "right, except where the sum is exactly p: then it is reached, and the "
        "next token is dropped.",
        _kept(lambda probs, p: _before(probs) <= p)),
    Mistake("equal logits", "right, except for equal logits: you keep all that are as large as the "
        "last one you need. The smallest set takes only as many as it needs.",
        _with_equals),
    Mistake("1 − p", "you stop at 1 − p. The sum must reach p.",
        _kept(lambda probs, p: _before(probs) < 1 - p)),
    Mistake("only the most likely", "you keep only the most likely token.",
        lambda logits, p: keep_top_k(logits, 1)),
    Mistake("powers not normalized", "you add up powers of e that do not sum to 1. Softmax also "
        "divides by their sum.",
        _kept(_reached, shares=lambda ordered: ordered.exp())),
    Mistake("log-probabilities", "the right tokens are kept, but these are log-probabilities. "
        "Return the logits as they were given.",
        lambda logits, p: keep_top_p(logits, p).log_softmax(dim=-1)),
    Mistake("log-probabilities", "the right tokens are kept, but these are log-probabilities. "
        "Return the logits as they were given.",
        lambda logits, p: keep_top_p(logits.log_softmax(dim=-1), p)),
    Mistake("not minus infinity", _LARGE,
        lambda logits, p: keep_top_p(logits, p).masked_fill(_dropped(logits, p), -1e9)),
    Mistake("not minus infinity", _LARGE,
        lambda logits, p: keep_top_p(logits, p).masked_fill(_dropped(logits, p), _LOWEST)),
    Mistake("a mask", "you return which tokens are kept. Return the logits, with minus infinity "
        "for the others.",
        lambda logits, p: ~_dropped(logits, p)),
    Mistake("a mask", "you return which tokens are dropped. Return the logits, with minus infinity "
        "for those.",
        _dropped),
    Mistake("only the kept ones", "you return only the kept logits. Keep all positions: a token's "
        "id is its position.",
        lambda logits, p: logits[~_dropped(logits, p)]),
    Mistake("only the kept ones", "you return only the kept logits, and sorted. Keep all "
        "positions: a token's id is its position.",
        lambda logits, p: logits[~_dropped(logits, p)].sort(descending=True).values),
    Mistake("ids", "you return the ids of the kept tokens. Return the logits, with minus infinity "
        "for the others.",
        lambda logits, p: logits.argsort(descending=True)[: int((~_dropped(logits, p)).sum())]),
    Mistake("not sorted", "you add up in the order of the ids. The *most likely* tokens come "
        "first.",
        lambda logits, p: logits.masked_fill(_before(logits.softmax(dim=-1)) >= p, _NEVER)),
    Mistake("sorted logits returned", "the right logits are kept, but they are returned in sorted "
        "order. Then the first logit no longer belongs to token 0.",
        lambda logits, p: keep_top_p(logits, p).sort(descending=True).values),
    Mistake("one too many", "you keep one token more than needed. Stop as soon as the sum has "
        "reached p.",
        _kept(lambda probs, p: _reached(probs, p) | (_before(probs).roll(1) < p))),
    Mistake("the unlikely ones kept", "you add up from the least likely token, and keep those.",
        _kept(_reached, descending=False)),
    Mistake("min-p", "you compare each probability with the largest one. That is min-p; here a "
        "running sum decides.",
        keep_min_p),
    Mistake("each compared with p", "you compare each token's own probability with p. It is their "
        "sum that must reach p.",
        lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < p, _NEVER)),
    Mistake("each compared with p", "you drop each token whose own probability is below 1 − p. It "
        "is the running sum that must reach p.",
        lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < 1 - p, _NEVER)),
    Mistake("a share of the vocabulary", "you keep a proportion p of the *tokens*. p is a sum of "
        "probabilities: sometimes one token alone reaches it.",
        lambda logits, p: keep_top_k(logits, max(1, math.ceil(p * len(logits))))),
    Mistake("logits added up", "you add up logits. They can be negative, and their sum says "
        "nothing about p. What must they become first?",
        _kept(_reached, shares=lambda ordered: ordered)),
    Mistake("zero for the dropped", "your dropped tokens have the logit 0, and e to the power of 0 "
        "is 1: they can still be drawn. Which logit gives a probability of exactly 0?",
        lambda logits, p: keep_top_p(logits, p).masked_fill(_dropped(logits, p), 0.0)),
    Mistake("probabilities returned", "these are probabilities. A filter takes logits and returns "
        "logits: another filter may follow.",
        lambda logits, p: keep_top_p(logits, p).softmax(dim=-1)),
    Mistake("probabilities returned", "these are probabilities. A filter takes logits and returns "
        "logits: yours do not even sum to 1 any more.",
        lambda logits, p: logits.softmax(dim=-1) * ~_dropped(logits, p)),
    Mistake("nothing dropped", "every logit is unchanged.", lambda logits, p: logits),
)  # fmt: skip
TOP_P_MISTAKES = [
    Mistake(one.name, one.hint, any_of_equals(function))
    for one in _IDEAS
    for function in (one.function, _all_at_1(one.function))
]
