"""AdamW, alone or with Muon, with the usual groups: matrices decay, biases and norms do not."""

import math
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
        # Hooks, since a step() that called AdamW's would run everyone's hooks twice.
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


class MuonAdamW(torch.optim.AdamW):
    """Muon for the matrices between the embedding and the logits, AdamW for all other weights.

    Muon makes the singular values of a matrix's averaged gradient nearly equal, so that a step
    moves it in all directions alike and not only in the few that dominate. A model learns as much
    from fewer tokens (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural
    networks"). Its steps are scaled to the size of AdamW's (Liu et al. 2025, "Muon is Scalable for
    LLM Training", section 2.2), and so both share one learning rate.
    """

    def __init__(
        self, groups: list[dict[str, Any]], matrices: list[Tensor], **options: Any
    ) -> None:
        rate, decay = options["lr"], options["weight_decay"]
        self._muon = torch.optim.Muon(
            matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
        super().__init__([*groups, *self._muon.param_groups], **options)
        self.matrices = frozenset(matrices)
        # A hook, since a step() that called AdamW's would run everyone's hooks twice.
        self.register_step_pre_hook(lambda *_: self._step_matrices())

    def _step_matrices(self) -> None:
        # Both read one state and one list of groups, which loading a state replaces.
        self._muon.state, self._muon.param_groups = self.state, self.param_groups[-1:]
        self._muon.step()  # type: ignore[no-untyped-call]
        self._muon.zero_grad()  # AdamW leaves out what has no gradient


def make_optimizer(
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
    master_weights: bool = False,
    muon: bool = False,
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
        muon: train the matrices between the embedding and the logits by Muon (`MuonAdamW`).

    Raises:
        InputError: nothing to train, a value out of range, half-precision weights without
            `master_weights`, or with Muon.
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
    if half and muon:
        raise InputError(
            "Muon trains float32 weights; load the model in float32, or train it with muon=False"
        )
    masters: dict[Tensor, Tensor] = {
        weight: weight.detach().float().requires_grad_() for weight in half
    }
    stepped_ones = [masters.get(parameter, parameter) for parameter in trained]
    matrices = _hidden_matrices(model) if muon else []
    by_muon = set(matrices)
    stepped_ones = [parameter for parameter in stepped_ones if parameter not in by_muon]
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
    if matrices:
        return MuonAdamW(groups, matrices, fused=True, weight_decay=float(weight_decay), **options)
    return torch.optim.AdamW(groups, fused=True, **options)


def stepped(optimizer: torch.optim.Optimizer, weight: Tensor) -> Tensor:
    """Return what the optimizer updates for a weight: its float32 copy, or the weight itself."""
    if isinstance(optimizer, MasterAdamW):
        return optimizer.masters.get(weight, weight)
    return weight


def _hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Return the trained matrices that neither read token ids nor write logits."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() == 2
        and not name.endswith(("embed_tokens.weight", "lm_head.weight"))
    ]  # fmt: skip


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Scale gradients down to a norm of at most `max_norm` (0: never); return what it was."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(trained, max_norm or math.inf)


def remembered(optimizer: torch.optim.Optimizer, weight: Tensor) -> tuple[str, ...]:
    """Return the names of what the optimizer remembers of a weight."""
    if isinstance(optimizer, MuonAdamW) and weight in optimizer.matrices:
        return ("momentum_buffer",)
    return ("step", "exp_avg", "exp_avg_sq")


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps an AdamW has taken."""
    return max((int(state.get("step", 0)) for state in optimizer.state.values()), default=0)
