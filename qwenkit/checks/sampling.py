"""The checks of notebook 11, sampling: temperature, one draw, top-p and the repetition penalty."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._samples import normal
from qwenkit.generate.sampling import keep_min_p, keep_top_k, keep_top_p, penalize

EXERCISES = {
    "11.1": "softmax with a temperature",
    "11.2": "draw with a running sum",
    "11.3": "top-p",
    "11.4": "the repetition penalty",
}
_NEVER = float("-inf")
_ROUGH = 5e-4  # the rounding of logits in the thousands; no mistake is that small
_FIVE = torch.tensor([3.0, 2, 1, 0, 0]) * math.log(2)  # 8, 4, 2, 1 and 1 sixteenths


def temperature(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, temperature)`, probabilities (..., V): exercise 11.1."""
    rows = normal(2, 6)
    cases = [
        Case("five logits, temperature 0.5", (_FIVE, 0.5)),
        Case("temperature 2", (_FIVE, 2.0)),
        Case("temperature 1", (normal(7), 1.0)),
        Case("a low temperature", (normal(7, seed=1), 0.05)),
        Case("two rows", (rows, 0.7)),
        Case("as many rows as tokens", (normal(4, 4, seed=2), 1.5)),
        Case("logits in the thousands", (1000 + 30 * normal(6, seed=3), 0.5)),
        Case("logits far below zero", (normal(6, seed=4) - 5000, 2.0)),
        Case("one token is ruled out", (torch.tensor([1.0, _NEVER, 2.0]), 0.5)),
        Case("two rows far apart", (rows + torch.tensor([[0.0], [900.0]]), 0.5)),
    ]
    praise = "every row sums to 1, at any temperature and no matter how large the logits are."
    return judge("11.1", learner, _temperature, cases, _TEMPERATURE_MISTAKES, praise, _ROUGH)


def draw(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(probs, numbers)`, the token of each row, (B) int64: exercise 11.2."""

    def case(label: str, rows: list[list[float]], numbers: list[float]) -> Case:
        return Case(label, (torch.tensor(rows), torch.tensor(numbers)))

    quarters, scattered = [0.5, 0.25, 0.25], [0.1, 0.2, 0.55, 0.15]
    cases = [
        case("one row: 0.6 is in the second of three intervals", [quarters], [0.6]),
        case("two rows, a number each", [quarters, [0.25, 0.5, 0.25]], [0.9, 0.3]),
        case("the most likely token comes third", [scattered] * 4, [0.05, 0.17, 0.7, 0.86]),
        case("as many rows as tokens", [[0.2, 0.3, 0.5], quarters, quarters], [0.25, 0.1, 0.8]),
        case("exactly on a border", [quarters, quarters], [0.5, 0.75]),
        case("0, and the first token is impossible", [[0.0, 0.25, 0.75], quarters], [0.0, 0.3]),
        case("a token in the middle is impossible", [[0.5, 0.0, 0.5]], [0.5]),
        case("the sum ends below 1 by rounding", [[0.5, 0.3, 0.1999], quarters], [0.99995, 0.2]),
    ]
    praise = "one number from 0 to 1 per row, one running sum, and each row draws independently."
    return judge("11.2", learner, _draw, cases, _DRAW_MISTAKES, praise)


def top_p(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, p)`, logits with -inf for dropped tokens: exercise 11.3."""
    cases = [
        Case("five logits in order, p = 0.8", (_FIVE, 0.8)),
        Case("the same out of order", (_FIVE[[3, 1, 4, 0, 2]], 0.8)),
        Case("p below the largest probability", (_FIVE[[3, 1, 4, 0, 2]], 0.3)),
        Case("p = 0.7", (_FIVE[[2, 0, 1, 4, 3]], 0.7)),
        Case("twelve logits", (3 * normal(12, seed=5), 0.9)),
        Case("all logits below zero", (2 * normal(9, seed=6) - 20, 0.6)),
        Case("some are ruled out already", (torch.tensor([0.5, _NEVER, 2, _NEVER, 1.0]), 0.8)),
        Case("large logits", (100 * normal(6, seed=7), 0.95)),
        Case("p = 1", (_FIVE[[3, 1, 4, 0, 2]], 1.0)),
    ]
    praise = "the smallest set that reaches p, each logit at its own position, and never empty."
    return judge("11.3", learner, keep_top_p, cases, _TOP_P_MISTAKES, praise)


def penalty(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, seen, penalty)`, the logits with seen tokens less likely: 11.4."""
    small = torch.tensor([2.0, -1.0, 4.0, -3.0, 0.0])

    def case(label: str, seen: list[int], penalty: float, logits: Tensor = small) -> Case:
        return Case(label, (logits, torch.tensor(seen, dtype=torch.int64), penalty))

    cases = [
        case("one seen token, its logit positive", [2], 2.0),
        case("two seen tokens, one logit negative", [0, 1], 2.0),
        case("a token seen three times", [2, 3, 2, 2], 1.5),
        case("all logits below zero", [0, 4], 1.2, small - 10),
        case("a penalty below 1", [1, 2], 0.5),
        case("a penalty of 1", [0, 3], 1.0),
        case("a logit of 0", [4], 3.0),
        case("nothing seen yet", [], 2.0),
        case("a token that is ruled out", [1], 2.0, torch.tensor([1.0, _NEVER, -2.0])),
    ]
    praise = "seen tokens become less likely, on either side of zero, and only once each."
    return judge("11.4", learner, penalize, cases, _PENALTY_MISTAKES, praise)


# --- 11.1 ---


def _temperature(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(dim=-1)


def _by_hand(logits: Tensor, temperature: float) -> Tensor:
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def _one_sum(logits: Tensor, temperature: float) -> Tensor:
    powers = ((logits - logits.max()) / temperature).exp()
    return powers / powers.sum()


_TOO_LARGE = (
    "right for small logits. e to the power of a thousand is infinite, and of minus five thousand "
    "it is 0 everywhere. Adding a constant to all logits changes nothing: which one helps here?"
)
_TEMPERATURE_MISTAKES = (
    Mistake("multiplied", "you multiply by the temperature, so a low one makes the choice more "
        "random. What must happen to the differences between logits when it is 0.5?",
        lambda logits, temperature: (logits * temperature).softmax(dim=-1)),
    Mistake("temperature forgotten", "these are the probabilities at temperature 1, whatever the "
        "argument is. If you divide probabilities and make them sum to 1 again, the temperature "
        "cancels.",
        lambda logits, temperature: logits.softmax(dim=-1)),
    Mistake("temperature after softmax", "you divide probabilities, and then they no longer sum to "
        "1. Which of the two steps comes first?",
        lambda logits, temperature: logits.softmax(dim=-1) / temperature),
    Mistake("softmax of a softmax", "you apply softmax twice. Probabilities are between 0 and 1, "
        "so as logits they hardly differ, and all tokens become about equally likely.",
        lambda logits, temperature: (logits.softmax(dim=-1) / temperature).softmax(dim=-1)),
    Mistake("too large to exponentiate", _TOO_LARGE, _by_hand),
    Mistake("too large to exponentiate", "right for most logits. You subtract the largest logit "
        "from logits that are already divided: the two do not fit, and the rest may still be too "
        "large.",
        lambda logits, temperature:
            _by_hand(logits / temperature - logits.amax(-1, keepdim=True), 1.0)),
    Mistake("one shift for all rows", "you subtract the largest logit of the whole tensor. In a "
        "row far below it, all powers become 0, and 0 / 0 is not a number. Each row has its own "
        "largest logit.",
        lambda logits, temperature: _by_hand(logits - logits.max(), temperature)),
    Mistake("one sum for all rows", "all your rows together sum to 1. Each row is a separate "
        "choice: sum along the last dimension, and keep it.",
        _one_sum),
    Mistake("wrong dimension", "your columns sum to 1. The tokens to choose from are along the "
        "last dimension.",
        lambda logits, temperature: (logits / temperature).softmax(dim=0)),
    Mistake("log-probabilities", "these are the logarithms of the probabilities. Which of the two "
        "functions did you call?",
        lambda logits, temperature: (logits / temperature).log_softmax(dim=-1)),
    Mistake("no softmax", "the division is right, but these are still logits. What turns them into "
        "probabilities?",
        lambda logits, temperature: logits / temperature),
    Mistake("root of the temperature", "you divide by the square root of the temperature. The "
        "square root is for attention scores; here, divide by the temperature itself.",
        lambda logits, temperature: (logits / math.sqrt(temperature)).softmax(dim=-1)),
)  # fmt: skip

# --- 11.2 ---


def _draw(probs: Tensor, numbers: Tensor) -> Tensor:
    return _count(probs.cumsum(dim=1) <= numbers[:, None])


def _count(passed: Tensor) -> Tensor:
    """Return how many intervals a row's number has passed, at most to the last one."""
    return passed.sum(dim=1).clamp(max=passed.shape[1] - 1)


def _rank(probs: Tensor, numbers: Tensor) -> Tensor:
    return _draw(probs.sort(dim=1, descending=True, stable=True).values, numbers)


def _sorted_first(probs: Tensor, numbers: Tensor) -> Tensor:
    order = probs.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, _rank(probs, numbers)[:, None])[:, 0]


_DRAW_MISTAKES = (
    Mistake("no fallback", "right, except for rounding: if the running sum ends slightly below 1, "
        "a number between it and 1 is past the end, and you return a token that does not exist.",
        lambda probs, numbers: (probs.cumsum(dim=1) <= numbers[:, None]).sum(dim=1)),
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
        lambda probs, numbers: _draw(probs, numbers) - 1),
    Mistake("one too far", "you go one token too far. How many intervals end before the number, "
        "and from which index do you count?",
        lambda probs, numbers: _draw(probs, numbers) + 1),
    Mistake("nearest border", "you take the running sum nearest to the number. A number can be "
        "near the end of one interval and still be in the next: which comparison says where it is?",
        lambda probs, numbers: (probs.cumsum(dim=1) - numbers[:, None]).abs().argmin(dim=1)),
    Mistake("one number for all rows", "every row uses the first number. Then equal rows draw the "
        "same token.",
        lambda probs, numbers: _draw(probs, numbers[:1].expand(len(probs)))),
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
        lambda probs, numbers: probs.shape[1] - 1 - _draw(probs.flip(1), numbers)),
    Mistake("the probability, not the token", "that is the probability of each token drawn. Return "
        "its index in the row.",
        lambda probs, numbers: probs.gather(1, _draw(probs, numbers)[:, None])[:, 0]),
)  # fmt: skip

# --- 11.3 ---


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
    return probs.cumsum(dim=0) - probs


def _reached(probs: Tensor, p: float) -> Tensor:
    return _before(probs) < p


def _in_sorted_order(logits: Tensor, p: float) -> Tensor:
    probs = logits.sort(descending=True, stable=True).values.softmax(dim=-1)
    return logits.masked_fill(_before(probs) >= p, _NEVER)


_TOP_P_MISTAKES = (
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
        lambda logits, p: keep_top_p(logits, p).masked_fill(keep_top_p(logits, p).isinf(), 0.0)),
    Mistake("probabilities returned", "these are probabilities. A filter takes logits and returns "
        "logits: another filter may follow.",
        lambda logits, p: keep_top_p(logits, p).softmax(dim=-1)),
    Mistake("probabilities returned", "these are probabilities. A filter takes logits and returns "
        "logits: yours do not even sum to 1 any more.",
        lambda logits, p: logits.softmax(dim=-1) * keep_top_p(logits, p).isfinite()),
    Mistake("nothing dropped", "every logit is unchanged.", lambda logits, p: logits),
)  # fmt: skip


# --- 11.4 ---


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


def _unseen(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    everything = torch.ones(len(logits), dtype=torch.bool)
    everything[seen] = False
    return penalize(logits, everything.nonzero().flatten(), penalty)


_PENALTY_MISTAKES = (
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
