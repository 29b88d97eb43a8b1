"""The first point at which two runs part is the one that was changed."""

import copy

import pytest
import torch
from reference import pair

from qwenkit.errors import InputError
from qwenkit.interpret import divergences, first_divergence
from qwenkit.model import QwenForCausalLM

IDS = torch.randint(0, 61, (1, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return pair()[1].requires_grad_(False)


def with_changed(model, name, by=1.5):
    other = copy.deepcopy(model)
    other.get_parameter(name).mul_(by)
    return other


def test_a_model_and_its_copy_agree_at_every_point(model):
    found = divergences(model, copy.deepcopy(model), IDS)
    assert len(found) == 3 * 18 + 3
    assert [one.difference for one in found] == [0.0] * len(found)
    assert found[0].name == "embed"
    assert found[1].name == "layers.0.resid_pre"
    assert found[-1].name == "logits"
    assert first_divergence(model, copy.deepcopy(model), IDS) is None


@pytest.mark.parametrize(
    ("weight", "point"),
    [
        ("model.layers.1.self_attn.k_proj.weight", "layers.1.attn.k"),
        ("model.layers.1.self_attn.k_proj.bias", "layers.1.attn.k"),
        ("model.layers.2.self_attn.o_proj.weight", "layers.2.attn.out"),
        ("model.layers.0.post_attention_layernorm.weight", "layers.0.mlp_norm"),
        ("model.layers.0.mlp.down_proj.weight", "layers.0.mlp.out"),
        ("model.norm.weight", "final_norm"),
        ("model.embed_tokens.weight", "embed"),
    ],
)
def test_the_first_divergence_is_where_a_weight_was_changed(model, weight, point):
    assert first_divergence(model, with_changed(model, weight), IDS).name == point


def test_another_theta_shows_at_the_turned_queries(model):
    other = QwenForCausalLM(
        copy.deepcopy(model.config).__class__.from_dict(
            {**model.config.to_dict(), "rope_theta": 5.0}
        )
    )
    other.load_state_dict(model.state_dict())
    assert first_divergence(model, other, IDS).name == "layers.0.attn.q_rot"


def test_numbers_that_are_none_diverge(model):
    other = with_changed(model, "model.layers.1.mlp.up_proj.weight", by=float("nan"))
    found = first_divergence(model, other, IDS)
    assert (found.name, found.difference) == ("layers.1.mlp.up", float("inf"))


def test_two_texts_part_at_the_embedding_and_two_lengths_too(model):
    assert first_divergence(model, model, IDS, (IDS + 1) % 61).name == "embed"
    assert first_divergence(model, model, IDS, IDS[:, :5]).difference == float("inf")


def test_models_of_different_depth_are_refused(model):
    shallow = pair(num_hidden_layers=2)[1]
    with pytest.raises(InputError, match="one model has 3 layers and the other 2"):
        divergences(model, shallow, IDS)
