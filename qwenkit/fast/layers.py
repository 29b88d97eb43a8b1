"""Where the memory of a model's layers lies, if the kernels may read it in place of the modules.

A model serves only if it is exactly what `qwenkit.model` builds and `accelerate` has sped up, run
by code that nobody has changed. To look at every module of it takes as long as a tenth of a token.
So the answer is kept, and at each token it is asked whether all that was looked at is still there:
the same objects under the same names, no hook, every tensor at its address. If not, it is looked at
again. What is kept are addresses and weak references; no weight lives longer for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import chain, compress
from operator import attrgetter, is_, itemgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from qwenkit.config import GROUP, QwenConfig
from qwenkit.fast._machine import is_ordinary, kernels_problem, plain_process, watched
from qwenkit.fast.identity import changed_code
from qwenkit.fast.int4 import FastInt4Linear, Int4Embedding
from qwenkit.fast.int8 import FastInt8Embedding, FastInt8Linear, by_group
from qwenkit.fast.linear import VECTORS, FastLinear
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.model import (
    MLP,
    Attention,
    DecoderLayer,
    QwenForCausalLM,
    QwenModel,
    RMSNorm,
    RotaryEmbedding,
)

_LINEAR = FastLinear, FastInt8Linear, FastInt4Linear
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Declined(Exception):
    """Why the kernels may not serve."""


# What a model that lacks a part, or holds something else in its place, raises: it is not as built.
INCOMPLETE = (AttributeError, TypeError, OverflowError)


class Memory(NamedTuple):
    """The layers as the kernels read them.

    Attributes:
        layers: (L) of `kernels.LAYER`.
        end: (1) of `kernels.END`, the final norm and the head.
        dtype: of the norms, in which the model computes.
        weights: NumPy's dtype of the matrices.
        head: NumPy's dtype of the head's matrix.
        table: NumPy's dtype of the embedding; None: more is done than to look up a row of it.
        logits: the dtype that the head gives.
        neurons: F.
        groups: the most groups of integers that a token is made of.
        nbytes: of all weights.
        scratch: what earlier steps have worked in, `kernels.Scratch`, by its number of texts, and
            which of those at work at the same time it was.
    """

    layers: Any
    end: Any
    dtype: torch.dtype
    weights: Any
    head: Any
    table: Any
    logits: torch.dtype
    neurons: int
    groups: int
    nbytes: int
    scratch: dict[tuple[int, int], Any]


def memory_of(model: QwenForCausalLM) -> tuple[Memory, list[Any]]:
    """Return the memory of a model's layers as they are now, and what keeps it from being freed.

    Raises:
        Declined, or one of INCOMPLETE: something is not as the kernels know it.
    """
    _served_here(model)
    kept = _kept.get(model)
    storages = None if kept is None else kept.still_right()
    if kept is None or storages is None:
        kept = _kept[model] = _Kept(model)
        storages = kept.still_right() or []
    return kept.memory, storages


def look(model: QwenForCausalLM) -> None:
    """Look at everything; errors as of `memory_of`."""
    _served_here(model)
    _Kept(model)


def _served_here(model: QwenForCausalLM) -> None:
    """Decline a model, a process or a moment for which no layer need be looked at."""
    if not isinstance(model, QwenForCausalLM):
        raise Declined(f"the model is a {type(model).__name__}, not a QwenForCausalLM")
    if plain_process():
        raise Declined("QWENKIT_PLAIN is set")
    if type(model) is not FastQwenForCausalLM:
        raise Declined("the model is not accelerated: it is small, or was made plain")
    problem = _observed() or changed_code() or kernels_problem()
    if problem:
        raise Declined(problem)


def _observed() -> str | None:
    """Say who sees or records every call of a module or of torch at present."""
    if torch_modules._has_any_global_hook():  # type: ignore[no-untyped-call]
        return "a global hook of torch is registered"
    return watched() or ("gradients are enabled" if torch.is_grad_enabled() else None)


class _Kept:
    """The memory of a model's layers, and what it was read from."""

    def __init__(self, model: QwenForCausalLM) -> None:
        self._tensors: list[Tensor] = []
        self._configs: list[Any] = [model.model.config]
        self.memory = self._read(model)
        self._modules = _Seen(model.modules())
        configs = {id(config): config for config in self._configs}.values()
        self._configs = [(config, dict(vars(config))) for config in configs]  # mostly one
        self._references = list(map(ref, self._tensors))
        self._places = _places(self._tensors)
        del self._tensors

    def still_right(self) -> list[Any] | None:
        """Return what holds the memory, if everything is as it was; None: something is not.

        Held are the storages: another thread may give a tensor a new one while they are read.
        """
        if not self._modules.are_same():
            return None
        if any(vars(config) != then for config, then in self._configs):  # frozen, but not to all
            return None
        tensors: list[Any] = [reference() for reference in self._references]
        if list(map(type, tensors)) != self._places[0] or _places(tensors) != self._places:
            return None  # the first comparison also finds those that are gone
        return list(map(Tensor.untyped_storage, tensors))

    def _read(self, model: QwenForCausalLM) -> Memory:
        """Look at every module that takes part."""
        from qwenkit.fast.kernels import END, LAYER

        _untouched(model, "the model")
        inner = _part(model, "model", QwenModel)
        table = _part(inner, "embed_tokens", nn.Embedding, FastInt8Embedding, Int4Embedding)
        _part(inner, "norm", RMSNorm)
        _part(inner, "rotary_emb", RotaryEmbedding)
        head = table if model.lm_head is None else _part(model, "lm_head", *_LINEAR)
        dtype = model.dtype
        if dtype not in VECTORS:
            raise Declined(f"the norms hold {dtype}, which the kernels do not expect there")
        layers = _part(inner, "layers", nn.ModuleList)
        found = np.zeros(len(layers), LAYER)
        kinds = {
            kind
            for index, layer in enumerate(layers)
            for kind in self._layer(layer, index, inner.config, dtype, found[index])
        }
        if len(kinds) > 1:  # each mixture would be compiled separately
            raise Declined("the layers are stored in different dtypes")
        end = np.zeros(1, END)
        shape = inner.config.vocab_size, inner.config.hidden_size
        of_head = self._matrix(head, "the head", shape, dtype, end["head"][0])
        of_table = None if getattr(table, "max_norm", None) is not None else self._matrix(
            table, "the embedding", shape, dtype, end["table"][0]
        )  # fmt: skip
        self._norm(inner.norm, "the model", dtype, shape[1:], end[0], "norm", "eps")
        down = found["down_proj"]
        widest = max(int(found[name]["in_features"].max(initial=1)) // GROUP for name in _MATRICES)
        return Memory(
            found.view(np.recarray), end.view(np.recarray), dtype, kinds.pop() if kinds else None,
            of_head, of_table, dtype if head.weight.is_floating_point() else torch.float32,
            int(down["in_features"].max(initial=0)), widest,
            sum({id(tensor): tensor.nbytes for tensor in self._tensors}.values()), {},
        )  # fmt: skip

    def _layer(
        self, layer: Any, index: int, config: QwenConfig, dtype: torch.dtype, found: Any
    ) -> Iterator[Any]:
        """Write a layer's memory to a row of the table; yield the dtype of each matrix."""
        where = f"layers.{index}"
        if type(layer) is not DecoderLayer:
            raise Declined(f"{where} is a {type(layer).__name__}, not a DecoderLayer")
        _untouched(layer, where)
        attention = _part(layer, "self_attn", Attention, of=where)
        mlp = _part(layer, "mlp", MLP, of=where)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._configs.append(attention.config)
        own = attention.config.num_attention_heads, attention.config.num_key_value_heads
        if attention.layer != index or own != (heads, kv_heads) or heads % kv_heads:
            raise Declined(f"{where}.self_attn was made for another layer or config")
        hidden, dim = config.hidden_size, config.head_dim
        for name, eps in (
            ("input_layernorm", "eps_before_attention"),
            ("post_attention_layernorm", "eps_before_mlp"),
        ):
            norm = _part(layer, name, RMSNorm, of=where)
            self._norm(norm, where, dtype, (hidden,), found, name, eps)
        yield self._linear(mlp, "down_proj", (hidden, None), dtype, where, found)
        neurons = int(found["down_proj"]["in_features"])
        for parent, name, shape in (
            (attention, "q_proj", (heads * dim, hidden)),
            (attention, "k_proj", (kv_heads * dim, hidden)),
            (attention, "v_proj", (kv_heads * dim, hidden)),
            (attention, "o_proj", (hidden, heads * dim)),
            (mlp, "gate_proj", (neurons, hidden)),
            (mlp, "up_proj", (neurons, hidden)),
        ):
            yield self._linear(parent, name, shape, dtype, where, found)
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            if len({int(found[name]["groups"]) for name in names}) > 1:  # they share a token
                raise Declined(f"{' and '.join(names)} of {where} have different groups")

    def _norm(
        self,
        norm: Any,
        where: str,
        dtype: torch.dtype,
        shape: tuple[int],
        found: Any,
        name: str,
        eps: str,
    ) -> None:
        """Write a norm's memory and its eps to a row of the table, under two names."""
        if not isinstance(norm.eps, float | int):
            raise Declined(f"the eps of a norm of {where} is not a number")
        found[name], found[eps] = self._address(norm.weight, where, dtype, shape), norm.eps

    def _linear(
        self,
        parent: nn.Module,
        name: str,
        shape: tuple[int, int | None],
        dtype: torch.dtype,
        where: str,
        found: Any,
    ) -> Any:
        """Write a linear layer's memory to the table; return the dtype of its weight.

        Args:
            parent: the module that has it.
            name: its name there and in the table.
            shape: (out_features, in_features); None: any.
            dtype: of its scale and bias.
            where: the parent's name.
            found: the row of the table.
        """
        part = _part(parent, name, *_LINEAR, of=where)
        return self._matrix(part, f"{where}.{name}", shape, dtype, found[name])

    def _matrix(
        self, part: Any, full: str, shape: tuple[int, int | None], dtype: torch.dtype, row: Any
    ) -> Any:
        """Write the memory of a linear layer, or of an embedding as a head, to a `kernels.PART`."""
        outputs = shape[0]
        row["groups"] = 1
        width = shape[1] or part.weight.shape[-1:].numel()
        if type(part) in (FastInt4Linear, Int4Embedding):
            stored, width = torch.uint8, shape[1] or 2 * width
            groups = part.weight_scale.shape[-1]
            if groups == 0 or width % (2 * groups):
                raise Declined(f"the scales of {full} do not fit its weight")
            row["groups"] = groups
            row["scale"] = self._address(part.weight_scale, full, dtype, (outputs, groups))
            row["zero"] = self._address(part.weight_zero, full, torch.uint8, (outputs, groups))
            row["weight"] = self._address(part.weight, full, stored, (outputs, width // 2))
        else:
            stored = torch.int8 if type(part) in (FastInt8Linear, FastInt8Embedding) else dtype
            if stored == torch.int8:
                groups = row["groups"] = by_group(part.weight_scale).shape[-1]
                if groups == 0 or width % groups:
                    raise Declined(f"the scales of {full} do not fit its weight")
                shape_of_scale = (outputs, groups)[: part.weight_scale.dim()]
                row["scale"] = self._address(part.weight_scale, full, dtype, shape_of_scale)
            row["weight"] = self._address(part.weight, full, stored, (outputs, width))
        if getattr(part, "bias", None) is not None:  # an embedding has none
            row["bias"] = self._address(part.bias, full, dtype, (outputs,))
        row["out_features"], row["in_features"] = outputs, width
        return VECTORS.get(stored) or {torch.int8: np.int8, torch.uint8: np.uint8}[stored]

    def _address(
        self, tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> int:
        self._tensors.append(tensor)
        return address(tensor, name, dtype, shape)


_kept: WeakKeyDictionary[QwenForCausalLM, _Kept] = WeakKeyDictionary()


_OF_TORCH = vars(nn.Module()).keys()  # attributes of every module; of these matter
_held_by = itemgetter("_parameters", "_buffers", "_modules")  # names and what they stand for
_kind_of = attrgetter("dtype", "shape")
_all_of = attrgetter("dtype", "shape", "layout", "is_cpu")
_hooks_of = itemgetter(
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
)


class _Seen:
    """Modules as they were: their classes, their attributes, and what their names stood for.

    To look at a few hundred modules one by one takes a millisecond. So each question is asked of
    all of them at once, by functions of Python that are written in C.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        every = list(modules)
        spaces = [vars(module) for module in every]
        held = list(chain.from_iterable(map(_held_by, spaces)))
        self._modules, self._kinds = list(map(ref, every)), list(map(type, every))
        self._names, self._counts = list(chain.from_iterable(spaces)), list(map(len, spaces))
        self._is_own = [name not in _OF_TORCH for name in self._names]
        self._own = list(compress(_values(spaces), self._is_own))
        self._keys, self._sizes = list(chain.from_iterable(held)), list(map(len, held))
        self._parts = list(map(_weak, _values(held)))

    def are_same(self) -> bool:
        """Tell whether all are the same, without a hook."""
        modules = [reference() for reference in self._modules]
        if list(map(type, modules)) != self._kinds:
            return False
        spaces = [module.__dict__ for module in modules]
        held = list(chain.from_iterable(map(_held_by, spaces)))
        return (
            list(map(len, spaces)) == self._counts
            and list(chain.from_iterable(spaces)) == self._names
            and all(map(is_, compress(_values(spaces), self._is_own), self._own))
            and not any(chain.from_iterable(map(_hooks_of, spaces)))
            and list(map(len, held)) == self._sizes
            and list(chain.from_iterable(held)) == self._keys
            and all(map(is_, _values(held), [reference() for reference in self._parts]))
        )


def _values(spaces: list[dict[str, Any]]) -> Iterator[Any]:
    """Return the values of several dictionaries, one after the other."""
    return chain.from_iterable(map(dict.values, spaces))


def _weak(value: Any) -> Any:
    """Return what gives an object when it is called, and keeps nothing alive."""
    return _nothing if value is None else ref(value)


def _nothing() -> None:
    """Stand for a bias that is not there."""


def _places(tensors: list[Tensor]) -> list[list[Any]]:
    """Return where the memory of tensors lies and how it is laid out.

    Each question is asked of all of them at once, as in `_Seen`.
    """
    asked = type, Tensor.data_ptr, _kind_of, Tensor.is_contiguous, Tensor.is_neg
    return [list(map(question, tensors)) for question in asked]


def _part(parent: nn.Module, name: str, *kinds: type, of: str = "model") -> Any:
    """Return a module's part, if it is of a class that belongs there and nobody has touched it."""
    part = getattr(parent, name)
    if type(part) not in kinds:
        raise Declined(f"{of}.{name} is a {type(part).__name__}, not a {kinds[0].__name__}")
    _untouched(part, f"{of}.{name}")
    return part


def _untouched(module: nn.Module, name: str) -> None:
    """Decline a module with a hook, or with a method of its class overridden on the instance."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise Declined(f"{name} has a forward hook")
    if module._backward_hooks or module._backward_pre_hooks:
        raise Declined(f"{name} has a backward hook")
    overridden = module.__dict__.keys() & methods(type(module))  # type: ignore[arg-type]
    if overridden:
        raise Declined(f"{min(overridden)} of {name} was replaced")


@functools.cache
def methods(kind: type) -> frozenset[str]:
    """Return the names of a class that an instance's own attribute would take the place of."""
    named = ((name, getattr(kind, name)) for name in dir(kind))
    found = {name for name, value in named if callable(value) or isinstance(value, property)}
    return frozenset(found | {"_compiled_call_impl"})


def addresses(
    tensors: list[Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> list[int]:
    """Return where the memory of tensors of one kind lies; errors as of `address`."""
    for tensor in tensors:
        if type(tensor) is not Tensor:
            raise Declined(f"{name} holds a {type(tensor).__name__}, not a Tensor")
    alike = len(set(map(_all_of, tensors))) == 1
    if not alike or any(map(Tensor.is_neg, tensors)) or not all(map(Tensor.is_contiguous, tensors)):
        return [address(one, name, dtype, shape) for one in tensors]  # one of them says what it is
    address(tensors[0], name, dtype, shape)
    return list(map(Tensor.data_ptr, tensors))


def address(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Return where a tensor's memory lies, if it is what the kernels expect.

    Raises:
        Declined: it is not.
    """
    if not is_ordinary(tensor):
        raise Declined(f"a tensor of {name} is not an ordinary tensor on the CPU")
    if tensor.shape != shape or not tensor.is_contiguous():
        raise Declined(f"a tensor of {name} has another shape or layout")
    if tensor.dtype != dtype:
        raise Declined(f"{name} holds {tensor.dtype}, which the kernels do not expect there")
    return tensor.data_ptr()
