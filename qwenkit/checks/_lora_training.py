"""Exercise 13.3, LoRA trained and merged on a toy model, right and with common mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks._judge import Mistake
from qwenkit.checks._lora_module import LoRAModule
from qwenkit.checks._samples import normal
from qwenkit.checks._whole_model import random_weights
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import next_token_loss

Added = list[tuple[nn.Module, str, LoRAModule]]  # the attention, the projection's name, its LoRA
Trainer = Callable[..., Any]
_TARGETS = ("q_proj", "v_proj")
_ROWS, _LENGTH = 2, 9  # of a batch


def _on_every_layer(model: QwenForCausalLM) -> Iterable[nn.Module]:
    return [layer.get_submodule("self_attn") for layer in model.model.layers]


def _only_trained(model: QwenForCausalLM, added: Added) -> list[Tensor]:
    return [one for _, _, lora in added for one in (lora.A, lora.B)]


def _adam(weights: list[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)


def _loss(model: QwenForCausalLM, batch: Tensor) -> Tensor:
    return next_token_loss(model(batch[:, :-1]), batch[:, 1:])


def _merged(lora: LoRAModule) -> Tensor:
    return lora.base.weight + lora.scale(lora.alpha, lora.A, lora.B) * (lora.B @ lora.A)


def trainer(
    targets: tuple[str, ...] = _TARGETS,
    where: Callable[[QwenForCausalLM], Iterable[nn.Module]] = _on_every_layer,
    weights: Callable[[QwenForCausalLM, Added], list[Tensor]] = _only_trained,
    optimizer: Callable[[list[Tensor], float], torch.optim.Optimizer] = _adam,
    loss: Callable[[QwenForCausalLM, Tensor], Tensor] = _loss,
    merged: Callable[[LoRAModule], Tensor] | None = _merged,
    steps: Callable[[list[Tensor]], list[Tensor]] = lambda batches: batches,
    returned: Callable[[list[float], list[float]], Any] = lambda before, after: before,
    clear: bool = True,
    renew: bool = False,
    early: bool = False,
) -> Trainer:
    """Return a training of LoRA; the arguments are what can go wrong in it.

    Args:
        targets: the projections that get LoRA.
        where: the attentions that get it.
        weights: what the optimizer is given.
        optimizer: makes it.
        loss: of a batch.
        merged: the weight that is left at the end; None: LoRA stays in the model.
        steps: the batches that are used.
        returned: of the losses before and after each step.
        clear: whether gradients are set to zero before each backward.
        renew: whether each batch gets a new optimizer.
        early: whether LoRA is merged before the training.
    """

    def train_lora(
        model: QwenForCausalLM,
        batches: list[Tensor],
        rank: int,
        alpha: float,
        rate: float,
        start: Callable[[int, int], Tensor],
    ) -> Any:
        added: Added = []
        for attention in where(model):
            for name in targets:
                lora = LoRAModule(getattr(attention, name), rank, alpha, frozen=False)
                lora.A.data = start(rank, lora.base.in_features)
                setattr(attention, name, lora)
                added.append((attention, name, lora))
        chosen = weights(model, added)
        made = optimizer(chosen, rate)
        if early:
            _finish(added, _merged)
        before, after = [], []
        for batch in steps(batches):
            made = optimizer(chosen, rate) if renew else made
            if clear:
                model.zero_grad()
            value = loss(model, batch)
            if not early:
                value.backward()  # type: ignore[no-untyped-call]
            made.step()
            before.append(value.item())
            after.append(loss(model, batch).item())
        if merged is not None and not early:
            _finish(added, merged)
        return returned(before, after)

    return train_lora


@torch.no_grad()
def _finish(added: Added, merged: Callable[[LoRAModule], Tensor]) -> None:
    for attention, name, lora in added:
        lora.base.weight.copy_(merged(lora))
        setattr(attention, name, lora.base)


def measured(function: Trainer) -> Callable[..., Any]:
    """Turn a learner's training into a function of sizes: the losses, and what the model is then.

    That is: the logits of the model that is left, how many of its tensors are others than before,
    and whether its layers are those that it had. All parameters need a gradient at the start, and
    some have one, so that freezing and a forgotten `zero_grad` show.
    """

    @wraps(function)
    def run(layers: int, steps: int, rank: int, alpha: float, rate: float) -> Any:
        config = QwenConfig(24, 16, 20, layers, 4, 2, tie_word_embeddings=True)
        model = QwenForCausalLM(config)
        model.load_state_dict(random_weights(config))
        model.requires_grad_(True)
        before = {name: one.clone() for name, one in model.state_dict().items()}
        kinds = [type(one) for one in model.modules()]
        draw = torch.Generator().manual_seed(layers)
        batches = [torch.randint(24, (_ROWS, _LENGTH), generator=draw) for _ in range(steps)]
        losses = function(model, batches, rank, alpha, rate, lambda r, i: normal(r, i) / i**0.5)
        after = model.state_dict()
        changed = sum(
            name not in after or not torch.equal(one, after[name]) for name, one in before.items()
        )
        nothing = losses is None or losses is ...
        if nothing and not changed:
            return losses
        with torch.no_grad():
            logits = model(batches[0])
        plain = kinds == [type(one) for one in model.modules()]
        return (
            "no losses" if nothing else torch.tensor([_number(one) for one in losses]),
            logits,
            f"{changed} of {len(before)} tensors changed",
            "plain layers" if plain else "LoRA is still in the model",
        )

    return run


def _number(loss: Any) -> float:
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def _forgotten_scale(lora: LoRAModule) -> Tensor:
    return lora.base.weight + lora.B @ lora.A


def _everything(model: QwenForCausalLM, added: Added) -> list[Tensor]:
    return list(model.parameters())


def _all_but_bases(model: QwenForCausalLM, added: Added) -> list[Tensor]:
    return [one for name, one in model.named_parameters() if ".base." not in name]


def _biases_too(model: QwenForCausalLM, added: Added) -> list[Tensor]:
    biases = [one for name, one in model.named_parameters() if name.endswith("bias")]
    return [*_only_trained(model, added), *biases]


def _biases_of_k(model: QwenForCausalLM, added: Added) -> list[Tensor]:
    biases = [one for name, one in model.named_parameters() if name.endswith("k_proj.bias")]
    return [*_only_trained(model, added), *biases]


def _unshifted(model: QwenForCausalLM, batch: Tensor) -> Tensor:
    return next_token_loss(model(batch), batch)


def _shifted_back(model: QwenForCausalLM, batch: Tensor) -> Tensor:
    return next_token_loss(model(batch[:, 1:]), batch[:, :-1])


_BIASES = "biases were trained, too. Freeze all of the model, not only its weights."
_FREEZE = "more than A and B was trained. Which parameters still need a gradient before the loop?"
TRAINING_MISTAKES: tuple[tuple[str, str, Trainer], ...] = (
    ("not merged", "the training is right, but the model still has LoRA in it. Which layer belongs "
        "in its place, with which weight?",
        trainer(merged=None)),
    ("removed, not merged", "the old layers are back, but what was learned is not in their "
        "weights.",
        trainer(merged=lambda lora: lora.base.weight)),
    ("merged without scale", "the weight gets B A without its scale, which the forward has.",
        trainer(merged=_forgotten_scale)),
    ("scaled twice", "the merged weight gets the update too strongly: is the scale in it twice?",
        trainer(merged=lambda lora:
            lora.base.weight + lora.scale(lora.alpha, lora.A, lora.B) ** 2 * (lora.B @ lora.A))),
    ("merged twice", "the update is in the weights twice.",
        trainer(merged=lambda lora: 2 * _merged(lora) - lora.base.weight)),
    ("minus at the end", "the update is subtracted from the weights; it must be added.",
        trainer(merged=lambda lora: 2 * lora.base.weight - _merged(lora))),
    ("the update alone", "the weights are now the update alone. Where is the old weight?",
        trainer(merged=lambda lora: _merged(lora) - lora.base.weight)),
    ("nothing learned", "the model is as it was. Does the optimizer make its step, is A what "
        "`start` returns, and do you merge only after the loop?",
        trainer(early=True)),
    ("not frozen", _FREEZE, trainer(weights=_everything)),
    ("not frozen", _FREEZE, trainer(weights=_all_but_bases)),
    ("biases trained", _BIASES, trainer(weights=_biases_too)),
    ("biases trained", _BIASES, trainer(weights=_biases_of_k)),
    ("not cleared", "earlier gradients are still there. What belongs before backward?",
        trainer(clear=False)),
    ("a new optimizer for each step", "a new optimizer in each step has no moments. Create it "
        "once, before the loop.",
        trainer(renew=True)),
    ("SGD", "these are steps of SGD. The exercise asks for AdamW.",
        trainer(optimizer=lambda weights, rate: torch.optim.SGD(weights, lr=rate))),
    ("Adam with another rate", "your optimizer does not get the learning rate that is given.",
        trainer(optimizer=lambda weights, rate: torch.optim.AdamW(weights, weight_decay=0.0))),
    ("weight decay", "PyTorch's AdamW has a weight decay of 0.01 unless you say otherwise; here "
        "it is 0.",
        trainer(optimizer=lambda weights, rate: torch.optim.AdamW(weights, lr=rate))),
    ("only q", "only the query projections learn. The value projections get LoRA, too.",
        trainer(targets=("q_proj",))),
    ("only v", "only the value projections learn. The query projections get LoRA, too.",
        trainer(targets=("v_proj",))),
    ("k for v", "the key projections got LoRA. Which two does the exercise name?",
        trainer(targets=("q_proj", "k_proj"))),
    ("all of attention", "all four projections of attention got LoRA; only q_proj and v_proj "
        "should.",
        trainer(targets=("q_proj", "k_proj", "v_proj", "o_proj"))),
    ("one layer", "only the first layer learns. Every layer gets LoRA.",
        trainer(where=lambda model: [*_on_every_layer(model)][:1])),
    ("one layer", "only the last layer learns. Every layer gets LoRA.",
        trainer(where=lambda model: [*_on_every_layer(model)][-1:])),
    ("not shifted", "each token is its own label. What should the model predict at a position?",
        trainer(loss=_unshifted)),
    ("shifted backwards", "the labels are one position before the inputs. Which token comes next?",
        trainer(loss=_shifted_back)),
    ("one batch only", "you train on the first batch again and again. Each step has its own.",
        trainer(steps=lambda batches: batches[:1] * len(batches))),
    ("one step only", "you take one step. Take one for each batch.",
        trainer(steps=lambda batches: batches[:1])),
    ("losses after the step", "the losses are those after each step. Return those from which the "
        "gradients come.",
        trainer(returned=lambda before, after: after)),
    ("the last loss", "you return one loss. Return a list, one per batch.",
        trainer(returned=lambda before, after: before[-1:])),
    ("the mean loss", "you return the mean. Return a list, one loss per batch.",
        trainer(returned=lambda before, after: [sum(before) / len(before)])),
    ("no losses", "the training is right; return the losses, one per batch.",
        trainer(returned=lambda before, after: None)),
)  # fmt: skip
KNOWN = [Mistake(name, hint, cache(measured(wrong))) for name, hint, wrong in TRAINING_MISTAKES]
