"""The loop: each step is the one that a hand would take, and nothing else happens."""

import copy
import gc
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from small import (
    Record,
    held_out_loss,
    same_weights,
    small_batches,
    small_model,
    small_trainer,
    tokenizer,
)

from qwenkit.errors import InputError, TrainingError
from qwenkit.train import IGNORE, Callback, Document, Mix
from qwenkit.train import loop as loop_file


def spy_on_steps(trainer):
    """Note the gradients' norm and the learning rates that each optimizer step finds."""
    seen = []
    real = trainer.optimizer.step

    def step():
        gradients = [p.grad.flatten() for p in trainer.model.parameters()]
        rates = {group["lr"] for group in trainer.optimizer.param_groups}
        seen.append((torch.cat(gradients).norm().item(), rates))
        real()

    trainer.optimizer.step = step
    return seen


# --- a step by hand ---


def by_hand(model, batches, rates, decay, beta2, clip):
    """Train by the formulas: clipping, and AdamW (Loshchilov and Hutter 2019, algorithm 2)."""
    beta1 = 0.9
    memory = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in weights_of(model)}
    losses = []
    for t, rate in enumerate(rates, start=1):
        batch = next(batches)
        loss = F.cross_entropy(
            model(batch.input_ids).flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE
        )
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, [p for _, p in weights_of(model)])
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
        for (name, p), g in zip(weights_of(model), gradients, strict=True):
            g = g * min(1.0, clip / norm)
            mean, square = memory[name]
            mean.mul_(beta1).add_((1 - beta1) * g)
            square.mul_(beta2).add_((1 - beta2) * g * g)
            change = mean / (1 - beta1**t) / ((square / (1 - beta2**t)).sqrt() + 1e-8)
            with torch.no_grad():
                p.sub_(rate * (change + (decay if p.dim() == 2 else 0.0) * p))
    return losses


def weights_of(model):
    return list(model.named_parameters())


@pytest.mark.parametrize("clip", [1.0, 100.0])
def test_three_steps_equal_three_by_hand(clip):
    record = Record(until=3)
    trainer = small_trainer(record, clip=clip, weight_decay=0.3, beta2=0.9)
    model = copy.deepcopy(trainer.model)
    trainer.run()
    rates = [trainer.settings.rates()(step) for step in range(3)]
    losses = by_hand(model, small_batches(), rates, decay=0.3, beta2=0.9, clip=clip)
    assert [row[2] for row in record.rows] == pytest.approx(losses, abs=1e-5)
    for (name, got), (_, want) in zip(weights_of(trainer.model), weights_of(model), strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: n + m)
    start = small_model().state_dict()
    assert not any(p.equal(start[name]) for name, p in weights_of(trainer.model))


# --- accumulation ---


def test_four_batches_of_two_equal_one_of_eight():
    mix = Mix(repeats=0.5)
    record, other = Record(until=1), Record(until=1)
    small = small_trainer(record, batches=small_batches(batch_size=2, mix=mix), accumulate=4)
    large = small_trainer(other, batches=small_batches(batch_size=8, mix=mix))
    gradients = []
    for trainer in (small, large):
        real = trainer.optimizer.step

        def step(trainer=trainer, real=real):
            gradients.append([p.grad.clone() for p in trainer.model.parameters()])
            real()

        trainer.optimizer.step = step
        trainer.run()
    assert record.rows[0][:5] == pytest.approx(other.rows[0][:5], rel=1e-5)
    for one, four in zip(*gradients, strict=True):
        torch.testing.assert_close(one, four, atol=1e-6, rtol=1e-4)


def test_accumulation_is_not_the_mean_of_the_batches_means():
    source = small_batches(batch_size=2, mix=Mix(repeats=0.5))
    batches = [next(source) for _ in range(4)]
    counts = [int((batch.labels != IGNORE).sum()) for batch in batches]
    assert len(set(counts)) > 1  # else this proves nothing
    model = small_model()
    with torch.no_grad():
        means = [
            F.cross_entropy(model(b.input_ids).flatten(0, 1), b.labels.flatten()).item()
            for b in batches
        ]
    record = Record(until=1)
    source = small_batches(batch_size=2, mix=Mix(repeats=0.5))
    small_trainer(record, model=model, batches=source, accumulate=4).run()
    _, tokens, loss, *_ = record.rows[0]
    assert tokens == sum(counts)
    weighed = sum(mean * count for mean, count in zip(means, counts, strict=True)) / tokens
    assert loss == pytest.approx(weighed, abs=1e-5)
    assert abs(loss - sum(means) / 4) > 1e-4


# --- settings that reach the step ---


@pytest.mark.parametrize(("clip", "clips"), [(0.01, True), (1000.0, False), (0.0, False)])
def test_clipping_cuts_the_norm_down_and_zero_never_does(clip, clips):
    record = Record(until=4)
    trainer = small_trainer(record, clip=clip)
    seen = spy_on_steps(trainer)
    trainer.run()
    reported = [row[4] for row in record.rows]  # before clipping
    assert min(reported) > 0.5
    want = [0.01] * 4 if clips else reported
    assert [norm for norm, _ in seen] == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_learning_rate_of_each_step_is_the_schedules(kind):
    record = Record()
    trainer = small_trainer(record, schedule=kind, steps=6)
    seen = spy_on_steps(trainer)
    trainer.run()
    rates = [trainer.settings.rates()(step) for step in range(6)]
    assert [row[3] for row in record.rows] == rates
    assert [used for _, used in seen] == [{rate} for rate in rates]
    assert rates[:2] == [0.005, 0.01]


def test_label_smoothing_reaches_the_loss():
    batch = next(small_batches())
    with torch.no_grad():
        logits = small_model()(batch.input_ids).flatten(0, 1)
    want = F.cross_entropy(logits, batch.labels.flatten(), label_smoothing=0.3).item()
    assert abs(want - F.cross_entropy(logits, batch.labels.flatten()).item()) > 1e-4
    assert small_trainer(label_smoothing=0.3).train_step().loss == pytest.approx(want, abs=1e-5)


def test_autocast_computes_in_bfloat16_and_keeps_weights_in_float32():
    plain, cast = Record(), Record()
    small_trainer(plain).run()
    trainer = small_trainer(cast, autocast="bfloat16")
    dtypes = set()
    trainer.model.model.layers[0].mlp.up_proj.register_forward_hook(
        lambda module, given, made: dtypes.add(made.dtype)
    )
    trainer.run()
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    losses, others = ([row[2] for row in record.rows] for record in (plain, cast))
    assert losses != others
    assert losses[0] == pytest.approx(others[0], abs=0.01)
    assert losses == pytest.approx(others, abs=0.2)  # small differences grow with the steps


# --- learning ---


def test_a_model_learns_a_repetitive_text():
    text = "def double(number):\n    return number + number\n\n\n"
    ids = tokenizer().encode(text)
    shares = [count / len(ids) for count in Counter(ids).values()]
    unigram = -sum(share * math.log(share) for share in shares)
    batches = small_batches(documents=[Document("double.py", text * 40)], mix=Mix())
    record = Record()
    small_trainer(record, batches=batches, steps=60).run()
    losses = [row[2] for row in record.rows]
    assert losses[0] > 5.0  # about ln(300): it knows nothing yet
    assert 1.5 < unigram < losses[0]
    assert max(losses[-5:]) < unigram / 2


# --- evaluation, callbacks, the end ---


def test_evaluations_are_every_so_often_and_at_the_end_in_evaluation_mode():
    modes = []

    def evaluate(model):
        modes.append(model.training)
        return held_out_loss(model)

    record = Record()
    trainer = small_trainer(record, evaluate=evaluate, evaluate_every=3, steps=7)
    trainer.model.register_forward_pre_hook(
        lambda model, given: None if torch.is_grad_enabled() == model.training else 1 / 0
    )
    trainer.run()
    assert [row[0] for row in record.rows if row[5] is not None] == [3, 6, 7]
    assert modes == [False] * 3
    assert not trainer.model.training
    assert record.rows[-1][5] == held_out_loss(trainer.model)


@pytest.mark.parametrize("every", [0, 2])
def test_evaluations_do_not_change_the_training(every):
    plain, record = Record(), Record()
    one = small_trainer(plain, steps=5)
    other = small_trainer(record, evaluate=held_out_loss, evaluate_every=every, steps=5)
    one.run()
    other.run()
    assert [row[:5] for row in plain.rows] == [row[:5] for row in record.rows]
    assert same_weights(one.model, other.model)


def test_tokens_are_the_labels_that_count():
    record = Record()
    small_trainer(record, batches=small_batches(mix=Mix(repeats=0.5)), steps=5).run()
    batches = small_batches(mix=Mix(repeats=0.5))
    counts = [int((next(batches).labels != IGNORE).sum()) for _ in range(5)]
    assert min(counts) < 4 * 16
    assert [row[1] for row in record.rows] == [sum(counts[: i + 1]) for i in range(5)]


class Journal(Callback):
    """Notes what is called."""

    def __init__(self, name, notes, fails_at=0):
        self.name, self.notes, self.fails_at = name, notes, fails_at

    def on_start(self, trainer):
        self.notes.append(f"{self.name} start")

    def on_step(self, trainer, metrics):
        self.notes.append(f"{self.name} {metrics.step}")
        if metrics.step == self.fails_at:
            raise KeyboardInterrupt

    def on_end(self, trainer):
        self.notes.append(f"{self.name} end")

    def on_error(self, trainer):
        self.notes.append(f"{self.name} error")


def test_callbacks_are_called_in_order():
    notes = []
    small_trainer(Journal("a", notes), Journal("b", notes), steps=2, warmup_steps=0).run()
    assert notes == ["a start", "b start", "a 1", "b 1", "a 2", "b 2", "a end", "b end"]


def test_an_error_is_told_to_every_callback_instead_of_the_end():
    notes = []
    trainer = small_trainer(Journal("a", notes, fails_at=2), Journal("b", notes), steps=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert notes[-4:] == ["b 1", "a 2", "a error", "b error"]
    assert trainer.step == 2
    assert not trainer.model.training


def test_stopping_ends_the_run_after_the_step():
    record = Record(until=3)
    trainer = small_trainer(record)
    trainer.run()
    assert (trainer.step, trainer.stopping) == (3, "the test asked for it")
    trainer.run()  # it stays stopped
    assert trainer.step == 3
    trainer.stopping = None
    trainer.run()
    assert trainer.step == 12
    whole = Record()
    small_trainer(whole).run()
    assert record.rows == whole.rows


def test_gradients_of_an_interrupted_step_are_forgotten(monkeypatch):
    trainer, calls = small_trainer(accumulate=2), []
    real = loop_file.next_token_loss

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(loop_file, "next_token_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step()
    assert trainer.model.model.norm.weight.grad is not None
    trainer.batches.seek({"epoch": 0, "index": 0})
    got, want = trainer.train_step(), small_trainer(accumulate=2).train_step()
    assert (got.loss, got.gradient_norm) == (want.loss, want.gradient_norm)


def test_a_device_that_is_known_to_be_wrong_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(
        loop_file, "training_problem", lambda *given: asked.append(given) or "wrong gradients"
    )
    with pytest.warns(UserWarning, match=r"wrong gradients\."):
        trainer = small_trainer()
    assert asked == [(trainer.model.device, trainer.model.config.vocab_size)]


def test_a_frozen_model_has_nothing_to_train():
    with pytest.raises(InputError, match="requires_grad"):
        small_trainer(model=small_model().requires_grad_(False))


# --- numbers that are none ---


class Spoil(Callback):
    """Sets one weight to nan after a step."""

    def __init__(self, after):
        self.after = after

    def on_step(self, trainer, metrics):
        self.before = copy.deepcopy(trainer.model)
        if metrics.step == self.after:
            with torch.no_grad():
                trainer.model.model.norm.weight[0] = math.nan


def test_a_weight_that_is_no_number_ends_the_run_and_names_the_step():
    record = Record()
    trainer = small_trainer(Spoil(after=3), record)
    with pytest.raises(TrainingError, match=r"^step 4: the loss is nan"):
        trainer.run()
    assert len(record.rows) == trainer.step == 3


def test_a_far_too_large_learning_rate_ends_the_run_before_the_weights_are_touched():
    record, spoil = Record(), Spoil(after=0)
    trainer = small_trainer(spoil, record, learning_rate=1e9, steps=50)
    with pytest.raises(TrainingError, match=r"learning rate of 1e\+09 is probably too large") as e:
        trainer.run()
    assert str(e.value).startswith(f"step {trainer.step + 1}: ")
    assert 1 <= trainer.step < 50
    left = trainer.model.state_dict()
    assert all(left[n].allclose(v, equal_nan=True) for n, v in spoil.before.state_dict().items())


def test_a_gradient_that_overflows_ends_the_run(monkeypatch):
    trainer = small_trainer()
    real = torch.nn.utils.clip_grad_norm_

    def overflowing(parameters, most):
        parameters = list(parameters)
        parameters[0].grad.fill_(1e30)  # its square is beyond float32
        return real(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflowing)
    with pytest.raises(TrainingError, match=r"step 1: .*the gradient's norm inf"):
        trainer.train_step()
    assert same_weights(trainer.model, small_model())


# --- memory ---


def live_tensors(trainer, steps):
    """Return how many tensors are alive after 20 steps and after the last."""
    counts = []

    class Count(Callback):
        def on_step(self, trainer, metrics):
            if metrics.step in (20, steps):
                gc.collect()
                counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))

    trainer.callbacks.append(Count())
    trainer.run()
    return counts


def tiny_trainer(steps):
    model = small_model(num_hidden_layers=1)
    return small_trainer(model=model, batches=small_batches(batch_size=1), steps=steps)


def test_nothing_grows_with_the_steps():
    early, late = live_tensors(tiny_trainer(200), 200)
    assert late <= early + 5


def test_losses_kept_with_their_graphs_would_be_noticed(monkeypatch):
    kept = []
    real = loop_file.next_token_loss

    def keeping(*args, **kwargs):
        kept.append(real(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(loop_file, "next_token_loss", keeping)
    early, late = live_tensors(tiny_trainer(40), 40)
    assert late >= early + 20
