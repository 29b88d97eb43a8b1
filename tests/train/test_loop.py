"""The loop: each step is the one computed by hand, and nothing else happens."""

import copy
import gc
import itertools
import math
from unittest import mock

import pytest
import small
import torch
import torch.nn.functional as F
from small import At, Record, held_out_loss, interrupt, small_batches, small_model, small_trainer

from qwenkit.errors import InputError, TrainingError
from qwenkit.train import IGNORE, Callback, Document, Mix
from qwenkit.train import loop as loop_file
from qwenkit.train import settings as settings_file


def spied(until=0, **settings):
    """Train; return trainer, record, and the gradients and learning rates of optimizer steps."""
    seen, trainer = [], small_trainer(record := Record(until), **settings)

    def see(optimizer, *_):
        rates = {group["lr"] for group in optimizer.param_groups}
        seen.append((torch.cat([p.grad.flatten() for p in trainer.model.parameters()]), rates))

    trainer.optimizer.register_step_pre_hook(see)
    trainer.run()
    return trainer, record, seen


def column(record, number):
    return [row[number] for row in record.rows]


def by_hand(model, batches, rates, decay, beta2, clip):
    """Train by the formulas: clipping, and AdamW (Loshchilov and Hutter 2019, algorithm 2)."""
    beta1 = 0.9
    parameters = list(model.parameters())
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    losses = []
    for t, rate in enumerate(rates, start=1):
        loss = plain_loss(model, next(batches))
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
        for p, g, (mean, square) in zip(parameters, gradients, moments, strict=True):
            g = g * min(1.0, clip / norm)
            mean.mul_(beta1).add_((1 - beta1) * g)
            square.mul_(beta2).add_((1 - beta2) * g * g)
            change = mean / (1 - beta1**t) / ((square / (1 - beta2**t)).sqrt() + 1e-8)
            p.data.sub_(rate * (change + (decay if p.dim() == 2 else 0.0) * p))
    return losses


def plain_loss(model, batch, **options):
    return F.cross_entropy(model(batch.input_ids).flatten(0, 1), batch.labels.flatten(), **options)


@pytest.mark.parametrize("clip", [1.0, 100.0])
def test_three_steps_equal_three_by_hand(clip):
    trainer = small.trained(record := Record(until=3), clip=clip, weight_decay=0.3, beta2=0.9)
    model, start = small_model(), small_model().state_dict()
    rates = [trainer.settings.rates()(step) for step in range(3)]
    losses = by_hand(model, small_batches(), rates, decay=0.3, beta2=0.9, clip=clip)
    assert column(record, 2) == pytest.approx(losses, abs=1e-5)
    for name, got in trainer.model.named_parameters():
        want = model.get_parameter(name)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: n + m)
        assert not got.equal(start[name])


def test_four_batches_of_two_equal_one_of_eight():
    rows, gradients = [], []
    for size, accumulate in ((2, 4), (8, 1)):
        batches = small_batches(batch_size=size, mix=Mix(repeats=0.5))
        _, record, seen = spied(until=1, batches=batches, accumulate=accumulate)
        rows.append(record.rows[0][:5])
        gradients.append(seen[0][0])
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_accumulation_weighs_batches_by_the_labels_that_count():
    sizes = {"batch_size": 2, "mix": Mix(repeats=0.5)}
    batches = list(itertools.islice(small_batches(**sizes), 5))
    counts = [int((batch.labels != IGNORE).sum()) for batch in batches]
    assert len(set(counts[:4])) > 1  # else this proves nothing
    assert min(counts) < 2 * 16
    means = [plain_loss(small_model(), batch).item() for batch in batches[:4]]
    small.trained(record := Record(until=1), batches=small_batches(**sizes), accumulate=4)
    _, tokens, loss, *_ = record.rows[0]
    assert tokens == sum(counts[:4])
    weighed = sum(mean * count for mean, count in zip(means, counts, strict=False)) / tokens
    assert loss == pytest.approx(weighed, abs=1e-5)
    assert abs(loss - sum(means) / 4) > 1e-4
    small.trained(record := Record(), batches=small_batches(**sizes), steps=5)
    assert column(record, 1) == list(itertools.accumulate(counts))


@pytest.mark.parametrize(("clip", "clips"), [(0.01, True), (1000.0, False), (0.0, False)])
def test_clipping_cuts_the_norm_down_and_zero_never_does(clip, clips):
    _, record, seen = spied(clip=clip, steps=4)
    reported = column(record, 4)  # before clipping
    assert min(reported) > 0.5
    want = [0.01] * 4 if clips else reported
    assert [gradient.norm().item() for gradient, _ in seen] == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_learning_rate_of_each_step_is_the_schedules(kind):
    trainer, record, seen = spied(schedule=kind, steps=6)
    rates = [trainer.settings.rates()(step) for step in range(6)]
    assert column(record, 3) == rates
    assert [used for _, used in seen] == [{rate} for rate in rates]
    assert rates[:2] == [0.005, 0.01]


def test_label_smoothing_reaches_the_loss():
    given = small_model(), next(small_batches())
    want = plain_loss(*given, label_smoothing=0.3).item()
    assert abs(want - plain_loss(*given).item()) > 1e-4
    assert small_trainer(label_smoothing=0.3).train_step().loss == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("autocast", ["bfloat16", "auto"])
def test_autocast_computes_in_bfloat16_and_keeps_weights_in_float32(autocast, monkeypatch):
    monkeypatch.setattr(settings_file, "has_bfloat16_products", lambda: True)
    dtypes, model = set(), small_model()
    layer, heads = model.model.layers[0], set()
    layer.mlp.up_proj.register_forward_hook(lambda module, given, made: dtypes.add(made.dtype))
    layer.self_attn.o_proj.register_forward_pre_hook(lambda _, given: heads.add(given[0].dtype))
    small.trained(plain := Record())
    small.trained(cast := Record(), model=model, autocast=autocast)
    assert dtypes == {torch.bfloat16}
    assert heads == {torch.float32}  # attention itself: on a CPU it is slower in bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    losses, others = column(plain, 2), column(cast, 2)
    assert losses != others
    assert losses[0] == pytest.approx(others[0], abs=0.01)
    assert losses == pytest.approx(others, abs=0.2)  # small differences grow with the steps


def test_a_model_learns_a_repetitive_text():
    text = "def double(number):\n    return number + number\n\n\n"
    ids = small.tokenizer().encode(text)
    unigram = -sum(math.log(ids.count(token) / len(ids)) for token in ids) / len(ids)
    batches = small_batches(documents=[Document("double.py", text * 40)], mix=Mix())
    small.trained(record := Record(), batches=batches, steps=60)
    losses = column(record, 2)
    assert losses[0] > 5.0  # about ln(300): it knows nothing yet
    assert 1.5 < unigram < losses[0]
    assert max(losses[-5:]) < unigram / 2


def test_evaluations_are_every_so_often_and_at_the_end_in_evaluation_mode():
    modes, model = [], small_model()

    def evaluate(model):
        modes.append(model.training)
        return held_out_loss(model)

    def gradients_only_in_training(model, given):
        assert torch.is_grad_enabled() == model.training

    model.register_forward_pre_hook(gradients_only_in_training)
    small.trained(record := Record(), model=model, evaluate=evaluate, evaluate_every=3, steps=7)
    assert [row[0] for row in record.rows if row[5] is not None] == [3, 6, 7]
    assert (modes, model.training) == ([False] * 3, False)
    assert record.rows[-1][5] == held_out_loss(model)
    for every in (0, 2):  # evaluations do not change the training
        settings = {"evaluate": held_out_loss, "evaluate_every": every, "steps": 7}
        trainer = small.trained(other := Record(), **settings)
        assert [row[:5] for row in other.rows] == [row[:5] for row in record.rows]
        assert small.same_weights(trainer.model, model)


class Journal(Callback):
    """Notes what is called."""

    def __init__(self, name, notes):
        self.on_start = lambda trainer: notes.append(f"{name} start")
        self.on_step = lambda trainer, metrics: notes.append(f"{name} {metrics.step}")
        self.on_end = lambda trainer: notes.append(f"{name} end")
        self.on_error = lambda trainer: notes.append(f"{name} error")


def test_callbacks_are_called_in_order_and_told_of_an_error_instead_of_the_end():
    notes = []
    small.trained(Journal("a", notes), Journal("b", notes), steps=2, warmup_steps=0)
    assert notes == ["a start", "b start", "a 1", "b 1", "a 2", "b 2", "a end", "b end"]
    trainer = small_trainer(Journal("a", notes), At(2, interrupt), Journal("b", notes), steps=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert notes[-4:] == ["b 1", "a 2", "a error", "b error"]
    assert (trainer.step, trainer.model.training) == (2, False)


def test_stopping_ends_the_run_after_the_step():
    trainer = small.trained(record := Record(until=3))
    assert (trainer.step, trainer.stopping) == (3, "the test asked for it")
    trainer.run()  # it stays stopped
    assert trainer.step == 3
    trainer.stopping = None
    trainer.run()
    assert trainer.step == small.trained(whole := Record()).step == 12
    assert record.rows == whole.rows


def test_gradients_of_an_interrupted_step_are_forgotten(monkeypatch):
    trainer, losses = small_trainer(accumulate=2), [loop_file.next_token_loss, interrupt]
    monkeypatch.setattr(loop_file, "next_token_loss", lambda *a, **k: losses.pop(0)(*a, **k))
    with pytest.raises(KeyboardInterrupt):
        trainer.train_step()
    monkeypatch.undo()
    assert trainer.model.model.norm.weight.grad is not None
    trainer.batches.seek({"epoch": 0, "index": 0})
    got, want = trainer.train_step(), small_trainer(accumulate=2).train_step()
    assert (got.loss, got.gradient_norm) == (want.loss, want.gradient_norm)


def test_a_device_that_is_known_to_be_wrong_is_told_and_a_frozen_model_refused():
    with mock.patch.object(loop_file, "training_problem", return_value="wrong grads") as problem:
        with pytest.warns(UserWarning, match=r"wrong grads\."):
            model = small_trainer().model
    problem.assert_called_once_with(model.device, model.config.vocab_size)
    with pytest.raises(InputError, match="requires_grad"):
        small_trainer(model=small_model().requires_grad_(False))


def test_nan_overflow_and_a_far_too_large_learning_rate_end_the_run_before_weights_change():
    spoil = At(3, lambda trainer: trainer.model.model.norm.weight.data[0].fill_(math.nan))
    trainer = small_trainer(spoil, record := Record())
    with pytest.raises(TrainingError, match=r"^step 4: the loss is nan"):
        trainer.run()
    assert len(record.rows) == trainer.step == 3
    before = {}
    keep = At(None, lambda trainer: before.update(copy.deepcopy(trainer.model.state_dict())))
    trainer = small_trainer(keep, learning_rate=1e9, steps=50)
    with pytest.raises(TrainingError, match=r"learning rate of 1e\+09 is probably too large") as e:
        trainer.run()
    assert str(e.value).startswith(f"step {trainer.step + 1}: ")
    assert 1 <= trainer.step < 50
    left = trainer.model.state_dict()
    assert all(left[name].allclose(value, equal_nan=True) for name, value in before.items())
    trainer = small_trainer()
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda gradient: torch.full_like(gradient, 1e30))  # squared: infinite
    with pytest.raises(TrainingError, match=r"step 1: .*the gradient's norm inf"):
        trainer.train_step()
    assert small.same_weights(trainer.model, small_model())


def live_tensors(steps):
    """Return how many tensors are alive after 20 steps and after the last."""
    counts = []

    def count(trainer):
        gc.collect()
        counts.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))

    model, batches = small_model(num_hidden_layers=1), small_batches(batch_size=1)
    small.trained(At(20, count), At(steps, count), model=model, batches=batches, steps=steps)
    return counts


def test_nothing_grows_with_the_steps_and_losses_kept_with_graphs_would_be_noticed(monkeypatch):
    early, late = live_tensors(200)
    assert late <= early + 5
    kept, real = [], loop_file.next_token_loss
    keeping = lambda *a, **k: kept.append(real(*a, **k)) or kept[-1]  # noqa: E731
    monkeypatch.setattr(loop_file, "next_token_loss", keeping)
    early, late = live_tensors(40)
    assert late >= early + 20
