"""Compute each part of the model on a device and on the CPU, and see whether they agree.

Kernels of a young device may be wrong without an error, at certain sizes alone: one row (decoding),
a chunk after a cache, a padded batch, a head with a large vocabulary. So those are what is tried.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.device import default_dtype, known_problem, pick_device, pick_dtype
from qwenkit.errors import warn
from qwenkit.fast import int8_linear, quantize_rows, swap
from qwenkit.fast.linear import linear
from qwenkit.model import DecoderLayer, KVCache, QwenForCausalLM
from qwenkit.trace import Trace

# Of the largest value: rounding stays below it, a wrong kernel does not.
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 1e-2}
FULL_VOCABULARY = 151_936
CONFIG = QwenConfig(  # the sizes of Qwen2.5-Coder-0.5B, with fewer layers and tokens
    vocab_size=1024,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=2,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=True,
)
# One layer whose MLP is small: these are about attention. (And gradients are rounded so often in
# two layers that what bfloat16 is allowed would be used up.)
LONG = replace(CONFIG, num_hidden_layers=1, intermediate_size=64, max_position_embeddings=1101)
WIDE = replace(LONG, num_attention_heads=6, head_dim=128)  # the head_dim from 1.5B on


@dataclass(frozen=True)
class Difference:
    """How far a part is on the device from what it is on the CPU in float32.

    Attributes:
        part: what was computed.
        error: the largest difference, as a share of the largest value.
        allowed: what rounding in the device's dtype may come to.
    """

    part: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        return self.error <= self.allowed  # not a number is no agreement


def compare_with_cpu(device: torch.device, dtype: torch.dtype | None = None) -> list[Difference]:
    """Compute every part on both. The weights of the largest take 0.5 GB on the CPU.

    Args:
        device: to be judged.
        dtype: to compute in there; None: the one that models are loaded in.

    Returns:
        One for each part. Where the device fails with an error, that part's error is infinite.
    """
    dtype = dtype or default_dtype(device)
    # The caller's random numbers stay the next ones; and gradients are tried wherever this is.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        return [_difference(*part, device, dtype) for part in _parts()]


@functools.cache
def disagreement(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say which parts a device gets wrong in a dtype, tried once a process; None: none."""
    wrong = [one.part for one in compare_with_cpu(device, dtype) if not one.ok]
    if not wrong:
        return None
    name = str(dtype).removeprefix("torch.")
    return f"torch {torch.__version__} on {device} gets {', '.join(wrong)} wrong in {name}"


def trusted_device(
    name: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> torch.device:
    """Return the device for a name, as `pick_device`, and warn where it is known to be wrong.

    Where "auto" finds MPS, it is tried first, and left for the CPU if its numbers are wrong. A
    device that was named is used: who names it may want to see what it does.

    Args:
        name: "auto", or the device's.
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


Part = tuple[str, Callable[..., Tensor], tuple[object, ...]]


def _parts() -> Iterator[Part]:
    """Yield (name, function, arguments); tensors and modules among these go to the device."""
    model = _random(CONFIG)
    layer = model.model.layers[0]
    assert isinstance(layer, DecoderLayer)  # torch says only that it is a module
    x = torch.randn(2, 24, CONFIG.hidden_size)
    ids = torch.randint(0, CONFIG.vocab_size, (2, 24))
    real = torch.ones_like(ids)
    real[0, :9] = 0  # padded on the left
    yield "RMSNorm", _call, (layer.input_layernorm, x)
    yield "linear, one row", _call, (layer.mlp.gate_proj, x[:1, :1])
    yield "linear, many rows", _call, (layer.mlp.gate_proj, x)
    yield "MLP", _call, (layer.mlp, x)
    weight, scale = quantize_rows(layer.mlp.up_proj.weight)
    yield "int8 linear, one row", int8_linear, (x[:1, :1], weight, scale)
    yield "int8 linear, many rows", int8_linear, (x, weight, scale)
    yield "attention and RoPE, a prompt", _call, (model, ids)
    yield "attention, a padded batch", _padded, (model, ids, real)
    yield "attention, one token after a cache", _continued, (model, ids, 1)
    yield "attention, several tokens after a cache", _continued, (model, ids, 5)
    yield "attention in the open", _in_the_open, (model, ids)
    long = torch.randint(0, CONFIG.vocab_size, (1, LONG.max_position_embeddings))
    yield "one token after 1,100 cached ones", _continued, (_random(LONG), long, 1)
    wide = _random(WIDE)
    yield "head_dim 128, a prompt", _call, (wide, ids)
    yield "head_dim 128, one token after a cache", _continued, (wide, ids, 1)
    yield "gradients of one training step", _gradients, (wide, ids)
    weight = torch.randn(FULL_VOCABULARY, CONFIG.hidden_size).mul_(0.05)
    yield "full-vocabulary head", linear, (x[:1, :3], weight)


def _random(config: QwenConfig) -> QwenForCausalLM:
    """Return a model none of whose weights is zero."""
    model = swap(QwenForCausalLM(config)).requires_grad_(False)  # as a model is loaded there
    for name, parameter in model.named_parameters():
        if not name.endswith("norm.weight"):  # biases too: zeros would hide their loss
            parameter.normal_(std=0.05)
    return model


def _call(module: torch.nn.Module, x: Tensor) -> Tensor:
    return module(x)  # type: ignore[no-any-return]


def _padded(model: QwenForCausalLM, ids: Tensor, real: Tensor) -> Tensor:
    return model(ids, attention_mask=real)[real.bool()]  # type: ignore[no-any-return]


def _continued(model: QwenForCausalLM, ids: Tensor, last: int) -> Tensor:
    """Return the logits of the last tokens, the others read into a cache before."""
    cache = KVCache(model.config, len(ids), max_length=ids.shape[1])
    model(ids[:, :-last], cache=cache)
    return model(ids[:, -last:], cache=cache)  # type: ignore[no-any-return]


def _in_the_open(model: QwenForCausalLM, ids: Tensor) -> Tensor:
    """Return the logits where a trace keeps what attention looks at: no fused kernel can."""
    return model(ids, trace=Trace(keep=("attn.pattern",)))  # type: ignore[no-any-return]


def _gradients(model: QwenForCausalLM, ids: Tensor) -> Tensor:
    """Return every gradient, each beside its largest value, in one row."""
    learner = copy.deepcopy(model).requires_grad_(True)
    with torch.enable_grad():
        logits = learner(ids[:, :-1]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    found = [one.float() for one in torch.autograd.grad(loss, list(learner.parameters()))]
    return torch.cat([(gradient / gradient.abs().max()).flatten() for gradient in found])


def _difference(
    part: str,
    function: Callable[..., Tensor],
    arguments: tuple[object, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Difference:
    want = function(*arguments)
    try:
        got = function(*(_moved(argument, device, dtype) for argument in arguments))
        error = (got.cpu().float() - want).abs().max() / want.abs().max()
        return Difference(part, float(error), ALLOWED[dtype])
    except (RuntimeError, NotImplementedError, TypeError):  # an operator the device has not
        return Difference(part, float("inf"), ALLOWED[dtype])


def _moved(argument: object, device: torch.device, dtype: torch.dtype) -> object:
    """Return a copy on the device; floats in its dtype."""
    if isinstance(argument, torch.nn.Module):
        return copy.deepcopy(argument).to(device, dtype)
    if not isinstance(argument, Tensor):
        return argument
    return argument.to(device, dtype) if argument.is_floating_point() else argument.to(device)
