"""Switching off and patching: nothing changes nothing, all changes all, and tiny-coder copies."""

import pytest
import torch
from reference import pair

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.interpret import (
    ablate_heads,
    head_effects,
    induction_scores,
    mean_outputs,
    patch_heads,
    patch_residual,
    previous_token_scores,
    repeated_tokens,
)
from qwenkit.pretrained import EMBEDDED
from qwenkit.trace import Trace

IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
EVERY = [(layer, head) for layer in range(3) for head in range(4)]


@pytest.fixture(scope="module")
def model():
    return pair()[1].requires_grad_(False)


def changed(model, edits, ids=IDS):
    return model(ids, trace=Trace(keep=(), edits=edits))


def test_an_edit_that_does_nothing_changes_no_bit(model):
    assert torch.equal(changed(model, ablate_heads([])), model(IDS))
    everywhere = {name: torch.clone for name in ("attn.z", "resid_pre", "mlp.out")}
    assert torch.equal(changed(model, everywhere), model(IDS))


def test_without_any_head_it_is_a_model_without_attention(model):
    want = changed(model, {"attn.out": torch.zeros_like})
    torch.testing.assert_close(changed(model, ablate_heads(EVERY)), want, rtol=0, atol=0)


def test_one_head_is_switched_off_and_no_other(model):
    trace = Trace(keep=("attn.z",), edits=ablate_heads([(1, 2), (1, 3)]))
    plain = Trace(keep=("attn.z",))
    model(IDS, trace=trace)
    model(IDS, trace=plain)
    z, before = trace["layers.1.attn.z"], plain["layers.1.attn.z"]
    assert not z[:, [2, 3]].any()
    assert torch.equal(z[:, [0, 1]], before[:, [0, 1]])
    assert torch.equal(trace["layers.0.attn.z"], plain["layers.0.attn.z"])


def test_the_mean_stands_in_for_a_head(model):
    means = mean_outputs(model, IDS)
    plain = Trace(keep=("attn.z",))
    model(IDS, trace=plain)
    torch.testing.assert_close(means[2, 1], plain["layers.2.attn.z"][:, 1].mean((0, 1)))
    trace = Trace(keep=("attn.z",), edits=ablate_heads([(2, 1)], means))
    model(IDS, trace=trace)
    assert torch.equal(trace["layers.2.attn.z"][:, 1], means[2, 1].expand(2, 9, -1))


def test_effects_are_the_metric_without_the_head_less_that_with_it(model):
    def metric(logits):
        return logits[0, -1, 5]

    effects = head_effects(model, IDS, metric)
    assert effects.shape == (3, 4)
    want = metric(changed(model, ablate_heads([(2, 3)]))) - metric(model(IDS))
    assert float(effects[2, 3]) == pytest.approx(float(want), abs=1e-6)


@pytest.mark.parametrize("head", [-1, 4])
def test_a_head_that_is_not_there_is_refused(model, head):
    with pytest.raises(InputError, match=r"they go from 0 to 3"):
        changed(model, ablate_heads([(0, head)]))


# --- patching ---


def test_patching_the_stream_before_and_after_the_change_recovers_all_or_nothing(model):
    clean, corrupted = IDS[:1], IDS[:1].clone()
    corrupted[0, 3] = (corrupted[0, 3] + 1) % 61

    def metric(logits):
        return logits[0, -1, 5]

    found = patch_residual(model, clean, corrupted, metric)
    assert found.values.shape == (3, 9)
    assert found.clean == pytest.approx(float(metric(model(clean))))
    # At the bottom the changed token is the whole difference; the tokens before it hold none.
    assert float(found.recovered[0, 3]) == pytest.approx(1.0, abs=1e-4)
    assert found.recovered[:, :3].abs().max() < 1e-4
    assert found.recovered[0, 4:].abs().max() < 1e-4


def test_patching_heads_moves_each_heads_part(model):
    clean, corrupted = IDS[:1], IDS[1:]

    def metric(logits):
        return logits[0, -1, 5]

    found = patch_heads(model, clean, corrupted, metric)
    assert found.values.shape == (3, 4)
    trace = Trace(keep=("layers.1.attn.z",))
    model(clean, trace=trace)
    moved = trace["layers.1.attn.z"]

    def edit(z):
        return torch.cat([z[:, :2], moved[:, 2:3], z[:, 3:]], dim=1)

    want = metric(changed(model, {"layers.1.attn.z": edit}, corrupted))
    assert float(found.values[1, 2]) == pytest.approx(float(want), abs=1e-6)


def test_texts_that_do_not_fit_together_are_refused(model):
    with pytest.raises(InputError, match=r"clean has shape \(1, 9\) and corrupted \(1, 8\)"):
        patch_residual(model, IDS[:1], IDS[:1, :8], lambda logits: logits.sum())
    with pytest.raises(InputError, match="for both texts; choose one that tells them apart"):
        patch_heads(model, IDS[:1], IDS[:1], lambda logits: logits[0, -1, 0])


# --- on the embedded model ---


def test_without_its_induction_head_tiny_coder_copies_worse_than_without_any_other_of_its_layer():
    model, _ = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
    scores = induction_scores(model)
    layer, head = divmod(int(scores.argmax()), model.config.num_attention_heads)
    ids = repeated_tokens(model, batch_size=4, seed=1)
    half = ids.shape[1] // 2

    def copying(logits):
        """Mean log-probability of the second half's tokens, each foreseen from those before."""
        log = logits[:, half:-1].log_softmax(-1)
        return log.gather(-1, ids[:, half + 1 :, None]).mean()

    effects = head_effects(model, ids, copying)[layer]
    assert int(effects.argmin()) == head, effects
    assert float(effects[head]) < -0.05


def test_tiny_coder_has_a_previous_token_head():
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
    ids = tokenizer(
        "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    )
    assert float(previous_token_scores(model, ids).max()) > 0.5
