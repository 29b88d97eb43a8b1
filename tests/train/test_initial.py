"""The weights a training starts from."""

import math

import pytest
import torch
from small import same_weights, small_model

from qwenkit.train import init_weights

WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8}


def spreads(model, ending):
    return [p.std().item() for name, p in model.named_parameters() if name.endswith(ending)]


@pytest.mark.parametrize("spread", [0.02, 0.5])
@pytest.mark.parametrize(
    ("ending", "count", "smaller"),
    [
        ("embed_tokens.weight", 1, False),
        ("lm_head.weight", 1, False),
        ("q_proj.weight", 8, False),
        ("k_proj.weight", 8, False),
        ("v_proj.weight", 8, False),
        ("gate_proj.weight", 8, False),
        ("up_proj.weight", 8, False),
        ("o_proj.weight", 8, True),
        ("down_proj.weight", 8, True),
    ],
)
def test_standard_deviations(spread, ending, count, smaller):
    model = small_model(**WIDE, initializer_range=spread, tie_word_embeddings=False)
    want = spread / math.sqrt(2 * 8) if smaller else spread
    assert spreads(model, ending) == pytest.approx([want] * count, rel=0.06)


def test_matrices_are_normal_around_zero():
    values = small_model(hidden_size=64, initializer_range=1.0).model.embed_tokens.weight.flatten()
    assert abs(values.mean()) < 0.03
    for bound, share in ((1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)):
        assert (values.abs() < bound).float().mean().item() == pytest.approx(share, abs=0.01)


def test_norms_are_one_and_biases_zero():
    model = small_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)  # whatever was there before
    init_weights(model)
    vectors = {name: p for name, p in model.named_parameters() if p.dim() == 1}
    assert len(vectors) == 2 * (2 + 3) + 1
    for name, parameter in vectors.items():
        want = 1.0 if "norm" in name else 0.0
        assert (parameter == want).all(), name
    assert all((p != 7.0).all() for p in model.parameters())


def test_a_seed_always_gives_the_same_weights_and_another_seed_others():
    assert same_weights(small_model(seed=3), small_model(seed=3))
    one, other = small_model(seed=3), small_model(seed=4)
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q) == (p.dim() == 1), name


def test_no_two_matrices_hold_the_same_numbers():
    firsts = [p.flatten()[0].item() for p in small_model().parameters() if p.dim() == 2]
    assert len(set(firsts)) == len(firsts)


def test_the_global_random_numbers_play_no_part():
    model = small_model(seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    init_weights(model, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(model, small_model(seed=3))


def test_frozen_stays_frozen_and_trained_stays_trained():
    model = small_model()
    model.model.norm.requires_grad_(False)
    init_weights(model)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(p.grad_fn is None for p in model.parameters())
