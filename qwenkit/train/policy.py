"""A model as a policy: how likely it is to answer its prompts with given completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.lora import lora_off
from qwenkit.model import QwenForCausalLM
from qwenkit.train._checks import is_number, require
from qwenkit.train.batches import Batch
from qwenkit.train.losses import IGNORE


def completion_batch(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Batch:
    """Return prompts and their completions as a batch in which only the completions count.

    Each row is a prompt, its completion, and padding. Padding on the right needs no attention mask:
    no token attends to a later one, so no token that counts can see it.

    >>> batch = completion_batch([[5, 6], [7]], [[1, 2], [3]])
    >>> batch.input_ids.tolist(), batch.labels.tolist()
    ([[5, 6, 1], [7, 0, 0]], [[-100, 1, 2], [3, -100, -100]])

    Args:
        prompts: ids of each; at least one.
        completions: ids that follow each; at least one.

    Raises:
        InputError: no rows, another number of prompts than of completions, or an empty one.
    """
    if len(prompts) != len(completions) or not prompts:
        raise InputError(
            f"there are {len(prompts)} prompts and {len(completions)} completions; there must be "
            "as many, and at least one"
        )
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if len(prompt) == 0 or len(completion) == 0:
            what = "completion" if len(prompt) else "prompt"
            raise InputError(f"{what} {place} is empty; it must have at least one token")
    texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    width = max(map(len, texts)) - 1  # the last token predicts nothing here
    input_ids = torch.zeros(len(texts), width, dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORE)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        input_ids[row, : len(text) - 1] = torch.tensor(text[:-1])
        labels[row, len(prompt) - 1 : len(text) - 1] = torch.tensor(text[len(prompt) :])
    return Batch(input_ids, labels)


def token_log_probs(
    model: QwenForCausalLM, batch: Batch, temperature: float = 1.0
) -> Float[Tensor, "B T"]:
    """Return the log-probability of each label, in nats; 0 where nothing counts.

    Args:
        model: the policy; gradients flow into its weights.
        batch: as `completion_batch` makes it.
        temperature: the logits are divided by it before the softmax. Tokens that were sampled at a
            temperature come from that distribution, and it is its probabilities that are learned.

    Raises:
        InputError: a temperature that is not above 0.
    """
    fits = is_number(temperature) and temperature > 0
    require(fits, "temperature", temperature, "a number above 0")
    labels = batch.labels.to(model.device)
    counted = labels != IGNORE
    hidden = model.model(batch.input_ids.to(model.device))  # (B, T, C)
    logits = model.head(hidden[counted][None])[0].float()  # (N, V) where one counts
    logits = logits / float(temperature)
    found = -F.cross_entropy(logits, labels[counted], reduction="none")  # (N,)
    return torch.zeros(labels.shape, device=found.device).masked_scatter(counted, found)


def sequence_log_probs(model: QwenForCausalLM, batch: Batch) -> Float[Tensor, " B"]:
    """Return the log-probability of each whole completion: the sum of its tokens'."""
    return token_log_probs(model, batch).sum(dim=1)


@torch.no_grad()
def reference_log_probs(
    model: QwenForCausalLM,
    batch: Batch,
    reference: QwenForCausalLM | None = None,
    temperature: float = 1.0,
) -> Float[Tensor, "B T"]:
    """Return `token_log_probs` of the model that the policy started as, without gradients.

    Args:
        model: the policy.
        batch: as `completion_batch` makes it.
        reference: a copy made before the training; None: the policy has LoRA, and without it it
            still is that model.
        temperature: see `token_log_probs`.

    Raises:
        InputError: neither a reference nor LoRA, or LoRA that is merged.
    """
    if reference is not None:
        return token_log_probs(reference, batch, temperature)
    with lora_off(model):
        return token_log_probs(model, batch, temperature)
