"""Exercises 14.2 and 14.3, heads: the right answers, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake

# --- 14.2 ---


def right_score(pattern: Tensor, n: int) -> Tensor:
    """Return each head's mean attention to the token after the earlier copy, (H)."""
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


def _per_text(pattern: Tensor, n: int) -> Tensor:
    return pattern[:, :, range(n, 2 * n), range(1, n + 1)]  # (B, H, n)


SCORE_MISTAKES = (
    Mistake("the token itself", "you read how much a head attends to the earlier copy of the "
        "current token. Which token does it need, to predict what comes next?",
        _read(lambda queries, n: queries - n)),
    Mistake("the token before", "your keys are one position before the earlier copy. In A B … A, "
        "the head at the second A should attend to B, which comes after it.",
        _read(lambda queries, n: queries - n - 1)),
    Mistake("a previous-token head", "you measure attention to the previous token. That is the "
        "other type of head in this notebook.",
        _read(lambda queries, n: queries - 1)),
    Mistake("two after", "your keys are one position too late: n + i is the copy of i, so the key "
        "is i + 1.",
        _read(lambda queries, n: queries - n + 2)),
    Mistake("queries of the first half", "your queries are in the first half, and the keys after "
        "them: there, all weights are 0. The query is the second copy, n + i.",
        lambda pattern, n: pattern[:, :, range(n), range(1, n + 1)].mean(dim=(0, 2))),
    Mistake("a block, not pairs", "you average a block: every query with every key. Pair query "
        "n + i with key i + 1 alone, by two index tensors.",
        lambda pattern, n: pattern[:, :, n:, 1 : n + 1].mean(dim=(0, 2, 3))),
    Mistake("last pair lost", "you leave out the last query, 2n − 1. There are n pairs.",
        _read(lambda q, n: q - n + 1, lambda n: torch.arange(n, 2 * n - 1))),
    Mistake("first pair lost", "you leave out the first query, n. There are n pairs.",
        _read(lambda q, n: q - n + 1, lambda n: torch.arange(n + 1, 2 * n))),
    Mistake("one pair too many", "the diagonal has n + 1 entries: its first query, n − 1, is in "
        "the first half.",
        _read(lambda q, n: q - n + 1, lambda n: torch.arange(n - 1, 2 * n))),
    Mistake("first text only", "you read only the first text. Average over all of them.",
        lambda pattern, n: right_score(pattern[:1], n)),
    Mistake("texts added up", "you add up over the texts. A score between 0 and 1 is their mean.",
        lambda pattern, n: right_score(pattern, n) * len(pattern)),
    Mistake("the best query", "you take the largest weight among the queries. The score is their "
        "mean.",
        lambda pattern, n: _per_text(pattern, n).amax(dim=-1).mean(dim=0)),
    Mistake("one number for all heads", "you average over the heads, too. Return one number per "
        "head.",
        lambda pattern, n: right_score(pattern, n).mean()),
    Mistake("a score per text", "you keep the texts. Average over them, too: one number per head.",
        lambda pattern, n: _per_text(pattern, n).mean(dim=-1)),
    Mistake("a score per query", "you keep the queries. Average over them, too: one number per "
        "head.",
        lambda pattern, n: _per_text(pattern, n).mean(dim=0)),
    Mistake("the first half too", "you average over queries of the first half as well. There, "
        "nothing has come before: use only the second half.",
        _read(lambda q, n: (q - n + 1).clamp(min=0), lambda n: torch.arange(2 * n))),
    Mistake("divided by all tokens", "you divide by 2n positions, but add up only n of them: your "
        "score could never exceed a half.",
        lambda pattern, n: right_score(pattern, n) / 2),
    Mistake("a sum", "you add the attention weights up. A score between 0 and 1 is their mean.",
        lambda pattern, n: right_score(pattern, n) * n),
    Mistake("query and key swapped", "rows and columns are swapped: in pattern[b, h, t, s], t "
        "attends to s. In the model, what you averaged is in the future, where all weights are 0.",
        lambda pattern, n: right_score(pattern.transpose(-2, -1), n)),
    Mistake("the largest", "you take each row's largest weight, wherever it is. A head that "
        "attends to the first token would win.",
        lambda pattern, n: pattern[:, :, n:].amax(dim=-1).mean(dim=(0, 2))),
    Mistake("texts, not heads", "you averaged over the heads and kept the texts. Return one number "
        "per head.",
        lambda pattern, n: right_score(pattern.transpose(0, 1), n)),
)  # fmt: skip


# --- 14.3 ---


def mean_ablated(z: Tensor, head: int) -> Tensor:
    """Return z with one head's output replaced by its mean over texts and positions."""
    return _put(z, head, z[:, head].mean(dim=(0, 1)))


def _put(z: Tensor, head: int, value: Tensor | float) -> Tensor:
    z = z.clone()
    z[:, head] = value
    return z


ABLATION_MISTAKES = (
    Mistake("zero", "you set zeros. That removes the head's average output too, which the layers "
        "after it rely on.",
        lambda z, head: _put(z, head, 0.0)),
    Mistake("mean per text", "you average within each text. All texts of a batch should get the "
        "same mean: otherwise the head still tells them apart.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=1, keepdim=True))),
    Mistake("mean per position", "you average over the texts and keep the positions. With a batch "
        "of one, nothing changes.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=0))),
    Mistake("first text's mean", "you take the mean of the first text for all. Average over the "
        "texts, too.",
        lambda z, head: _put(z, head, z[0, head].mean(dim=0))),
    Mistake("first text only", "you replace the head in the first text only.",
        lambda z, head: torch.cat([mean_ablated(z, head)[:1], z[1:]])),
    Mistake("last position", "you put the last position's output everywhere. Average over the "
        "positions.",
        lambda z, head: _put(z, head, z[:, head, -1:])),
    Mistake("first position", "you put the first position's output everywhere. Average over the "
        "positions.",
        lambda z, head: _put(z, head, z[:, head, :1])),
    Mistake("a sum", "you put the sum, not the mean.",
        lambda z, head: _put(z, head, z[:, head].sum(dim=(0, 1)))),
    Mistake("the median", "you put the median, not the mean.",
        lambda z, head: _put(z, head, z[:, head].flatten(0, 1).median(dim=0).values)),
    Mistake("always the same head", "you replace head 0, whatever `head` is.",
        lambda z, head: mean_ablated(z, 0)),
    Mistake("always the same head", "you replace head 1, whatever `head` is.",
        lambda z, head: mean_ablated(z, 1)),
    Mistake("unchanged", "z comes back unchanged. Which copy do you write into, and which do you "
        "return?",
        lambda z, head: z.clone()),
    Mistake("the mean alone", "you return the mean alone. Return z, with the mean in place of the "
        "head's output.",
        lambda z, head: z[:, head].mean(dim=(0, 1))),
    Mistake("one head alone", "you return that head alone. Return all of z, (B, H, T, D).",
        lambda z, head: mean_ablated(z, head)[:, head]),
    Mistake("one number", "you average over positions and D, one number per text. A head's output "
        "is a vector, and so is its mean.",
        lambda z, head: _put(z, head, z[:, head].mean(dim=(1, 2), keepdim=True))),
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
        lambda z, head: mean_ablated(z.transpose(1, 2), head).transpose(1, 2)),
)  # fmt: skip
