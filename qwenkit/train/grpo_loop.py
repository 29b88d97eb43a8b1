"""Learning from rewards: write programs, run them, and make what passed more likely."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random

from jaxtyping import Bool, Float
from torch import Tensor

from qwenkit.arguments import checked
from qwenkit.device import training_problem
from qwenkit.errors import InputError, TrainingError, warn
from qwenkit.generate import row_seed
from qwenkit.lora import lora_layers
from qwenkit.model import QwenForCausalLM
from qwenkit.programs import Task
from qwenkit.tokenizer import Tokenizer
from qwenkit.train._signals import interrupts_held
from qwenkit.train.batches import Batch
from qwenkit.train.grpo import group_advantages, grpo_loss, kl_estimate
from qwenkit.train.grpo_settings import GrpoMetrics, GrpoSettings
from qwenkit.train.losses import IGNORE
from qwenkit.train.optimizer import clip_gradients, make_optimizer
from qwenkit.train.policy import completion_batch, reference_log_probs, token_log_probs
from qwenkit.train.rollouts import Reward, Rollouts, passes_tests, roll_out


@dataclass
class _Part:
    """Completions that are learned from in one forward pass.

    Attributes:
        batch: prompts and completions.
        advantages: of each completion.
        mask: True at the labels that count.
        reference: log-probabilities of the model at the start; None where beta is 0.
        old: log-probabilities at the time of sampling; None before the first pass.
    """

    batch: Batch
    advantages: Float[Tensor, " B"]
    mask: Bool[Tensor, "B T"]
    reference: Float[Tensor, "B T"] | None
    old: Float[Tensor, "B T"] | None = None


class GrpoTrainer:
    """Lets a model write programs for tasks, and learns from which of them pass.

    Iterating takes the steps: `for metrics in trainer: print(metrics.reward)`. A step draws tasks,
    samples a group of completions for each, rewards them, and raises the probability of those that
    did better than their group. After `break` or Ctrl-C the model is whole, and iterating goes on
    with the step that was not finished.

    The model stays in evaluation mode: without dropout, in sampling and in learning alike.

    Attributes:
        step: how many steps are done.
        rollouts: of the last step, to look at; None before the first.

    Args:
        model: float weights that require gradients, or with LoRA. Changed in place.
        tokenizer: its tokenizer.
        tasks: to draw from; at least `settings.prompts`.
        settings: how.
        reward: called with a task and the texts of its group; returns a number for each.

    Raises:
        InputError: nothing to train, or fewer tasks than a step draws.
    """

    @checked
    def __init__(
        self,
        model: QwenForCausalLM,
        tokenizer: Tokenizer,
        tasks: Sequence[Task],
        settings: GrpoSettings,
        reward: Reward = passes_tests,
    ) -> None:
        if len(tasks) < settings.prompts:
            raise InputError(
                f"there are {len(tasks)} tasks and a step draws {settings.prompts}; give more "
                "tasks, or let prompts be smaller"
            )
        problem = training_problem(model.device, model.config.vocab_size)
        if problem:
            warn(f"{problem}.")
        self.model, self.tokenizer, self.tasks = model, tokenizer, tasks
        self.settings, self.reward = settings, reward
        rate = settings.learning_rate
        self.optimizer = make_optimizer(model, learning_rate=rate, weight_decay=0.0)
        # With LoRA no copy is needed: switched off, it leaves the model as it was at the start.
        copied = settings.beta > 0 and not lora_layers(model)
        self.start = deepcopy(model).requires_grad_(False).eval() if copied else None
        self.step = 0
        self.rollouts: Rollouts | None = None

    def __iter__(self) -> Iterator[GrpoMetrics]:
        """Take the steps that are left; yield the metrics of each."""
        while self.step < self.settings.steps:
            yield self.train_step()

    def train_step(self) -> GrpoMetrics:
        """Sample, reward, and learn.

        Raises:
            InputError: rewards that are not finite numbers.
            TrainingError: the loss or the gradient is not finite; the weights are as before.
        """
        began = time.perf_counter()
        self.model.eval()
        self.rollouts = rollouts = self._sample()
        rewards, written = rollouts.rewards, rollouts.completions
        baseline, scale = self.settings.baseline, self.settings.scale
        advantages = group_advantages(rewards, scale) if baseline else rewards
        parts = self._parts(rollouts, advantages.flatten())
        loss, norm = self._learn(parts)
        entropy, kl = _measured(parts)
        return GrpoMetrics(
            step=self.step,
            reward=rewards.mean().item(),
            silent=(rewards == rewards[:, :1]).all(dim=1).float().mean().item(),
            length=sum(len(one.ids) for one in written) / len(written),
            cut_off=sum(not one.ended for one in written) / len(written),
            entropy=entropy,
            kl=kl,
            loss=loss,
            gradient_norm=norm,
            seconds=time.perf_counter() - began,
        )

    def _sample(self) -> Rollouts:
        """Draw the step's tasks; the seed and the step alone decide which, and what is sampled."""
        settings = self.settings
        rows = settings.prompts * settings.group_size
        tasks = Random(row_seed(settings.seed, self.step)).sample(self.tasks, settings.prompts)
        return roll_out(
            self.model, self.tokenizer, tasks, settings.group_size, self.reward,
            temperature=settings.temperature, max_new_tokens=settings.max_new_tokens,
            seed=row_seed(settings.seed, self.step * rows),
        )  # fmt: skip

    def _parts(self, rollouts: Rollouts, advantages: Float[Tensor, " B"]) -> list[_Part]:
        """Cut the completions into batches; those that have no gradient are left out."""
        settings, device = self.settings, self.model.device
        rows = [i for i, one in enumerate(advantages.tolist()) if one or settings.beta]
        parts = []
        for first in range(0, len(rows), settings.batch_size):
            some = rows[first : first + settings.batch_size]
            written = [rollouts.completions[i] for i in some]
            batch = completion_batch([one.prompt for one in written], [one.ids for one in written])
            reference = None
            if settings.beta:
                temperature = settings.temperature
                reference = reference_log_probs(self.model, batch, self.start, temperature)
            mask = (batch.labels != IGNORE).to(device)
            parts.append(_Part(batch, advantages[some].to(device), mask, reference))
        return parts

    def _learn(self, parts: list[_Part]) -> tuple[float, float]:
        """Take an optimizer step per epoch; return the last one's loss and gradient norm."""
        loss = norm = 0.0
        for epoch in range(self.settings.epochs):
            self.optimizer.zero_grad(set_to_none=True)
            loss = sum(map(self._gradient, parts))
            norm = clip_gradients(self.optimizer, self.settings.max_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {self.step + 1}: the loss is {loss} and the gradient's norm {norm}; "
                    f"the learning rate of {self.settings.learning_rate:.2g} is probably too large"
                )
            with interrupts_held():
                self.optimizer.step()
                if epoch == self.settings.epochs - 1:
                    self.step += 1
        return loss, norm

    def _gradient(self, part: _Part) -> float:
        """Add a part's gradient to that of the step; return its share of the loss."""
        settings = self.settings
        log_probs = token_log_probs(self.model, part.batch, settings.temperature)
        if part.old is None:  # nothing was learned since the sampling: the policy is the old one
            part.old = log_probs.detach()
        loss = grpo_loss(
            log_probs, part.old, part.advantages, part.mask, beta=settings.beta,
            clip=(settings.clip_low, settings.clip_high), reference_log_probs=part.reference,
            normalization=settings.normalization, max_length=settings.max_new_tokens,
        )  # fmt: skip
        # The step's loss is the mean over all of its completions, those left out too.
        loss = loss * len(part.advantages) / (settings.prompts * settings.group_size)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()


def _measured(parts: list[_Part]) -> tuple[float, float]:
    """Return entropy and KL divergence of the policy that sampled, in nats per token."""
    tokens = sum(int(part.mask.sum()) for part in parts)
    surprise = kl = 0.0
    for part in parts:
        assert part.old is not None
        surprise -= part.old[part.mask].sum().item()
        if part.reference is not None:
            kl += kl_estimate(part.old, part.reference)[part.mask].sum().item()
    return (surprise / tokens, kl / tokens) if parts else (math.nan, 0.0)
