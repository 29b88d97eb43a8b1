"""Exercise 09.3: a learner's model class is built, loaded and run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks._samples import normal
from qwenkit.checks._untied import HEAD, Tensors
from qwenkit.config import QwenConfig
from qwenkit.model import QwenForCausalLM
from qwenkit.trace import Trace


class LayersNotRegistered(ValueError):
    """No parameter of a layer is in the model's state."""


class HeadAlthoughTied(ValueError):
    """A tied file has no head, but the model has."""


class NoHeadAlthoughUntied(ValueError):
    """The file has a head, but the model does not."""


class TablesNotCut(RuntimeError):
    """The tables of cos and sin have a row per position that the model can read."""


def as_function(learner: Any) -> Any:
    """Return a class as a function of config, tensors and ids; leave a function as it is."""
    if isinstance(learner, nn.Module):
        learner = type(learner)
    return _Built(learner) if isinstance(learner, type) else learner


class _Built:
    """Builds a class from a config, loads tensors into it, and runs it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.__wrapped__ = getattr(kind, "forward", None)  # is it still a stub?

    @torch.no_grad()
    def __call__(self, config: QwenConfig, tensors: Tensors, ids: Tensor) -> Any:
        built = self.kind(config)
        state = built.state_dict()
        if state:  # else it is still a stub
            _compare_names(state, tensors)
            built.load_state_dict(tensors, strict=True)
        try:
            return built(ids)
        except RuntimeError as error:
            if str(config.max_position_embeddings) in str(error):
                raise TablesNotCut from error
            raise


def _compare_names(state: Tensors, tensors: Tensors) -> None:
    """Raise ValueError if a model's state does not have the names and shapes of the file."""
    missing, unknown = tensors.keys() - state.keys(), state.keys() - tensors.keys()
    problems = [f"no parameter for {name}" for name in tensors if name in missing]
    problems += [f"no tensor for {name}" for name in state if name in unknown]
    problems += [
        f"{name} is {tuple(state[name].shape)}, in the file {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if not problems:
        return
    if missing == {name for name in tensors if ".layers." in name}:
        raise LayersNotRegistered
    if unknown == {HEAD} and not missing:
        raise HeadAlthoughTied
    if missing == {HEAD} and not unknown:
        raise NoHeadAlthoughUntied
    raise ValueError(f"the model and the file differ ({len(problems)}): {'; '.join(problems)}")


def random_weights(config: QwenConfig) -> Tensors:
    """Return random weights under which every part matters, biases and norms included."""
    found = {}
    for seed, (name, shape) in enumerate(config.tensor_shapes().items()):
        wide = 0.3 if len(shape) == 2 else 0.5
        found[name] = wide * normal(*shape, seed=seed) + ("norm" in name)
    return found


@torch.no_grad()
def package_logits(
    config: QwenConfig,
    tensors: Tensors,
    ids: Tensor,
    trace: Trace | None = None,
    change: Callable[[QwenForCausalLM], None] | None = None,
) -> Tensor:
    """Return the logits of the package's model, after a change to it."""
    model = QwenForCausalLM(config)
    model.load_state_dict(tensors, strict=True)
    if change is not None:
        change(model)
    logits: Tensor = model(ids, trace=trace)
    return logits


def changed(change: Callable[[QwenForCausalLM], None]) -> Callable[..., Tensor]:
    """Return the package's logits after a change to the model, a function of the same inputs."""
    return lambda config, tensors, ids: package_logits(config, tensors, ids, change=change)
