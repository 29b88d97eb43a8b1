"""LoRA in a whole model: add it to some of the layers, merge it, remove it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from qwenkit.errors import InputError, shown
from qwenkit.fast import FastLinear
from qwenkit.lora.layers import TARGETS, FastLoRALinear, LoRALinear, check_strength
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage


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
    largest = max(max(one.in_features, one.out_features) for one in _linears(model, names).values())
    if rank > largest:
        raise InputError(
            f"rank is {shown(rank)}; the matrices have at most {largest} rows or columns, and no "
            "update of them has a higher rank"
        )
    put_lora(model, dict.fromkeys(names, rank), alpha, dropout)


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
        InputError: the model has LoRA already, or int8 or int4 weights.
    """
    parts = _linears(model, ranks)
    made: dict[str, LoRALinear] = {}
    for name, part in parts.items():
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


def _linears(model: QwenForCausalLM, names: Iterable[str]) -> dict[str, nn.Linear]:
    """Return the named modules, once all of them can have LoRA."""
    if lora_layers(model):
        raise InputError(
            "the model has LoRA already; remove_lora(model) first (merge_lora before it keeps "
            "what was learned)"
        )
    found: dict[str, nn.Linear] = {}
    for name in names:
        part = model.get_submodule(name)
        if type(part) not in (nn.Linear, FastLinear):
            raise InputError(
                f"{name} is a {type(part).__name__}; LoRA needs a Linear with float weights: load "
                "the model in a float dtype"
            )
        assert isinstance(part, nn.Linear)
        found[name] = part
    return found


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return name -> layer of all that have LoRA; empty where there is none."""
    return {n: part for n, part in model.named_modules() if isinstance(part, LoRALinear)}


@stage("Merging LoRA")
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


@contextmanager
def lora_off(model: QwenForCausalLM) -> Iterator[None]:
    """Let the model be, within a `with` block, the one that it was before LoRA.

    Raises:
        InputError: the model has no LoRA, or it is merged.
    """
    parts = _layers(model)
    if any(part.merged for part in parts):
        raise InputError("LoRA is merged into the weights; unmerge_lora(model) first")
    scalings = [part.scaling for part in parts]
    try:
        for part in parts:
            part.scaling = 0.0
        yield
    finally:
        for part, scaling in zip(parts, scalings, strict=True):
            part.scaling = scaling


def _layers(model: nn.Module) -> list[LoRALinear]:
    found = list(lora_layers(model).values())
    if not found:
        raise InputError("the model has no LoRA; add_lora(model) or load_adapter comes first")
    return found
