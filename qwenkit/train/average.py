"""The mean of a model and of what it became by more training: often better than both.

Near the end of a training the weights move about in a valley of the loss, and their mean is nearer
its middle than each of them (Izmailov et al. 2018, "Averaging weights leads to wider optima and
better generalization"). It also keeps more of what the first model could (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from qwenkit.errors import InputError, shown
from qwenkit.model import QwenForCausalLM
from qwenkit.train._checks import is_number

_ROUNDING = 1e-6  # of a sum of shares
_OF_FILES = {"dtype", "raw"}


@torch.no_grad()
def average(
    models: Sequence[QwenForCausalLM], shares: Sequence[float] | None = None
) -> QwenForCausalLM:
    """Return a model whose weights are the weighted mean of those of several models.

    Args:
        models: at least two, of one config, in float32. They are not changed. Models that were
            trained separately from the beginning have no useful mean.
        shares: of each model, above 0, together 1; None: equal.

    Raises:
        InputError: models or shares that do not fit.
    """
    given = list(models) if isinstance(models, Sequence) else [models]
    if len(given) < 2 or not all(isinstance(one, QwenForCausalLM) for one in given):
        names = ", ".join(type(one).__name__ for one in given) or "nothing"
        raise InputError(f"models holds {names}; it must hold at least two QwenForCausalLM")
    models, shares = given, [1 / len(given)] * len(given) if shares is None else shares
    fit = isinstance(shares, Sequence) and len(shares) == len(models)
    fit = fit and all(is_number(one) and one > 0 for one in shares)
    if not fit or abs(sum(shares) - 1) > _ROUNDING:
        raise InputError(
            f"shares is {shown(shares, 60)}; it must have a number above 0 for each of the "
            f"{len(models)} models, and their sum must be 1"
        )
    weights = [dict(model.named_parameters()) for model in models]
    for number, own in enumerate(weights):
        alike = _computed_by(models[number]) == _computed_by(models[0])
        if not alike or own.keys() != weights[0].keys():
            raise InputError(f"model {number + 1} has another config, or other parts, than model 1")
        dtypes = {weight.dtype for weight in own.values()}
        if dtypes != {torch.float32}:
            names = ", ".join(sorted(str(one).removeprefix("torch.") for one in dtypes))
            raise InputError(
                f'model {number + 1} holds {names}; load it with dtype="float32", in which '
                "a mean is not rounded"
            )
    mean = copy.deepcopy(models[0])
    for name, weight in mean.named_parameters():
        terms = zip(shares, weights, strict=True)
        weight.zero_()
        for share, own in terms:
            weight.add_(own[name].to(weight.device), alpha=share)
    return mean


def _computed_by(model: QwenForCausalLM) -> dict[str, object]:
    """Return what of a config decides what a model computes, not how its files were written."""
    return {name: value for name, value in vars(model.config).items() if name not in _OF_FILES}
