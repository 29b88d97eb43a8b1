"""GRPO's parts: how much better than its group a completion is, and the loss made of that.

Several completions of one prompt are sampled and rewarded: a group. Those with more than the
group's mean reward become more likely, the others less. The group's mean takes the place of PPO's
second network, which predicts rewards. (Shao et al. 2024, "DeepSeekMath", section 4.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.train._checks import at_least, is_number, one_of, require

NORMALIZATIONS = ("dr_grpo", "grpo")


def group_advantages(rewards: Float[Tensor, "P G"], scale: bool = True) -> Float[Tensor, "P G"]:
    """Return by how much each reward exceeds the mean of its group.

    Args:
        rewards: of G completions, at least two, of each of P prompts.
        scale: whether the differences are divided by the group's standard deviation (that of a
            sample, with G − 1; plus 1e-4, as in TRL). This is GRPO; Dr. GRPO does not, see the
            comment.

    Raises:
        InputError: another shape, a group of one, or rewards that are not finite.

    >>> group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), scale=False)
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    if rewards.dim() != 2 or rewards.shape[1] < 2 or not len(rewards):
        raise InputError(
            f"rewards are {tuple(rewards.shape)}; they must be (P, G), with at least two of each "
            "prompt: a single one has no group to be compared with"
        )
    if not bool(rewards.isfinite().all()):
        raise InputError("a reward is not finite; the function that gives them must be wrong")
    rewards = rewards.float()
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale:
        # Difficulty bias: where nearly all completions pass, or nearly none, the deviation is
        # small, and dividing by it makes the easiest and hardest prompts weigh most. Dr. GRPO
        # leaves the division out (Liu et al. 2025, section 3.1).
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + 1e-4)
    return advantages


def kl_estimate(
    log_probs: Float[Tensor, "B T"], reference: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Return an estimate of the KL divergence from the reference at each token; never below 0.

    r − log r − 1 with r = reference / policy ("k3" of Schulman 2020, "Approximating KL
    Divergence"): its mean over tokens that the policy sampled is the divergence, and it varies less
    than −log r, whose mean is the same.
    """
    log_ratio = reference - log_probs
    return log_ratio.exp() - log_ratio - 1


def grpo_loss(
    log_probs: Float[Tensor, "B T"],
    old_log_probs: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    mask: Float[Tensor, "B T"],
    *,
    clip: tuple[float, float] = (0.2, 0.2),
    beta: float = 0.0,
    reference_log_probs: Float[Tensor, "B T"] | None = None,
    normalization: str = "dr_grpo",
    max_length: int | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of GRPO, whose gradient raises what has a positive advantage.

    Each token's loss is −advantage · ratio, where ratio is the token's probability now by that at
    which it was sampled. Once the ratio has left 1 − clip[0] to 1 + clip[1] in the direction that
    the advantage wants, it is clipped and has no gradient: samples of an older policy are not to be
    trusted further (PPO, Schulman et al. 2017, equation 7).

    Args:
        log_probs: of each completion's tokens; see `token_log_probs`.
        old_log_probs: the same at the time of sampling, without gradient.
        advantages: of each completion; see `group_advantages`.
        mask: what counts: 1 or True on a completion's tokens, its stop token too.
        clip: how far the ratio may go below and above 1.
        beta: weight of `kl_estimate`, which keeps the policy close to the reference.
        reference_log_probs: needed where beta is not 0.
        normalization: "grpo": the mean over a completion's tokens, then over completions;
            "dr_grpo": the sum over all tokens by B · max_length.
        max_length: the most tokens that a completion may have; for "dr_grpo".

    Raises:
        InputError: shapes that differ, a number out of range, or a missing argument.
    """
    _check(log_probs, old_log_probs, advantages, mask, reference_log_probs, beta)
    fits = len(clip) == 2 and all(map(is_number, clip)) and 0 <= clip[0] < 1 and clip[1] >= 0
    require(fits, "clip", clip, "two numbers from 0 on, the first below 1")
    one_of(NORMALIZATIONS, normalization=normalization)
    mask = mask.to(log_probs.dtype)
    ratio = (log_probs - old_log_probs).exp()  # (B, T)
    gain = ratio * advantages[:, None]
    clipped = ratio.clamp(1 - clip[0], 1.0 + clip[1]) * advantages[:, None]
    loss = -torch.min(gain, clipped)  # (B, T)
    if reference_log_probs is not None and beta:
        # The tokens were sampled by the old policy. Times the ratio, it is the policy's own KL
        # divergence, and the gradient that of it (DeepSeek-V3.2 2025, section 3.1; TRL's default).
        loss = loss + float(beta) * ratio * kl_estimate(log_probs, reference_log_probs)
    sums = (loss * mask).sum(dim=1)  # (B,)
    if normalization == "grpo":
        # Length bias: divided by its own length, a long wrong completion is punished less for each
        # token than a short one, and wrong completions grow longer. Dr. GRPO divides all by one
        # constant instead (Liu et al. 2025, section 3.1).
        return (sums / mask.sum(dim=1).clamp(min=1)).mean()
    if max_length is None:
        raise InputError('"dr_grpo" divides by max_length; give it, or take "grpo"')
    at_least(1, max_length=max_length)
    return sums.mean() / float(max_length)


def _check(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    reference: Tensor | None,
    beta: float,
) -> None:
    """Refuse shapes that would broadcast into something else, and a KL without its reference."""
    shape = tuple(log_probs.shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"log_probs are {shape}; they must be (B, T)")
    expected = {
        "old_log_probs": (old, shape), "advantages": (advantages, shape[:1]), "mask": (mask, shape)
    }  # fmt: skip
    if reference is not None:
        expected["reference_log_probs"] = (reference, shape)
    for name, (tensor, want) in expected.items():
        if tuple(tensor.shape) != want:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}; it must be {want}")
    require(is_number(beta) and beta >= 0, "beta", beta, "a number of at least 0")
    if beta and reference is None:
        raise InputError("beta weighs the distance from a reference; give reference_log_probs")
