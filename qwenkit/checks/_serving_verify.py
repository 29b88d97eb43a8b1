"""Exercise 18b.2, accept or sample: what a rule does with each proposal, right and with mistakes.

A learner's rule draws random numbers, so it is called many times, and its answers are counted. Of
the mistakes the same table is computed exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

Of = Callable[[Tensor, Tensor], Tensor]  # of p (V) and q (V)
_TIMES = 2_000  # a proportion is then off by 0.011 (one standard deviation) at most
TOLERANCE = 0.08


def _ratio(p: Tensor, q: Tensor) -> Tensor:
    return p / q


def _residual(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0)


def rule(chance: Of = _ratio, rest: Of = _residual) -> Of:
    """Return what a rule does, (V, V): how often each token follows each proposed one.

    Args:
        chance: with which a proposed token is accepted, (V); 1 where it is above 1.
        rest: from what another token is sampled else, (V), or (V, V) with a row per proposal.
    """

    def table(p: Tensor, q: Tensor) -> Tensor:
        accepted = chance(p, q).clamp(0, 1)  # (V)
        other = rest(p, q).expand(len(p), -1)  # (V, V)
        other = (other / other.sum(dim=1, keepdim=True)).nan_to_num()
        return accepted.diag() + (1 - accepted)[:, None] * other

    return table


def measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's rule into a function of p and q that returns such a table, by counting."""

    @wraps(function)
    def run(p: Tensor, q: Tensor) -> Any:
        counts = torch.zeros(len(p), len(p))
        with _seeded():
            for proposed in range(len(p)):
                for _ in range(_TIMES):
                    found = function(p.clone(), q.clone(), proposed)
                    if isinstance(found, Tensor) and found.numel() == 1:
                        found = found.item()
                    if isinstance(found, bool):
                        return "True or False"
                    if type(found) is not int or not 0 <= found < len(p):
                        return found
                    counts[proposed, found] += 1
        return counts / _TIMES

    return run


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the random numbers of torch and Python for a while; the reader's own go on later."""
    before = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        try:
            yield
        finally:
            random.setstate(before)


def _one(value: float) -> Of:
    return lambda p, q: torch.full_like(p, value)


def _where(condition: Callable[[Tensor, Tensor], Tensor]) -> Of:
    return lambda p, q: condition(p, q).float()


def _most_likely(of: Of) -> Of:
    return lambda p, q: torch.nn.functional.one_hot(of(p, q).argmax(), len(p)).float()


def _p(p: Tensor, q: Tensor) -> Tensor:
    return p


def _q(p: Tensor, q: Tensor) -> Tensor:
    return q


def _without_proposed(p: Tensor, q: Tensor) -> Tensor:
    return p * (1 - torch.eye(len(p)))  # (V, V)


_RESAMPLED = (
    "after a refusal you sample from p again. Tokens that the draft proposes too rarely then come "
    "too rarely: sample from what p has and q lacks, max(p − q, 0)."
)
VERIFY_MISTAKES = (
    Mistake("resampled from p", _RESAMPLED, rule(rest=_p)),
    Mistake("p above q", "you accept a token if p is above q, and never else. Where p is below q, "
        "accept it with the probability p / q.",
        rule(chance=_where(lambda p, q: p >= q))),
    Mistake("p above q, resampled from p", "you accept a token if p is above q, and sample from p "
        "else. Below q, accept with the probability p / q; and sample from what q lacks.",
        rule(chance=_where(lambda p, q: p >= q), rest=_p)),
    Mistake("all accepted", "you accept every proposal, so the text has the distribution of the "
        "draft.",
        rule(chance=_one(1))),
    Mistake("draft ignored", "the distribution is right, but you sample each token from p: the "
        "draft is not used.",
        rule(chance=_one(0), rest=_p)),
    Mistake("never accepted", "no proposal is accepted on its own; accept it with the probability "
        "min(1, p / q).",
        rule(chance=_one(0))),
    Mistake("the ratio upside down", "the ratio is upside down: it is p / q, the model's "
        "probability by the draft's.",
        rule(chance=lambda p, q: q / p)),
    Mistake("accepted by p", "you accept with the probability p. The draft proposes a token with "
        "the probability q: divide by it.",
        rule(chance=_p)),
    Mistake("accepted by p, resampled from p", "you accept with the probability p, and sample from "
        "p else. Accept with p / q, and sample from what q lacks.",
        rule(chance=_p, rest=_p)),
    Mistake("a threshold", "you compare the ratio with one half. Compare it with a random number.",
        rule(chance=_where(lambda p, q: p / q > 0.5))),
    Mistake("the difference not clamped", "where q is above p, the difference is negative; take 0 "
        "there, not its absolute value.",
        rule(rest=lambda p, q: (p - q).abs())),
    Mistake("the difference upside down", "you sample from max(q − p, 0): the tokens that the "
        "draft proposes too often. Take those that it proposes too rarely.",
        rule(rest=lambda p, q: (q - p).clamp(min=0))),
    Mistake("sampled from the draft", "after a refusal you sample from q, the draft. Sample from "
        "what p has and q lacks.",
        rule(rest=_q)),
    Mistake("p without the token", "after a refusal you sample from p without the refused token. "
        "The draft has given the others some of their probability already: subtract q.",
        rule(rest=_without_proposed)),
    Mistake("most likely token", "after a refusal you take the most likely token. Sample it.",
        rule(rest=_most_likely(_p))),
    Mistake("most likely of the rest", "after a refusal you take the token with the largest "
        "difference. Sample it.",
        rule(rest=_most_likely(_residual))),
    Mistake("any token", "after a refusal you take any token, each with the same probability. "
        "Sample from max(p − q, 0).",
        rule(rest=_one(1))),
    Mistake("only the decision", "you return whether the token is accepted. Return a token: the "
        "proposed one, or one sampled in its place.",
        lambda p, q: "True or False"),
)  # fmt: skip
