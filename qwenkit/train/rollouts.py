"""Rollouts: what a model writes for tasks, and the reward of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.arguments import fits
from qwenkit.errors import InputError, shown
from qwenkit.generate.batch import Completion, completions
from qwenkit.model import QwenForCausalLM
from qwenkit.programs import FUNCTION_ENDS, Task, first_function, run_many
from qwenkit.tokenizer import Tokenizer

Reward = Callable[[Task, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Rollouts:
    """What a model wrote for P tasks, G completions each.

    Attributes:
        tasks: P of them.
        completions: P · G, those of one task after those of another; ids include the stop token.
        rewards: of each.
    """

    tasks: list[Task]
    completions: list[Completion]
    rewards: Float[Tensor, "P G"]


def passes_tests(task: Task, texts: Sequence[str]) -> list[float]:
    """Return 1 for each text that makes a program which passes its task's tests, else 0.

    A program ends before the next line that begins in column 0, as in `qwenkit.programs.score`.
    """
    programs = [task.prompt + first_function(text) for text in texts]
    unlike = list(dict.fromkeys(programs))  # the same program is run once
    outcomes = run_many([(program, task.tests) for program in unlike])
    passed = {program: float(one.passed) for program, one in zip(unlike, outcomes, strict=True)}
    return [passed[program] for program in programs]


def roll_out(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    tasks: list[Task],
    group_size: int,
    reward: Reward,
    **options: Any,
) -> Rollouts:
    """Write a group of completions for each task, and reward them.

    Args:
        model: the policy.
        tokenizer: its tokenizer.
        tasks: P of them.
        group_size: G, completions of each.
        reward: called with a task and the texts of its group; returns a number for each.
        options: temperature, max_new_tokens and seed, as for `complete_batch`.

    Raises:
        InputError: rewards that are not as many finite numbers.
    """
    prompts = [task.prompt for task in tasks for _ in range(group_size)]
    written = completions(model, tokenizer, prompts, stop_strings=FUNCTION_ENDS, **options)
    rewards = []
    for place, task in enumerate(tasks):
        group = written[place * group_size : (place + 1) * group_size]
        found = reward(task, [one.text for one in group])
        sound = fits(found, Sequence[float]) and len(found) == group_size
        if not sound or not all(map(math.isfinite, found)):
            raise InputError(
                f"the reward function returned {shown(found, 60)}; it must return a finite number "
                f"for each of the {group_size} texts"
            )
        rewards.append([float(one) for one in found])
    return Rollouts(tasks, written, torch.tensor(rewards, dtype=torch.float32))
