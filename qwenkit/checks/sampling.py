"""The checks of notebook 11, sampling: temperature, one draw, top-p and the repetition penalty."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal
from qwenkit.generate.sampling import keep_min_p, keep_top_k, keep_top_p, penalize

EXERCISES = {
    "11.1": "softmax with a temperature",
    "11.2": "draw with a running sum",
    "11.3": "top-p",
    "11.4": "the repetition penalty",
}
NEVER = float("-inf")
LOOSE = (
    5e-4  # logits of thousands are rounded to that before they are powers; no mistake is so small
)
FIVE = torch.tensor([3.0, 2, 1, 0, 0]) * math.log(2)  # 8, 4, 2, 1 and 1 sixteenths


def temperature(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, temperature)`, probabilities (..., V): exercise 11.1."""
    rows = normal(2, 6)
    cases = [
        Case("five logits, temperature 0.5", (FIVE, 0.5)),
        Case("temperature 2", (FIVE, 2.0)),
        Case("temperature 1", (normal(7), 1.0)),
        Case("a low temperature", (normal(7, seed=1), 0.05)),
        Case("two rows", (rows, 0.7)),
        Case("as many rows as tokens", (normal(4, 4, seed=2), 1.5)),
        Case("logits in the thousands", (1000 + 30 * normal(6, seed=3), 0.5)),
        Case("logits far below zero", (normal(6, seed=4) - 5000, 2.0)),
        Case("one token is ruled out", (torch.tensor([1.0, NEVER, 2.0]), 0.5)),
        Case("two rows far apart", (rows + torch.tensor([[0.0], [900.0]]), 0.5)),
    ]
    praise = "every row adds up to 1, at any temperature and however large the logits are."
    return judge("11.1", learner, _temperature, cases, TEMPERATURE_MISTAKES, praise, LOOSE)


def draw(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(probs, numbers)`, the token of each row, (B) int64: exercise 11.2."""

    def case(words: str, rows: list[list[float]], numbers: list[float]) -> Case:
        return Case(words, (torch.tensor(rows), torch.tensor(numbers)))

    quarters, scattered = [0.5, 0.25, 0.25], [0.1, 0.2, 0.55, 0.15]
    cases = [
        case("one row: 0.6 falls into the second of three", [quarters], [0.6]),
        case("two rows, a number each", [quarters, [0.25, 0.5, 0.25]], [0.9, 0.3]),
        case("the likeliest comes third", [scattered] * 4, [0.05, 0.17, 0.7, 0.86]),
        case("as many rows as tokens", [[0.2, 0.3, 0.5], quarters, quarters], [0.25, 0.1, 0.8]),
        case("exactly on a border", [quarters, quarters], [0.5, 0.75]),
        case("0, and the first token cannot come", [[0.0, 0.25, 0.75], quarters], [0.0, 0.3]),
        case("a token in the middle cannot come", [[0.5, 0.0, 0.5]], [0.5]),
        case("the sum ends below 1 by rounding", [[0.5, 0.3, 0.1999], quarters], [0.99995, 0.2]),
    ]
    praise = "one number from 0 to 1 a row, one running sum, and each row draws for itself."
    return judge("11.2", learner, _draw, cases, DRAW_MISTAKES, praise)


def top_p(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, p)`, logits with -inf for what is dropped: exercise 11.3."""
    cases = [
        Case("five logits in order, p = 0.8", (FIVE, 0.8)),
        Case("the same out of order", (FIVE[[3, 1, 4, 0, 2]], 0.8)),
        Case("p below the largest probability", (FIVE[[3, 1, 4, 0, 2]], 0.3)),
        Case("p = 0.7", (FIVE[[2, 0, 1, 4, 3]], 0.7)),
        Case("twelve logits", (3 * normal(12, seed=5), 0.9)),
        Case("all logits below zero", (2 * normal(9, seed=6) - 20, 0.6)),
        Case("some are ruled out already", (torch.tensor([0.5, NEVER, 2, NEVER, 1.0]), 0.8)),
        Case("large logits", (100 * normal(6, seed=7), 0.95)),
        Case("p = 1", (FIVE[[3, 1, 4, 0, 2]], 1.0)),
    ]
    praise = "the smallest set that reaches p, each logit at its own place, and never an empty set."
    return judge("11.3", learner, keep_top_p, cases, TOP_P_MISTAKES, praise)


def penalty(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(logits, seen, penalty)`, the logits with seen tokens less likely: 11.4."""
    small = torch.tensor([2.0, -1.0, 4.0, -3.0, 0.0])

    def case(words: str, seen: list[int], penalty: float, logits: Tensor = small) -> Case:
        return Case(words, (logits, torch.tensor(seen, dtype=torch.int64), penalty))

    cases = [
        case("one seen token, its logit positive", [2], 2.0),
        case("two seen tokens, one logit negative", [0, 1], 2.0),
        case("a token seen three times", [2, 3, 2, 2], 1.5),
        case("all logits below zero", [0, 4], 1.2, small - 10),
        case("a penalty below 1", [1, 2], 0.5),
        case("a penalty of 1", [0, 3], 1.0),
        case("a logit of 0", [4], 3.0),
        case("nothing seen yet", [], 2.0),
        case("a token that is ruled out", [1], 2.0, torch.tensor([1.0, NEVER, -2.0])),
    ]
    praise = "what has been seen becomes less likely, on either side of zero, and only once."
    return judge("11.4", learner, penalize, cases, PENALTY_MISTAKES, praise)


# --- 11.1 ---


def _temperature(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(dim=-1)


def _by_hand(logits: Tensor, temperature: float) -> Tensor:
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def _one_shift(logits: Tensor, temperature: float) -> Tensor:
    return _by_hand(logits - logits.max(), temperature)


def _one_sum(logits: Tensor, temperature: float) -> Tensor:
    powers = ((logits - logits.max()) / temperature).exp()
    return powers / powers.sum()


def _shift_late(logits: Tensor, temperature: float) -> Tensor:
    return _by_hand(logits / temperature - logits.max(dim=-1, keepdim=True).values, 1.0)


_TOO_LARGE = (
    "right for small logits. e to the power of a thousand is infinite, and of minus five thousand "
    "it is 0 everywhere. Adding a constant to all logits changes nothing: which one helps here?"
)
TEMPERATURE_MISTAKES = (
    Mistake(
        "multiplied",
        "you multiply by the temperature, so that a low one makes the choice wilder. What must "
        "happen to the differences of logits when it is 0.5?",
        lambda logits, temperature: (logits * temperature).softmax(dim=-1),
    ),
    Mistake(
        "temperature forgotten",
        "these are the probabilities at temperature 1, whatever is asked for. If you divide "
        "probabilities and make them add up to 1 again, the temperature cancels.",
        lambda logits, temperature: logits.softmax(dim=-1),
    ),
    Mistake(
        "temperature after softmax",
        "you divide probabilities, and then they no longer add up to 1. Which of the two steps "
        "comes first?",
        lambda logits, temperature: logits.softmax(dim=-1) / temperature,
    ),
    Mistake(
        "softmax of a softmax",
        "you take softmax twice. Probabilities lie between 0 and 1, so as logits they hardly "
        "differ, and every token becomes about as likely as every other.",
        lambda logits, temperature: (logits.softmax(dim=-1) / temperature).softmax(dim=-1),
    ),
    Mistake("too large to exponentiate", _TOO_LARGE, _by_hand),
    Mistake(
        "too large to exponentiate",
        "right for most logits. You take the largest away before you divide, from a number that "
        "is divided already: the two no longer fit, and what is left may still be too large.",
        _shift_late,
    ),
    Mistake(
        "one shift for all rows",
        "you take the largest logit of the whole tensor away. In a row far below it, all powers "
        "become 0, and 0 / 0 is no number. Each row has a largest logit of its own.",
        _one_shift,
    ),
    Mistake(
        "one sum for all rows",
        "your rows add up to 1 together. Each is a choice of its own: sum along the last "
        "dimension, and keep it.",
        _one_sum,
    ),
    Mistake(
        "wrong dimension",
        "your columns add up to 1. The tokens to choose among lie along the last dimension.",
        lambda logits, temperature: (logits / temperature).softmax(dim=0),
    ),
    Mistake(
        "log-probabilities",
        "these are the logarithms of the probabilities. Which of the two functions did you call?",
        lambda logits, temperature: (logits / temperature).log_softmax(dim=-1),
    ),
    Mistake(
        "no softmax",
        "the division is right, and these are still logits. What turns them into probabilities?",
        lambda logits, temperature: logits / temperature,
    ),
    Mistake(
        "root of the temperature",
        "you divide by the square root of the temperature. That rule belongs to attention's "
        "scores; here the temperature itself divides.",
        lambda logits, temperature: (logits / math.sqrt(temperature)).softmax(dim=-1),
    ),
)

# --- 11.2 ---


def _draw(probs: Tensor, numbers: Tensor) -> Tensor:
    return _passed(probs, numbers).clamp(max=probs.shape[1] - 1)


def _passed(probs: Tensor, numbers: Tensor) -> Tensor:
    """Return how many tokens' pieces end at a row's number or before it."""
    return (probs.cumsum(dim=1) <= numbers[:, None]).sum(dim=1)


def _on_the_border(probs: Tensor, numbers: Tensor) -> Tensor:
    return (probs.cumsum(dim=1) < numbers[:, None]).sum(dim=1).clamp(max=probs.shape[1] - 1)


def _rank(probs: Tensor, numbers: Tensor) -> Tensor:
    return _draw(probs.sort(dim=1, descending=True, stable=True).values, numbers)


def _one_sum_for_all(probs: Tensor, numbers: Tensor) -> Tensor:
    sums = probs.flatten().cumsum(dim=0).view_as(probs)
    return (sums <= numbers[:, None]).sum(dim=1).clamp(max=probs.shape[1] - 1)


def _chosen(probs: Tensor, places: Tensor) -> Tensor:
    return probs.gather(1, places[:, None])[:, 0]


DRAW_MISTAKES = (
    Mistake(
        "no fallback",
        "right, but for rounding: where the running sum ends a hair below 1, a number between it "
        "and 1 falls off the end, and yours names a token that does not exist.",
        _passed,
    ),
    Mistake(
        "border",
        "a number exactly on a border belongs to the piece that begins there. In yours it belongs "
        "to the one that ends there, so that 0 can draw a token whose probability is 0.",
        _on_the_border,
    ),
    Mistake(
        "greedy",
        "that is the likeliest token, whatever the number is. Nothing is drawn.",
        lambda probs, numbers: probs.argmax(dim=1),
    ),
    Mistake(
        "no running sum",
        "you compare the number with each probability alone. Where does the piece of the second "
        "token begin, and where does it end?",
        lambda probs, numbers: (probs > numbers[:, None]).int().argmax(dim=1),
    ),
    Mistake(
        "even pieces",
        "you cut the line into pieces of equal length. Each token's piece is as long as its "
        "probability.",
        lambda probs, numbers: (numbers * probs.shape[1]).long(),
    ),
    Mistake(
        "one too early",
        "you stop one token too early: at the last piece that ends before the number. The number "
        "lies in the piece after it.",
        lambda probs, numbers: _draw(probs, numbers) - 1,
    ),
    Mistake(
        "one too far",
        "you go one token too far. How many pieces end before the number, and at which place do "
        "you count from?",
        lambda probs, numbers: _draw(probs, numbers) + 1,
    ),
    Mistake(
        "nearest border",
        "you take the running sum nearest to the number. A number can lie near the end of one "
        "piece and still be in the next: which comparison says where it is?",
        lambda probs, numbers: (probs.cumsum(dim=1) - numbers[:, None]).abs().argmin(dim=1),
    ),
    Mistake(
        "one number for all rows",
        "every row uses the first number. Then rows that are alike draw the same token.",
        lambda probs, numbers: _draw(probs, numbers[:1].expand(len(probs))),
    ),
    Mistake(
        "one sum for all rows",
        "your running sum goes on from row to row, so that the second row begins at 1. Each row "
        "has a sum of its own.",
        _one_sum_for_all,
    ),
    Mistake(
        "wrong dimension",
        "your running sum goes down the columns, from text to text. The tokens to choose among "
        "lie along a row.",
        lambda probs, numbers: (
            (probs.cumsum(dim=0) <= numbers[:, None]).sum(dim=1).clamp(max=probs.shape[1] - 1)
        ),
    ),
    Mistake(
        "place in the sorted list",
        "you sort the probabilities, and return a place in the sorted list. Which token was that?",
        _rank,
    ),
    Mistake(
        "sorted first",
        "you sort the probabilities first. That draws fairly, too, but gives other tokens for the "
        "same numbers. Go through the tokens in their own order.",
        lambda probs, numbers: (
            probs.argsort(dim=1, descending=True, stable=True)
            .gather(1, _rank(probs, numbers)[:, None])
            .flatten()
        ),
    ),
    Mistake(
        "from the end",
        "your running sum begins at the last token. Begin at the first.",
        lambda probs, numbers: probs.shape[1] - 1 - _draw(probs.flip(1), numbers),
    ),
    Mistake(
        "the probability, not the place",
        "that is the probability of each token drawn. Wanted is its place in the row.",
        lambda probs, numbers: _chosen(probs, _draw(probs, numbers)),
    ),
)

# --- 11.3 ---


def _kept(rule: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """Return a filter; `rule` says of probabilities in descending order which are kept."""

    def keep(logits: Tensor, p: float) -> Tensor:
        ordered, order = logits.sort(descending=True, stable=True)
        kept = torch.empty_like(logits, dtype=torch.bool)
        kept[order] = rule(ordered.softmax(dim=-1), p)
        return logits.masked_fill(~kept, NEVER)

    return keep


def _before(probs: Tensor) -> Tensor:
    return probs.cumsum(dim=0) - probs


def _all_before_p(probs: Tensor, p: float) -> Tensor:
    return probs.cumsum(dim=0) <= p


def _and_the_first(probs: Tensor, p: float) -> Tensor:
    return _all_before_p(probs, p) | (torch.arange(len(probs)) == 0)


def _in_sorted_order(logits: Tensor, p: float) -> Tensor:
    probs = logits.sort(descending=True, stable=True).values.softmax(dim=-1)
    return logits.masked_fill(_before(probs) >= p, NEVER)


def _unsorted(logits: Tensor, p: float) -> Tensor:
    return logits.masked_fill(_before(logits.softmax(dim=-1)) >= p, NEVER)


def _tail(logits: Tensor, p: float) -> Tensor:
    order = logits.argsort(stable=True)
    kept = torch.empty_like(logits, dtype=torch.bool)
    kept[order] = _before(logits[order].softmax(dim=-1)) < p
    return logits.masked_fill(~kept, NEVER)


def _logits_added(logits: Tensor, p: float) -> Tensor:
    ordered, order = logits.sort(descending=True, stable=True)
    kept = torch.empty_like(logits, dtype=torch.bool)
    kept[order] = _before(ordered) < p
    return logits.masked_fill(~kept, NEVER)


_CROSSING = (
    "you drop the token that crosses the border. The set must *reach* p, so that token belongs to "
    "it. "
)
_PROBABILITIES = "these are probabilities. A filter takes logits and returns logits: "
TOP_P_MISTAKES = (
    Mistake(
        "crossing token dropped",
        f"{_CROSSING}What is left in yours when the likeliest token alone has more than p?",
        _kept(_all_before_p),
    ),
    Mistake(
        "crossing token dropped",
        f"{_CROSSING}You save the likeliest one, so that yours is never empty; the others need "
        "the same rule.",
        _kept(_and_the_first),
    ),
    Mistake(
        "order lost",
        "you decide in sorted order, and then drop at these places of the unsorted logits. Each "
        "decision must go back to the token it was made for.",
        _in_sorted_order,
    ),
    Mistake(
        "not sorted",
        "you add up in the order of the ids. The *likeliest* tokens come first.",
        _unsorted,
    ),
    Mistake(
        "sorted logits returned",
        "the right ones are kept, but they come back in sorted order. Then the first logit no "
        "longer belongs to token 0.",
        lambda logits, p: keep_top_p(logits, p).sort(descending=True).values,
    ),
    Mistake(
        "one too many",
        "you keep one token more than is needed. Stop as soon as the sum has reached p.",
        _kept(lambda probs, p: (_before(probs) < p) | (_before(probs).roll(1) < p)),
    ),
    Mistake(
        "the unlikely ones kept",
        "you add up from the least likely token on, and keep those.",
        _tail,
    ),
    Mistake(
        "min-p",
        "you compare each probability with the largest one. That is min-p; here a running sum "
        "decides.",
        keep_min_p,
    ),
    Mistake(
        "each compared with p",
        "you compare each token's own probability with p. It is their sum that has to reach p.",
        lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < p, NEVER),
    ),
    Mistake(
        "each compared with p",
        "you drop each token whose own probability is below 1 − p. It is the running sum that has "
        "to reach p.",
        lambda logits, p: logits.masked_fill(logits.softmax(dim=-1) < 1 - p, NEVER),
    ),
    Mistake(
        "a share of the vocabulary",
        "you keep that share of the *tokens*. p is a share of probability: sometimes one token "
        "has it alone.",
        lambda logits, p: keep_top_k(logits, max(1, math.ceil(p * len(logits)))),
    ),
    Mistake(
        "logits added up",
        "you add up logits. They can be negative, and reach no p. What must they become first?",
        _logits_added,
    ),
    Mistake(
        "zero for the dropped",
        "a dropped token has the logit 0 in yours, and e to the power of 0 is 1: it can still be "
        "drawn. Which logit makes a probability of exactly 0?",
        lambda logits, p: keep_top_p(logits, p).masked_fill(keep_top_p(logits, p).isinf(), 0.0),
    ),
    Mistake(
        "probabilities returned",
        f"{_PROBABILITIES}the next one may follow.",
        lambda logits, p: keep_top_p(logits, p).softmax(dim=-1),
    ),
    Mistake(
        "probabilities returned",
        f"{_PROBABILITIES}yours do not even add up to 1 any more.",
        lambda logits, p: logits.softmax(dim=-1) * keep_top_p(logits, p).isfinite(),
    ),
    Mistake("nothing dropped", "every logit is as it was.", lambda logits, p: logits),
)


# --- 11.4 ---

Penalty = Callable[[Tensor, float], Tensor]


def _on_seen(change: Penalty) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return a penalty that changes the logits of seen tokens, once each."""

    def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
        seen = torch.unique(seen)
        return logits.index_copy(0, seen, change(logits[seen], penalty))

    return penalised


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


def _for_each_time(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    return logits - penalty * torch.bincount(seen, minlength=len(logits))


PENALTY_MISTAKES = (
    Mistake(
        "negative logits divided",
        "you divide the negative logits, too. −3 / 2 is −1.5, and that is *more* likely: the "
        "penalty rewards the tokens it should hold back.",
        _on_seen(lambda old, penalty: old / penalty),
    ),
    Mistake(
        "positive logits multiplied",
        "you multiply the positive logits, too. 4 × 2 is 8: those tokens become more likely.",
        _on_seen(lambda old, penalty: old * penalty),
    ),
    Mistake(
        "the wrong way round",
        "you multiply the positive and divide the negative ones, so that every seen token becomes "
        "more likely.",
        _on_seen(lambda old, penalty: torch.where(old > 0, old * penalty, old / penalty)),
    ),
    Mistake(
        "negative logits left",
        "the negative logits are as they were. A seen token that is unlikely already must become "
        "less likely, too.",
        _on_seen(lambda old, penalty: torch.where(old > 0, old / penalty, old)),
    ),
    Mistake(
        "once each time",
        "you punish a token as often as it occurs. A text is full of brackets and names; once a "
        "token is the rule here.",
        _each_time,
    ),
    Mistake(
        "every token",
        "you change all logits. Only those of seen tokens are to change.",
        lambda logits, seen, penalty: _right(logits, penalty),
    ),
    Mistake(
        "the unseen ones",
        "you punish the tokens that have *not* been seen.",
        _unseen,
    ),
    Mistake(
        "subtracted",
        "you subtract the penalty. Such a rule exists (a presence penalty), but then 1 would not "
        "mean off. This one divides or multiplies.",
        _on_seen(lambda old, penalty: old - penalty),
    ),
    Mistake(
        "subtracted",
        "you subtract the penalty once for each time a token occurs. Such a rule exists (a "
        "frequency penalty), but then 1 would not mean off. This one divides or multiplies.",
        _for_each_time,
    ),
    Mistake(
        "forbidden",
        "you rule the seen tokens out altogether. Then no name could be used twice.",
        _on_seen(lambda old, penalty: torch.full_like(old, NEVER)),
    ),
    Mistake(
        "after softmax",
        "you turn the logits into log-probabilities first. They are never positive, so that every "
        "seen token is multiplied. The rule takes the logits as the model gave them.",
        lambda logits, seen, penalty: penalize(logits.log_softmax(dim=-1), seen, penalty),
    ),
    Mistake(
        "only the seen ones returned",
        "you return the logits of the seen tokens alone. All of them are needed, in their places.",
        lambda logits, seen, penalty: _right(logits[seen], penalty),
    ),
)
