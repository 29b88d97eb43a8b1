"""AdamW with the usual groups: matrices decay, biases and norms do not."""

import torch
from torch import nn

from qwenkit.errors import InputError


def make_optimizer(
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.AdamW:
    """Return torch's AdamW over the parameters that require a gradient.

    Weight decay (Loshchilov and Hutter 2019) pulls weights towards zero. It is for the matrices and
    the embedding; on biases and norm weights, which only shift and scale, it would do harm.

    Args:
        model: parameters with `requires_grad` False are left out.
        learning_rate: the schedule sets it again at each step.
        weight_decay: strength of the pull.
        betas: decay rates of the means of the gradient and of its square.

    Raises:
        InputError: nothing to train.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(
            "no parameter requires a gradient; loaded weights are frozen, "
            "model.requires_grad_(True) unfreezes them"
        )
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one pass over all parameters instead of a dozen small operators for each
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=True)
