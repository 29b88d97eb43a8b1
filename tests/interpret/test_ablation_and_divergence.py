"""Ablation, patching and divergence: nothing changes nothing, all changes all."""

import copy
import math

import pytest
import torch
from reference import pair

import qwenkit as qk
from qwenkit import interpret
from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import EMBEDDED
from qwenkit.trace import Trace

IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
ONE = IDS[:1]
EVERY = [(layer, head) for layer in range(3) for head in range(4)]


@pytest.fixture(scope="module")
def model():
    return pair()[1].requires_grad_(False)


def changed(model, edits, ids=IDS):
    return model(ids, trace=Trace(keep=(), edits=edits))


def outputs(model, edits=None, ids=IDS):
    """Return every head's output, (L, B, H, T, D)."""
    trace = Trace(keep=("attn.z",), edits=edits)
    model(ids, trace=trace)
    return torch.stack([trace[f"layers.{layer}.attn.z"] for layer in range(3)])


def metric(logits):
    return logits[0, -1, 5]


# ablation
def test_an_edit_that_does_nothing_changes_no_bit_and_without_heads_there_is_no_attention(model):
    everywhere = {name: torch.clone for name in ("attn.z", "resid_pre", "mlp.out")}
    for edits in (interpret.ablate_heads([]), everywhere):
        assert torch.equal(changed(model, edits), model(IDS))
    want = changed(model, {"attn.out": torch.zeros_like})
    torch.testing.assert_close(changed(model, interpret.ablate_heads(EVERY)), want, rtol=0, atol=0)


def test_the_ablated_heads_are_zero_or_their_mean_and_no_other_changes(model):
    z, before = outputs(model, interpret.ablate_heads([(1, 2), (1, 3)])), outputs(model)
    assert not z[1][:, [2, 3]].any()
    assert torch.equal(z[1][:, [0, 1]], before[1][:, [0, 1]])
    assert torch.equal(z[0], before[0])
    means = interpret.mean_outputs(model, IDS)
    torch.testing.assert_close(means[2, 1], before[2][:, 1].mean((0, 1)))
    z = outputs(model, interpret.ablate_heads([(2, 1)], means))
    assert torch.equal(z[2][:, 1], means[2, 1].expand(2, 9, -1))
    for head in (-1, 4):
        with pytest.raises(InputError, match=r"heads are \[-?\d\]; they must be from 0 to 3"):
            changed(model, interpret.ablate_heads([(0, head)]))


def test_effects_are_the_metric_without_the_head_less_that_with_it(model):
    effects = interpret.head_effects(model, IDS, metric)
    assert effects.shape == (3, 4)
    want = metric(changed(model, interpret.ablate_heads([(2, 3)]))) - metric(model(IDS))
    assert float(effects[2, 3]) == pytest.approx(float(want), abs=1e-6)


# patching
def test_patching_the_stream_before_and_after_the_change_recovers_all_or_nothing(model):
    corrupted = ONE.clone()
    corrupted[0, 3] = (corrupted[0, 3] + 1) % 61
    found = interpret.patch_residual(model, ONE, corrupted, metric)
    assert found.values.shape == (3, 9)
    assert found.clean == pytest.approx(float(metric(model(ONE))))
    # At the bottom the changed token is the whole difference; the tokens before it hold none.
    assert float(found.recovered[0, 3]) == pytest.approx(1.0, abs=1e-4)
    assert found.recovered[:, :3].abs().max() < 1e-4
    assert found.recovered[0, 4:].abs().max() < 1e-4


def test_patching_heads_moves_each_heads_part_and_needs_two_texts_of_one_length(model):
    found = interpret.patch_heads(model, ONE, IDS[1:], metric)
    assert found.values.shape == (3, 4)
    moved = outputs(model, ids=ONE)[1]
    edit = {"layers.1.attn.z": lambda z: torch.cat([z[:, :2], moved[:, 2:3], z[:, 3:]], dim=1)}
    want = metric(changed(model, edit, IDS[1:]))
    assert float(found.values[1, 2]) == pytest.approx(float(want), abs=1e-6)
    with pytest.raises(InputError, match=r"clean has shape \(1, 9\) and corrupted \(1, 8\)"):
        interpret.patch_residual(model, ONE, ONE[:, :8], metric)
    with pytest.raises(InputError, match="for both texts; choose one that differs"):
        interpret.patch_heads(model, ONE, ONE, metric)


# on the embedded model
def test_without_its_induction_head_tiny_coder_copies_worse_than_without_any_other_of_its_layer():
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
    scores = interpret.induction_scores(model)
    layer, head = divmod(int(scores.argmax()), model.config.num_attention_heads)
    ids = interpret.repeated_tokens(model, batch_size=4, seed=1)
    half = ids.shape[1] // 2

    def copying(logits):
        """Mean log-probability of the second half's tokens, each predicted from those before."""
        log = logits[:, half:-1].log_softmax(-1)
        return log.gather(-1, ids[:, half + 1 :, None]).mean()

    effects = interpret.head_effects(model, ids, copying)[layer]
    assert int(effects.argmin()) == head, effects
    assert float(effects[head]) < -0.05
    text = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    assert float(interpret.previous_token_scores(model, tokenizer(text)).max()) > 0.5


# divergence
def test_a_model_and_its_copy_agree_at_every_point(model):
    found = interpret.divergences(model, copy.deepcopy(model), ONE)
    assert len(found) == 3 * 18 + 3
    assert [one.difference for one in found] == [0.0] * len(found)
    assert [found[i].name for i in (0, 1, -1)] == ["embed", "layers.0.resid_pre", "logits"]
    assert interpret.first_divergence(model, copy.deepcopy(model), ONE) is None


@pytest.mark.parametrize(("weight", "by", "point"), [
    ("model.layers.1.self_attn.k_proj.weight", 1.5, "layers.1.attn.k"),
    ("model.layers.1.self_attn.k_proj.bias", 1.5, "layers.1.attn.k"),
    ("model.layers.2.self_attn.o_proj.weight", 1.5, "layers.2.attn.out"),
    ("model.layers.0.post_attention_layernorm.weight", 1.5, "layers.0.mlp_norm"),
    ("model.layers.0.mlp.down_proj.weight", 1.5, "layers.0.mlp.out"),
    ("model.norm.weight", 1.5, "final_norm"), ("model.embed_tokens.weight", 1.5, "embed"),
    ("model.layers.1.mlp.up_proj.weight", math.nan, "layers.1.mlp.up"),
])  # fmt: skip
def test_the_first_divergence_is_where_a_weight_was_changed(model, weight, by, point):
    other = copy.deepcopy(model)
    other.get_parameter(weight).mul_(by)
    found = interpret.first_divergence(model, other, ONE)
    assert found.name == point
    assert (found.difference == math.inf) == math.isnan(by)


def test_another_theta_shows_at_the_rotated_queries_and_other_texts_at_the_embedding(model):
    config = model.config.from_dict({**model.config.to_dict(), "rope_theta": 5.0})
    other = QwenForCausalLM(config)
    other.load_state_dict(model.state_dict())
    assert interpret.first_divergence(model, other, ONE).name == "layers.0.attn.q_rot"
    assert interpret.first_divergence(model, model, ONE, (ONE + 1) % 61).name == "embed"
    assert interpret.first_divergence(model, model, ONE, ONE[:, :5]).difference == math.inf
    with pytest.raises(InputError, match="one model has 3 layers and the other 2"):
        interpret.divergences(model, pair(num_hidden_layers=2)[1], ONE)
