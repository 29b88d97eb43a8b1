"""Store a model's matrices in int8 or int4: give it the modules of `fast.int8` and `fast.int4`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from qwenkit.device import DTYPES
from qwenkit.errors import InputError
from qwenkit.fast.awq import scale_channels
from qwenkit.fast.calibration import LENGTH, calibrated, calibration_ids
from qwenkit.fast.gptq import gptq
from qwenkit.fast.int4 import GROUP, Int4Linear, check_group, dequantize, quantize_groups
from qwenkit.fast.int8 import Int8Embedding, Int8Linear, quantize_rows
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.fast.switch import accelerate
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer

LAYERS = "model.layers."  # what the names of matrices begin with that int4 stores in four bits
_ROWS = 2  # tensors that int8 stores of a matrix; int4 stores three


def is_quantized(model: QwenForCausalLM) -> bool:
    """Tell whether a model's matrices are stored in int8 or int4."""
    return isinstance(model.model.embed_tokens, Int8Embedding)


@stage("Quantizing the weights")
def quantize(
    model: QwenForCausalLM,
    dtype: str = "int8",
    *,
    method: str = "rtn",
    group: int = GROUP,
    tokenizer: Tokenizer | None = None,
    text: str | None = None,
) -> dict[str, float]:
    """Store a model's matrices in int8 or int4, the embedding and the head too.

    In an int4 model, embedding and head are int8. The model is changed in place; its float weights
    are released one by one. It then computes in bfloat16, or in float32 if its checkpoint is stored
    so (`config.dtype`). Norms and biases, a thousandth of the weights, are kept in that dtype.

    Args:
        model: on the CPU or on MPS, without LoRA.
        dtype: "int8": a scale per row; "int4": a scale and a zero point per group of a row.
        method: of int4: "rtn" rounds to nearest; "awq" scales channels first (see `fast.awq`);
            "gptq" lets later columns make up for errors of earlier ones (see `fast.gptq`). The last
            two run the model on a text, layer by layer, which takes minutes at 0.5B.
        group: of int4: how many weights share a scale.
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
    names = [name for name, _ in _matrices(model)]
    errors: dict[str, float] = {}
    for name in names:
        four_bits = dtype == "int4" and name.startswith(LAYERS)
        if four_bits and ids is not None:
            continue  # layer by layer, below
        weight = _weight(model, name).float()
        stored = quantize_groups(weight, group) if four_bits else quantize_rows(weight)
        errors[name] = _put(model, name, weight, stored)
    if ids is not None:
        errors |= _quantize_layers(model, ids, method, group)
    _mark(model, dtype, group if dtype == "int4" else None)
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
            name = f"{LAYERS}{index}.{part}"
            errors[name] = _put(model, name, weight, stored)
    return errors


def make_room(model: QwenForCausalLM) -> None:
    """Give a model on the meta device the matrices of its config, for a checkpoint to fill."""
    config = model.config
    for name, module in _matrices(model):
        rows, columns = module.weight.shape
        if config.group_size and name.startswith(LAYERS):
            packed = module.weight.new_empty(rows, columns // 2, dtype=torch.uint8)
            scale = packed.new_empty(rows, columns // config.group_size, dtype=torch.bfloat16)
            _replace(model, name, (packed, scale, scale.to(torch.uint8)))
        else:
            weight = module.weight.to(torch.int8)
            _replace(model, name, (weight, weight.new_empty(rows, dtype=torch.bfloat16)))
    _mark(model, config.quantization, config.group_size)


def _refuse(model: QwenForCausalLM, dtype: str, group: int) -> None:
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
    if dtype == "int8" and group != GROUP:
        raise InputError(f"group is {group}, and int8 has a scale per row; leave group out")
    for name, module in _matrices(model) if dtype == "int4" else ():
        if name.startswith(LAYERS):
            check_group(module.weight.shape[1], group)


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
    if len(stored) == _ROWS:
        small, scale = stored
        error = small * scale.float()[:, None] - weight
    else:
        error = dequantize(*stored) - weight
    return float(error.norm() / weight.norm())


def _replace(model: QwenForCausalLM, name: str, stored: tuple[Tensor, ...]) -> None:
    old = model.get_submodule(name)
    new: nn.Module
    if isinstance(old, nn.Embedding):
        new = Int8Embedding(*stored)
    else:
        kind: type[nn.Module] = Int8Linear if len(stored) == _ROWS else Int4Linear
        new = kind(*stored, old.bias)
    model.set_submodule(name, new)


def _mark(model: QwenForCausalLM, kind: str | None, group_size: int | None) -> None:
    model.config = replace(model.config, quantization=kind, group_size=group_size)
    model.to(DTYPES[model.config.dtype_with_int8])  # integer buffers are not floats and stay
    if type(model) is QwenForCausalLM:
        model.__class__ = FastQwenForCausalLM  # its tied head can read an int8 embedding
