"""LoRA: keep the weight as it is, and learn a small update to it.

A weight W of O × I values is frozen. Two matrices are added: A, rank × I, and B, O × rank. Only
they are trained, and W + alpha / rank · B A takes the place of W. With rank 8, a weight of
896 × 896 has 14,336 trainable parameters instead of 802,816. (Hu et al. 2021, "LoRA", section 4.1.)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qwenkit.errors import InputError, shown
from qwenkit.fast import FAST, FastLinear
from qwenkit.model import QwenForCausalLM

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


class LoadedAdapter(NamedTuple):
    """What `save_adapter` keeps of an adapter that was loaded; all its layers share one."""

    config: dict[str, Any]  # adapter_config.json
    dtypes: dict[str, torch.dtype]  # of each tensor, under the model's own names


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
        with torch.no_grad():
            return self.lora_B.weight @ self.lora_A.weight * self.scaling

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


def add_lora(
    model: QwenForCausalLM,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] = ("q_proj", "v_proj"),
) -> None:
    """Freeze a model, and add LoRA to some of its matrices, ready to train.

    The logits stay the same until something is trained. Random numbers come from torch's generator:
    call `torch.manual_seed` first to reproduce them.

    Args:
        model: changed in place; float weights, without LoRA.
        rank: width between A and B: a higher one can learn more, and costs more.
        alpha: the update counts alpha / rank, so that another rank does not need another learning
            rate.
        dropout: fraction of A's inputs that training drops at random.
        targets: some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, in every
            layer; and lm_head, where it is not tied.

    Raises:
        InputError: a value out of range, a missing target, or a model that has LoRA.
    """
    if type(rank) is not int or rank < 1:
        raise InputError(f"rank is {shown(rank)}; it must be an integer of at least 1")
    check_strength(alpha, dropout)
    if isinstance(targets, str) or not targets or not set(targets) <= set(TARGETS):
        raise InputError(f"targets is {targets!r}; it must be some of {', '.join(TARGETS)}")
    names = [n for n, _ in model.named_modules() if n.rpartition(".")[2] in targets]
    missing = sorted(set(targets) - {name.rpartition(".")[2] for name in names})
    if missing:
        raise InputError(
            f"targets names {', '.join(missing)}, which this model does not have: its head is tied "
            "to the embedding"
        )
    largest = max(max(model.get_parameter(f"{name}.weight").shape) for name in names)
    if rank > largest:
        raise InputError(
            f"rank is {shown(rank)}; the matrices have at most {largest} rows or columns, and no "
            "update of them has a higher rank"
        )
    put_lora(model, dict.fromkeys(names, rank), alpha, dropout)


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


def put_lora(
    model: QwenForCausalLM,
    ranks: dict[str, int],
    alpha: float,
    dropout: float = 0.0,
    prepare: Callable[[str, LoRALinear], None] | None = None,
) -> None:
    """Freeze a model and add LoRA to the named modules, each of its own rank.

    Args:
        model: unchanged if this fails or is interrupted.
        ranks: module's name -> rank.
        alpha: of all.
        dropout: of all.
        prepare: called with each name and its layer, before the model has any of them.

    Raises:
        InputError: the model has LoRA already, or int8 weights.
    """
    if lora_layers(model):
        raise InputError(
            "the model has LoRA already; remove_lora(model) first (merge_lora before it keeps "
            "what was learned)"
        )
    parts = {name: model.get_submodule(name) for name in ranks}
    wrong = [name for name, part in parts.items() if type(part) not in (nn.Linear, FastLinear)]
    if wrong:
        raise InputError(
            f"{wrong[0]} is a {type(parts[wrong[0]]).__name__}; LoRA needs a Linear with float "
            "weights: load the model without int8"
        )
    made: dict[str, LoRALinear] = {}
    for name, part in parts.items():
        assert isinstance(part, nn.Linear)
        kind = FastLoRALinear if isinstance(part, FastLinear) else LoRALinear
        made[name] = kind(part, ranks[name], alpha, dropout).train(model.training)
        if prepare is not None:
            prepare(name, made[name])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.requires_grad_(False)
        for name, layer in made.items():
            model.set_submodule(name, layer)
    except BaseException:
        for name, part in parts.items():
            model.set_submodule(name, part)
        for parameter in trained:
            parameter.requires_grad_(True)
        raise


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return name -> layer of all that have LoRA; empty where there is none."""
    return {n: part for n, part in model.named_modules() if isinstance(part, LoRALinear)}


def merge_lora(model: QwenForCausalLM) -> None:
    """Add every update to its weight: the model is then as fast as without LoRA.

    The plain weights are kept for `unmerge_lora`. What is already merged stays merged. If it fails
    or is interrupted, nothing is merged.

    Raises:
        InputError: the model has no LoRA.
    """
    separate = [part for part in _layers(model) if not part.merged]
    try:
        for part in separate:
            part.merge()
    except BaseException:
        for part in separate:
            part.unmerge()
        raise


def unmerge_lora(model: QwenForCausalLM) -> None:
    """Restore the plain weights, bit for bit; LoRA is separate again and ready to train.

    Raises:
        InputError: the model has no LoRA.
    """
    parts = _layers(model)
    try:
        for part in parts:
            part.unmerge()
    except BaseException:
        for part in parts:
            part.unmerge()  # takes no memory, so that all of it can be undone
        raise


def remove_lora(model: QwenForCausalLM) -> None:
    """Make every layer a plain Linear again, with the weight that it has now.

    After `merge_lora` that weight includes what was learned; otherwise the model is the same as
    before `add_lora`. It stays frozen.

    Raises:
        InputError: the model has no LoRA.
    """
    _layers(model)
    for name, part in lora_layers(model).items():
        kind = FastLinear if isinstance(part, FastLinear) else nn.Linear
        plain = kind(part.in_features, part.out_features, part.bias is not None, device="meta")
        plain.weight, plain.bias = part.weight, part.bias
        model.set_submodule(name, plain.train(part.training))


def _layers(model: nn.Module) -> list[LoRALinear]:
    found = list(lora_layers(model).values())
    if not found:
        raise InputError("the model has no LoRA; add_lora(model) or load_adapter comes first")
    return found
