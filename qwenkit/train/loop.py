"""The training loop: predict, compare, follow the gradient, again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch

from qwenkit.device import synchronize, training_problem
from qwenkit.errors import TrainingError, warn
from qwenkit.model import QwenForCausalLM
from qwenkit.train._signals import interrupts_held
from qwenkit.train.batches import Batch, Batches
from qwenkit.train.evaluation import Evaluation
from qwenkit.train.losses import IGNORE, next_token_loss
from qwenkit.train.optimizer import MasterAdamW, clip_gradients, make_optimizer, steps_taken
from qwenkit.train.precision import products_in
from qwenkit.train.settings import TrainingSettings


@dataclass(frozen=True)
class Metrics:
    """What one step gave."""

    step: int  # counted from 1
    tokens: int  # labels that counted since the training began
    loss: float  # mean of the step's labels, in nats, before the step
    learning_rate: float  # of the step
    gradient_norm: float  # before clipping
    tokens_per_second: float  # input tokens of this step by its time
    evaluation: Evaluation | None = None  # of the held-out text after the step, where one was due


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
        """Restore what `state` returned."""


@dataclass(eq=False, repr=False)
class Trainer:
    """Trains a model.

    Attributes:
        step: how many steps are done.
        tokens: how many labels counted so far.
        stopping: why the run ends before its last step; None: it does not.
        interrupted: whether that came from outside (Ctrl-C) and the training may be resumed.

    Args:
        model: its parameters must require gradients.
        batches: the text.
        settings: how.
        evaluate: gives the held-out text's evaluation; called every `evaluate_every` steps and
            after the last.
        callbacks: called in this order.

    Raises:
        InputError: nothing to train, or half-precision weights without `master_weights`.
    """

    model: QwenForCausalLM
    batches: Batches
    settings: TrainingSettings
    _: KW_ONLY
    evaluate: Callable[[QwenForCausalLM], Evaluation] | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        problem = training_problem(self.model.device, self.model.config.vocab_size)
        if problem:
            warn(f"{problem}.")
        self.callbacks = list(self.callbacks)
        self.schedule = self.settings.rates()
        self.optimizer = make_optimizer(
            self.model,
            learning_rate=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            betas=(0.9, self.settings.beta2),
            master_weights=self.settings.master_weights,
            muon=self.settings.optimizer == "muon",
        )
        self.step = self.tokens = 0
        self.stopping: str | None = None
        self.interrupted = False
        self._late: Metrics | None = None  # of a step that is done, before they are returned

    def run(self) -> None:
        """Train from the present step to the last, or until `stopping` is set.

        After Ctrl-C it can be called again. Ctrl-C waits until all callbacks know of a step.

        Raises:
            TrainingError: the loss or the gradient is NaN or infinite; the weights are those
                before that step.
        """
        self.model.train()
        if self._late and self._late.step != self.step:
            self._late = None  # another state was loaded meanwhile
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            while (self.step < self.settings.steps or self._late) and self.stopping is None:
                metrics = self._evaluated(self._late) if self._late else self.train_step()
                with interrupts_held():
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
        """Take one optimizer step, and evaluate if it is due.

        An error or Ctrl-C before the weights change leaves everything as it was, the position in
        the text too: the next call takes the same step.

        Raises:
            TrainingError: the loss or the gradient is NaN or infinite.
        """
        return self._evaluated(self._step())

    def _evaluated(self, metrics: Metrics) -> Metrics:
        metrics = replace(metrics, evaluation=self._evaluation())
        self._late = None
        return metrics

    def _step(self) -> Metrics:
        began = time.perf_counter()
        rate = self.schedule(self.step)
        position, random_state = self.batches.position, torch.get_rng_state()
        done, after = steps_taken(self.optimizer), (self.step, self.tokens)
        try:
            loss, norm, inputs, counted = self._compute(rate)
            after = self.step + 1, self.tokens + counted
            with interrupts_held():
                self.optimizer.step()
                self.step, self.tokens = after
                self.optimizer.zero_grad(set_to_none=True)
                synchronize(self.model.device)
                speed = inputs / (time.perf_counter() - began)
                self._late = Metrics(self.step, self.tokens, loss, rate, norm, speed)
                return self._late
        except BaseException:
            if steps_taken(self.optimizer) > done:
                self.step, self.tokens = after
            else:
                self.batches.seek(position)
                torch.set_rng_state(random_state)  # what dropout draws
            raise

    def _compute(self, rate: float) -> tuple[float, float, int, int]:
        """Leave the clipped gradient of the next batches; return loss, norm, inputs and labels."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)  # what an interrupted step may have left
        batches = [next(self.batches) for _ in range(self.settings.accumulate)]
        counted = sum(int((batch.labels != IGNORE).sum()) for batch in batches)
        loss = self._gradients(batches, counted)
        norm = clip_gradients(self.optimizer, self.settings.clip).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {loss} and the gradient's norm {norm}; "
                f"the learning rate of {rate:.2g} is probably too large, or the warm-up too short"
            )
        return loss, norm, sum(batch.input_ids.numel() for batch in batches), counted

    def _gradients(self, batches: Sequence[Batch], counted: int) -> float:
        """Add up the batches' gradients as if they were one batch, and return its mean loss."""
        device, settings = self.model.device, self.settings
        total = torch.zeros((), device=device)
        for batch in batches:
            with products_in(settings.products(device), device):
                logits = self.model(batch.input_ids.to(device))  # (B, T, V)
            labels, smoothing = batch.labels.to(device), settings.label_smoothing
            loss = next_token_loss(logits, labels, label_smoothing=smoothing, reduction="sum")
            # Divided by all labels of the step: the mean of means would weigh them unequally.
            loss = loss / counted
            loss.backward()  # type: ignore[no-untyped-call]
            if isinstance(self.optimizer, MasterAdamW):
                self.optimizer.collect()
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
