"""AdamW with the usual groups: matrices decay, biases and norms do not."""

from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.errors import InputError
from qwenkit.train._checks import require

_HALF = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 copies of half-precision weights, their "master weights".

    bfloat16 keeps 8 significant bits: a step below 1/512 of a weight rounds away, however often it
    is taken. In the float32 copy such steps add up, and the weight is the copy, rounded.
    (Micikevicius et al. 2018, "Mixed Precision Training", section 3.1.)

    Attributes:
        masters: half-precision weight -> its float32 copy.
    """

    def __init__(
        self, groups: list[dict[str, Any]], masters: dict[Tensor, Tensor], **options: Any
    ) -> None:
        super().__init__(groups, **options)
        self.masters = masters
        # Hooks, since a step() that called AdamW's would run everybody's hooks twice.
        self.register_step_pre_hook(lambda *_: self._before())
        self.register_step_post_hook(lambda *_: self._after())

    def collect(self) -> None:
        """Move the weights' gradients to the copies, where those of batches add up in float32."""
        for weight, master in self.masters.items():
            if weight.grad is not None:
                gradient, weight.grad = weight.grad.float(), None
                master.grad = gradient if master.grad is None else master.grad + gradient

    @torch.no_grad()
    def _before(self) -> None:
        self.collect()
        for weight, master in self.masters.items():
            # A weight that is not its copy, rounded, was edited: the copy follows.
            master.copy_(torch.where(master.to(weight.dtype) == weight, master, weight.float()))

    @torch.no_grad()
    def _after(self) -> None:
        for weight, master in self.masters.items():
            weight.copy_(master)
            master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of weights and copies."""
        for weight in self.masters:
            weight.grad = None
        super().zero_grad(set_to_none)


def make_optimizer(
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    master_weights: bool = False,
) -> torch.optim.AdamW:
    """Return torch's AdamW over the parameters that require a gradient.

    Weight decay (Loshchilov and Hutter 2019) pulls weights towards zero. It is for the matrices and
    the embedding; on biases and norm weights, which only shift and scale, it would do harm.

    Args:
        model: parameters with `requires_grad` False are left out.
        learning_rate: the schedule sets it again at each step.
        weight_decay: strength of the pull.
        betas: decay rates of the means of the gradient and of its square.
        master_weights: train float32 copies of bfloat16 and float16 weights (`MasterAdamW`).

    Raises:
        InputError: nothing to train, a value out of range, or half-precision weights without
            `master_weights`.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError(
            "no parameter requires a gradient; loaded weights are frozen, "
            "model.requires_grad_(True) unfreezes them"
        )
    require(0 <= learning_rate < torch.inf, "learning_rate", learning_rate, "at least 0")
    require(0 <= weight_decay < torch.inf, "weight_decay", weight_decay, "at least 0")
    require(all(0 <= beta < 1 for beta in betas), "betas", betas, "two numbers from 0 to below 1")
    half = [parameter for parameter in trained if parameter.dtype in _HALF]
    if half and not master_weights:
        dtype = str(half[0].dtype).removeprefix("torch.")
        raise InputError(
            f"the weights to train are {dtype}, in which most small steps round away and nothing "
            "is learned; load the model in float32, or set master_weights=True to train float32 "
            f"copies of the {dtype} weights"
        )
    masters: dict[Tensor, Tensor] = {
        weight: weight.detach().float().requires_grad_() for weight in half
    }
    stepped_ones = [masters.get(parameter, parameter) for parameter in trained]
    groups = [
        {"params": [p for p in stepped_ones if p.dim() >= 2], "weight_decay": float(weight_decay)},
        {"params": [p for p in stepped_ones if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rates = float(betas[0]), float(betas[1])  # torch refuses 0 for 0.0
    # fused: one pass over all parameters instead of a dozen small operators for each
    options: dict[str, Any] = {"lr": float(learning_rate), "betas": rates, "eps": 1e-8}
    if masters:
        return MasterAdamW(groups, masters, fused=True, **options)
    return torch.optim.AdamW(groups, fused=True, **options)


def stepped(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """Return what the optimizer updates for a weight: its float32 copy, or the weight itself."""
    if isinstance(optimizer, MasterAdamW):
        return optimizer.masters.get(weight, weight)
    return weight


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps an AdamW has taken."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)
