"""The weights that training starts from."""

import math

import pytest
import torch
from small import same_weights, small_model

from qwenkit.train import init_weights

WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8}
FULL = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
SMALLER = ("o_proj", "down_proj")


@pytest.mark.parametrize("std", [0.02, 0.5])
@pytest.mark.parametrize("name", [*FULL, *SMALLER])
def test_standard_deviations(std, name):
    model = small_model(**WIDE, initializer_range=std, tie_word_embeddings=False)
    found = [p.std().item() for n, p in model.named_parameters() if n.endswith(f"{name}.weight")]
    want = std / math.sqrt(2 * 8) if name in SMALLER else std
    assert found == pytest.approx([want] * (8 if "proj" in name else 1), rel=0.06)


def test_matrices_are_normal_around_zero_and_no_two_hold_the_same_values():
    values = small_model(hidden_size=64, initializer_range=1.0).model.embed_tokens.weight.flatten()
    assert abs(values.mean()) < 0.03
    for bound, fraction in ((1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)):
        assert (values.abs() < bound).float().mean().item() == pytest.approx(fraction, abs=0.01)
    firsts = [p.flatten()[0].item() for p in small_model().parameters() if p.dim() == 2]
    assert len(set(firsts)) == len(firsts)


def test_norms_are_one_biases_zero_and_frozen_stays_frozen():
    model = small_model()
    model.model.norm.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.fill_(7.0)  # whatever was there before
    init_weights(model)
    vectors = {name: p for name, p in model.named_parameters() if p.dim() == 1}
    assert len(vectors) == 2 * (2 + 3) + 1
    for name, parameter in vectors.items():
        want = 1.0 if "norm" in name else 0.0
        assert (parameter == want).all(), name
    assert all((p != 7.0).all() for p in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(p.grad_fn is None for p in model.parameters())


def test_a_seed_always_gives_the_same_weights_and_another_seed_others():
    model = small_model(seed=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    init_weights(model, 3)
    assert torch.equal(torch.get_rng_state(), before)  # global random numbers play no part
    assert same_weights(model, small_model(seed=3))
    other = small_model(seed=4)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q) == (p.dim() == 1), name
