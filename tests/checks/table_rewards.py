"""Answers to the exercises of notebook 16."""

import torch
import torch.nn.functional as F

from qwenkit.train import (
    IGNORE,
    completion_batch,
    group_advantages,
    grpo_loss,
    token_log_probs,
)


def _estimate(z, actions, rewards, baseline=None, reduce=lambda terms: terms, scores=None):
    n = len(rewards)
    others = torch.stack([(rewards.sum() - r) / (n - 1) for r in rewards])
    gains = rewards - (others if baseline is None else baseline(rewards))
    scores = torch.eye(len(z))[actions] - z.softmax(0) if scores is None else scores(z, actions)
    return reduce(gains[:, None] * scores)


def _by_autograd(z, actions, rewards):
    terms = []
    for i, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
        leaf = z.clone().requires_grad_()
        others = torch.cat([rewards[:i], rewards[i + 1 :]])
        ((reward - others.mean()) * leaf.log_softmax(0)[action]).backward()
        terms.append(leaf.grad)
    return torch.stack(terms)


def _in_a_loop(z, actions, rewards):
    terms = -z.softmax(0).repeat(len(actions), 1)
    for i, action in enumerate(actions):
        terms[i, action] += 1
        terms[i] *= rewards[i] - rewards[torch.arange(len(rewards)) != i].mean()
    return terms


def _with(**changes):
    return lambda z, actions, rewards: _estimate(z, actions, rewards, **changes)


def _std(rewards, correction=1):
    return rewards.std(1, keepdim=True, correction=correction)


def _mean(rewards):
    return rewards.mean(1, keepdim=True)


def _loss(new, old, gains, mask, length, low=0.8, high=1.2, pick=torch.min, ratio=None, by=None):
    ratio = torch.exp(new - old) if ratio is None else ratio(new, old)
    gains = gains.unsqueeze(1)
    picked = pick(ratio * gains, ratio.clamp(low, high) * gains) * mask
    return -picked.sum() / (mask.shape[0] * length if by is None else by(mask, length))


def _changed(**changes):
    return lambda *given: _loss(*given, **changes)


def _per_completion(new, old, gains, mask, length):
    terms = torch.min((new - old).exp() * gains[:, None],
                      (new - old).exp().clamp(0.8, 1.2) * gains[:, None])  # fmt: skip
    return -((terms * mask).sum(1) / mask.sum(1)).mean()


def _step(
    center=lambda rewards: rewards - rewards.mean(1, keepdim=True), clear="before", update=True,
    sign=-1, by=None, order=None, answer=None, most=99, low=0.8, high=1.2, keep=True, again=False,
    no_grad=True,
):  # fmt: skip
    def step(model, optimizer, prompts, sample, reward, max_length, updates):
        old = None
        for _ in range(min(most, updates)):
            if old is None or again:
                groups = [sample(model, prompt) for prompt in prompts]
                pairs = list(zip(prompts, groups, strict=True))
                size, written = len(groups[0]), [one for group in groups for one in group]
                asked = [p for p in prompts for _ in range(size)]
                asked = asked if order is None else prompts * size
                rewards = torch.tensor([[reward(p, one) for one in g] for p, g in pairs])
                gains = center(rewards).reshape(-1, 1)
                batch = completion_batch(asked, written)
                counted = (batch.labels != IGNORE).sum(1)
                old = token_log_probs(model, batch)
                old = old.detach() if no_grad else old
            if clear == "before":
                optimizer.zero_grad()
            new = token_log_probs(model, batch)
            ratio = (new - (old if keep else new.detach())).exp()
            terms = torch.min(ratio * gains, ratio.clamp(low, high) * gains)
            terms = terms * (batch.labels != IGNORE)
            loss = sign * (terms.sum() / (len(written) * max_length) if by is None
                           else by(terms, counted, max_length))  # fmt: skip
            loss.backward(retain_graph=not no_grad)
            if clear == "after":
                optimizer.zero_grad()
            if update:
                optimizer.step()
            if clear == "at the end":
                optimizer.zero_grad()
        return rewards.mean() if answer is None else answer(rewards, loss)

    return step


def _for_each_prompt(model, optimizer, prompts, *others):
    found = [_step()(model, optimizer, [p], *others) for p in prompts]
    return sum(found) / len(found)


def _log_probs_times_gains(model, optimizer, prompts, sample, reward, max_length, updates):
    groups = [sample(model, prompt) for prompt in prompts]
    rewards = [[reward(p, one) for one in g] for p, g in zip(prompts, groups, strict=True)]
    rewards = torch.tensor(rewards)
    gains = (rewards - _mean(rewards)).flatten()
    asked = [p for p, group in zip(prompts, groups, strict=True) for _ in group]
    batch = completion_batch(asked, [one for group in groups for one in group])
    for _ in range(updates):
        loss = -(token_log_probs(model, batch) * gains[:, None]).sum() / len(gains) / max_length
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rewards.mean().item()


def _cleared_at_the_start(model, optimizer, *others):
    optimizer.zero_grad()
    return _step(clear="never")(model, optimizer, *others)


def _with_grpo_loss(model, optimizer, prompts, sample, reward, max_length, updates):
    groups = [sample(model, prompt) for prompt in prompts]
    pairs = [(p, one) for p, group in zip(prompts, groups, strict=True) for one in group]
    rewards = torch.tensor([reward(*pair) for pair in pairs]).reshape(len(prompts), -1)
    gains = group_advantages(rewards, scale=False).flatten()
    batch = completion_batch(*map(list, zip(*pairs, strict=True)))
    with torch.no_grad():
        old = token_log_probs(model, batch)
    for _ in range(updates):
        new = token_log_probs(model, batch)
        loss = grpo_loss(new, old, gains, batch.labels != IGNORE, max_length=max_length)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rewards.mean().item()


RIGHT = {
    "leave_one_out": [_estimate, _by_autograd, _in_a_loop],
    "advantages": [
        lambda r: (r - _mean(r)) / (_std(r) + 1e-4),
        lambda r: torch.stack([(row - row.mean()) / (row.std() + 0.0001) for row in r]),
        lambda r: (r.T - r.mean(1)).T / ((r.var(1) ** 0.5 + 1e-4)[:, None]),
    ],
    "clipped_loss": [
        _loss,
        lambda n, o, a, m, length: (
            torch.max(-(n - o).exp() * a[:, None], -(n - o).exp().clip(0.8, 1.2) * a[:, None]) * m
        ).sum(1).mean() / length,
    ],
    "step": [
        _step(), _step(answer=lambda rewards, loss: float(rewards.mean())), _with_grpo_loss,
    ],
}  # fmt: skip
WRONG = {
    "leave_one_out": [
        ("no baseline", _with(baseline=lambda r: 0)),
        ("own reward in the mean", _with(baseline=lambda r: r.mean())),
        ("divided by N", _with(baseline=lambda r: (r.sum() - r) / len(r))),
        ("sum as baseline", _with(baseline=lambda r: r.sum() - r)),
        ("added", _with(baseline=lambda r: -(r.sum() - r) / (len(r) - 1))),
        ("scaled", _with(baseline=lambda r: r - (
            (r - (r.sum() - r) / (len(r) - 1)) / (r.std() + 1e-4)))),
        ("sign", lambda *given: -_estimate(*given)),
        ("summed", _with(reduce=lambda terms: terms.sum(0))),
        ("averaged", _with(reduce=lambda terms: terms.mean(0))),
        ("transposed", _with(reduce=lambda terms: terms.mT)),
        ("chosen arm only", _with(
            scores=lambda z, a: torch.eye(len(z))[a] * (1 - z.softmax(0)))),
        ("no probabilities", _with(scores=lambda z, a: torch.eye(len(z))[a])),
        ("gradient of the probability", _with(
            scores=lambda z, a: z.softmax(0)[a, None] * (torch.eye(len(z))[a] - z.softmax(0)))),
        ("logits for probabilities", _with(scores=lambda z, a: F.one_hot(a, len(z)) - z)),
        ("values", _with(baseline=lambda r: r.max())),
    ],
    "advantages": [
        ("not scaled", lambda r: r - _mean(r)),
        ("not centered", lambda r: r / (_std(r) + 1e-4)),
        ("whole batch", lambda r: (r - r.mean()) / (r.std() + 1e-4)),
        ("batch mean", lambda r: (r - r.mean()) / (_std(r) + 1e-4)),
        ("batch deviation", lambda r: (r - _mean(r)) / (r.std() + 1e-4)),
        ("across groups", lambda r: (r - r.mean(0)) / (
            r.std(0, correction=0 if len(r) == 1 else 1) + 1e-4)),
        ("population deviation", lambda r: (r - _mean(r)) / (_std(r, 0) + 1e-4)),
        ("ties", lambda r: (r - _mean(r)) / _std(r)),
        ("clamped", lambda r: (r - _mean(r)) / torch.maximum(_std(r), torch.tensor(1e-4))),
        ("variance", lambda r: (r - _mean(r)) / (_std(r) ** 2 + 1e-4)),
        ("sign", lambda r: (_mean(r) - r) / (_std(r) + 1e-4)),
        ("absolute", lambda r: (r - _mean(r)).abs() / (_std(r) + 1e-4)),
        ("values", lambda r: (r - _mean(r)) / (_std(r) + 1)),
    ],
    "clipped_loss": [
        ("not clipped", _changed(low=0, high=1e9)),
        ("always clipped", _changed(pick=lambda gain, clipped: clipped)),
        ("larger term", _changed(pick=torch.max)),
        ("difference for ratio", _changed(ratio=lambda n, o: n - o)),
        ("quotient of logarithms", _changed(ratio=lambda n, o: n / o)),
        ("ratio inverted", _changed(ratio=lambda n, o: o.exp() / n.exp())),
        ("probabilities alone", _changed(ratio=lambda n, o: n.exp())),
        ("sign", lambda *given: -_loss(*given)),
        ("mask ignored", lambda n, o, a, m, length: _loss(n, o, a, torch.ones_like(m), length)),
        ("length of each completion", _per_completion),
        ("mean over tokens", _changed(by=lambda m, length: m.sum())),
        ("not divided by max_length", _changed(by=lambda m, length: len(m))),
        ("sum over completions", _changed(by=lambda m, length: length)),
        ("width for max_length", _changed(by=lambda m, length: m.numel())),
        ("no gradient", lambda *given: _loss(*given).item()),
        ("values", _changed(low=0.9, high=1.1)),
    ],
    "step": [
        ("no update", _step(update=False)),
        ("no update", _step(clear="after")),
        ("not cleared", _step(clear="never")),
        ("cleared once", _cleared_at_the_start),
        ("one update", _step(most=1)),
        ("sampled again", _step(again=True)),
        ("ratio of 1", _step(keep=False)),
        ("ratio of 1", _log_probs_times_gains),
        ("not clipped", _step(low=0, high=1e9)),
        ("values", _step(low=0.9, high=1.1)),
        ("sign", _step(sign=1)),
        ("no baseline", _step(center=lambda r: r)),
        ("batch mean", _step(center=lambda r: r - r.mean())),
        ("scaled", _step(center=lambda r: (r - _mean(r)) / (_std(r) + 1e-4))),
        ("length of each completion", _step(by=lambda t, n, _: (t.sum(1) / n).mean())),
        ("prompts in another order", _step(order="cycled")),
        ("summed", _step(by=lambda t, n, length: t.sum() / length)),
        ("a step for each prompt", _for_each_prompt),
        ("advantages returned", _step(answer=lambda r, loss: (r - _mean(r)).mean())),
        ("sum returned", _step(answer=lambda r, loss: r.sum())),
        ("loss returned", _step(answer=lambda r, loss: loss.item())),
        ("nothing returned", _step(answer=lambda r, loss: None)),
        ("values", _step(by=lambda t, n, _: t.sum() / n.sum())),
    ],
}  # fmt: skip
