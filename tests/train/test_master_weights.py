"""Half-precision weights: refused, or trained as float32 copies that small steps add up in."""

import copy

import pytest
import small
import torch
from small import Record, small_model, small_trainer

from qwenkit.errors import InputError
from qwenkit.train import SaveTraining, make_optimizer

HALF = (torch.bfloat16, torch.float16)
SLOW = {"learning_rate": 1e-5, "schedule": "constant", "warmup_steps": 0, "steps": 20}


def trained(dtype, *callbacks, **settings):
    """Return a trainer that has run on a model of that dtype, and the weights it began with."""
    model = small_model().bfloat16().to(dtype)  # the same values in every dtype
    before = copy.deepcopy(model.state_dict())
    trainer = small_trainer(*callbacks, model=model, **{**SLOW, **settings})
    trainer.run()
    return trainer, before


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_is_refused_with_what_to_do(dtype):
    named = str(dtype).removeprefix("torch.")
    for make in (make_optimizer, lambda model: small_trainer(model=model)):
        with pytest.raises(InputError, match=f"are {named}, .*float32, or set master_weights=True"):
            make(small_model().to(dtype))
    mixed = small_model()
    mixed.model.norm.to(dtype)
    with pytest.raises(InputError, match=named):
        make_optimizer(mixed)
    mixed.model.norm.requires_grad_(False)
    assert type(make_optimizer(mixed, master_weights=True)) is torch.optim.AdamW


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_copies_take_the_very_steps_of_float32_and_the_weights_are_the_copies_rounded(dtype):
    half, whole = small_model().to(dtype), small_model().to(dtype).float()
    optimizer = make_optimizer(half, learning_rate=1e-5, master_weights=True)
    other = make_optimizer(whole, learning_rate=1e-5)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        for one, two in zip(half.parameters(), whole.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=draw).to(dtype)
            two.grad = one.grad.float()
        optimizer.step()
        other.step()
    for one, two in zip(half.parameters(), whole.parameters(), strict=True):
        assert torch.equal(optimizer.masters[one], two)
        assert torch.equal(one, two.to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_training_moves_as_in_float32(dtype):
    trainer, before = trained(dtype, master_weights=True, accumulate=2)
    whole, _ = trained(torch.float32, accumulate=2)
    masters = trainer.optimizer.masters
    moves = [
        torch.cat([(p.float() - before[n].float()).flatten() for n, p in named])
        for named in (
            [(n, masters[p]) for n, p in trainer.model.named_parameters()],
            list(whole.model.named_parameters()),
        )
    ]
    assert (moves[0] != 0).float().mean() > 0.95
    assert torch.cosine_similarity(*moves, dim=0) > 0.9
    assert all(torch.equal(p, masters[p].to(dtype)) for p in trainer.model.parameters())


def test_an_edited_weight_is_what_the_next_step_begins_from():
    model = small_model().bfloat16()
    optimizer = make_optimizer(model, learning_rate=1e-5, master_weights=True)
    model.model.norm.weight.data.fill_(3.0)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    master = optimizer.masters[model.model.norm.weight]
    assert torch.allclose(master, torch.full_like(master, 3 - 1e-5), atol=1e-6)
    optimizer.zero_grad()
    assert all(one.grad is None for pair in optimizer.masters.items() for one in pair)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def make(folder, record, again):
        model = small_model(seed=99 * again).bfloat16()
        save = SaveTraining(folder / "checkpoints", keep=1)
        return small_trainer(record, save, model=model, master_weights=True, learning_rate=1e-4)

    whole, then = small.resumed(tmp_path, make, 5)
    for one, two in zip(whole.model.parameters(), then.model.parameters(), strict=True):
        assert torch.equal(whole.optimizer.masters[one], then.optimizer.masters[two])


def test_accumulated_gradients_add_up_in_float32_and_are_clipped_there():
    seen = []
    trainer = small_trainer(
        Record(1), model=small_model().bfloat16(), accumulate=3, clip=0.01, master_weights=True
    )
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.extend(p.grad for p in optimizer.masters.values())
    )
    trainer.run()
    assert {gradient.dtype for gradient in seen} == {torch.float32}
    norm = torch.cat([gradient.flatten() for gradient in seen]).norm().item()
    assert norm == pytest.approx(0.01, rel=1e-4)
