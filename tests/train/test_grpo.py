"""GRPO: advantages and loss by hand, and a loop that learns; equality with TRL has its own file."""

import math

import pytest
import small
import torch
from reference import ids, tiny
from small import same_weights, small_model

import qwenkit as qk
from qwenkit.errors import InputError, TrainingError
from qwenkit.programs import Task
from qwenkit.train import (
    GrpoSettings,
    GrpoTrainer,
    completion_batch,
    group_advantages,
    grpo_loss,
    kl_estimate,
    passes_tests,
    token_log_probs,
)

TASKS = [Task(f"def f{i}():\n", f"assert f{i}() == {i}") for i in range(3)]
NEW = torch.log(torch.tensor([[0.5, 0.4, 0.9], [0.2, 0.8, 0.9]]))
OLD = torch.log(torch.tensor([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]]))  # ratios 1.25 .8 9, 2 1 9
MASK = torch.tensor([[1, 1, 0], [1, 1, 0]])


def test_advantages():
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [2, 4, 2, 4]])
    plain = group_advantages(rewards, scale=False)
    assert plain.tolist() == [[0.75, -0.25, -0.25, -0.25], [0] * 4, [-1, 1, -1, 1]]
    scaled = group_advantages(rewards)
    torch.testing.assert_close(scaled[0], plain[0] / (0.5 + 1e-4))  # the sample's deviation: 0.5
    torch.testing.assert_close(group_advantages(9 * rewards + 5), scaled, atol=1e-3, rtol=0)
    assert scaled[1].eq(0).all()


@pytest.mark.parametrize(("normalization", "want"), [
    ("grpo", ((1.2 + 0.8) / 2 + (-2 - 1) / 2) / 2), ("dr_grpo", (1.2 + 0.8 - 2 - 1) / 2 / 10),
])  # fmt: skip
def test_the_loss_by_hand(normalization, want):
    # 1.25 is clipped to 1.2 where the advantage is positive; 2 is not where it is negative.
    options = {"normalization": normalization, "max_length": 10}
    loss = grpo_loss(NEW, OLD, torch.tensor([1.0, -1.0]), MASK, **options)
    assert loss.item() == pytest.approx(-want)


@pytest.mark.parametrize(("ratio", "advantage", "flows"), [
    (1.0, 1, True), (1.3, 1, False), (0.7, 1, True), (1.0, -1, True), (1.3, -1, True),
    (0.7, -1, False), (1.0, 0, False),
])  # fmt: skip
def test_clipping_stops_the_gradient(ratio, advantage, flows):
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    one = torch.ones(1, 1)
    grpo_loss(new, 0 * one, torch.tensor([float(advantage)]), one, max_length=1).backward()
    assert bool(new.grad.abs().sum() > 0) == flows
    if flows:
        assert new.grad.item() == pytest.approx(-advantage * ratio)


def test_masked_tokens_do_not_count_and_kl_is_never_negative():
    reference = NEW + torch.linspace(-2, 2, 6).view(2, 3)
    assert kl_estimate(NEW, reference).ge(0).all()
    assert kl_estimate(NEW, NEW).eq(0).all()
    options = {"beta": 0.5, "normalization": "grpo", "reference_log_probs": reference}
    loss = grpo_loss(NEW, OLD, torch.ones(2), MASK, **options)
    other = torch.where(MASK.bool(), NEW, torch.tensor(-3.0))
    assert grpo_loss(other, OLD, torch.ones(2), MASK, **options) == loss
    assert loss > grpo_loss(NEW, OLD, torch.ones(2), MASK, normalization="grpo")


def test_the_mean_of_kl_estimates_is_the_divergence():
    logits = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    policy, start = logits.log_softmax(dim=-1)
    estimate = (policy.exp() * kl_estimate(policy[None], start[None])[0]).sum()
    torch.testing.assert_close(estimate, (policy.exp() * (policy - start)).sum())


def test_a_token_sampled_at_a_temperature_has_the_probability_that_is_learned():
    model = tiny()
    prompt = ids(1, 4)[0].tolist()
    for step in qk.generate(model, prompt, 5, temperature=1.7, seed=3, stop_ids=()):
        batch = completion_batch([step.seen.tolist()], [[step.token_id]])
        found = token_log_probs(model, batch, 1.7).sum().exp().item()
        assert found == pytest.approx(step.probability, rel=1e-4)


def has_vowel(task, texts):
    return [float(any(vowel in text for vowel in "aeiou")) for text in texts]


def trainer_of(model=None, tasks=TASKS, reward=has_vowel, **settings):
    values = {
        "steps": 12, "prompts": 1, "group_size": 32, "learning_rate": 0.02, "max_new_tokens": 2,
    }  # fmt: skip
    settings = GrpoSettings(**{**values, **settings})
    return GrpoTrainer(model or small_model(), small.tokenizer(), tasks, settings, reward)


def lora_model():
    model = small_model()
    model.model.embed_tokens.weight.data *= 8  # untrained, its logits hardly differ otherwise
    torch.manual_seed(0)
    qk.add_lora(model, targets=("q_proj", "v_proj", "up_proj", "down_proj"), dropout=0.1)
    return model


@pytest.mark.parametrize(("make", "settings"), [
    (small_model, {}), (small_model, {"normalization": "grpo", "scale": True, "group_size": 16}),
    (small_model, {"beta": 0.01, "epochs": 2, "temperature": 1.3}),
    (lora_model, {"beta": 0.01, "learning_rate": 0.1, "prompts": 2, "group_size": 16}),
])  # fmt: skip
def test_what_is_rewarded_becomes_more_likely(make, settings):
    model = make()
    found = list(trainer_of(model, **settings))
    first, last = (sum(one.reward for one in part) / 3 for part in (found[:3], found[-3:]))
    assert last > first + 0.3
    assert [one.step for one in found] == list(range(1, 13))
    assert (found[0].kl, found[-1].kl > 0) == (pytest.approx(0, abs=1e-6), "beta" in settings)
    assert 1 <= found[-1].length <= 2
    assert found[-1].entropy < found[1].entropy
    assert not model.training


def test_equal_rewards_change_nothing():
    model = small_model()
    for reward in (0.0, 1.0):
        trainer = trainer_of(model, reward=lambda task, texts, r=reward: [r] * len(texts), steps=1)
        (found,) = trainer
        assert (found.reward, found.silent, found.loss, found.gradient_norm) == (reward, 1, 0, 0)
    assert same_weights(model, small_model())


def test_without_a_baseline_equal_rewards_change_the_weights():
    model = small_model()
    options = {"baseline": False, "steps": 1, "group_size": 2}
    (found,) = trainer_of(model, reward=lambda task, texts: [1.0] * len(texts), **options)
    assert found.gradient_norm > 0
    assert not same_weights(model, small_model())


def test_the_same_seed_gives_the_same_training_in_parts_of_any_size_and_after_a_break():
    runs, models = [], []
    for batch_size, broken in ((32, False), (5, False), (32, True)):
        trainer = trainer_of(batch_size=batch_size, steps=4, prompts=2, group_size=8)
        rows = []
        while trainer.step < 4:
            for one in trainer:
                rows.append((one.step, one.reward, one.length, one.silent))
                if broken:
                    break
        runs.append(rows)
        models.append(trainer.model)
    assert runs[0] == runs[1] == runs[2]
    assert same_weights(models[0], models[2])
    for name, weight in models[1].named_parameters():  # sums in another order
        torch.testing.assert_close(weight, models[0].get_parameter(name), atol=1e-4, rtol=0)
    (other, *_) = trainer_of(steps=1, seed=1, prompts=2, group_size=8)
    assert (other.step, other.reward, other.length, other.silent) != runs[0][0]


def test_an_interrupted_step_is_taken_again():
    calls = []

    def reward(task, texts):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return has_vowel(task, texts)

    trainer, whole = trainer_of(reward=reward, steps=4), trainer_of(steps=4)
    rows = []
    with pytest.raises(KeyboardInterrupt):
        rows += [rows.append(one) for one in trainer]
    assert (trainer.step, len(rows)) == (2, 2)
    rows += list(trainer)
    assert [one.reward for one in rows] == [one.reward for one in whole]
    assert same_weights(trainer.model, whole.model)


def test_stop_tokens_count_and_what_was_cut_off_is_counted():
    model = small_model()
    model.stop_ids = tuple(range(60))
    trainer = trainer_of(model, steps=1, group_size=64, max_new_tokens=3)
    (found,) = trainer
    written = trainer.rollouts.completions
    ended = [one for one in written if one.ended]
    assert 0 < found.cut_off == 1 - len(ended) / 64 < 1
    assert found.length == sum(len(one.ids) for one in written) / 64
    stopped = [one for one in ended if one.ids[-1] in model.stop_ids]
    tokens = sum(len(one.ids) for one in stopped)
    batch = completion_batch([one.prompt for one in stopped], [one.ids for one in stopped])
    assert int((batch.labels >= 0).sum()) == tokens


def test_the_reward_of_a_program_is_whether_its_tests_pass():
    task = Task("def double(x):\n", "assert double(2) == 4")
    texts = ["    return 2 * x\n", "    return x", "    return x + x\n\nprint(", "    return ("]
    assert passes_tests(task, texts) == [1, 0, 1, 0]


def test_a_loss_that_is_not_finite_leaves_the_weights():
    trainer = trainer_of(reward=lambda task, texts: [3e38] + [-3e38] * 31)
    with pytest.raises(TrainingError, match="step 1: the loss is"):
        list(trainer)
    assert trainer.step == 0
    assert same_weights(trainer.model, small_model())


@pytest.mark.parametrize(("changes", "says"), [
    ({"steps": 0}, "steps is 0"), ({"group_size": 1}, "group_size is 1; it must be at least 2"),
    ({"clip_low": 1.0}, "clip_low is 1.0; it must be below 1"), ({"beta": -0.1}, "beta is -0.1"),
    ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"), ({"prompts": 0}, "prompts"),
    ({"normalization": "mean"}, "one of dr_grpo, grpo"), ({"epochs": 1.5}, "epochs is 1.5"),
    ({"learning_rate": 0.0}, "above 0"), ({"scale": 1}, "true or false"), ({"seed": -1}, "seed"),
    ({"learning_rate": math.nan}, "a finite number"), ({"prompts": 4}, "3 tasks and a step draws"),
])  # fmt: skip
def test_settings_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        trainer_of(**changes)


@pytest.mark.parametrize("found", [[1.0], [1.0, math.nan], [1.0, 2.0, 3.0], [1.0, "a"], None])
def test_rewards_are_refused(found):
    with pytest.raises(InputError, match="a finite number for each of the 2 texts"):
        list(trainer_of(reward=lambda task, texts: found, group_size=2))


LOSS = {"log_probs": NEW, "old_log_probs": OLD, "advantages": torch.ones(2), "mask": MASK}


@pytest.mark.parametrize(("changes", "says"), [
    ({"old_log_probs": OLD[:1]}, r"old_log_probs has shape \(1, 3\); it must be \(2, 3\)"),
    ({"advantages": torch.ones(2, 1)}, r"advantages has shape \(2, 1\); it must be \(2,\)"),
    ({"mask": MASK[:, :2]}, "mask has shape"), ({"max_length": None}, "divides by max_length"),
    ({"log_probs": NEW[0]}, r"it must be \(B, T\)|they must be"), ({"max_length": 0}, "at least 1"),
    ({"beta": 0.1}, "give reference_log_probs"), ({"beta": -1.0}, "beta is -1.0"),
    ({"clip": (1.0, 0.2)}, "clip is"), ({"normalization": "sum"}, "one of dr_grpo, grpo"),
    ({"reference_log_probs": OLD[:1]}, "reference_log_probs has shape"),
])  # fmt: skip
def test_what_does_not_fit_the_loss_is_refused(changes, says):
    with pytest.raises(InputError, match=says):
        grpo_loss(**{**LOSS, "max_length": 4, **changes})


@pytest.mark.parametrize(("rewards", "says"), [
    (torch.ones(3), "must be"), (torch.ones(3, 1), "at least two"), (torch.ones(0, 2), "must be"),
    (torch.tensor([[1.0, math.inf]]), "not finite"),
])  # fmt: skip
def test_rewards_without_a_group_are_refused(rewards, says):
    with pytest.raises(InputError, match=says):
        group_advantages(rewards)
