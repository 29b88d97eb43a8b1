"""DPO and GRPO equal TRL: log-probabilities, loss, rewards and the gradient of every weight."""

import pytest
import torch
import trl
from datasets import Dataset
from fixtures_toy import toy_of
from reference import pair
from transformers import AutoTokenizer

from qwenkit.train import (
    IGNORE,
    Preference,
    completion_batch,
    group_advantages,
    grpo_loss,
    kl_estimate,
    preference_loss,
    token_log_probs,
)

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13], [14, 15]]  # of unlike lengths: TRL pads on the left
COMPLETIONS = [[20, 21, 22, 2], [23, 2], [24, 25, 26, 27, 28], [29, 30, 2]]
REJECTED = [[31, 32], [33, 34, 35, 36, 2], [37, 2], [38, 39, 40, 2]]
ADVANTAGES = torch.tensor([1.5, -0.5, 0.0, -1.0])
PAIRS = [Preference(*row) for row in zip(PROMPTS, COMPLETIONS, REJECTED, strict=True)]
QUIET = {
    "report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True,
    "gradient_checkpointing": None,  # its default warns that it is deprecated
}  # fmt: skip


@pytest.fixture(scope="module")
def their_tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(toy_of(tmp_path_factory))


def close(found, want, name=""):
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0, msg=lambda text: f"{name} {text}")


def padded(rows, left):
    """Return ids and mask as TRL pads them."""
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    both = []
    for part in (rows, [[1] * len(row) for row in rows]):
        lines = [f + r if left else r + f for f, r in zip(fill, part, strict=True)]
        both.append(torch.tensor(lines))
    return both


def same_gradients(ours, theirs):
    want = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        assert weight.grad.abs().max() > 1e-5, name
        close(weight.grad, want[name].grad, name)


@pytest.mark.parametrize(("normalization", "beta", "temperature", "clip", "tied"), [
    ("grpo", 0.0, 1.0, (0.2, 0.2), False), ("dr_grpo", 0.0, 1.0, (0.2, 0.2), True),
    ("grpo", 0.3, 0.7, (0.1, 0.3), False), ("dr_grpo", 0.3, 1.5, (0.2, 0.28), False),
])  # fmt: skip
def test_grpo(tmp_path, their_tokenizer, normalization, beta, temperature, clip, tied):
    theirs, ours = pair(tie_word_embeddings=tied)
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), loss_type=normalization, temperature=temperature,
        epsilon=clip[0], epsilon_high=clip[1], max_completion_length=9, num_generations=2,
        per_device_train_batch_size=4, **QUIET,
    )  # fmt: skip
    rows = Dataset.from_dict({"prompt": ["a"] * 4})
    options = {"processing_class": their_tokenizer, "args": config, "train_dataset": rows}
    trainer = trl.GRPOTrainer(theirs, lambda **_: [0.0], **options)
    trainer.beta = beta  # had it been set before, TRL would look for the reference's files
    (prompts, prompt_mask), (ids, mask) = (
        padded(PROMPTS, left=True),
        padded(COMPLETIONS, left=False),
    )
    whole, both = torch.cat([prompts, ids], dim=1), torch.cat([prompt_mask, mask], dim=1)
    with torch.no_grad():
        scores, *_ = trainer._get_per_token_logps_and_entropies(theirs, whole, both, ids.shape[1])
    generator = torch.Generator().manual_seed(3)
    old, start = (scores + 0.3 * torch.randn(scores.shape, generator=generator) for _ in "ab")
    want = trainer.compute_loss(theirs.eval(), {
        "prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": ids,
        "completion_mask": mask, "advantages": ADVANTAGES, "old_per_token_logps": old,
        "ref_per_token_logps": start,
    })  # fmt: skip
    want.backward()

    batch = completion_batch(PROMPTS, COMPLETIONS)
    counted = batch.labels != IGNORE

    def moved(values):
        """Return TRL's (B, completion) values as ours, (B, T), where prompts have a place too."""
        return torch.zeros(counted.shape).masked_scatter(counted, values[mask == 1])

    log_probs = token_log_probs(ours, batch, temperature)
    found = grpo_loss(
        log_probs, moved(old), ADVANTAGES, counted, clip=clip, beta=beta,
        reference_log_probs=moved(start), normalization=normalization, max_length=9,
    )  # fmt: skip
    found.backward()
    close(log_probs, moved(scores))
    close(found, want)
    same_gradients(ours, theirs)
    if beta:
        ratio = (log_probs - moved(old)).exp()
        kl = (ratio * kl_estimate(log_probs, moved(start)))[counted].mean()
        assert kl.item() == pytest.approx(trainer._metrics["eval"]["kl"][0], abs=1e-5)


@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.0), ("aot", 0.2)])
def test_dpo(tmp_path, their_tokenizer, loss, smoothing):
    # TRL has the loss with smoothing only as "aot", which sorts the pairs: the same for one pair.
    pairs = PAIRS if loss == "sigmoid" else PAIRS[:1]
    (theirs, ours), (their_start, start) = pair(), pair(seed=1)
    config = trl.DPOConfig(
        output_dir=str(tmp_path), loss_type=[loss], label_smoothing=smoothing, beta=0.3, **QUIET
    )
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    rows = Dataset.from_list([row])
    options = {"processing_class": their_tokenizer, "args": config, "train_dataset": rows}
    trainer = trl.DPOTrainer(theirs, their_start, **options)
    trainer.data_collator.pad_token_id = 0
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    want = trainer.compute_loss(
        theirs.eval(), trainer.data_collator([dict(zip(names, p, strict=True)) for p in pairs])
    )
    want.backward()
    found = preference_loss(ours, pairs, start, beta=0.3, label_smoothing=smoothing)
    found.loss.backward()
    close(found.loss, want)
    same_gradients(ours, theirs)
    assert all(weight.grad is None for weight in start.parameters())
    metrics = trainer._metrics["eval"]
    values = {
        "rewards/chosen": found.chosen_rewards.mean(), "rewards/margins": found.margin,
        "rewards/rejected": found.rejected_rewards.mean(), "rewards/accuracies": found.accuracy,
    }  # fmt: skip
    for name, value in values.items():
        assert metrics[name] == [pytest.approx(float(value), abs=1e-5)], name


def test_advantages(tmp_path):
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    rewards[1] = 1.0
    std = trl.trainer.utils.nanstd(rewards, dim=1, keepdim=True)
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    close(group_advantages(rewards), centered / (std + 1e-4))
    close(group_advantages(rewards, scale=False), centered)
