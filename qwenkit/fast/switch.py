"""Turn the fast path on and off, and say which code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from qwenkit.fast._machine import plain_process
from qwenkit.fast.decode import why_not
from qwenkit.fast.int4 import FastInt4Linear, Int4Embedding, Int4Linear
from qwenkit.fast.int8 import FastInt8Embedding, FastInt8Linear, Int8Embedding, Int8Linear
from qwenkit.fast.int8_cache import stored_dtype
from qwenkit.fast.linear import FastLinear
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.model import QwenForCausalLM

LARGE_MODEL = 8 << 20  # bytes; a smaller one stays in the processor's cache from token to token
# A class as taught -> its fast twin, with the same attributes; LoRA adds its own.
FAST: dict[type[nn.Module], type[nn.Module]] = {
    QwenForCausalLM: FastQwenForCausalLM,
    nn.Linear: FastLinear,
    Int8Linear: FastInt8Linear,
    Int8Embedding: FastInt8Embedding,
    Int4Linear: FastInt4Linear,
}


def accelerate(model: QwenForCausalLM) -> QwenForCausalLM:
    """Let a model take the fastest products, and decode by compiled kernels; return the model.

    Its modules change their class (`nn.Linear` becomes `FastLinear`) and nothing else: parameters,
    hooks and names stay, and so do the numbers, to rounding. A model of less than 8 MB on the CPU
    stays as it is, if it is not quantized: it is fast enough as taught, and a quantized one makes
    floats of all its weights for each token. On MPS every size is accelerated, because one product
    of torch's is wrong there (see `linear`).

    Args:
        model: changed in place.
    """
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    quantized = any(isinstance(one, Int8Linear | Int4Linear) for one in model.modules())
    small = model.device.type == "cpu" and size < LARGE_MODEL and not quantized
    if not small and not plain_process():
        swap(model)
    return model


def swap(model: nn.Module) -> nn.Module:
    """Do what `accelerate` does, whatever the model's size; a part of a model will do."""
    for module in model.modules():
        if type(module) in FAST:
            module.__class__ = FAST[type(module)]
    return model


@contextmanager
def plain(model: QwenForCausalLM) -> Iterator[QwenForCausalLM]:
    """Run a model as taught while the block lasts: no fast products, no compiled kernels.

        with qk.plain(model):
            print(qk.complete(model, tokenizer, "def fib(n):"))

    `QWENKIT_PLAIN=1` in the environment does it for a whole process. A quantized model keeps its
    weights, and upcasts each whole matrix before it multiplies.

    Args:
        model: given back as it was at the end of the block, after an error too.
    """
    taught = {fast: plain for plain, fast in FAST.items()}
    changed = [module for module in model.modules() if type(module) in taught]
    if isinstance(getattr(model.model, "embed_tokens", None), Int8Embedding | Int4Embedding):
        # Without its class, the model's tied head could not read int8, nor give float32.
        changed = [module for module in changed if module is not model]
    kinds = [type(module) for module in changed]
    try:
        for module, kind in zip(changed, kinds, strict=True):
            module.__class__ = taught[kind]
        yield model
    finally:
        for module, kind in zip(changed, kinds, strict=True):
            if type(module) is taught[kind]:
                module.__class__ = kind


@dataclass(frozen=True)
class Explanation:
    """Which code runs a model at present.

    Attributes:
        fast: whether generation decodes by compiled kernels.
        reason: why it does not; empty where it does.
        accelerated: how many linear layers take the fastest product.
        linears: how many there are.
    """

    fast: bool
    reason: str
    accelerated: int
    linears: int

    def __str__(self) -> str:
        """Return two lines of text."""
        decode = "compiled kernels" if self.fast else f"the model as taught: {self.reason}"
        return (
            f"generate, each new token  {decode}\n"
            f"model(input_ids)          the model as taught; {self.accelerated} of {self.linears} "
            "linear layers take the fastest product"
        )


@torch.no_grad()  # as generate decodes
def explain(model: QwenForCausalLM, *, cache_dtype: str = "auto") -> Explanation:
    """Say which code runs a model at present, and why the fast path does not where it does not.

    >>> import qwenkit as qk
    >>> model, _ = qk.load_pretrained(qk.pretrained.EMBEDDED, device="cpu")
    >>> with qk.plain(model):
    ...     print(qk.explain(model))  # doctest: +ELLIPSIS
    generate, each new token  the model as taught: the model is not accelerated: it is small...
    model(input_ids)          the model as taught; 0 of 42 linear layers take the fastest product

    Args:
        model: a language model.
        cache_dtype: as for `generate`.

    Raises:
        InputError: an unknown `cache_dtype`.
    """
    int8 = stored_dtype(cache_dtype, "auto") == "int8"
    reason = why_not(model) or ("the cache holds int8, and the kernels read floats" if int8 else "")
    linears = [m for m in model.modules() if isinstance(m, nn.Linear | Int8Linear | Int4Linear)]
    fast = sum(type(module) in (FastLinear, FastInt8Linear, FastInt4Linear) for module in linears)
    return Explanation(not reason, reason, fast, len(linears))
