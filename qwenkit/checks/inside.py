"""The checks of notebook 14, seeing inside: a score, mean ablation, recovery, contributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import LOOSE, Case, Mistake, Verdict, judge
from qwenkit.checks._samples import normal, not_contiguous
from qwenkit.model import causal_mask

EXERCISES = {
    "14.1": "the induction score",
    "14.2": "mean ablation",
    "14.3": "what was recovered",
    "14.4": "what each part adds to a logit",
}


def induction_score(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(pattern, n)`, each head's mean attention to the token after, (H): 14.1."""
    several = _weights(2, 3, 10, 10)
    cases = [
        Case("one text, two heads, three tokens twice", (_weights(1, 2, 6, 6), 3)),
        Case("two texts, three heads", (several, 5)),
        Case("one head", (_weights(2, 1, 8, 8, seed=1), 4)),
        Case("two tokens twice", (_weights(1, 4, 4, 4), 2)),
        Case("as many texts as heads", (_weights(3, 3, 6, 6), 3)),
        Case("not contiguous", (*not_contiguous(several).arguments, 5)),
        Case("bfloat16", (_weights(1, 2, 6, 6, seed=2).bfloat16(), 3)),
    ]
    praise = "one number per head, from the second half only: heads can now be found, not guessed."
    return judge("14.1", learner, _induction, cases, _INDUCTION_MISTAKES, praise, LOOSE)


def mean_ablation(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(z, head)`, z with one head's output replaced by its mean: exercise 14.2."""
    z = normal(2, 3, 5, 4)
    cases = [
        Case("one text, two heads, three tokens", (normal(1, 2, 3, 4), 1)),
        Case("two texts, three heads", (z, 2)),
        Case("head 0", (z, 0)),
        Case("a single token in each of two texts", (normal(2, 3, 1, 4), 1)),
        Case("one head", (normal(2, 1, 5, 4), 0)),
        Case("equal numbers of heads, tokens and dimensions", (normal(2, 4, 4, 4), 2)),
        Case("far from zero", (z + 100, 1)),
        Case("not contiguous", (*not_contiguous(z).arguments, 1)),
        Case("bfloat16", (z.bfloat16(), 1)),
    ]
    praise = "the head keeps its average output, and what it says about this text is gone."
    return judge("14.2", learner, _mean_ablated, cases, _ABLATION_MISTAKES, praise, LOOSE)


def recovered(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(patched, clean, corrupted)`, the proportion recovered (L, P): 14.3."""
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
    praise = "0 is the corrupted run, 1 the clean one, no matter which of them is higher."
    return judge("14.3", learner, _recovered, cases, _RECOVERED_MISTAKES, praise)


def contributions(learner: Callable[..., Tensor]) -> Verdict:
    """Check `learner(parts, weight, eps, row)`, what each part adds to a logit, (P): 14.4."""
    parts, weight, row = normal(4, 6), 1 + normal(6, seed=1) / 2, normal(6, seed=2)
    cases = [
        Case("two parts of three values", (normal(2, 3), weight[:3], 1e-6, row[:3])),
        Case("four parts of six values", (parts, weight, 1e-6, row)),
        Case("a large eps", (parts, weight, 1.0, row)),
        Case("one part alone", (parts[:1], weight, 1e-6, row)),
        Case("as many parts as values", (normal(6, 6), weight, 1e-6, row)),
        Case("large parts", (1e3 * parts, weight, 1e-6, row)),
        Case("not contiguous", (normal(6, 4).T, weight, 1e-6, row)),
    ]
    praise = "one divisor for all, that of the whole stream: so the parts sum to the logit."
    return judge("14.4", learner, _contributions, cases, _CONTRIBUTION_MISTAKES, praise, LOOSE)


def _weights(*shape: int, seed: int = 0) -> Tensor:
    """Return causal attention weights (B, H, T, T)."""
    scores = normal(*shape, seed=seed)
    return scores.masked_fill(~causal_mask(shape[-1]), float("-inf")).softmax(dim=-1)


# --- 14.1 ---


def _induction(pattern: Tensor, n: int) -> Tensor:
    return _read(lambda queries, n: queries - n + 1)(pattern, n)


def _second(n: int) -> Tensor:
    return torch.arange(n, 2 * n)


def _read(
    key: Callable[[Tensor, int], Tensor], queries: Callable[[int], Tensor] = _second
) -> Callable[..., Tensor]:
    """Return the mean attention that some queries pay to their keys."""

    def score(pattern: Tensor, n: int) -> Tensor:
        rows = queries(n)
        return pattern[:, :, rows, key(rows, n) % pattern.shape[-1]].mean(dim=(0, 2))

    return score


_INDUCTION_MISTAKES = (
    Mistake("the token itself", "you read how much a head attends to the earlier copy of the "
        "current token. Which token does it need, to predict what comes next?",
        _read(lambda queries, n: queries - n)),
    Mistake("the token before", "your keys are one position before the earlier copy. In A B … A, "
        "the head at the second A should attend to B, which comes after it.",
        _read(lambda queries, n: queries - n - 1)),
    Mistake("a previous-token head", "you measure attention to the previous token. That is the "
        "other type of head in this notebook.",
        _read(lambda queries, n: queries - 1)),
    Mistake("the first half too", "you average over queries of the first half as well. There, "
        "nothing has come before: use only the second half.",
        _read(lambda q, n: (q - n + 1).clamp(min=0), lambda n: torch.arange(2 * n))),
    Mistake("divided by all tokens", "you divide by 2n positions, but add up only n of them: your "
        "score could never exceed a half.",
        lambda pattern, n: _induction(pattern, n) / 2),
    Mistake("a sum", "you add the attention weights up. A score between 0 and 1 is their mean.",
        lambda pattern, n: _induction(pattern, n) * n),
    Mistake("query and key swapped", "rows and columns are swapped: in pattern[b, h, t, s], t "
        "attends to s. What you averaged is in the future, where all weights are 0.",
        lambda pattern, n: _induction(pattern.transpose(-2, -1), n)),
    Mistake("the largest", "you take each row's largest weight, wherever it is. A head that "
        "attends to the first token would win.",
        lambda pattern, n: pattern[:, :, n:].amax(dim=-1).mean(dim=(0, 2))),
    Mistake("texts, not heads", "you averaged over the heads and kept the texts. Return one number "
        "per head.",
        lambda pattern, n: _induction(pattern.transpose(0, 1), n)),
)  # fmt: skip


# --- 14.2 ---


def _mean_ablated(z: Tensor, head: int) -> Tensor:
    return _put(z, head, z[:, head].mean(dim=(0, 1)))


def _put(z: Tensor, head: int, value: Tensor | float) -> Tensor:
    z = z.clone()
    z[:, head] = value
    return z


_ABLATION_MISTAKES = (
    Mistake("zero", "you set zeros. That removes the head's average output too, which the layers "
        "after it rely on.",
        lambda z, head: _put(z, head, 0.0)),
    Mistake("mean per text", "you average within each text. All texts of a batch should get the "
        "same mean: otherwise the head still tells them apart.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=1, keepdim=True))),
    Mistake("mean per position", "you average over the texts and keep the positions. With a batch "
        "of one, nothing changes.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=0))),
    Mistake("one number", "you average over the D values, too. A head's output is a vector, and so "
        "is its mean.",
        lambda z, head: _put(z, head, z[:, head].mean())),
    Mistake("over the values", "you average over D and keep the positions. Which axes are texts "
        "and positions?",
        lambda z, head: _put(z, head, z[:, head].mean(dim=-1, keepdim=True))),
    Mistake("the mean of all heads", "you average over all heads. Each head has its own average "
        "output.",
        lambda z, head: _put(z, head, z.mean(dim=(0, 1, 2)))),
    Mistake("every head", "you replace every head. The others must stay unchanged, or you do not "
        "measure this head.",
        lambda z, head: z.mean(dim=(0, 2), keepdim=True).expand_as(z).clone()),
    Mistake("mean subtracted", "you subtract the mean and leave the rest. It should be the other "
        "way around: the mean stays.",
        lambda z, head: _put(z, head, z[:, head] - z[:, head].mean(dim=(0, 1)))),
    Mistake("a token, not a head", "you replace one token of every head. In (B, H, T, D), which "
        "axis counts the heads?",
        lambda z, head: _mean_ablated(z.transpose(1, 2), head).transpose(1, 2)),
)  # fmt: skip


# --- 14.3 ---


def _recovered(patched: Tensor, clean: float, corrupted: float) -> Tensor:
    return (patched - corrupted) / (clean - corrupted)


_RECOVERED_MISTAKES = (
    Mistake("what is still missing", "you return 1 where nothing was recovered and 0 where all "
        "was. Use the corrupted run as patched: what must the result be?",
        lambda patched, clean, corrupted: (patched - clean) / (corrupted - clean)),
    Mistake("not divided", "this is a difference, not a proportion. How large would it be if all "
        "was recovered?",
        lambda patched, clean, corrupted: patched - corrupted),
    Mistake("a proportion of the clean run", "you divide by the clean run's value. The patched run "
        "starts at the corrupted one: it can recover only the difference between the two.",
        lambda patched, clean, corrupted: (patched - corrupted) / clean),
    Mistake("nothing subtracted", "you divide patched by clean. A patch that changes nothing would "
        "then not be 0.",
        lambda patched, clean, corrupted: patched / clean),
    Mistake("patched by the gap", "you forgot to subtract the corrupted run in the numerator: "
        "nothing recovered must be 0.",
        lambda patched, clean, corrupted: patched / (clean - corrupted)),
    Mistake("sign lost", "you divide by the size of the gap. If the clean run is the lower one, as "
        "with a loss, your sign is wrong.",
        lambda patched, clean, corrupted: (patched - corrupted) / abs(clean - corrupted)),
    Mistake("distance", "you take the absolute value of the change. A patch that makes things "
        "worse must be below 0.",
        lambda patched, clean, corrupted: (patched - corrupted).abs() / abs(clean - corrupted)),
    Mistake("clamped", "you keep the proportion between 0 and 1. A patch may overshoot or do harm, "
        "and that is worth knowing.",
        lambda patched, clean, corrupted: _recovered(patched, clean, corrupted).clamp(0, 1)),
    Mistake("sign", "your sign is wrong: use the clean run as patched, and the result must be 1.",
        lambda patched, clean, corrupted: -_recovered(patched, clean, corrupted)),
)  # fmt: skip


# --- 14.4 ---


def _contributions(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    return _divided(lambda parts, eps: _rms(parts.sum(dim=0), eps))(parts, weight, eps, row)


def _divided(divisor: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """Return contributions after a division by `divisor(parts, eps)`."""
    return lambda parts, weight, eps, row: parts / divisor(parts, eps) * weight @ row


def _rms(stream: Tensor, eps: float) -> Tensor:
    return (stream.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


def _proportions(parts: Tensor, weight: Tensor, eps: float, row: Tensor) -> Tensor:
    found = _contributions(parts, weight, eps, row)
    return found / found.sum()


_CONTRIBUTION_MISTAKES = (
    Mistake("each part normed", "you norm each part by its own size, so a tiny part counts as much "
        "as a large one. The model norms only once: what?",
        _divided(_rms)),
    Mistake("no norm", "the parts meet the head's row without the last norm between them. Their "
        "sum is then not the logit.",
        lambda parts, weight, eps, row: parts @ row),
    Mistake("weight alone", "the norm's weight is there, but its division is not.",
        lambda parts, weight, eps, row: parts * weight @ row),
    Mistake("no weight", "you divide, but forget the norm's weight: one value per channel.",
        lambda parts, weight, eps, row: _contributions(parts, torch.ones_like(weight), eps, row)),
    Mistake("no eps", "eps is missing under the root. If the stream is small, it counts.",
        lambda parts, weight, eps, row: _contributions(parts, weight, 0.0, row)),
    Mistake("mean of the parts", "you norm by the mean of the parts. The stream is their sum.",
        _divided(lambda parts, eps: _rms(parts.mean(dim=0), eps))),
    Mistake("length, not root mean square", "you divide by the stream's length, the root of the "
        "sum of squares. The norm takes their mean.",
        _divided(lambda parts, eps: (parts.sum(dim=0).pow(2).sum() + eps).sqrt())),
    Mistake("no root", "you divide by the mean square and not by its root.",
        _divided(lambda parts, eps: _rms(parts.sum(dim=0), eps).pow(2))),
    Mistake("the logit alone", "this is the logit, all parts together. How much of it does each "
        "part add?",
        lambda parts, weight, eps, row: _contributions(parts, weight, eps, row).sum()),
    Mistake("proportions", "you divide by the total. A part may add 12 and another subtract 5: "
        "keep the amounts, so that they sum to the logit.",
        _proportions),
)  # fmt: skip
