"""The training loop: foresee, compare, follow the gradient, again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qwenkit.device import synchronize, training_problem
from qwenkit.errors import TrainingError, warn
from qwenkit.model import QwenForCausalLM
from qwenkit.train.batches import Batch, Batches
from qwenkit.train.evaluation import Evaluation
from qwenkit.train.losses import IGNORE, next_token_loss
from qwenkit.train.optimizer import make_optimizer
from qwenkit.train.settings import TrainingSettings


@dataclass(frozen=True)
class Metrics:
    """What one step gave.

    Attributes:
        step: counted from 1, as a reader counts.
        tokens: labels that counted since the training began.
        loss: mean of the step's labels, in nats, before the step.
        learning_rate: of the step.
        gradient_norm: before clipping.
        tokens_per_second: input tokens of this step by its time.
        evaluation: of the held-out text after the step, where one was due.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    evaluation: Evaluation | None = None


class Callback:
    """Something to do while a training runs; every method may be left out."""

    def on_start(self, trainer: Trainer) -> None:
        """Called before the first step of a run, a resumed one too."""

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Called after each step."""

    def on_end(self, trainer: Trainer) -> None:
        """Called once the run ends, after its last step or because `stopping` was set."""

    def on_error(self, trainer: Trainer) -> None:
        """Called instead of `on_end` where an error ends the run: nothing may be saved then."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed training must know again, as JSON values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""


class Trainer:
    """Trains a model.

    Attributes:
        step: how many steps are done.
        tokens: how many labels counted so far.
        stopping: why the run ends before its last step; None: it does not.
        interrupted: whether that came from outside (Ctrl-C) and the training may go on.

    Args:
        model: its parameters must require gradients.
        batches: the text.
        settings: how.
        evaluate: gives the held-out text's evaluation; called every `evaluate_every` steps and
            after the last.
        callbacks: called in this order.

    Raises:
        InputError: nothing to train.
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        batches: Batches,
        settings: TrainingSettings,
        *,
        evaluate: Callable[[QwenForCausalLM], Evaluation] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        problem = training_problem(model.device, model.config.vocab_size)
        if problem:
            warn(f"{problem}.")
        self.model = model
        self.batches = batches
        self.settings = settings
        self.evaluate = evaluate
        self.callbacks = list(callbacks)
        self.schedule = settings.rates()
        self.optimizer = make_optimizer(
            model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, settings.beta2),
        )
        self.step = 0
        self.tokens = 0
        self.stopping: str | None = None
        self.interrupted = False

    def run(self) -> None:
        """Train from the present step to the last, or until `stopping` is set.

        Raises:
            TrainingError: the loss or the gradient is no longer a number; the weights are those
                before that step.
        """
        self.model.train()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            while self.step < self.settings.steps and self.stopping is None:
                metrics = self.train_step()
                for callback in self.callbacks:
                    callback.on_step(self, metrics)
            for callback in self.callbacks:
                callback.on_end(self)
        except BaseException:
            for callback in self.callbacks:
                callback.on_error(self)
            raise
        finally:
            self.model.eval()

    def train_step(self) -> Metrics:
        """Take one optimizer step, and evaluate if it is due."""
        began = time.perf_counter()
        rate = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)  # what an interrupted step may have left
        batches = [next(self.batches) for _ in range(self.settings.accumulate)]
        counted = sum(int((batch.labels != IGNORE).sum()) for batch in batches)
        loss = self._gradients(batches, counted)
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.settings.clip or math.inf
        ).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {loss} and the gradient's norm {norm}; "
                f"the learning rate of {rate:.2g} is probably too large, or the warm-up too short"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronize(self.model.device)
        took = time.perf_counter() - began
        self.step += 1
        self.tokens += counted
        read = sum(batch.input_ids.numel() for batch in batches)
        return Metrics(self.step, self.tokens, loss, rate, norm, read / took, self._evaluation())

    def _gradients(self, batches: Sequence[Batch], counted: int) -> float:
        """Add up the batches' gradients as if they were one batch, and return its mean loss."""
        device = self.model.device
        total = torch.zeros((), device=device)
        for batch in batches:
            with torch.autocast(
                device.type, torch.bfloat16, enabled=self.settings.autocast == "bfloat16"
            ):
                logits = self.model(batch.input_ids.to(device))  # (B, T, V)
            loss = next_token_loss(
                logits,
                batch.labels.to(device),
                label_smoothing=self.settings.label_smoothing,
                reduction="sum",
            )
            # Divided by all labels of the step: the mean of means would weigh them unequally.
            loss = loss / counted
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total.item()

    def _evaluation(self) -> Evaluation | None:
        every = self.settings.evaluate_every
        due = bool(every) and (self.step % every == 0 or self.step == self.settings.steps)
        if self.evaluate is None or not due:
            return None
        self.model.eval()
        try:
            return self.evaluate(self.model)
        finally:
            self.model.train()
