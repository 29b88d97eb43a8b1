"""Answers to the exercises of notebook 16."""

import torch
import torch.nn.functional as F

from qwenkit.train import IGNORE, completion_batch, token_log_probs


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
    center=lambda rewards: rewards - rewards.mean(1, keepdim=True),
    clear="before", update=True, sign=-1, by=None, order=None, answer=None,
):  # fmt: skip
    def step(model, optimizer, prompts, sample, reward, max_length):
        groups = [sample(model, prompt) for prompt in prompts]
        size = len(groups[0])
        asked = [p for p in prompts for _ in range(size)] if order is None else prompts * size
        written = [one for group in groups for one in group]
        rewards = [[reward(p, one) for one in g] for p, g in zip(prompts, groups, strict=True)]
        rewards = torch.tensor(rewards)
        gains = center(rewards).reshape(-1, 1)
        batch = completion_batch(asked, written)
        if clear == "before":
            optimizer.zero_grad()
        terms = token_log_probs(model, batch) * gains
        counted = (batch.labels != IGNORE).sum(1)
        loss = sign * (terms.sum() / (len(written) * max_length) if by is None
                       else by(terms, counted, max_length))  # fmt: skip
        loss.backward()
        if clear == "after":
            optimizer.zero_grad()
        if update:
            optimizer.step()
        return rewards.mean() if answer is None else answer(rewards, loss)

    return step


def _for_each_prompt(model, optimizer, prompts, sample, reward, max_length):
    found = [_step()(model, optimizer, [p], sample, reward, max_length) for p in prompts]
    return sum(found) / len(found)


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
    "step": [_step(), _step(answer=lambda rewards, loss: float(rewards.mean()))],
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
