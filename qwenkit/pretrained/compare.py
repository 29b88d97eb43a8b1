"""Compute each part of the model on a device and on the CPU, and see whether they agree.

Kernels of a young device may be wrong without an error, and at certain sizes alone: one token
(decoding), several after a cache, a padded batch, a large vocabulary. So those are what is tried.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwenkit.config import GROUP, QwenConfig
from qwenkit.device import default_dtype, known_problem, pick_device, pick_dtype
from qwenkit.errors import warn
from qwenkit.fast import int4_linear, int8_linear, quantize_groups, quantize_rows, swap
from qwenkit.fast.linear import linear
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.trace import Trace

# Of the largest value: rounding stays below it, a wrong kernel does not.
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
FULL_VOCABULARY = 151_936
CONFIG = QwenConfig(  # the sizes of Qwen2.5-Coder-0.5B, with fewer layers and tokens
    vocab_size=1024, hidden_size=896, intermediate_size=4864, num_hidden_layers=2,
    num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=512,
    tie_word_embeddings=True,
)  # fmt: skip
# For attention: one layer with a small MLP. (Gradients of two layers are rounded so often that
# they would use up what bfloat16 is allowed.)
LONG = replace(CONFIG, num_hidden_layers=1, intermediate_size=64, max_position_embeddings=1101)
WIDE = replace(LONG, num_attention_heads=6, head_dim=128)  # the head_dim from 1.5B on


class Difference(NamedTuple):
    """How far a part on the device is from the same part on the CPU in float32."""

    part: str
    error: float  # the largest difference, relative to the largest value
    allowed: float  # the error that rounding in the device's dtype may reach

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        return self.error <= self.allowed  # False for NaN


def compare_with_cpu(device: torch.device, dtype: torch.dtype | None = None) -> list[Difference]:
    """Compute every part on both; return how far each is from the CPU's, infinite if it failed.

    Args:
        device: to be judged. The largest weight takes 0.5 GB on the CPU.
        dtype: to compute in there; None: the one that models are loaded in.
    """
    dtype = dtype or default_dtype(device)
    # The caller's random state is kept; and gradients are tried even in inference mode.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        return [_difference(part, device, dtype) for part in _parts()]


@functools.cache
def disagreement(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say which parts a device gets wrong in a dtype, tried once per process; None: none."""
    wrong = [one.part for one in compare_with_cpu(device, dtype) if not one.ok]
    if not wrong:
        return None
    name = str(dtype).removeprefix("torch.")
    return f"torch {torch.__version__} on {device} gets {', '.join(wrong)} wrong in {name}"


def trusted_device(
    name: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> torch.device:
    """Return the device for a name, as `pick_device`, and warn where it is known to be wrong.

    Args:
        name: "auto": MPS if its numbers are right, else the CPU. A device that is named is used in
            any case: the reader may want to see what it does.
        dtype: that will be computed in, as of `pick_dtype`; it is the one that is tried.

    Raises:
        InputError: no such device on this machine, or no such dtype.
    """
    where = pick_device(name)
    problem = known_problem(where)
    if name != "auto":
        if problem:
            warn(f'{problem}, or use device="cpu".')
        return where
    if where.type == "mps":
        problem = problem or disagreement(where, pick_dtype(dtype, where))
    if not problem:
        return where
    warn(f"{problem}. Using the CPU.")
    return torch.device("cpu")


_Part = tuple[str, Callable[..., Tensor], tuple[object, ...]]


def _parts() -> Iterator[_Part]:
    """Yield (name, function, arguments); tensors and modules among these go to the device."""
    call = nn.Module.__call__
    traced = functools.partial(call, trace=Trace(keep=("attn.pattern",)))  # no kernel keeps these
    model, wide = _random(CONFIG), _random(WIDE)
    layer: Any = model.model.layers[0]  # torch says only that it is a module
    x = torch.randn(2, 24, CONFIG.hidden_size)
    ids = torch.randint(0, CONFIG.vocab_size, (2, 24))
    long = torch.randint(0, CONFIG.vocab_size, (1, LONG.max_position_embeddings))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0  # padded on the left
    yield "RMSNorm", call, (layer.input_layernorm, x)
    yield "linear, one token", call, (layer.mlp.gate_proj, x[:1, :1])
    yield "linear, many tokens", call, (layer.mlp.gate_proj, x)
    yield "MLP", call, (layer.mlp, x)
    weight = layer.mlp.up_proj.weight
    yield "int8 linear by rows, one token", int8_linear, (x[:1, :1], *quantize_rows(weight))
    yield "int8 linear", int8_linear, (x, *quantize_rows(weight, GROUP))
    yield "int4 linear", int4_linear, (x, *quantize_groups(weight))
    yield "attention and RoPE, a prompt", call, (model, ids)
    yield "attention, a padded batch", _padded, (model, ids, mask)
    yield "attention, one token after a cache", _continued, (model, ids, 1)
    yield "attention, several tokens after a cache", _continued, (model, ids, 5)
    yield "eager attention", traced, (model, ids)
    yield "one token after 1,100 cached ones", _continued, (_random(LONG), long, 1)
    yield "head_dim 128, a prompt", call, (wide, ids)
    yield "head_dim 128, one token after a cache", _continued, (wide, ids, 1)
    yield "gradients of one training step", _gradients, (wide, ids)
    weight = torch.randn(FULL_VOCABULARY, CONFIG.hidden_size).mul_(0.05)
    yield "full-vocabulary head", linear, (x[:1, :3], weight)


def _random(config: QwenConfig) -> QwenForCausalLM:
    """Return a model without a zero among its weights."""
    model = QwenForCausalLM(config).requires_grad_(False)
    swap(model)  # as a model is loaded there
    for name, parameter in model.named_parameters():
        if not name.endswith("norm.weight"):  # biases too: zeros would hide their loss
            parameter.normal_(std=0.05)
    return model


def _padded(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return model(ids, attention_mask=mask)[mask.bool()]  # type: ignore[no-any-return]


def _continued(model: QwenForCausalLM, ids: Tensor, last: int) -> Tensor:
    """Return the logits of the last tokens, with those before them in a cache."""
    cache = KVCache(model.config, len(ids), max_length=ids.shape[1])
    model(ids[:, :-last], cache=cache)
    return model(ids[:, -last:], cache=cache)


def _gradients(model: nn.Module, ids: Tensor) -> Tensor:
    """Return every gradient, each divided by its largest value, in one vector."""
    learner = copy.deepcopy(model).requires_grad_(True)
    with torch.enable_grad():
        logits = learner(ids[:, :-1]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    found = [one.float() for one in torch.autograd.grad(loss, list(learner.parameters()))]
    return torch.cat([(gradient / gradient.abs().max()).flatten() for gradient in found])


def _difference(part: _Part, device: torch.device, dtype: torch.dtype) -> Difference:
    name, function, arguments = part
    want = function(*arguments)
    try:
        got = function(*(_moved(argument, device, dtype) for argument in arguments))
        error = float((got.cpu().float() - want).abs().max() / want.abs().max())
    except (RuntimeError, NotImplementedError, TypeError):  # an operator the device does not have
        error = float("inf")
    return Difference(name, error, ALLOWED[dtype])


def _moved(argument: object, device: torch.device, dtype: torch.dtype) -> object:
    """Return a copy on the device; floats in its dtype."""
    if isinstance(argument, nn.Module):
        return copy.deepcopy(argument).to(device, dtype)
    if not isinstance(argument, Tensor):
        return argument
    return argument.to(device, dtype if argument.is_floating_point() else None)
