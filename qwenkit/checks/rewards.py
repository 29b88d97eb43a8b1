"""The checks of notebook 16, learning from unit tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake, Verdict, judge
from qwenkit.checks._samples import normal
from qwenkit.checks._steps import STEP_MISTAKES, grpo_step, measured
from qwenkit.train import group_advantages

EXERCISES: dict[str, str] = {
    "16.1": "a baseline from the other samples",
    "16.2": "group advantages",
    "16.3": "the clipped loss",
    "16.4": "GRPO: samples, rewards and several updates",
}
_OF_REWARDS = Callable[[Tensor], Tensor]


def leave_one_out(learner: Callable[..., Any]) -> Verdict:
    """Check `leave_one_out(logits, actions, rewards)`: (A,), (N,), (N,) -> (N, A): 16.1."""
    logits = torch.tensor([0.5, 0.0, -1.0])
    actions = torch.tensor([0, 0, 1, 2, 0, 1])
    cases = [
        Case("six samples", (logits, actions, torch.tensor([1.0, 0.0, 3.0, -2.0, 1.0, 0.5]))),
        Case("two samples", (logits, actions[1:3], torch.tensor([1.0, 0.0]))),
        Case("five arms", (normal(5), torch.tensor([4, 0, 4, 2]), normal(4, seed=1))),
        Case("equal rewards", (logits, actions, torch.ones(6))),
    ]
    praise = "no sample's baseline depends on itself, so the estimate is right on average."
    return judge("16.1", learner, _reinforce(_others), cases, _ARM_MISTAKES, praise)


def advantages(learner: Callable[..., Any]) -> Verdict:
    """Check `advantages(rewards)`: (P, G) -> (P, G): 16.2."""
    cases = [
        Case("one group", (torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]]),)),
        Case("two groups", (torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),)),
        Case("three groups", (normal(3, 4) + torch.tensor([[0.0], [5.0], [-2.0]]),)),
        Case("a group of equal rewards", (torch.tensor([[1.0, 1.0], [0.5, 0.0]]),)),
    ]
    praise = "each completion is compared with its own group alone."
    return judge("16.2", learner, group_advantages, cases, _GROUP_MISTAKES, praise)


def clipped_loss(learner: Callable[..., Any]) -> Verdict:
    """Check `clipped_loss(log_probs, old, advantages, mask, max_length)`: a (): 16.3."""
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    old, far = -normal(3, 4).abs(), 0.4 * normal(3, 4, seed=1)
    up_and_down = torch.tensor([1.0, -1.0, 0.5])
    cases = [
        Case("ratios of 1", (old, old, up_and_down, mask, 5)),
        Case("ratios inside and outside the clip", (old + far, old, up_and_down, mask, 5)),
        Case("ratios far outside", (old + 3 * far, old, -up_and_down, mask, 8)),
        Case("one completion", (old[:1] + far[:1], old[:1], up_and_down[1:2], mask[1:2], 4)),
        Case("nothing to learn", (old, old, torch.zeros(3), mask, 5)),
    ]
    known = [Mistake(one.name, one.hint, _run(one.function)) for one in _LOSS_MISTAKES]
    learner = _run(learner) if callable(learner) else learner
    praise = "the loss and its gradient are those of Dr. GRPO."
    return judge("16.3", learner, _run(_clipped()), cases, known, praise)


def step(learner: Callable[..., Any]) -> Verdict:
    """Check `grpo_step(model, optimizer, prompts, sample, reward, max_length, updates)`: 16.4."""
    cases = [
        Case("one update: two prompts, four completions of each", (2, 4, 1)),
        Case("one update: three prompts, two completions of each", (3, 2, 1)),
        Case("three updates of the same samples", (2, 4, 3)),
    ]
    known = [Mistake(name, hint, measured(wrong)) for name, hint, wrong in STEP_MISTAKES]
    learner = measured(learner) if callable(learner) else learner
    praise = "you can teach a model with nothing but a reward."
    return judge("16.4", learner, measured(grpo_step()), cases, known, praise, tolerance=1e-4)


# --- 16.1 ---


def _others(rewards: Tensor) -> Tensor:
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def _scores(logits: Tensor, actions: Tensor) -> Tensor:
    """Return the gradient of each action's log-probability, (N, A)."""
    return F.one_hot(actions, len(logits)).float() - logits.softmax(dim=0)


def _reinforce(
    weights: _OF_REWARDS,
    scores: Callable[[Tensor, Tensor], Tensor] = _scores,
    over: Callable[[Tensor], Tensor] = lambda terms: terms,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the terms: each sample's weight times its score; `over` brings them together."""
    return lambda z, actions, r: over(weights(r)[:, None] * scores(z, actions))


def _of_probability(z: Tensor, actions: Tensor) -> Tensor:
    return z.softmax(dim=0)[actions][:, None] * _scores(z, actions)


def _chosen_only(z: Tensor, actions: Tensor) -> Tensor:
    return F.one_hot(actions, len(z)) * _scores(z, actions)


_ARM_MISTAKES = (
    Mistake("no baseline", "this has no baseline; subtract from each reward the mean of the "
        "others.", _reinforce(lambda r: r)),
    Mistake("own reward in the mean", "the mean is of all rewards, the sample's own too; leave "
        "that one out, and divide by one less.", _reinforce(lambda r: r - r.mean())),
    Mistake("divided by N", "there are N - 1 others, so their sum is divided by N - 1.",
        _reinforce(lambda r: r - (r.sum() - r) / len(r))),
    Mistake("sum as baseline", "the baseline is the sum of the other rewards; it must be their "
        "mean.", _reinforce(lambda r: r - (r.sum() - r))),
    Mistake("added", "the baseline is added; it must be subtracted.",
        _reinforce(lambda r: 2 * r - _others(r))),
    Mistake("scaled", "subtract the baseline only; nothing is divided by the standard deviation.",
        _reinforce(lambda r: _others(r) / (r.std() + 1e-4))),
    Mistake("sign", "this is the gradient with its sign changed: it would lower the reward.",
        _reinforce(lambda r: -_others(r))),
    Mistake("averaged", "this is their mean over the samples; return the terms themselves.",
        _reinforce(_others, over=partial(torch.mean, dim=0))),
    Mistake("summed", "this is their sum over the samples; return the terms themselves.",
        _reinforce(_others, over=partial(torch.sum, dim=0))),
    Mistake("transposed", "rows and columns are exchanged: a row is a sample.",
        _reinforce(_others, over=lambda terms: terms.T)),
    Mistake("chosen arm only", "the other arms' logits have a gradient, too: minus their "
        "probability.", _reinforce(_others, _chosen_only)),
    Mistake("no probabilities", "the policy's probabilities are missing: each other arm's "
        "logit must fall.",
        _reinforce(_others, lambda z, a: F.one_hot(a, len(z)).float())),
    Mistake("gradient of the probability", "this is the gradient of the probability; take that "
        "of its logarithm.", _reinforce(_others, _of_probability)),
    Mistake("logits for probabilities", "subtract the softmax of the logits, not the logits.",
        _reinforce(_others, lambda z, a: F.one_hot(a, len(z)).float() - z)),
)  # fmt: skip

# --- 16.2 ---


def _scaled(center: _OF_REWARDS, spread: _OF_REWARDS, tiny: float = 1e-4) -> _OF_REWARDS:
    return lambda rewards: (rewards - center(rewards)) / (spread(rewards) + tiny)


def _mean(rewards: Tensor) -> Tensor:
    return rewards.mean(dim=1, keepdim=True)


def _std(rewards: Tensor) -> Tensor:
    return rewards.std(dim=1, keepdim=True)


def _population(rewards: Tensor) -> Tensor:
    return rewards.std(dim=1, keepdim=True, correction=0)


_GROUP_MISTAKES = (
    Mistake("not scaled", "the mean is right; divide by the group's standard deviation too.",
        lambda r: r - _mean(r)),
    Mistake("not centered", "the group's mean is not subtracted.",
        _scaled(torch.zeros_like, _std)),
    Mistake("whole batch", "mean and deviation are those of the whole batch; take each group's.",
        _scaled(torch.mean, torch.std)),
    Mistake("batch mean", "the mean is that of the whole batch; take each group's.",
        _scaled(torch.mean, _std)),
    Mistake("batch deviation", "the deviation is that of the whole batch; take each group's.",
        _scaled(_mean, torch.std)),
    Mistake("across groups", "a group is a row; mean and deviation here are those of columns.",
        lambda r: (r - r.mean(dim=0)) / (r.std(dim=0, correction=int(len(r) > 1)) + 1e-4)),
    Mistake("population deviation", "this is the deviation of a population, with G; take that of "
        "a sample, with G - 1.", _scaled(_mean, _population)),
    Mistake("ties", "where all rewards are equal, 0 / 0 is not a number; add 0.0001 to the "
        "deviation.", _scaled(_mean, _std, 0.0)),
    Mistake("clamped", "add 0.0001 to every deviation; do not replace the small ones only.",
        lambda r: (r - _mean(r)) / _std(r).clamp(min=1e-4)),
    Mistake("variance", "this divides by the variance; the deviation is its square root.",
        _scaled(_mean, lambda r: r.var(dim=1, keepdim=True))),
    Mistake("sign", "the sign is changed: the worst completion gets the best advantage.",
        lambda r: -_scaled(_mean, _std)(r)),
    Mistake("absolute", "a completion below the mean needs a negative advantage.",
        lambda r: _scaled(_mean, _std)(r).abs()),
)  # fmt: skip

# --- 16.3 ---


def _run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's loss into a function that returns the loss and its gradient."""

    @wraps(function)
    def run(log_probs: Tensor, *others: Any) -> Any:
        log_probs = log_probs.clone().requires_grad_()
        loss = function(log_probs, *others)
        if loss is None or loss is ...:
            return loss
        if isinstance(loss, Tensor) and loss.requires_grad and loss.dim() == 0:
            loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        return loss, log_probs.grad

    return run


def _mask_sum(loss: Tensor, mask: Tensor, length: int) -> Tensor:
    return (loss * mask).sum() / (len(loss) * length)


def _smaller(gain: Tensor, clipped: Tensor) -> Tensor:
    return torch.min(gain, clipped)


def _clipped(
    ratio: Callable[[Tensor, Tensor], Tensor] = lambda new, old: (new - old).exp(),
    choose: Callable[[Tensor, Tensor], Tensor] = _smaller,
    over: Callable[[Tensor, Tensor, int], Tensor] = _mask_sum,
    sign: int = -1,
) -> Callable[..., Tensor]:
    """Return a clipped loss; the arguments are what can go wrong in it."""

    def loss(new: Tensor, old: Tensor, gain: Tensor, mask: Tensor, max_length: int) -> Tensor:
        ratios = ratio(new, old)
        terms = choose(ratios * gain[:, None], ratios.clamp(0.8, 1.2) * gain[:, None])
        return over(sign * terms, mask, max_length)

    return loss


def _per_completion(loss: Tensor, mask: Tensor, length: int) -> Tensor:
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1)).mean()


_LOSS_MISTAKES = (
    Mistake("not clipped", "nothing is clipped; compare with the clipped ratio.",
        _clipped(choose=lambda gain, clipped: gain)),
    Mistake("always clipped", "take the smaller of the two terms: a ratio that has moved against "
        "the advantage must keep its gradient.", _clipped(choose=lambda gain, clipped: clipped)),
    Mistake("larger term", "take the smaller of the two terms, and change the sign afterwards.",
        _clipped(choose=torch.max)),
    Mistake("difference for ratio", "the ratio is exp of the difference of log-probabilities.",
        _clipped(ratio=lambda new, old: new - old)),
    Mistake("quotient of logarithms", "the ratio of probabilities is not that of their "
        "logarithms; take exp of the difference.", _clipped(ratio=lambda new, old: new / old)),
    Mistake("ratio inverted", "the ratio is new by old; this is old by new.",
        _clipped(ratio=lambda new, old: (old - new).exp())),
    Mistake("probabilities alone", "this uses the probability itself; divide by the old one.",
        _clipped(ratio=lambda new, old: new.exp())),
    Mistake("sign", "an optimizer lowers the loss; change its sign, so that the gain rises.",
        _clipped(sign=1)),
    Mistake("mask ignored", "padding counts; multiply by the mask.",
        _clipped(over=lambda loss, mask, length: loss.sum() / (len(loss) * length))),
    Mistake("length of each completion", "this divides by each completion's own length: the "
        "length bias. Divide by max_length.", _clipped(over=_per_completion)),
    Mistake("mean over tokens", "this is the mean over all tokens that count; divide by B times "
        "max_length.", _clipped(over=lambda loss, mask, _: (loss * mask).sum() / mask.sum())),
    Mistake("not divided by max_length", "divide by max_length as well.",
        _clipped(over=lambda loss, mask, _: (loss * mask).sum() / len(loss))),
    Mistake("sum over completions", "divide by the number of completions as well.",
        _clipped(over=lambda loss, mask, length: (loss * mask).sum() / length)),
    Mistake("width for max_length", "this divides by the batch's width, which changes from "
        "batch to batch; divide by max_length.",
        _clipped(over=lambda loss, mask, _: (loss * mask).mean())),
    Mistake("no gradient", "the loss is right, but no gradient flows back; keep it a tensor.",
        lambda *given: _clipped()(*given).detach()),
)  # fmt: skip
