"""A GRPO step on a toy model, right and with each mistake that is often made (exercise 16.4)."""

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
    clear: bool = True,
    update: bool = True,
    plain: bool = False,
    returned: Callable[[Tensor, Tensor], Tensor] = lambda rewards, loss: rewards.mean(),
) -> Step:
    """Return a GRPO step; the arguments are what can go wrong in it.

    `factor`: by which the loss is multiplied, a function of the number of completions.
    """

    def step(
        model: QwenForCausalLM,
        optimizer: torch.optim.Optimizer,
        prompts: Sequence[Ids],
        sample: Callable[[QwenForCausalLM, Ids], list[Ids]],
        reward: Callable[[Ids, Ids], float],
        max_length: int,
    ) -> float:
        groups = [sample(model, prompt) for prompt in prompts]
        pairs = zip(prompts, groups, strict=True)
        rewards = torch.tensor([[reward(prompt, one) for one in group] for prompt, group in pairs])
        batch = rows(prompts, groups)
        found, gains = token_log_probs(model, batch), advantages(rewards).flatten()
        loss = factor(len(found)) * grpo_loss(
            found, found.detach(), gains, batch.labels != IGNORE,
            normalization=normalization, max_length=max_length,
        )  # fmt: skip
        if plain:  # the same gradient, another value
            loss = -(found * gains[:, None]).sum() / (len(found) * max_length)
        if clear:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if update:
            optimizer.step()
        return returned(rewards, loss).item()

    return step


def _a_step_for_each_prompt(model: Any, optimizer: Any, prompts: Any, *others: Any) -> float:
    rewards = [grpo_step()(model, optimizer, [prompt], *others) for prompt in prompts]
    return float(sum(rewards) / len(rewards))


def measured(function: Step) -> Callable[..., Any]:
    """Turn a learner's step into a function of P and G: what it returns, and the weights' change.

    The toy's gradients are not zero before the step, so that a forgotten `zero_grad` shows.
    """

    @wraps(function)
    def run(prompts: int, group: int) -> Any:
        model = QwenForCausalLM(QwenConfig(16, 8, 16, 1, 4, 1, tie_word_embeddings=True))
        init_weights(model, seed=0)
        model.requires_grad_(True)
        weight = model.model.norm.weight
        weight.grad = torch.ones_like(weight)
        before = weight.detach().clone()
        optimizer = torch.optim.SGD([weight], lr=1.0)
        asked = [[3 + p, 5, 2][: 2 + p % 2] for p in range(prompts)]

        def sample(model: QwenForCausalLM, prompt: Ids) -> list[Ids]:
            return [[(7 * i + 3 * prompt[0] + j) % 16 for j in range(1 + i)] for i in range(group)]

        def reward(prompt: Ids, completion: Ids) -> float:
            return float(prompt[0] % 3) + (completion[0] % 4) / 2

        found = function(model, optimizer, asked, sample, reward, _MAX_LENGTH)
        change = (weight.detach() - before) * 100  # as large as a reward
        nothing = found is None or found is ...
        if nothing and not change.any():
            return found
        return (None if nothing else float(found)), change

    return run


STEP_MISTAKES: tuple[tuple[str, str, Step], ...] = (
    ("no update", "the weights are unchanged. Call zero_grad, then backward, then the optimizer's "
        "step.", grpo_step(update=False)),
    ("not cleared", "old gradients are still there; call zero_grad before backward.",
        grpo_step(clear=False)),
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
    ("loss returned", "return the mean reward; the loss of a policy says little.",
        grpo_step(plain=True, returned=lambda rewards, loss: loss)),
    ("nothing returned", "the step is right; return the mean reward.",
        lambda *given: grpo_step()(*given) and None),
)  # fmt: skip
