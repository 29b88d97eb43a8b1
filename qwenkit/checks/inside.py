"""The checks of notebook 14, seeing inside: a score, mean ablation, restored shares, parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks.judge import Case, Mistake, Verdict, judge
from qwenkit.checks.samples import normal, turned

EXERCISES = {
    "14.1": "the induction score",
    "14.2": "mean ablation",
    "14.3": "what came back",
    "14.4": "who adds what to a logit",
}
LOOSE = 1e-4  # in bfloat16 the order of two roundings shows; no mistake below is that small


def induction_score(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(pattern, n)`, each head's mean share on the token after, (H): 14.1."""
    several = _shares(2, 3, 10, 10)
    cases = [
        Case("one text, two heads, three tokens twice", (_shares(1, 2, 6, 6), 3)),
        Case("two texts, three heads", (several, 5)),
        Case("one head", (_shares(2, 1, 8, 8, seed=1), 4)),
        Case("two tokens twice", (_shares(1, 4, 4, 4), 2)),
        Case("as many texts as heads", (_shares(3, 3, 6, 6), 3)),
        Case("not contiguous", (turned(several), 5)),
        Case("bfloat16", (_shares(1, 2, 6, 6, seed=2).bfloat16(), 3)),
    ]
    praise = "one number a head, from the second half alone: now a head can be found, not guessed."
    return judge("14.1", learner, _induction, cases, INDUCTION_MISTAKES, praise, LOOSE)


def mean_ablation(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, head)`, z with one head's output replaced by its mean: exercise 14.2."""
    z = normal(2, 3, 5, 4)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), 1)),
        Case("two texts, three heads", (z, 2)),
        Case("head 0", (z, 0)),
        Case("one token alone in each of two texts", (normal(2, 3, 1, 4), 1)),
        Case("one head", (normal(2, 1, 5, 4), 0)),
        Case("as many heads as tokens as dimensions", (normal(2, 4, 4, 4), 2)),
        Case("far from zero", (z + 100, 1)),
        Case("not contiguous", (turned(z), 1)),
        Case("bfloat16", (z.bfloat16(), 1)),
    ]
    praise = "the head keeps its usual part, and what it says of this text is gone."
    return judge("14.2", learner, _mean_ablated, cases, ABLATION_MISTAKES, praise, LOOSE)


def recovered(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(patched, clean, corrupted)`, the share that came back (L, P): 14.3."""
    grid = normal(3, 4)
    cases = [
        Case("half way", (torch.tensor([[4.0]]), 6.0, 2.0)),
        Case("a grid", (grid, 5.0, -1.0)),
        Case("the clean run is the lower one", (grid, 0.5, 4.0)),
        Case("more than all, and less than nothing", (8 * grid, 3.0, 1.0)),
        Case("both below zero", (grid - 5, -2.0, -7.0)),
        Case("a clean run at zero", (grid, 0.0, -2.0)),
        Case("one row", (normal(1, 6), 2.0, -2.0)),
        Case("not contiguous", (normal(4, 3).T, 1.0, -1.0)),
    ]
    praise = "0 is the corrupted run, 1 the clean one, whichever of them is the higher."
    return judge("14.3", learner, _recovered, cases, RECOVERED_MISTAKES, praise)


def contributions(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(parts, weight, eps, row)`, what each part adds to a logit, (P): 14.4."""
    parts, weight, row = normal(4, 6), 1 + normal(6, seed=1) / 2, normal(6, seed=2)
    cases = [
        Case("two parts of three numbers", (normal(2, 3), weight[:3], 1e-6, row[:3])),
        Case("four parts of six numbers", (parts, weight, 1e-6, row)),
        Case("a large eps", (parts, weight, 1.0, row)),
        Case("one part alone", (parts[:1], weight, 1e-6, row)),
        Case("as many parts as numbers", (normal(6, 6), weight, 1e-6, row)),
        Case("loud parts", (1e3 * parts, weight, 1e-6, row)),
        Case("not contiguous", (normal(6, 4).T, weight, 1e-6, row)),
    ]
    praise = "one divisor for all of them, that of the whole stream: so the parts add up."
    return judge("14.4", learner, _contributions, cases, CONTRIBUTION_MISTAKES, praise, LOOSE)


def _shares(*shape: int, seed: int = 0) -> Tensor:
    """Return causal attention (B, H, T, T)."""
    allowed = torch.ones(shape[-2:], dtype=torch.bool).tril()
    return normal(*shape, seed=seed).masked_fill(~allowed, float("-inf")).softmax(dim=-1)


# --- 14.1 ---


def _induction(pattern: Tensor, n: int) -> Tensor:
    return _read(lambda queries, n: queries - n + 1)(pattern, n)


def _second(n: int) -> Tensor:
    return torch.arange(n, 2 * n)


def _read(
    key: Callable[[Tensor, int], Tensor], queries: Callable[[int], Tensor] = _second
) -> Callable[..., Tensor]:
    """Return the mean share that some queries give to the keys that belong to them."""

    def score(pattern: Tensor, n: int) -> Tensor:
        rows = queries(n)
        return pattern[:, :, rows, key(rows, n) % pattern.shape[-1]].mean(dim=(0, 2))

    return score


INDUCTION_MISTAKES = (
    Mistake(
        "the token itself",
        "you read how much a head looks at the present token's earlier copy. Which token does it "
        "need, to foresee what comes next?",
        _read(lambda queries, n: queries - n),
    ),
    Mistake(
        "the token before",
        "your keys lie one place before the earlier copy. In A B … A, the head at the second A is "
        "to look at B, which comes after it.",
        _read(lambda queries, n: queries - n - 1),
    ),
    Mistake(
        "a previous-token head",
        "you measure attention to the neighbour just before. That is the other head of the story.",
        _read(lambda queries, n: queries - 1),
    ),
    Mistake(
        "the first half too",
        "you average over queries of the first half as well. There nothing has come before: only "
        "the second half can be asked.",
        _read(lambda q, n: (q - n + 1).clamp(min=0), lambda n: torch.arange(2 * n)),
    ),
    Mistake(
        "divided by all tokens",
        "you divide by 2n places, and add up only n of them: your score could never exceed a half.",
        lambda pattern, n: _induction(pattern, n) / 2,
    ),
    Mistake(
        "a sum",
        "you add the shares up. A score between 0 and 1 is their mean.",
        lambda pattern, n: _induction(pattern, n) * n,
    ),
    Mistake(
        "keys ask",
        "rows and columns are exchanged: in pattern[b, h, t, s] it is t that reads and s that is "
        "read. What you averaged lies in the future, where all shares are 0.",
        lambda pattern, n: _induction(pattern.transpose(-2, -1), n),
    ),
    Mistake(
        "the brightest",
        "you take each row's largest share, wherever it lies. A head that rests on the first token "
        "would win.",
        lambda pattern, n: pattern[:, :, n:].amax(dim=-1).mean(dim=(0, 2)),
    ),
    Mistake(
        "texts, not heads",
        "you averaged over the heads and kept the texts. One number is wanted for each head.",
        lambda pattern, n: _induction(pattern.transpose(0, 1), n),
    ),
)


# --- 14.2 ---


def _mean_ablated(z: Tensor, head: int) -> Tensor:
    return _put(z, head, z[:, head].mean(dim=(0, 1)))


def _put(z: Tensor, head: int, value: Tensor | float) -> Tensor:
    z = z.clone()
    z[:, head] = value
    return z


ABLATION_MISTAKES = (
    Mistake(
        "zero",
        "you put zeros. That takes the head's usual part away, too, which the layers after it "
        "count on.",
        lambda z, head: _put(z, head, 0.0),
    ),
    Mistake(
        "each text its own",
        "you average within each text. Two texts side by side should get one and the same mean: "
        "otherwise the head still tells them apart.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=1, keepdim=True)),
    ),
    Mistake(
        "each place its own",
        "you average over the texts and keep the places. With one text alone nothing changes.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=0)),
    ),
    Mistake(
        "one number",
        "you average over the D numbers, too. A head's output is a vector, and so is its mean.",
        lambda z, head: _put(z, head, z[:, head].mean()),
    ),
    Mistake(
        "over the numbers",
        "you average over D and keep the places. Which axes are texts and places?",
        lambda z, head: _put(z, head, z[:, head].mean(dim=-1, keepdim=True)),
    ),
    Mistake(
        "the mean of all heads",
        "you average over all heads. Each head has a usual output of its own.",
        lambda z, head: _put(z, head, z.mean(dim=(0, 1, 2))),
    ),
    Mistake(
        "every head",
        "you replaced every head. The others must go on as they are, or the measurement is not "
        "about this head.",
        lambda z, head: z.mean(dim=(0, 2), keepdim=True).expand_as(z).clone(),
    ),
    Mistake(
        "mean subtracted",
        "you take the mean away and leave the rest. It is the other way round: the mean stays.",
        lambda z, head: _put(z, head, z[:, head] - z[:, head].mean(dim=(0, 1))),
    ),
    Mistake(
        "a token, not a head",
        "you replaced one token of every head. In (B, H, T, D), which axis counts the heads?",
        lambda z, head: _mean_ablated(z.transpose(1, 2), head).transpose(1, 2),
    ),
)


# --- 14.3 ---


def _recovered(patched: Tensor, clean: float, corrupted: float) -> Tensor:
    return (patched - corrupted) / (clean - corrupted)


RECOVERED_MISTAKES = (
    Mistake(
        "what is still missing",
        "you give 1 where nothing came back and 0 where all did. Put the corrupted run in for "
        "patched: what must come out?",
        lambda patched, clean, corrupted: (patched - clean) / (corrupted - clean),
    ),
    Mistake(
        "not divided",
        "this is a difference, not a share. How large would it be if all came back?",
        lambda patched, clean, corrupted: patched - corrupted,
    ),
    Mistake(
        "a share of the clean run",
        "you divide by the clean run's number. The patched run starts at the corrupted one: all "
        "there is to win is the way between the two.",
        lambda patched, clean, corrupted: (patched - corrupted) / clean,
    ),
    Mistake(
        "nothing taken off",
        "you divide patched by clean. A patch that changes nothing would then get a share.",
        lambda patched, clean, corrupted: patched / clean,
    ),
    Mistake(
        "patched by the gap",
        "you forgot to take off the corrupted run above the line: nothing restored must be 0.",
        lambda patched, clean, corrupted: patched / (clean - corrupted),
    ),
    Mistake(
        "sign lost",
        "you divide by the size of the gap. Where the clean run is the lower one, as with a loss, "
        "your sign is the wrong way round.",
        lambda patched, clean, corrupted: (patched - corrupted) / abs(clean - corrupted),
    ),
    Mistake(
        "distance",
        "you take the size of the change. A patch that makes things worse must come out below 0.",
        lambda patched, clean, corrupted: (patched - corrupted).abs() / abs(clean - corrupted),
    ),
    Mistake(
        "cut off",
        "you keep the share between 0 and 1. A patch may overshoot or do harm, and that is news.",
        lambda patched, clean, corrupted: _recovered(patched, clean, corrupted).clamp(0, 1),
    ),
    Mistake(
        "sign",
        "your sign is the wrong way round: put the clean run in for patched, and 1 must come out.",
        lambda patched, clean, corrupted: -_recovered(patched, clean, corrupted),
    ),
)


# --- 14.4 ---


def _contributions(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    return parts / _divisor(parts.sum(dim=0), eps) * weight @ row


def _divisor(stream: Tensor, eps: float) -> Tensor:
    return (stream.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


CONTRIBUTION_MISTAKES = (
    Mistake(
        "each normed by itself",
        "you norm each part by its own length, so that a whisper counts as much as a shout. The "
        "model norms once: what?",
        lambda parts, weight, eps, row: parts / _divisor(parts, eps) * weight @ row,
    ),
    Mistake(
        "no norm",
        "the parts meet the head's row without the last norm between them. Their sum is then not "
        "the logit.",
        lambda parts, weight, eps, row: parts @ row,
    ),
    Mistake(
        "weight alone",
        "the norm's weight is there and its division is not.",
        lambda parts, weight, eps, row: parts * weight @ row,
    ),
    Mistake(
        "no weight",
        "you divide, and forget the norm's weight: one number for each channel.",
        lambda parts, weight, eps, row: parts / _divisor(parts.sum(dim=0), eps) @ row,
    ),
    Mistake(
        "no eps",
        "eps is missing under the root. Where the stream is quiet, it counts.",
        lambda parts, weight, eps, row: _contributions(parts, weight, 0.0, row),
    ),
    Mistake(
        "mean of the parts",
        "you take the length of the parts' mean. The stream is their sum.",
        lambda parts, weight, eps, row: parts / _divisor(parts.mean(dim=0), eps) * weight @ row,
    ),
    Mistake(
        "length, not root mean square",
        "you divide by the stream's length, the root of the sum of squares. The norm takes their "
        "mean.",
        lambda parts, weight, eps, row: (
            parts / (parts.sum(dim=0).pow(2).sum() + eps).sqrt() * weight @ row
        ),
    ),
    Mistake(
        "no root",
        "you divide by the mean square and not by its root.",
        lambda parts, weight, eps, row: (
            parts / _divisor(parts.sum(dim=0), eps).pow(2) * weight @ row
        ),
    ),
    Mistake(
        "the logit alone",
        "this is the logit, all parts together. How much of it is each part's?",
        lambda parts, weight, eps, row: _contributions(parts, weight, eps, row).sum(),
    ),
    Mistake(
        "shares",
        "you divided by the total. A part may add 12 and another take 5 away: keep the amounts, so "
        "that they add up to the logit.",
        lambda parts, weight, eps, row: (
            _contributions(parts, weight, eps, row) / _contributions(parts, weight, eps, row).sum()
        ),
    ),
)
