"""Exercise 12.4, the whole training loop: the right answer, and the wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Case, Mistake
from qwenkit.checks._training_adamw import adamw
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.train import IGNORE, Batch, init_weights, next_token_loss

Train = Callable[[QwenForCausalLM, list[Batch], list[float], float, float], Any]
Weights = list[Tensor]

# (rates, clip, decay, whether gradients are left and a weight is frozen)
CASES = [
    Case("one step; compared are the losses, then the embedding, a matrix, a bias and a norm",
        ((0.01,), math.inf, 0.0, False)),
    Case("four steps, a rate of 0.02", ((0.02,) * 4, math.inf, 0.0, False)),
    Case("four steps, with decay", ((0.02,) * 4, math.inf, 0.5, False)),
    Case("a rate for each step", ((0.005, 0.01, 0.03, 0.02), math.inf, 0.1, False)),
    Case("clipped at every step", ((0.02, 0.02, 0.01, 0.01), 0.3, 0.1, False)),
    Case("clipped at some steps", ((0.02, 0.02, 0.01, 0.03), 1.7, 0.1, False)),
    Case("old gradients, and a frozen weight", ((0.02, 0.02, 0.01), 1.0, 0.2, True)),
]  # fmt: skip
_COMPARED = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.v_proj.bias",
    "model.norm.weight",
)
_FROZEN = "model.layers.0.mlp.up_proj.weight"


def _toy(steps: int, used: bool) -> tuple[QwenForCausalLM, list[Batch]]:
    """Return a model of a few weights, and a batch for each step; some labels are ignored."""
    model = QwenForCausalLM(QwenConfig(16, 8, 16, 1, 4, 1, tie_word_embeddings=True))
    init_weights(model, seed=0)
    model.requires_grad_(True)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)  # so that gradients are not tiny
    ids = (torch.arange(27 * steps) ** 2 % 13).reshape(steps, 3, 9)
    labels = ids[:, :, 1:].clone()
    labels[:, 0, :5] = IGNORE
    if used:
        model.get_parameter(_FROZEN).requires_grad_(False)
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight) if weight.requires_grad else None
    return model, [Batch(i[:, :-1], its) for i, its in zip(ids, labels, strict=True)]


def trained(function: Train) -> Callable[[tuple[float, ...], float, float, bool], Any]:
    """Turn a loop into a function that returns the losses and some weights, as they are then."""

    @wraps(function)
    def run(rates: tuple[float, ...], clip: float, decay: float, used: bool) -> Any:
        model, batches = _toy(len(rates), used)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        losses = function(model, batches, list(rates), clip, decay)
        after = {name: weight.detach() for name, weight in model.named_parameters()}
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        if losses is None or losses is ...:
            return None if not moved else ("no losses", *map(after.get, _COMPARED))
        if isinstance(losses, list | tuple) and not any(isinstance(x, Tensor) for x in losses):
            losses = torch.tensor([*map(float, losses)])
        if used and _FROZEN in moved:
            return "the frozen weight moved"
        return losses, *map(after.get, _COMPARED)

    return run


def by_torch(
    model: QwenForCausalLM, batches: list[Batch], rates: list[float], clip: float, decay: float
) -> list[float]:
    """Train with PyTorch's AdamW."""
    weights = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in weights if one.dim() > 1], "weight_decay": decay},
        {"params": [one for one in weights if one.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer, losses = torch.optim.AdamW(groups, betas=(0.9, 0.95)), []
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = next_token_loss(model(batch.input_ids), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- the parts that can go wrong ---


def _norm(gradients: Weights) -> float:
    return math.sqrt(sum(float((one**2).sum()) for one in gradients))


def _clipped(gradients: Weights, clip: float) -> Weights:
    scale = min(1.0, clip / (_norm(gradients) + 1e-6))
    return [scale * one for one in gradients]


def _clipped_in_place(gradients: Weights, clip: float) -> Weights:
    scale = min(1.0, clip / (_norm(gradients) + 1e-6))
    return [one.mul_(scale) for one in gradients]


def _each_clipped(gradients: Weights, clip: float) -> Weights:
    return [_clipped([one], clip)[0] for one in gradients]


def _always_scaled(gradients: Weights, clip: float) -> Weights:
    return [one * clip / _norm(gradients) for one in gradients] if clip < math.inf else gradients


def _squares_clipped(gradients: Weights, clip: float) -> Weights:
    scale = min(1.0, clip / (_norm(gradients) ** 2 + 1e-6))
    return [scale * one for one in gradients]


def _loss(model: QwenForCausalLM, batch: Batch) -> Tensor:
    return next_token_loss(model(batch.input_ids), batch.labels)


def _ignoring(model: QwenForCausalLM, batch: Batch) -> Tensor:
    logits = model(batch.input_ids).flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, batch.labels.flatten().clamp(min=0))


def _shifted(model: QwenForCausalLM, batch: Batch) -> Tensor:
    return next_token_loss(model(batch.input_ids)[:, :-1], batch.labels[:, 1:])


def _inputs(model: QwenForCausalLM, batch: Batch) -> Tensor:
    return next_token_loss(model(batch.input_ids), batch.input_ids)


def _summed(model: QwenForCausalLM, batch: Batch) -> Tensor:
    return next_token_loss(model(batch.input_ids), batch.labels, reduction="sum")


def _loop(
    zero: str = "before",
    clip_by: Callable[[Weights, float], Weights] = _clipped,
    step_by: Callable[..., Any] | None = None,
    decays: Callable[[Tensor], bool] = lambda weight: weight.dim() > 1,
    loss_of: Callable[[QwenForCausalLM, Batch], Tensor] = _loss,
    rate_at: Callable[[Sequence[float], int], float] = lambda rates, step: rates[step],
    batch_at: Callable[[Sequence[Batch], int], Batch] = lambda batches, step: batches[step],
    counted: Callable[[int], int] = lambda step: step + 1,
    keep: bool = True,
    steps: Callable[[int], int] = lambda count: count,
    result: Callable[[list[float]], Any] = lambda losses: losses,
    after: bool = False,
    thaw: bool = False,
) -> Train:
    """Return a loop; each argument is a part of it that can go wrong."""
    update = step_by or adamw()

    def train(
        model: QwenForCausalLM, batches: list[Batch], rates: list[float], clip: float, decay: float
    ) -> Any:
        if thaw:
            model.requires_grad_(True)
        weights = [one for one in model.parameters() if one.requires_grad]
        means = [(torch.zeros_like(one), torch.zeros_like(one)) for one in weights]
        losses = []
        for step in range(steps(len(batches))):
            batch = batch_at(batches, step)
            loss = loss_of(model, batch)
            if zero == "before":
                model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if zero == "after":
                model.zero_grad(set_to_none=False)
            gradients = clip_by([w.grad for w in weights if w.grad is not None], clip)
            with torch.no_grad():
                for at, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                    pull = decay if decays(weight) else 0.0
                    rate = rate_at(rates, step)
                    given = weight.detach().clone(), gradient, *means[at]
                    new, m, v = update(*given, counted(step), rate, pull)
                    weight.copy_(new)
                    means[at] = (m, v) if keep else means[at]
            losses.append(loss_of(model, batch).item() if after else loss.item())
        return result(losses)

    return train


def _plain(
    weight: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float
) -> Any:
    return weight * (1 - rate * decay) - rate * g, m, v


def _still(weight: Tensor, g: Tensor, m: Tensor, v: Tensor, *rest: Any) -> Any:
    return weight, m, v


_IDEAS: tuple[tuple[str, str, Train], ...] = (
    ("gradients add up", "each step follows all gradients so far, those left before the first "
        "step too. What does backward do with a gradient that is there?",
        _loop(zero="never")),
    ("gradients add up", "each step follows all gradients so far, those left before the first "
        "step too. What does backward do with a gradient that is there?",
        _loop(zero="never", clip_by=_clipped_in_place)),
    ("zeroed after backward", "you set the gradients to zero between backward and the step. What "
        "does the step follow then?",
        _loop(zero="after")),
    ("not clipped", "right without clipping. A gradient that is longer than `clip` must be scaled "
        "down.",
        _loop(clip_by=lambda gradients, clip: gradients)),
    ("clipped one by one", "you clip each weight's gradient by its own norm. The norm is that of "
        "all gradients together, and all are scaled by one factor.",
        _loop(clip_by=_each_clipped)),
    ("clipped by value", "you cut off each value. Clipping by the norm keeps the direction: all "
        "values are scaled by one factor.",
        _loop(clip_by=lambda gradients, clip: [one.clamp(-clip, clip) for one in gradients])),
    ("always scaled", "you scale the gradient to the length `clip`, even where it is shorter. Only "
        "longer ones are scaled.",
        _loop(clip_by=_always_scaled)),
    ("square of the norm", "you compare `clip` with the sum of squares. The norm is its root.",
        _loop(clip_by=_squares_clipped)),
    ("everything decays", "the biases and the norm weights decay, too. Only weights with two "
        "dimensions or more do.",
        _loop(decays=lambda weight: True)),
    ("nothing decays", "right without decay. With it, the matrices must be pulled towards 0.",
        _loop(decays=lambda weight: False)),
    ("the wrong ones decay", "biases and norm weights decay, and matrices do not: the other way "
        "around.",
        _loop(decays=lambda weight: weight.dim() < 2)),
    ("decay in the gradient", "you add the decay to the gradient: that is Adam with an L2 penalty. "
        "Pull the weight itself.",
        _loop(step_by=adamw(gradient_of=lambda g, weight, decay: g + decay * weight,
            end=lambda weight, move, rate, decay: weight - rate * move))),
    ("decay without rate", "the decay pulls with its full strength at every step. It is multiplied "
        "by the rate as well.",
        _loop(step_by=adamw(end=lambda weight, move, rate, decay:
            weight * (1 - decay) - rate * move))),
    ("decay pushes away", "your decay makes the weights larger. Towards which value must it pull?",
        _loop(step_by=adamw(end=lambda weight, move, rate, decay:
            weight * (1 + rate * decay) - rate * move))),
    ("betas exchanged", "the two betas are exchanged: 0.9 belongs to m, 0.95 to v.",
        _loop(step_by=adamw(betas=(0.95, 0.9)))),
    ("no correction", "the means are not corrected for their start at 0.",
        _loop(step_by=adamw(corrected=lambda beta, step: 1.0))),
    ("step not counted", "every step is corrected as if it were the first. Does your step number "
        "grow?",
        _loop(counted=lambda step: 1)),
    ("step counted from 1 too late", "the steps are counted from 2. At the first, it is 1.",
        _loop(counted=lambda step: step + 2)),
    ("means forgotten", "m and v are 0 again at every step. Where do you create them?",
        _loop(keep=False)),
    ("means forgotten", "m and v are 0 again at every step. Where do you create them, and what do "
        "you keep of a step?",
        _loop(keep=False, counted=lambda step: 1)),
    ("another beta", "your v has 0.999. Here it is 0.95.",
        _loop(step_by=adamw(betas=(0.9, 0.999)))),
    ("plain gradient steps", "each step is rate times gradient. That is SGD: where are m and v?",
        _loop(step_by=_plain)),
    ("sign", "each step goes along the gradient, and the loss rises. Go against it.",
        _loop(step_by=adamw(end=lambda weight, move, rate, decay:
            weight * (1 - rate * decay) + rate * move))),
    ("nothing is trained", "the losses are there, but no weight changes. Is the new value written "
        "to the weight itself?",
        _loop(step_by=_still)),
    ("first rate only", "every step has the first rate. Each has its own.",
        _loop(rate_at=lambda rates, step: rates[0])),
    ("last rate only", "every step has the last rate. Each has its own.",
        _loop(rate_at=lambda rates, step: rates[-1])),
    ("one batch only", "every step takes the first batch. Each has its own.",
        _loop(batch_at=lambda batches, step: batches[0])),
    ("one step too few", "you take one step too few.", _loop(steps=lambda count: count - 1)),
    ("one step only", "you return after the first step. Is the return inside the loop?",
        _loop(steps=lambda count: 1)),
    ("loss after the step", "the weights are right. The losses are those after each step, which "
        "cost a second pass; keep the loss that you called backward on.",
        _loop(after=True)),
    ("mean of the losses", "the weights are right. Return a list with every step's loss.",
        _loop(result=lambda losses: sum(losses) / len(losses))),
    ("last loss only", "the weights are right. Return a list with every step's loss.",
        _loop(result=lambda losses: losses[-1])),
    ("losses missing", "the weights are right. Return the losses, too.",
        _loop(result=lambda losses: None)),
    ("losses are tensors", "the weights are right. Return floats, with item(): a tensor keeps all "
        "that its gradient would need in memory.",
        _loop(result=lambda losses: [torch.tensor(one) for one in losses])),
    ("ignored labels count", "labels with IGNORE count as token 0.", _loop(loss_of=_ignoring)),
    ("shifted again", "you shift the labels. Those of a batch are shifted already.",
        _loop(loss_of=_shifted)),
    ("inputs as labels", "your labels are the inputs: the model learns to repeat.",
        _loop(loss_of=_inputs)),
    ("sum of the losses", "your loss is the sum over the labels. Take the mean.",
        _loop(loss_of=_summed)),
    ("frozen weight moved", "a weight that needs no gradient was trained. Which parameters belong "
        "to the training?",
        _loop(thaw=True)),
)  # fmt: skip
LOOP_MISTAKES = [Mistake(name, hint, cache(trained(function))) for name, hint, function in _IDEAS]
