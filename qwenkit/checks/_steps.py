"""GRPO updates on a toy model, right and with each mistake that is often made (exercise 16.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import (
    IGNORE,
    Batch,
    completion_batch,
    group_advantages,
    grpo_loss,
    init_weights,
    token_log_probs,
)

Ids = list[int]
Step = Callable[..., Any]
_MAX_LENGTH = 6


def _centered(rewards: Tensor) -> Tensor:
    return group_advantages(rewards, scale=False)


def _pairs(prompts: Sequence[Ids], groups: Sequence[Sequence[Ids]]) -> Batch:
    repeated = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
    return completion_batch(repeated, [one for group in groups for one in group])


def _mixed(prompts: Sequence[Ids], groups: Sequence[Sequence[Ids]]) -> Batch:
    repeated = [*prompts] * len(groups[0])
    return completion_batch(repeated, [one for group in groups for one in group])


def grpo_step(
    advantages: Callable[[Tensor], Tensor] = _centered,
    rows: Callable[..., Batch] = _pairs,
    normalization: str = "dr_grpo",
    factor: Callable[[int], float] = lambda count: 1.0,
    clip: tuple[float, float] = (0.2, 0.2),
    clear: Callable[[int], bool] = lambda number: True,
    update: bool = True,
    old: str = "kept",
    most: int = 99,
    returned: Callable[[Tensor, Tensor], Tensor] = lambda rewards, loss: rewards.mean(),
) -> Step:
    """Return a GRPO step; the arguments are what can go wrong in it.

    `factor`: by which the loss is multiplied, a function of the number of completions. `clear`:
    before which updates the gradients are. `old`: the log-probabilities at sampling are "kept",
    or computed again in each update ("new"), or sampling itself is repeated ("sampled"). `most`:
    updates at most.
    """

    def step(
        model: QwenForCausalLM,
        optimizer: torch.optim.Optimizer,
        prompts: Sequence[Ids],
        sample: Callable[[QwenForCausalLM, Ids], list[Ids]],
        reward: Callable[[Ids, Ids], float],
        max_length: int,
        updates: int,
    ) -> float:
        means = []
        for number in range(min(updates, most)):
            if number == 0 or old == "sampled":
                groups = [sample(model, prompt) for prompt in prompts]
                pairs = zip(prompts, groups, strict=True)
                rewards = torch.tensor([[reward(p, one) for one in group] for p, group in pairs])
                batch = rows(prompts, groups)
                gains = advantages(rewards).flatten()
            found = token_log_probs(model, batch)
            if number == 0 or old != "kept":
                sampled = found.detach()
            loss = factor(len(found)) * grpo_loss(
                found, sampled, gains, batch.labels != IGNORE, clip=clip,
                normalization=normalization, max_length=max_length,
            )  # fmt: skip
            if clear(number):
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if update:
                optimizer.step()
            means.append(returned(rewards, loss))
        return means[-1].item()

    return step


def _a_step_for_each_prompt(model: Any, optimizer: Any, prompts: Any, *others: Any) -> float:
    rewards = [grpo_step()(model, optimizer, [prompt], *others) for prompt in prompts]
    return float(sum(rewards) / len(rewards))


def measured(function: Step) -> Callable[..., Any]:
    """Turn a learner's step into a function of P, G and the number of updates.

    It returns what the step returns, and how the weights have changed.

    The toy's gradients are not zero before the step, so that a forgotten `zero_grad` shows.
    """

    @wraps(function)
    def run(prompts: int, group: int, updates: int) -> Any:
        model = QwenForCausalLM(QwenConfig(16, 8, 16, 1, 4, 1, tie_word_embeddings=True))
        init_weights(model, seed=0)
        model.requires_grad_(True)
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(30)  # the policy is sure of some tokens
        weight = model.model.norm.weight
        weight.grad = torch.ones_like(weight)
        before = weight.detach().clone()
        optimizer = torch.optim.SGD([weight], lr=0.6)
        calls: list[Ids] = []
        asked = [[3 + p, 5, 2][: 2 + p % 2] for p in range(prompts)]

        def sample(model: QwenForCausalLM, prompt: Ids) -> list[Ids]:
            calls.append(prompt)
            first = 3 * prompt[0] + 5 * ((len(calls) - 1) // prompts)  # another one, if repeated
            return [[(7 * i + first + j) % 16 for j in range(1 + i)] for i in range(group)]

        def reward(prompt: Ids, completion: Ids) -> float:
            return float(prompt[0] % 3) + (completion[0] % 4) / 2

        found = function(model, optimizer, asked, sample, reward, _MAX_LENGTH, updates)
        change = (weight.detach() - before) * 10  # as large as a reward
        nothing = found is None or found is ...
        if nothing and not change.any():
            return found
        return (None if nothing else float(found)), change

    return run


STEP_MISTAKES: tuple[tuple[str, str, Step], ...] = (
    ("no update", "the weights are unchanged. Call zero_grad, then backward, then the optimizer's "
        "step.", grpo_step(update=False)),
    ("not cleared", "old gradients are still there; call zero_grad before backward.",
        grpo_step(clear=lambda number: False)),
    ("cleared once", "clear the gradients before each update, not only before the first.",
        grpo_step(clear=lambda number: number == 0)),
    ("one update", "there is one update, however many are asked for. Repeat it on the same "
        "samples.",
        grpo_step(most=1)),
    ("sampled again", "each update draws new samples. Sample once: the point of the ratio is to "
        "use the same samples several times.", grpo_step(old="sampled")),
    ("ratio of 1", "the ratio is 1 in every update. Which log-probabilities must stay as they were "
        "when the samples were drawn?", grpo_step(old="new")),
    ("not clipped", "the second update and the later ones must be clipped: the ratio has left 1.",
        grpo_step(clip=(0.999, 1e9))),
    ("sign", "the step goes the wrong way: what did best becomes less likely.",
        grpo_step(factor=lambda count: -1.0)),
    ("no baseline", "subtract the group's mean from the rewards.",
        grpo_step(advantages=lambda rewards: rewards)),
    ("batch mean", "the mean is that of all rewards; take that of each prompt's group.",
        grpo_step(advantages=lambda rewards: rewards - rewards.mean())),
    ("scaled", "Dr. GRPO does not divide by the standard deviation.",
        grpo_step(advantages=group_advantages)),
    ("length of each completion", "divide by max_length, not by each completion's own length.",
        grpo_step(normalization="grpo")),
    ("prompts in another order", "completions are paired with the wrong prompts; repeat each "
        "prompt for its whole group.", grpo_step(rows=_mixed)),
    ("summed", "the loss is the sum over the completions; take the mean.",
        grpo_step(factor=float)),
    ("a step for each prompt", "take one step for all prompts together.",
        _a_step_for_each_prompt),
    ("advantages returned", "the mean of the advantages is always 0; return that of the rewards.",
        grpo_step(returned=lambda rewards, loss: _centered(rewards).mean())),
    ("sum returned", "return the mean reward, not the sum.",
        grpo_step(returned=lambda rewards, loss: rewards.sum())),
    ("loss returned", "return the mean reward; the loss of a policy says little.",
        grpo_step(returned=lambda rewards, loss: loss)),
    ("nothing returned", "the step is right; return the mean reward.",
        lambda *given: grpo_step()(*given) and None),
)  # fmt: skip
