"""Store a model's matrices in int8 or int4: give it the modules of `fast.int8` and `fast.int4`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.config import GROUP, QwenConfig
from qwenkit.device import DTYPES
from qwenkit.errors import InputError
from qwenkit.fast.awq import scale_channels
from qwenkit.fast.calibration import LENGTH, calibrated, calibration_ids
from qwenkit.fast.gptq import gptq
from qwenkit.fast.int4 import (
    Int4Embedding,
    Int4Linear,
    check_group,
    dequantize,
    quantize_groups,
)
from qwenkit.fast.int8 import Int8Embedding, Int8Linear, dequantize_rows, quantize_rows
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.fast.switch import accelerate
from qwenkit.large_pages import empty
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer

_INT8_PARTS = 2  # tensors that int8 stores of a matrix; int4 stores three


def is_quantized(model: QwenForCausalLM) -> bool:
    """Tell whether a model's matrices are stored in int8 or int4."""
    return isinstance(model.model.embed_tokens, Int8Embedding | Int4Embedding)


@stage("Quantizing the weights")
def quantize(
    model: QwenForCausalLM,
    dtype: str = "int8",
    *,
    method: str = "rtn",
    group: int | None = None,
    tokenizer: Tokenizer | None = None,
    text: str | None = None,
) -> dict[str, float]:
    """Store a model's matrices in int8 or int4, the embedding and the head too.

    A tied embedding of an int4 model is int8. The model is changed in place; its float weights are
    released one by one. It then computes in bfloat16, or in float32 if its checkpoint is stored so
    (`config.dtype`), and gives logits in float32. Norms and biases, a thousandth of the weights,
    are kept in the dtype that it computes in.

    Args:
        model: on the CPU or on MPS, without LoRA.
        dtype: "int8": a scale per group of a row; "int4": a scale and a zero point per group.
        method: of int4: "rtn" rounds to nearest; "awq" scales channels first (see `fast.awq`);
            "gptq" lets later columns make up for errors of earlier ones (see `fast.gptq`). The last
            two run the model on a text, layer by layer, which takes minutes at 0.5B.
        group: how many weights of a row share a scale. None: 64, but in int8 the whole row where
            64 does not divide each.
        tokenizer: the model's, for the text.
        text: its first 4,096 tokens are read; None: files of Python's standard library.

    Returns:
        For each matrix the size of its rounding error relative to its own: the root of
        sum(error²) / sum(weight²). With the same number of bits, rows with one large value lose
        more. (AWQ's is that of the scaled weight. GPTQ's is larger than that of rounding to
        nearest: what it keeps small is the error of the layer's output.)

    Raises:
        InputError: a model that is quantized already, has LoRA, or is being trained; groups that
            do not fill the rows; or a method without what it needs.
    """
    _refuse(model, dtype, group)
    ids = _calibration(model, dtype, method, tokenizer, text)
    config = model.config.quantized(dtype, group)
    names, shapes = [name for name, _ in _matrices(model)], config.tensor_shapes()
    errors: dict[str, float] = {}
    for name in names:
        if ids is not None and name.startswith("model.layers."):
            continue  # layer by layer, below
        weight = _weight(model, name).float()
        scale, zero = (shapes.get(f"{name}.weight_{part}", ()) for part in ("scale", "zero"))
        group = None if len(scale) == 1 else config.group_size
        stored = quantize_groups(weight, group or GROUP) if zero else quantize_rows(weight, group)
        errors[name] = _put(model, name, weight, stored)
    if ids is not None:
        errors |= _quantize_layers(model, ids, method, config.group_size or GROUP)
    _mark(model, config)
    accelerate(model)
    return {f"{name}.weight": errors[name] for name in names}


def _quantize_layers(
    model: QwenForCausalLM, ids: Tensor, method: str, group: int
) -> dict[str, float]:
    """Quantize the layers one by one, each on what those before it give; return the errors."""
    errors: dict[str, float] = {}
    floats = DTYPES[model.config.dtype_with_int8]
    for index, (layer, inputs) in enumerate(calibrated(model, ids)):
        if method == "awq":
            scale_channels(layer, inputs, group, floats)
        for part, x in inputs.items():
            weight = _weight(layer, part)
            stored = gptq(weight, x, group) if method == "gptq" else quantize_groups(weight, group)
            name = f"model.layers.{index}.{part}"
            errors[name] = _put(model, name, weight, stored)
    return errors


def make_room(model: QwenForCausalLM) -> None:
    """Give a model on the meta device the matrices of its config, for a checkpoint to fill."""
    shapes = model.config.tensor_shapes()
    for name, module in _matrices(model):
        stored = {
            end: module.weight.new_empty(shapes[f"{name}.weight{end}"])
            for end in ("", "_scale", "_zero")
            if f"{name}.weight{end}" in shapes
        }
        integer = torch.uint8 if "_zero" in stored else torch.int8
        dtypes = {"": integer, "_scale": torch.bfloat16, "_zero": torch.uint8}
        _replace(model, name, tuple(one.to(dtypes[end]) for end, one in stored.items()))
    _mark(model, model.config)


def _refuse(model: QwenForCausalLM, dtype: str, group: int | None) -> None:
    """Refuse what cannot be quantized, before anything is changed."""
    if dtype not in ("int8", "int4"):
        raise InputError(f"dtype is {dtype!r}; it must be 'int8' or 'int4'")
    if is_quantized(model):
        raise InputError("the model is quantized already; load it again for another try")
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise InputError(
            f"the model has LoRA, which {dtype} would lose; call merge_lora(model) and "
            "remove_lora(model) first"
        )
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"the model's weights are being trained (requires_grad is True) and {dtype} cannot be; "
            "call model.requires_grad_(False) first"
        )
    for _, module in _matrices(model) if group is not None or dtype == "int4" else ():
        check_group(module.weight.shape[1], GROUP if group is None else group)


def _calibration(
    model: QwenForCausalLM,
    dtype: str,
    method: str,
    tokenizer: Tokenizer | None,
    text: str | None,
) -> Tensor | None:
    """Return the tokens that a method is calibrated on; None: it needs none."""
    methods = ("rtn",) if dtype == "int8" else ("rtn", "awq", "gptq")
    if method not in methods:
        known = " or ".join(map(repr, methods))
        raise InputError(f"method is {method!r}; for {dtype} it must be {known}")
    if method == "rtn":
        if text is not None or tokenizer is not None:
            raise InputError("method 'rtn' reads no text; leave out text and tokenizer")
        return None
    if tokenizer is None:
        raise InputError(f"method {method!r} reads a text; give the model's tokenizer=, too")
    longest = model.config.max_position_embeddings
    return calibration_ids(tokenizer, text, min(LENGTH, longest))


def _matrices(model: QwenForCausalLM) -> list[tuple[str, nn.Linear | nn.Embedding]]:
    """Return name -> module of all matrices, the embedding and the head included."""
    modules = model.named_modules()
    return [(name, one) for name, one in modules if isinstance(one, nn.Linear | nn.Embedding)]


def _weight(module: nn.Module, name: str) -> Tensor:
    """Return a matrix, be it a parameter or not."""
    weight = module.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _put(model: QwenForCausalLM, name: str, weight: Tensor, stored: tuple[Tensor, ...]) -> float:
    """Replace a module by its quantized kind; return the error's size relative to the weight's.

    The old module's memory is free from then on.
    """
    _replace(model, name, stored)
    if len(stored) == _INT8_PARTS:
        small, scale = stored
        restored = dequantize_rows(small, scale.float())
    else:
        restored = dequantize(*stored)
    return float((restored - weight).norm() / weight.norm())


def _replace(model: QwenForCausalLM, name: str, stored: tuple[Tensor, ...]) -> None:
    """Put a quantized module in the place of an `nn.Linear` or `nn.Embedding`."""
    old: Any = model.get_submodule(name)  # torch says only that it is a module
    int8 = len(stored) == _INT8_PARTS
    if model.device.type == "cpu":
        stored = tuple(empty(one.shape, one.dtype).copy_(one) for one in stored)
    new: nn.Module
    if isinstance(old, nn.Embedding):
        new = Int8Embedding(*stored) if int8 else Int4Embedding(*stored)
    else:
        kind: Callable[..., nn.Module] = Int8Linear if int8 else Int4Linear
        new = kind(*stored, old.bias)
    model.set_submodule(name, new)


def _mark(model: QwenForCausalLM, config: QwenConfig) -> None:
    """Give a model the config that says how it is stored, and the dtype that it computes in."""
    model.config = config
    model.to(DTYPES[model.config.dtype_with_int8])  # integer buffers are not floats and stay
    if type(model) is QwenForCausalLM:
        model.__class__ = FastQwenForCausalLM  # whose head can be quantized
