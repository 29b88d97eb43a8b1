"""Exercise 11.4, the repetition penalty: the right answer, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.generate.sampling import penalize

_NEVER = float("-inf")


def _on_seen(
    change: Callable[[Tensor, float], Tensor],
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return a penalty that changes the logits of seen tokens, once each."""

    def penalized(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
        seen = torch.unique(seen)
        return logits.index_copy(0, seen, change(logits[seen], penalty))

    return penalized


def _right(old: Tensor, penalty: float) -> Tensor:
    return torch.where(old > 0, old / penalty, old * penalty)


def _each_time(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    for token in seen.tolist():
        logits = penalize(logits, torch.tensor([token]), penalty)
    return logits


def _by_count(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    by = (penalty * torch.bincount(seen, minlength=len(logits))).where(_is_seen(logits, seen), 1.0)
    return torch.where(logits > 0, logits / by, logits * by)


def _is_seen(logits: Tensor, seen: Tensor) -> Tensor:
    return torch.isin(torch.arange(len(logits)), seen)


def _unseen(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    return penalize(logits, (~_is_seen(logits, seen)).nonzero().flatten(), penalty)


PENALTY_MISTAKES = (
    Mistake("negative logits divided", "you divide the negative logits, too. −3 / 2 is −1.5, and "
        "that is *more* likely: the penalty favors the tokens that it should penalize.",
        _on_seen(lambda old, penalty: old / penalty)),
    Mistake("positive logits multiplied", "you multiply the positive logits, too. 4 × 2 is 8: "
        "those tokens become more likely.",
        _on_seen(lambda old, penalty: old * penalty)),
    Mistake("the wrong way around", "you multiply the positive logits and divide the negative "
        "ones, so every seen token becomes more likely.",
        _on_seen(lambda old, penalty: torch.where(old > 0, old * penalty, old / penalty))),
    Mistake("negative logits left", "the negative logits are unchanged. A seen token that is "
        "unlikely already must become less likely, too.",
        _on_seen(lambda old, penalty: torch.where(old > 0, old / penalty, old))),
    Mistake("once each time", "you penalize a token as many times as it occurs. Code is full of "
        "brackets and names; here the rule is once per token.",
        _each_time),
    Mistake("every token", "you change all logits. Only those of seen tokens should change.",
        lambda logits, seen, penalty: _right(logits, penalty)),
    Mistake("the unseen ones", "you penalize the tokens that have *not* been seen.", _unseen),
    Mistake("subtracted", "you subtract the penalty. Such a rule exists (a presence penalty), but "
        "then 1 would not mean off. This one divides or multiplies.",
        _on_seen(lambda old, penalty: old - penalty)),
    Mistake("subtracted", "you subtract the penalty each time a token occurs. Such a rule exists "
        "(a frequency penalty), but then 1 would not mean off. This one divides or multiplies.",
        lambda logits, seen, penalty:
            logits - penalty * torch.bincount(seen, minlength=len(logits))),
    Mistake("subtracted in proportion", "you subtract a part of each positive logit. Divide it: 4 "
        "becomes 4 / 2, and a penalty of 3 must not make it negative.",
        _on_seen(lambda old, penalty: old - old.abs() * (penalty - 1))),
    Mistake("logarithm subtracted", "you subtract the logarithm of the penalty, which divides the "
        "token's probability. This rule divides or multiplies the logit itself.",
        _on_seen(lambda old, penalty: old - math.log(penalty))),
    Mistake("divided as often as seen", "you divide or multiply by the penalty times the number of "
        "occurrences. Here the rule is once per token, by the penalty alone.",
        _by_count),
    Mistake("penalty below 1 ignored", "right for penalties above 1. One below 1 makes seen tokens "
        "more likely, by the same rule.",
        lambda logits, seen, penalty: penalize(logits, seen, max(penalty, 1.0))),
    Mistake("positions, not ids", "you change the first logits, as many as there are seen tokens. "
        "`seen` holds ids: index the logits with it.",
        lambda logits, seen, penalty: penalize(logits, torch.arange(len(seen)), penalty)),
    Mistake("last one only", "you penalize only the last seen token. All of them count.",
        lambda logits, seen, penalty: penalize(logits, seen[-1:], penalty)),
    Mistake("others lost", "the logits of unseen tokens are lost: start from a copy of the logits.",
        lambda logits, seen, penalty: penalize(logits, seen, penalty) * _is_seen(logits, seen)),
    Mistake("probabilities", "you return probabilities. Return logits: other filters follow.",
        lambda logits, seen, penalty: penalize(logits, seen, penalty).softmax(dim=-1)),
    Mistake("probabilities", "you penalize probabilities. The rule is for logits.",
        lambda logits, seen, penalty: penalize(logits.softmax(dim=-1), seen, penalty)),
    Mistake("forbidden", "you rule out the seen tokens completely. Then no name could be used "
        "twice.",
        _on_seen(lambda old, penalty: torch.full_like(old, _NEVER))),
    Mistake("after softmax", "you turn the logits into log-probabilities first. They are never "
        "positive, so every seen token is multiplied. The rule takes the logits as the model "
        "returns them.",
        lambda logits, seen, penalty: penalize(logits.log_softmax(dim=-1), seen, penalty)),
    Mistake("only the seen ones returned", "you return only the logits of the seen tokens. Return "
        "all of them, at their positions.",
        lambda logits, seen, penalty: _right(logits[seen], penalty)),
)  # fmt: skip
