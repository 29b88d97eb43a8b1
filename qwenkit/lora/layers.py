"""LoRA: keep the weight as it is, and learn a small update to it.

A weight W of O × I values is frozen. Two matrices are added: A, rank × I, and B, O × rank. Only
they are trained, and W + alpha / rank · B A takes the place of W. With rank 8, a weight of
896 × 896 has 14,336 trainable parameters instead of 802,816. (Hu et al. 2021, "LoRA", section 4.1.)
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qwenkit.errors import InputError, shown
from qwenkit.fast import FAST, FastLinear

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


class Stored(NamedTuple):
    """How a tensor stands in an adapter's file."""

    name: str
    dtype: torch.dtype


class LoadedAdapter(NamedTuple):
    """What `save_adapter` keeps of an adapter that was loaded; all its layers share one."""

    config: dict[str, Any]  # adapter_config.json
    stored: dict[str, Stored]  # each tensor, under the model's own name


class LoRALinear(nn.Linear):
    """y = x Wᵀ + b + scaling · B(A x).

    Attributes:
        weight: (O, I) W, frozen; W + scaling · B A while merged.
        bias: (O), frozen, or None.
        lora_A: in_features to rank; initialized at random.
        lora_B: rank to out_features; initialized to zero, so that at first nothing changes.
        alpha: how strongly B A counts, whatever the rank.
        scaling: alpha / rank.
        adapter: what it was loaded from; None: made here.
        plain_weight: W, kept while merged, so that unmerging restores it bit for bit.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)  # not nn.Linear's: weight and bias are the base's own
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        device = base.weight.device
        # Float32 even with bfloat16 weights: training steps are small compared to the values.
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, device="cpu").float()
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, device="cpu").float()
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # as PEFT does
        nn.init.zeros_(self.lora_B.weight)
        self.lora_A.to(device)  # sampled on the CPU: a seed gives the same values on every device
        self.lora_B.to(device)
        self.dropout = nn.Dropout(dropout)
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        self.adapter: LoadedAdapter | None = None
        self.register_buffer("plain_weight", None, persistent=False)
        self.plain_weight: Tensor | None

    @property
    def merged(self) -> bool:
        """Whether the weight has B A in it."""
        return self.plain_weight is not None

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Multiply by the weight, and add what A and B have learned."""
        y = super().forward(x)  # (..., O)
        if self.merged:
            return y
        low = self.lora_A(self.dropout(x).to(self.lora_A.weight.dtype))  # (..., rank)
        more: Tensor = self.lora_B(low) * self.scaling  # (..., O)
        return (y + more).to(y.dtype)

    def update(self) -> Float[Tensor, "O I"]:
        """Return scaling · B A, the update of the weight."""
        return self.lora_B.weight.detach() @ self.lora_A.weight.detach() * self.scaling

    def merge(self) -> None:
        """Add the update to the weight: one product instead of three."""
        if not self.merged:
            merged = (self.weight.float() + self.update().float()).to(self.weight.dtype)
            self._trained = self.lora_A.weight.requires_grad
            self._set(merged, self.weight.detach())
        for part in (self.lora_A, self.lora_B):  # unused while merged
            part.requires_grad_(False)

    def unmerge(self) -> None:
        """Restore the weight from before the merge, bit for bit."""
        if self.plain_weight is not None:
            for part in (self.lora_A, self.lora_B):
                part.requires_grad_(self._trained)
            self._set(self.plain_weight, None)

    def _set(self, weight: Tensor, plain: Tensor | None) -> None:
        """Change the weight and the merged state together, so that Ctrl-C cannot separate them."""
        parameters = {**self._parameters, "weight": nn.Parameter(weight.detach(), False)}
        buffers = {**self._buffers, "plain_weight": plain}
        vars(self).update(_parameters=parameters, _buffers=buffers)

    def extra_repr(self) -> str:
        """Show sizes and rank in `print(model)`."""
        state = ", merged" if self.merged else ""
        return f"{super().extra_repr()}, rank={self.rank}, alpha={self.alpha:g}{state}"


class FastLoRALinear(LoRALinear, FastLinear):
    """The same, with the weight multiplied by the fastest product (`LoRALinear`'s super())."""


FAST[LoRALinear] = FastLoRALinear


def check_strength(alpha: object, dropout: object) -> None:
    """Refuse an alpha or a dropout out of range.

    Raises:
        InputError: not a number, or out of range.
    """
    largest = sys.float_info.max
    if type(alpha) not in (int, float) or not 0 < alpha <= largest:  # type: ignore[operator]
        raise InputError(
            f"alpha is {shown(alpha)}; it must be a number above 0 (often twice the rank)"
        )
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:  # type: ignore[operator]
        raise InputError(f"dropout is {shown(dropout)}; it must be a number from 0 to below 1")
