"""Log-probabilities of completions, and DPO's loss by hand; TRL has a file of its own."""

import math

import pytest
import torch
from reference import pair, tiny

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.generate import log_probabilities
from qwenkit.train import (
    IGNORE,
    Preference,
    completion_batch,
    dpo_loss,
    make_optimizer,
    preference_loss,
    reference_log_probs,
    sequence_log_probs,
    token_log_probs,
)

PROMPTS, COMPLETIONS = [[5, 6, 7], [8], [9, 10]], [[1, 2], [3, 4, 5, 6], [7]]
PAIRS = [Preference([5, 6], [7, 8, 2], [9, 2]), Preference([5, 7], [9, 2], [8, 2])]


def test_each_row_has_the_log_probabilities_that_it_has_alone():
    model, batch = tiny(), completion_batch(PROMPTS, COMPLETIONS)
    found = token_log_probs(model, batch)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        alone = log_probabilities(model, prompt + completion)[0][len(prompt) - 1 :]
        torch.testing.assert_close(found[row][batch.labels[row] != IGNORE], alone)
    assert found[batch.labels == IGNORE].eq(0).all()
    torch.testing.assert_close(sequence_log_probs(model, batch), found.sum(dim=1))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_the_logits(temperature):
    model, batch = tiny(), completion_batch(PROMPTS[:1], COMPLETIONS[:1])
    scaled = (model(batch.input_ids) / temperature).log_softmax(dim=-1)
    want = scaled[0, [2, 3], COMPLETIONS[0]]
    torch.testing.assert_close(token_log_probs(model, batch, temperature)[0, 2:], want)


def test_without_lora_the_policy_is_its_own_reference():
    model, batch = tiny(), completion_batch(PROMPTS, COMPLETIONS)
    start = token_log_probs(model, batch)
    qk.add_lora(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    now = token_log_probs(model, batch)
    assert not torch.allclose(now, start)
    assert reference_log_probs(model, batch).equal(start)
    assert not reference_log_probs(model, batch).requires_grad
    assert token_log_probs(model, batch).equal(now)  # and it is switched on again
    qk.merge_lora(model)
    with pytest.raises(InputError, match="unmerge_lora"):
        reference_log_probs(model, batch)


def test_dpo_by_hand():
    found = dpo_loss(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.5)), beta=0.5)
    assert found.chosen_rewards.item() == pytest.approx(0.5)  # 0.5 · (−1 + 2)
    assert found.rejected_rewards.item() == pytest.approx(-0.25)
    assert found.loss.item() == pytest.approx(math.log(1 + math.exp(-0.75)))
    assert (found.accuracy, found.margin) == (1.0, pytest.approx(0.75))
    same = dpo_loss(*[torch.zeros(3)] * 4, label_smoothing=0.3)
    assert same.loss.item() == pytest.approx(math.log(2))
    assert same.accuracy == 0


def test_a_pair_is_learned_and_its_other_way_round_raises_the_loss():
    model, start = (pair()[1] for _ in range(2))
    optimizer = make_optimizer(model, learning_rate=1e-3, weight_decay=0.0)
    first = preference_loss(model, PAIRS, start)
    assert first.loss.item() == pytest.approx(math.log(2), abs=1e-6)
    for _ in range(5):
        optimizer.zero_grad()
        preference_loss(model, PAIRS, start).loss.backward()
        optimizer.step()
    after = preference_loss(model, PAIRS, start)
    assert (after.accuracy, after.loss < first.loss) == (1.0, True)
    swapped = [Preference(one.prompt, one.rejected, one.chosen) for one in PAIRS]
    assert preference_loss(model, swapped, start).loss > first.loss


BATCH = completion_batch([[1]], [[2]])
ZEROS = [torch.zeros(2)] * 4


@pytest.mark.parametrize(("call", "says"), [
    (lambda m: completion_batch([], []), "at least one"),
    (lambda m: completion_batch([[1]], [[2], [3]]), "as many"),
    (lambda m: completion_batch([[1], []], [[2], [3]]), "prompt 1 is empty"),
    (lambda m: completion_batch([[1], [4]], [[2], []]), "completion 1 is empty"),
    (lambda m: token_log_probs(m, BATCH, 0.0), "temperature is 0.0; it must be a number above 0"),
    (lambda m: token_log_probs(m, BATCH, math.nan), "temperature is nan"),
    (lambda m: reference_log_probs(m, BATCH), "no LoRA"),
    (lambda m: preference_loss(m, PAIRS), "no LoRA"),
    (lambda m: preference_loss(m, [], m), "at least one"),
    (lambda m: dpo_loss(*ZEROS[:3], torch.zeros(3)), r"all must be \(B,\)"),
    (lambda m: dpo_loss(*[torch.zeros(2, 2)] * 4), r"all must be \(B,\)"),
    (lambda m: dpo_loss(*ZEROS, beta=0.0), "beta is 0.0; it must be a number above 0"),
    (lambda m: dpo_loss(*ZEROS, label_smoothing=0.5), "below 0.5"),
])  # fmt: skip
def test_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(tiny())
