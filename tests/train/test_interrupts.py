"""Ctrl-C in a training step: taken whole or not at all, and the next call takes it again."""

import os
import signal
from pathlib import Path

import pytest
import small
import torch
from interruptions import at_line
from small import interrupt, small_batches, small_model, small_trainer

import qwenkit as qk
from qwenkit.train import loop as loop_file

TRAIN = str(Path(loop_file.__file__).parent)


def with_dropout():
    """Return a trainer whose next batch begins an epoch, and whose LoRA draws random numbers."""
    torch.manual_seed(3)
    model = small_model()
    qk.add_lora(model, rank=2, dropout=0.2)
    trainer = small_trainer(model=model, batches=small_batches(), accumulate=2)
    trainer.batches.index = len(trainer.batches._order) // 4 * 4
    return trainer


def test_interrupted_at_any_line_the_next_call_is_right():
    whole = with_dropout()
    lines = at_line(whole.train_step, -1, TRAIN)
    whole.train_step()
    assert lines > 100
    for number in {*range(1, lines, lines // 12), *range(lines - 12, lines + 1)}:
        trainer = with_dropout()
        with pytest.raises(KeyboardInterrupt):
            at_line(trainer.train_step, number, TRAIN)
        while trainer.step < 2:
            trainer.train_step()
        assert small.same_weights(trainer.model, whole.model), number
        assert (trainer.tokens, trainer.batches.position) == (whole.tokens, whole.batches.position)


def test_a_step_that_fails_does_not_skip_its_batches(monkeypatch):
    trainer = small_trainer(accumulate=2)
    for failure in (interrupt, lambda *a, **k: torch.tensor(float("nan"), requires_grad=True)):
        monkeypatch.setattr(loop_file, "next_token_loss", failure)
        with pytest.raises((KeyboardInterrupt, qk.errors.TrainingError)):
            trainer.train_step()
        monkeypatch.undo()
        assert trainer.batches.position == {"epoch": 0, "index": 0}
    want = small_trainer(accumulate=2)
    assert trainer.train_step().loss == want.train_step().loss


def test_a_signal_during_the_optimizers_step_takes_effect_after_it(ctrl_c):
    trainer, want = small_trainer(), small_trainer()
    hook = lambda *_: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    handle = trainer.optimizer.register_step_pre_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step()
    handle.remove()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    want.train_step()
    assert (trainer.step, trainer.tokens) == (1, want.tokens)
    trainer.train_step()
    want.train_step()
    assert small.same_weights(trainer.model, want.model)


class Presses(qk.train.Callback):
    """Presses Ctrl-C once, while the callbacks are told of step 3."""

    def on_step(self, trainer, metrics):
        if metrics.step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_goes_on_after_ctrl_c_in_an_evaluation_or_a_callback(ctrl_c):
    pressed = []

    def evaluate(model):
        if len(pressed) < 2:  # at the first and at the last evaluation
            pressed.append(1)
            raise KeyboardInterrupt
        return small.held_out_loss(model)

    settings = {"steps": 4, "evaluate_every": 2}
    want = small.trained(small.Record(), evaluate=small.held_out_loss, **settings)
    trainer = small_trainer(Presses(), small.Record(), evaluate=evaluate, **settings)
    for step in (2, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert trainer.step == step
    pressed.pop()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer.run()
    assert trainer.callbacks[1].rows == want.callbacks[0].rows
    assert small.same_weights(trainer.model, want.model)
