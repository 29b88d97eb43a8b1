"""The checks of notebook 18, serving, and of its appendix 18b, speculative decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._serving_pages import PAGE_MISTAKES, Pages
from qwenkit.checks._serving_pages import measured as measured_pages
from qwenkit.checks._serving_verify import TOLERANCE, VERIFY_MISTAKES, rule
from qwenkit.checks._serving_verify import measured as measured_rule

EXERCISES = {
    "18.1": "fill the free slots",
    "18.2": "through the page table",
    "18.3": "pages that are shared",
    "18b.1": "the speed-up",
    "18b.2": "accept, or sample in its place",
}
Plan = list[tuple[int, int]]


def schedule(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(lengths, slots)`: (slot, first step) of each request: 18.1."""
    mixed = [5, 13, 8, 15, 16, 2, 1, 30, 5, 5, 11, 9]
    cases = [
        Case("two slots, lengths 2, 6, 3, 1", ([2, 6, 3, 1], 2)),
        Case("four slots, twelve requests", (mixed, 4)),
        Case("three slots, the first request is the longest", ([20, 3, 4, 2, 6, 5, 1, 7], 3)),
        Case("two slots become free at the same step", ([3, 3, 5, 2, 4, 4], 2)),
        Case("one slot", ([4, 1, 3], 1)),
        Case("more slots than requests", ([4, 1, 3], 8)),
    ]
    praise = "no slot waits while a request does."
    return judge("18.1", learner, _planned(), cases, _PLAN_MISTAKES, praise)


def rows(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(table, size, length)`: where each token of a text is in the pool: 18.2."""
    cases = [
        Case("three pages of four, ten tokens", ([5, 2, 7], 4, 10)),
        Case("pages in order", ([0, 1, 2], 4, 12)),
        Case("one page, not full", ([6], 8, 3)),
        Case("pages of one token", ([4, 9, 1, 3], 1, 4)),
        Case("room for more tokens", ([8, 3, 11, 0], 3, 4)),
        Case("two full pages", ([9, 4], 5, 10)),
    ]
    praise = "with these numbers a text is read from any pages, in its own order."
    return judge("18.2", learner, _rows, cases, _ROW_MISTAKES, praise)


def pages(learner: Callable[..., Any]) -> Verdict:
    """Check the class `learner(count, size)` with append, share and close: 18.3."""
    a, b, c = "a", "b", "c"
    cases = [
        Case("one text", (4, ((a, 10),))),
        Case("two texts that grow in turns", (4, ((a, 3), (b, 5), (a, 4), (b, 2)))),
        Case("a page is full, and no more", (4, ((a, 4),))),
        Case("a closed text makes room", (4, ((a, 6), (b, 3), (a, None), (c, 7)))),
        Case("shared, and only read", (4, ((a, 6), (b, a)))),
        Case("shared, and the copy grows", (4, ((a, 6), (b, a), (b, 3)))),
        Case("shared, and the original grows", (4, ((a, 6), (b, a), (a, 3)))),
        Case("shared where a page is full", (4, ((a, 8), (b, a), (b, 2), (a, 2)))),
        Case("shared, both grow", (4, ((a, 10), (b, a), (b, 1), (a, 1), (b, 4)))),
        Case("shared by three, one closed", (3, ((a, 5), (b, a), (c, b), (b, 2), (a, None)))),
        Case("shared, the original is closed", (4, ((a, 6), (b, a), (a, None), (c, 5), (b, 2)))),
        Case("all closed", (3, ((a, 5), (b, a), (b, 2), (a, None), (b, None)))),
    ]
    praise = "that is how vLLM and qk.serve share memory among texts."
    learner = measured_pages(learner) if callable(learner) else learner
    return judge("18.3", learner, measured_pages(Pages), cases, PAGE_MISTAKES, praise)


def speed_up(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(alpha, k, cost)`: how many times as fast guessing is: 18b.1."""
    cases = [
        Case("two guesses at no cost, each right half of the time", (0.5, 2, 0.0)),
        Case("four guesses", (0.8, 4, 0.1)),
        Case("one guess", (0.3, 1, 0.25)),
        Case("no guess is ever right", (0.0, 4, 0.1)),
        Case("every guess is right", (1.0, 4, 0.05)),
        Case("nothing is guessed", (0.6, 0, 0.1)),
        Case("guesses as expensive as the model", (0.9, 3, 1.0)),
    ]
    praise = "it says when guessing pays, and how many tokens to guess."
    return judge("18b.1", learner, _speed_up, cases, _SPEED_MISTAKES, praise)


def verify(learner: Callable[..., Any]) -> Verdict:
    """Check `learner(p, q, token)`: a token that has the distribution p: 18b.2."""

    def case(label: str, p: Sequence[float], q: Sequence[float]) -> Case:
        return Case(label, (torch.tensor(p), torch.tensor(q)))

    cases = [
        case("three tokens", [0.15, 0.6, 0.25], [0.05, 0.9, 0.05]),
        case("the draft prefers a token that the model hardly takes", [0.1, 0.15, 0.75],
            [0.6, 0.3, 0.1]),
        case("a token that the model rules out", [0.0, 0.65, 0.35], [0.5, 0.2, 0.3]),
    ]  # fmt: skip
    praise = "what comes out has the model's distribution, whatever the draft is."
    learner = measured_rule(learner) if callable(learner) else learner
    return judge("18b.2", learner, rule(), cases, VERIFY_MISTAKES, praise, TOLERANCE)


# --- 18.1 ---


def _planned(
    choose: Callable[[list[int], int], int] = lambda free, i: free.index(min(free)),
    order: Callable[[list[int]], list[int]] = lambda lengths: list(range(len(lengths))),
    takes: Callable[[int], int] = lambda length: length,
    first: int = 0,
    result: Callable[[Plan, list[int]], Any] = lambda plan, lengths: plan,
) -> Callable[[list[int], int], Any]:
    """Return a schedule; the arguments are what can go wrong in it."""

    def plan(lengths: list[int], slots: int) -> Any:
        free, found = [first] * slots, [(0, 0)] * len(lengths)
        for number, i in enumerate(order(lengths)):
            slot = choose(free, number)
            found[i] = slot, free[slot]
            free[slot] += takes(lengths[i])
        return result(found, lengths)

    return plan


def _static(lengths: list[int], slots: int) -> Plan:
    """Return the plan of batches that stay together until their longest text is done."""
    batches = [lengths[i : i + slots] for i in range(0, len(lengths), slots)]
    starts = [0, *accumulate(max(batch) for batch in batches)]
    return [(i % slots, starts[i // slots]) for i in range(len(lengths))]


def _by_length(lengths: list[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lengths.__getitem__)


_PLAN_MISTAKES = (
    Mistake("static batches", "these are static batches: a request waits until all requests "
        "before it are done. A slot is free when its own request is.", _static),
    Mistake("slots in turn", "you give the slots out in turn, so a request can wait for a busy "
        "slot while another slot is free.",
        _planned(choose=lambda free, i: i % len(free))),
    Mistake("the highest slot", "where several slots are free, take the one with the lowest "
        "number.",
        _planned(choose=lambda free, i: len(free) - 1 - free[::-1].index(min(free)))),
    Mistake("one slot", "all requests are in one slot; the others stay empty.",
        _planned(choose=lambda free, i: 0)),
    Mistake("shortest first", "you let short requests pass. The rule is first come, first served.",
        _planned(order=_by_length)),
    Mistake("longest first", "you let long requests pass. The rule is first come, first served.",
        _planned(order=lambda lengths: sorted(range(len(lengths)), key=lambda i: -lengths[i]))),
    Mistake("last come first", "you begin with the last request. The rule is first come, first "
        "served.",
        _planned(order=lambda lengths: list(range(len(lengths)))[::-1])),
    Mistake("a step too late", "a slot stays empty for a step after each request. The next one "
        "may start in the step that follows the last token.",
        _planned(takes=lambda length: length + 1)),
    Mistake("a step too early", "a request starts while its slot is still busy: a request of "
        "three tokens takes three steps.",
        _planned(takes=lambda length: length - 1)),
    Mistake("from step 1", "steps are counted from 0.", _planned(first=1)),
    Mistake("the last step", "you return the last step of each request. Return its first.",
        _planned(result=lambda plan, lengths:
            [(s, t + n - 1) for (s, t), n in zip(plan, lengths, strict=True)])),
    Mistake("the step after the last", "you return when each request is done. Return its first "
        "step.",
        _planned(result=lambda plan, lengths:
            [(s, t + n) for (s, t), n in zip(plan, lengths, strict=True)])),
    Mistake("step before slot", "the numbers are right, and in the wrong order: slot, then step.",
        _planned(result=lambda plan, lengths: [(t, s) for s, t in plan])),
    Mistake("only the steps", "you return the first steps alone. Return the slot as well.",
        _planned(result=lambda plan, lengths: [t for _, t in plan])),
    Mistake("only the slots", "you return the slots alone. Return the first step as well.",
        _planned(result=lambda plan, lengths: [s for s, _ in plan])),
    Mistake("only the total", "you return how many steps it takes in all. Return slot and first "
        "step of each request.",
        _planned(result=lambda plan, lengths:
            max(t + n for (_, t), n in zip(plan, lengths, strict=True)))),
)  # fmt: skip


# --- 18.2 ---


def _rows(table: list[int], size: int, length: int) -> list[int]:
    return [table[i // size] * size + i % size for i in range(length)]


_ROW_MISTAKES = (
    Mistake("no table", "these are the first rows of the pool. The table says which page holds "
        "which part of the text.",
        lambda table, size, length: list(range(length))),
    Mistake("from the first page on", "you count on from the beginning of the first page. The "
        "next part of the text is in the next page of the table.",
        lambda table, size, length: [table[0] * size + i for i in range(length)]),
    Mistake("no offset", "these are the first rows of the pages. Where in its page is a token?",
        lambda table, size, length: [table[i // size] * size for i in range(length)]),
    Mistake("pages alone", "these are the pages. A row is a page times the page size, plus the "
        "position within the page.",
        lambda table, size, length: [table[i // size] for i in range(length)]),
    Mistake("not times the page size", "page 5 begins at row 5 times the page size, because each "
        "page before it has that many rows.",
        lambda table, size, length: [table[i // size] + i % size for i in range(length)]),
    Mistake("the whole position added", "you add the position in the text. Add the position within "
        "the page: what is left after the full pages.",
        lambda table, size, length: [table[i // size] * size + i for i in range(length)]),
    Mistake("quotient and remainder swapped", "quotient and remainder are swapped: the quotient "
        "says which page of the table, the remainder where in it.",
        lambda table, size, length:
            [table[i % size] * size + i // size for i in range(length)]),
    Mistake("offset times the page size", "the position within a page is multiplied by the page "
        "size. Multiply the page's number instead.",
        lambda table, size, length:
            [i % size * size + table[i // size] for i in range(length)]),
    Mistake("the whole pages", "you return all rows of the pages. The text has only so many "
        "tokens as `length` says.",
        lambda table, size, length: [page * size + i for page in table for i in range(size)]),
    Mistake("the last page full", "you return all rows of the pages that the text has begun. "
        "Stop after `length` tokens.",
        lambda table, size, length:
            [page * size + i for page in table[: -(-length // size)] for i in range(size)]),
    Mistake("full pages only", "you return the rows of full pages. The text goes on in a page "
        "that is not full.",
        lambda table, size, length:
            [page * size + i for page in table[: length // size] for i in range(size)]),
    Mistake("counted from 1", "you count positions from 1; they count from 0.",
        lambda table, size, length:
            [table[(i - 1) // size] * size + i % size for i in range(1, length + 1)]),
    Mistake("pages sorted", "you sort the pages. Their order in the table is that of the text.",
        lambda table, size, length: _rows(sorted(table), size, length)),
    Mistake("pairs", "you return pairs. Return one number per token: page times page size, plus "
        "the position within the page.",
        lambda table, size, length: [(table[i // size], i % size) for i in range(length)]),
)  # fmt: skip


# --- 18b.1 ---


def _tokens(alpha: float, k: int) -> float:
    """Return how many tokens a forward pass gives with k guesses: 1 + α + ... + α^k."""
    return float(sum(alpha**i for i in range(k + 1)))


def _speed_up(alpha: float, k: int, cost: float) -> float:
    return _tokens(alpha, k) / (k * cost + 1)


_NOT_INDEPENDENT = (
    "each guess counts alone here. A guess counts only if all guesses before it are right, too."
)
_SPEED_MISTAKES = (
    Mistake("the model's own token missing", "each forward pass also gives a token of the model "
        "itself, even if every guess is wrong.",
        lambda alpha, k, cost: (_tokens(alpha, k) - 1) / (k * cost + 1)),
    Mistake("a power too few", "if all k guesses are right, the pass gives k + 1 tokens: the "
        "powers go from 0 to k.",
        lambda alpha, k, cost: _tokens(alpha, k - 1) / (k * cost + 1)),
    Mistake("a power too many", "the powers go from 0 to k: the last is that all k guesses are "
        "right.",
        lambda alpha, k, cost: _tokens(alpha, k + 1) / (k * cost + 1)),
    Mistake("guesses on their own", _NOT_INDEPENDENT,
        lambda alpha, k, cost: (1 + k * alpha) / (k * cost + 1)),
    Mistake("guesses on their own", _NOT_INDEPENDENT,
        lambda alpha, k, cost: k * alpha / (k * cost + 1)),
    Mistake("all or nothing", "this takes all guesses or none. The first ones may be right and a "
        "later one wrong.",
        lambda alpha, k, cost: (1 + k * alpha**k) / (k * cost + 1)),
    Mistake("cost ignored", "that is the number of tokens per forward pass. The guesses cost time: "
        "divide by the time of the whole round.",
        lambda alpha, k, cost: _tokens(alpha, k)),
    Mistake("the model's time missing", "you divide by the cost of the guesses alone. The round "
        "also has a forward pass of the model, which costs 1.",
        lambda alpha, k, cost: _tokens(alpha, k) / (k * cost)),
    Mistake("one guess paid", "you count the cost of one guess; a round has k of them.",
        lambda alpha, k, cost: _tokens(alpha, k) / (cost + 1)),
    Mistake("a guess too many paid", "k guesses are paid, not k + 1: the last token is the "
        "model's own.",
        lambda alpha, k, cost: _tokens(alpha, k) / ((k + 1) * cost + 1)),
    Mistake("every guess a forward pass", "you count a forward pass of the model for each guess. "
        "One verifies all of them.",
        lambda alpha, k, cost: _tokens(alpha, k) / (k * (cost + 1))),
    Mistake("upside down", "this is the time per token. The speed-up is one divided by it.",
        lambda alpha, k, cost: (k * cost + 1) / _tokens(alpha, k)),
    Mistake("α of 1", "right, but for α = 1 the closed formula divides by 0. Then all guesses are "
        "right: how many tokens is that?",
        lambda alpha, k, cost: (1 - alpha ** (k + 1)) / (1 - alpha) / (k * cost + 1)),
    Mistake("without end", "1 / (1 − α) is for guesses without end. After k of them the pass "
        "ends.",
        lambda alpha, k, cost: 1 / (1 - alpha) / (k * cost + 1)),
)  # fmt: skip
