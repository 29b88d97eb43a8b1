"""DPO: learning from pairs of completions, of which one is better than the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.train._checks import is_number, require
from qwenkit.train.policy import completion_batch, reference_log_probs, sequence_log_probs


class Preference(NamedTuple):
    """Two completions of a prompt, as ids. Let both end with a stop token, or ending is unlearned.

    Attributes:
        prompt: what was asked.
        chosen: the better completion.
        rejected: the worse one.
    """

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


class DpoLoss(NamedTuple):
    """The loss of DPO, and what to plot next to it.

    Attributes:
        loss: () mean over the pairs.
        chosen_rewards: (B,) beta · log(policy / reference) of each chosen completion: the reward
            for which the policy would be the best one. Without gradient.
        rejected_rewards: (B,) the same of the rejected ones.
    """

    loss: Float[Tensor, ""]
    chosen_rewards: Float[Tensor, " B"]
    rejected_rewards: Float[Tensor, " B"]

    @property
    def accuracy(self) -> float:
        """How many of the pairs have the larger reward on the chosen side, from 0 to 1."""
        return float((self.chosen_rewards > self.rejected_rewards).float().mean())

    @property
    def margin(self) -> float:
        """The mean difference of the two rewards."""
        return float((self.chosen_rewards - self.rejected_rewards).mean())


def dpo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> DpoLoss:
    """Return the loss of direct preference optimization (Rafailov et al. 2023, equation 7).

    −log σ(chosen reward − rejected reward): the loss of a classifier that says which of the two
    completions is better, where the policy's own probabilities are the classifier.

    Args:
        policy_chosen: log-probabilities of the chosen completions; see `sequence_log_probs`.
        policy_rejected: of the rejected ones.
        reference_chosen: the same of the model that the policy started as.
        reference_rejected: of the rejected ones.
        beta: above 0; a larger one keeps the policy closer to the reference.
        label_smoothing: the probability that a pair is the wrong way round (Mitchell 2023,
            "conservative DPO"); below one half.

    Raises:
        InputError: other shapes, or a number out of range.
    """
    four = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    shapes = [tuple(one.shape) for one in four]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise InputError(
            f"the log-probabilities are {', '.join(map(str, shapes))}; all must be (B,), one for "
            "each pair"
        )
    require(is_number(beta) and beta > 0, "beta", beta, "a number above 0")
    require(0 <= label_smoothing < 0.5, "label_smoothing", label_smoothing, "from 0 to below 0.5")
    beta = float(beta)
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    right, wrong = F.logsigmoid(chosen - rejected), F.logsigmoid(rejected - chosen)
    loss = -((1 - label_smoothing) * right + label_smoothing * wrong).mean()
    return DpoLoss(loss, chosen.detach(), rejected.detach())


def preference_loss(
    model: QwenForCausalLM,
    pairs: Sequence[Preference],
    reference: QwenForCausalLM | None = None,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> DpoLoss:
    """Return `dpo_loss` of a model for pairs of completions; prompts do not count in it.

    A training step is this, `loss.backward()` and `optimizer.step()`.

    Args:
        model: the policy.
        pairs: prompt, chosen and rejected ids; at least one pair.
        reference: see `reference_log_probs`.
        beta: see `dpo_loss`.
        label_smoothing: see `dpo_loss`.

    Raises:
        InputError: an empty prompt or completion, or as the functions named above.
    """
    prompts, chosen, rejected = ([pair[part] for pair in pairs] for part in range(3))
    batch = completion_batch(prompts * 2, chosen + rejected)
    policy = sequence_log_probs(model, batch)  # (2 · pairs) the chosen ones, then the rejected
    start = reference_log_probs(model, batch, reference).sum(dim=1)
    count = len(pairs)
    return dpo_loss(
        policy[:count], policy[count:], start[:count], start[count:], beta, label_smoothing
    )
