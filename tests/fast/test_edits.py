"""What you read is what runs: after any edit of a model, decoding equals the whole forward.

Each edit is made on a model whose decode step is served by compiled kernels, before a text is read
and in its middle. Afterwards either the kernels see the edit, or they step aside; the last line of
each test says which. What the taught model refuses, the kernels refuse with the same error.
"""

import builtins
import contextlib
import copy
import functools
import inspect
import itertools
import pickle
import warnings
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import VOCAB, ids, relative_error, tiny
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import qwenkit as qk
from qwenkit.fast import decode_step, identity, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.int4 import FastInt4Linear, Int4Embedding, dequantize, quantize_groups
from qwenkit.fast.int8 import Int8Linear, quantize_rows
from qwenkit.generate import steps
from qwenkit.model import MLP, Attention, DecoderLayer, KVCache, QwenForCausalLM, QwenModel, RMSNorm
from qwenkit.model import attention as attention_file
from qwenkit.model import mlp as mlp_file
from qwenkit.model import norm as norm_file
from qwenkit.model import qwen as qwen_file
from qwenkit.model import rope as rope_file

pytestmark = [
    pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem())),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
]
PROMPT, LENGTH = 5, 8
TOKENS = ids(1, LENGTH)
NEAR = {"float32": 1e-4, "bfloat16": 0.06, "int8": 0.06, "int4": 0.06}  # bfloat16 rounds to 8 bits
VISIBLE = 2  # an edit must change the logits by so many times what counts as equal


@pytest.fixture(autouse=True)
def _no_shape_checks(monkeypatch):
    """They take half of the time, and some edits are refused by them rather than by the model."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@functools.cache
def made(dtype):
    model = tiny(tie_word_embeddings=True, intermediate_size=56, num_hidden_layers=2)
    if dtype in ("int8", "int4"):
        qk.quantize(model, dtype, group=8)
    return swap(model.to(torch.float32 if dtype == "float32" else torch.bfloat16))


def loaded(dtype):
    """Return a tied model with biases and without a trivial norm, and its decode step forced."""
    return copy.deepcopy(made(dtype))


def decoded(model, edit=None, caches=None):
    """Return the last token's logits, decoded token by token, and whether the kernels gave them.

    The edit comes in the middle. Of `caches`, each forward pass is given the next one.
    """
    caches, served = caches or itertools.repeat(KVCache(model.config, 1, LENGTH)), []

    def watched(*given):
        served.append(decode_step(*given))
        return served[-1]

    with mock.patch.object(steps, "decode_step", watched):
        steps.next_logits(model, TOKENS[:, :PROMPT], next(caches), 0)
        for i in range(PROMPT, LENGTH):
            cache = next(caches)
            if edit is not None and i == LENGTH - 2:
                edit(model, cache)
            found = steps.next_logits(model, TOKENS[:, i : i + 1], cache, i)
    return found[0], served[-1] is not None


@torch.no_grad()
def whole(model):
    """Return the same from one forward pass without a cache."""
    return model(TOKENS)[0, -1].float()


# --- the edits: name -> what is done ---


def layer(model):
    return model.model.layers[1]


def mlp(model):
    return layer(model).mlp


def down(model):
    return mlp(model).down_proj


def attn(model):
    return layer(model).self_attn


def put(part, **values):
    for name, value in values.items():
        setattr(part, name, value)


def parameter(value):
    return nn.Parameter(value, requires_grad=False)


def renew(part, change=torch.neg, kind=parameter):
    """Put a new weight in the place of the old one."""
    value = kind(change(part.weight.detach()))
    del part.weight
    part.weight = value


def zero_under(mode, model):
    with mode():
        down(model).weight.zero_()


def one_step(model, make):
    model.requires_grad_(True)
    optimizer = make(model.parameters())
    F.cross_entropy(model(ids(1, 8))[0].float(), ids(1, 8, seed=3)[0]).backward()
    optimizer.step()
    model.requires_grad_(False)


def new_state(model, **options):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["model.layers.1.mlp.down_proj.weight"].zero_()
    model.load_state_dict(state, **options)


def as_buffer(part):
    value = -part.weight.detach()
    del part.weight
    part.register_buffer("weight", value)


def fewer_neurons(part, keep):
    for name in ("gate_proj", "up_proj"):
        renew(getattr(part, name), lambda weight: weight[:keep].clone())
    renew(part.down_proj, lambda weight: weight[:, :keep].contiguous())


def another_inside(model, **overrides):
    sizes = {"tie_word_embeddings": True, "intermediate_size": 56, "num_hidden_layers": 2}
    other = tiny(seed=9, **sizes, **overrides)
    model.model = swap(other.to(model.dtype)).model


def with_lora(model):
    qk.add_lora(model, rank=2, targets=("q_proj", "down_proj"))
    for part in qk.lora.lora_layers(model).values():
        nn.init.normal_(part.lora_B.weight)


def merged_lora(model):
    with_lora(model)
    qk.merge_lora(model)


def norm_like(norm):
    other = type(norm)(norm.weight.numel(), eps=0.3).to(norm.weight.dtype).requires_grad_(False)
    other.weight.neg_()
    return other


WEIGHTS = {  # the kernels go on serving
    "weight.data.zero_()": lambda m: down(m).weight.data.zero_(),
    "weight.data[:] = 0": lambda m: down(m).weight.data.__setitem__(slice(None), 0),
    "weight.data = other": lambda m: put(down(m).weight, data=torch.zeros_like(down(m).weight)),
    "detach().mul_(0)": lambda m: down(m).weight.detach().mul_(0),
    "under no_grad": lambda m: zero_under(torch.no_grad, m),
    "in inference mode": lambda m: zero_under(torch.inference_mode, m),
    "copy_": lambda m: down(m).weight.data.copy_(torch.zeros_like(down(m).weight)),
    "state_dict()[name]": lambda m: m.state_dict()["model.layers.1.mlp.down_proj.weight"].zero_(),
    "load_state_dict": new_state,
    "load_state_dict(assign=True)": lambda m: new_state(m, assign=True),
    "a view of one row": lambda m: m.model.layers[0].self_attn.v_proj.weight.detach()[3].mul_(9),
}
FLOAT_WEIGHTS = {
    "through numpy()": lambda m: np.copyto(down(m).weight.detach().view(torch.uint8).numpy(), 0),
    "a new Parameter": lambda m: renew(down(m), torch.zeros_like),
    "a weight as a plain attribute": lambda m: renew(down(m), kind=torch.clone),
    "a weight as a buffer": lambda m: as_buffer(down(m)),
    "a part of other memory": lambda m: renew(down(m), lambda w: torch.cat([w, -w])[len(w) :]),
    "a bias": lambda m: attn(m).q_proj.bias.data.mul_(-3),
    "a bias more": lambda m: put(down(m), bias=parameter(torch.ones_like(m.model.norm.weight))),
    "a norm's weight": lambda m: layer(m).input_layernorm.weight.data.mul_(0.2),
    "a norm's eps": lambda m: put(layer(m).post_attention_layernorm, eps=9.0),
    "the tied embedding": lambda m: m.model.embed_tokens.weight.data.mul_(-1),
    "embeddings cut to a norm": lambda m: put(m.model.embed_tokens, max_norm=0.3),
    "the final norm": lambda m: m.model.norm.weight.data.neg_(),
    "the final norm's eps": lambda m: put(m.model.norm, eps=9.0),
    "another final norm": lambda m: put(m.model, norm=norm_like(m.model.norm)),
    "a new tied embedding": lambda m: renew(m.model.embed_tokens),
    "another model inside": another_inside,
    "an optimizer's step": lambda m: one_step(m, lambda p: torch.optim.SGD(p, lr=0.5)),
    "a fused step": lambda m: one_step(m, lambda p: torch.optim.AdamW(p, lr=0.3, fused=True)),
    "prune, made permanent": lambda m: prune.remove(
        prune.l1_unstructured(down(m), "weight", amount=0.9), "weight"),
    "fewer neurons": lambda m: fewer_neurons(mlp(m), 16),
    "RoPE's frequencies": lambda m: m.model.rotary_emb._frequencies.mul_(7),
    "RoPE's factor": lambda m: put(m.model.rotary_emb, factor=0.3),
    "LoRA, merged and removed": lambda m: merged_lora(m) or qk.remove_lora(m),
}  # fmt: skip
INT8_WEIGHTS = {
    "an int8 scale": lambda m: down(m).weight_scale.mul_(-2),
    "a new int8 buffer": lambda m: put(down(m), weight=torch.zeros_like(down(m).weight)),
    "an int8 embedding": lambda m: m.model.embed_tokens.weight.neg_(),
    "an int8 embedding's scale": lambda m: m.model.embed_tokens.weight_scale[::2].mul_(-1),
    "an int8 bias": lambda m: attn(m).q_proj.bias.data.mul_(-3),
    "int8 scales of whole rows": lambda m: put(
        down(m), weight_scale=-down(m).weight_scale[:, 0].clone()),
    "int8 groups of another size": lambda m: put(
        down(m), weight_scale=-down(m).weight_scale.repeat_interleave(2, 1)),
}  # fmt: skip
INT8_MODULES = {
    "int8 groups of k_proj unlike those of q_proj": lambda m: put(
        attn(m).k_proj, weight_scale=-attn(m).k_proj.weight_scale.repeat_interleave(2, 1)),
    "one int8 scale for all": lambda m: put(
        down(m), weight_scale=(-down(m).weight_scale.mean()).expand(down(m).weight_scale.shape)),
    "every second int8 scale": lambda m: put(
        down(m), weight_scale=(down(m).weight_scale * -1).repeat_interleave(3, 1)[:, ::3]),
}  # fmt: skip


INT4_WEIGHTS = {
    "an int4 scale": lambda m: down(m).weight_scale.mul_(-2),
    "an int4 zero point": lambda m: down(m).weight_zero.fill_(3),
    "a new int4 buffer": lambda m: put(down(m), weight=torch.zeros_like(down(m).weight)),
    "int4 groups of another size": lambda m: put(
        down(m), weight_scale=-down(m).weight_scale.repeat_interleave(2, 1),
        weight_zero=down(m).weight_zero.repeat_interleave(2, 1)),
    "an int4 bias": lambda m: attn(m).q_proj.bias.data.mul_(-3),
    "an int4 embedding and head": lambda m: int4_ends(m),
    "an int4 head's zero point": lambda m: int4_ends(m).lm_head.weight_zero.zero_(),
    "an int4 embedding's scale": lambda m: int4_ends(m).model.embed_tokens.weight_scale.neg_(),
}  # fmt: skip
INT4_MODULES = {
    "int4 groups of up_proj unlike those of gate_proj": lambda m: put(
        mlp(m).up_proj, weight_scale=-mlp(m).up_proj.weight_scale.repeat_interleave(2, 1),
        weight_zero=mlp(m).up_proj.weight_zero.repeat_interleave(2, 1)),
    "one int4 scale for all": lambda m: put(
        down(m), weight_scale=(-down(m).weight_scale.mean()).expand(down(m).weight_scale.shape)),
    "one int4 group per row, of all": lambda m: put(
        down(m), weight_scale=-down(m).weight_scale[:1]),
    "float zero points": lambda m: put(down(m), weight_zero=-down(m).weight_zero.float()),
    "a projection in int8 among int4": lambda m: put(mlp(m), down_proj=quantized(dequantized(m))),
}  # fmt: skip


class Made(nn.Module):
    """A module of a function."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class Other(MLP):
    def forward(self, x, trace=None):
        return -super().forward(x, trace)


class Loud(torch.Tensor):
    """A tensor that changes what is computed with it, and with what was computed with it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        out = super().__torch_function__(function, types, args, kwargs or {})
        return out * -3 if function is F.silu else out


def swap_layers(model):
    layers = model.model.layers
    layers[0], layers[1] = layers[1], layers[0]


def wrap_layer(model):
    inner = layer(model)
    model.model.layers[1] = Made(lambda x, *rest: x - inner(x, *rest))


def own_forward(part, factor=-1.0, name="forward"):
    """Override forward on one instance."""
    before = getattr(part, name)
    setattr(part, name, lambda *a, **k: before(*a, **k) * factor)


def twice_as_far(rope):
    rope.forward = lambda positions, dtype: type(rope).forward(rope, positions * 2, dtype)


def hooked(name):
    def hook(module, given, out):
        return tuple(o * 0.5 for o in out) if isinstance(out, tuple) else out * -0.5

    return lambda m: m.get_submodule(name).register_forward_hook(hook) and None


def negative_mlp(module, given, out=None):
    if not isinstance(module, MLP):
        return None
    return (-given[0], *given[1:]) if out is None else -out


def linear(m, *sizes):
    """Return a new linear layer between two sizes of the model's config."""
    own = nn.Linear(*(getattr(m.config, f"{name}_size") for name in sizes))
    return own.to(m.dtype).requires_grad_(False)


def dequantized(m):
    part = down(m)
    own = linear(m, "intermediate", "hidden")
    own.weight.data = dequantize(part.weight, part.weight_scale, part.weight_zero).to(m.dtype)
    return own


def int4_ends(m):
    """Give a model the embedding and the head that int4 gives an untied one."""
    stored = quantize_groups(linear(m, "hidden", "vocab").weight, 8)
    m.model.embed_tokens = Int4Embedding(*(one.clone() for one in stored))
    m.lm_head = FastInt4Linear(*stored)
    return m


def quantized(part):
    weight, scale = quantize_rows(-part.weight)
    return Int8Linear(weight, scale.to(part.weight.dtype))


MODULES = {  # the kernels step aside
    "a layer's own forward": lambda m: own_forward(m.model.layers[0], 0.4),
    "an MLP's own forward": lambda m: own_forward(mlp(m)),
    "an MLP's own call": lambda m: own_forward(mlp(m), name="_call_impl"),
    "a compiled MLP": lambda m: put(mlp(m), _compiled_call_impl=lambda x, trace=None: x * 2),
    "a projection's own forward": lambda m: own_forward(attn(m).q_proj),
    "a norm's own forward": lambda m: own_forward(layer(m).input_layernorm),
    "the model's own forward": lambda m: own_forward(m.model),
    "the whole model's own forward": own_forward,
    "RoPE's own forward": lambda m: twice_as_far(m.model.rotary_emb),
    "a subclass's MLP": lambda m: put(mlp(m), __class__=Other),
    "a wrapped layer": wrap_layer,
    "a wrapped projection": lambda m: put(mlp(m), down_proj=nn.Sequential(down(m), nn.Tanh())),
    "two layers exchanged": swap_layers,
    "a layer removed": lambda m: m.model.layers.__delitem__(0),
    "layers in another list": lambda m: put(m.model, layers=nn.Sequential(*m.model.layers[:1])),
    "somebody's own MLP": lambda m: put(layer(m), mlp=Made(lambda x, *rest: torch.ones_like(x))),
    "a function as MLP": lambda m: layer(m).__dict__.update(mlp=lambda x, trace=None: x * 2),
    "a head of its own": lambda m: put(m, lm_head=linear(m, "hidden", "vocab")),
    "no norm": lambda m: put(layer(m), input_layernorm=nn.Identity()),
    "an eps per value": lambda m: put(
        layer(m).input_layernorm, eps=torch.arange(m.config.hidden_size).to(m.dtype)),
    "a pre-hook on a layer": lambda m: layer(m).register_forward_pre_hook(
        lambda module, given: (given[0] * -1, *given[1:])) and None,
} | {
    f"a hook on {name or 'the whole model'}": hooked(name)
    for name in (
        "", "model", "model.embed_tokens", "model.rotary_emb", "model.norm", "model.layers.1",
        "model.layers.1.self_attn", "model.layers.1.self_attn.k_proj", "model.layers.1.mlp",
        "model.layers.1.mlp.up_proj", "model.layers.1.input_layernorm",
    )
}  # fmt: skip
FLOAT_MODULES = {
    "prune, with its mask": lambda m: prune.l1_unstructured(down(m), "weight", amount=0.9),
    "a parametrization": lambda m: parametrize.register_parametrization(
        down(m), "weight", Made(torch.neg), unsafe=True),
    "somebody's own Linear": lambda m: put(mlp(m), down_proj=linear(m, "intermediate", "hidden")),
    "one projection in int8": lambda m: put(mlp(m), down_proj=quantized(down(m))),
    "LoRA": with_lora,
    "LoRA, merged": merged_lora,
    "a transposed weight": lambda m: renew(attn(m).o_proj, lambda w: (w * -2).T.contiguous().T),
    "one row for all": lambda m: renew(attn(m).o_proj, lambda w: w[:1].expand_as(w)),
    "a sign to come": lambda m: renew(down(m), torch._neg_view),
    "a sparse weight": lambda m: renew(m.float() and down(m), lambda w: (w * -1).to_sparse_csr()),
    "a subclass of Parameter": lambda m: renew(down(m), kind=type("Own", (nn.Parameter,), {})),
    "loud embeddings": lambda m: renew(
        m.model.embed_tokens, lambda w: w.as_subclass(Loud), kind=lambda w: w),
    "one value as bias": lambda m: put(attn(m).v_proj, bias=parameter(
        torch.full((1,), 2.0).to(m.dtype))),
}  # fmt: skip
WINDOW = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}
LATE = {  # the kernels step aside when they see the token and the cache
    "a window": lambda m: put(m.model, config=replace(m.config, **WINDOW, layer_types=None)),
    "a loud rotation": lambda m: put(m.model.rotary_emb, factor=torch.ones(()).as_subclass(Loud)),
}
FLOAT_LATE = {
    "another window inside": lambda m: another_inside(m, **WINDOW),
}
STAY = WEIGHTS | FLOAT_WEIGHTS | INT8_WEIGHTS | INT4_WEIGHTS
EDITS = STAY | MODULES | FLOAT_MODULES | INT8_MODULES | INT4_MODULES | LATE | FLOAT_LATE


def rows(*tables):
    """Return (name, dtype) of every edit that can be made to a model of that dtype."""
    kinds = {name: ("float32", "bfloat16") for name in FLOAT_WEIGHTS | FLOAT_MODULES | FLOAT_LATE}
    kinds |= dict.fromkeys(INT8_WEIGHTS | INT8_MODULES, ("int8",))
    kinds |= dict.fromkeys(INT4_WEIGHTS | INT4_MODULES, ("int4",))
    # In int4 the last bit of a key, which is rounded, would be a whole step of a weight.
    kinds["keys in the memory of a weight"] = ("float32", "bfloat16", "int8")
    return [(name, dtype) for table in tables for name in table for dtype in kinds.get(name, NEAR)]


# --- replaced code: name -> a context in which the texts run ---


def patch(target, name, new, **options):
    return mock.patch.object(target, name, new, **options)


def add(target, name, new):
    return patch(target, name, new, create=True)


def times(target, name, factor=-1.0):
    own = getattr(target, name)
    return patch(target, name, lambda *a, **k: own(*a, **k) * factor)


@contextlib.contextmanager
def setting(target, name, new):
    """Set what mock.patch cannot, as an extension that reloads files does."""
    before = getattr(target, name)
    setattr(target, name, new)
    try:
        yield
    finally:
        setattr(target, name, before)


@contextlib.contextmanager
def operator(name, new):
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):
        library.impl(name, new, "CPU")
    try:
        yield
    finally:
        library._destroy()


def mode(kind, loud):
    def call(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        return out * -1 if function is loud else out

    return type("Mode", (kind,), {"__torch_function__": call, "__torch_dispatch__": call})()


def loud_mlp(self, x, trace=None):
    return self.down_proj(self.gate_proj(x) * self.up_proj(x) * 3)


def other_head(self, x):
    return F.linear(x.flip(-1), self.model.embed_tokens.weight)


def twice_linear(self, input):
    return F.linear(input * 2, self.weight, self.bias)


def backwards(items, *start):
    found = list(own.enumerate(items, *start))
    return found[::-1] if found and isinstance(found[0][1], DecoderLayer) else found


class Callable:  # without __get__, as functools.partial: it is not given the instance
    def __call__(self, x, trace=None):
        return x * 3


class LoudModule(nn.Module):
    def __call__(self, *given, **named):
        return -super().__call__(*given, **named)


own = SimpleNamespace(enumerate=enumerate, cat=torch.cat, mlp=inspect.unwrap(MLP.forward))
hooks, get = torch.nn.modules.module, nn.Module.__getattr__
silu = torch.ops.aten.silu.default
negative_out = qk.Trace(keep=(), edits={"mlp.out": torch.neg})
CODE = {
    "RMSNorm.forward": lambda m: times(RMSNorm, "forward", 0.5),
    "MLP.forward": lambda m: times(MLP, "forward"),
    "Attention.forward": lambda m: times(Attention, "forward"),
    "DecoderLayer.forward": lambda m: times(DecoderLayer, "forward", 0.5),
    "QwenModel.forward": lambda m: times(QwenModel, "forward"),
    "QwenForCausalLM.forward": lambda m: times(QwenForCausalLM, "forward"),
    "QwenForCausalLM.head": lambda m: patch(
        QwenForCausalLM, "head", lambda s, x: F.pad(x, (0, m.config.vocab_size - x.shape[-1]))),
    "nn.Linear.forward": lambda m: times(nn.Linear, "forward"),
    "F.linear": lambda m: times(F, "linear"),
    "F.silu": lambda m: times(F, "silu", -2),
    "F.scaled_dot_product_attention": lambda m: times(F, "scaled_dot_product_attention"),
    "torch._C._nn.silu": lambda m: times(torch._C._nn, "silu", -2),
    "torch.rsqrt": lambda m: patch(torch, "rsqrt", torch.ones_like),
    "Tensor.chunk": lambda m: add(
        torch.Tensor, "chunk", lambda x, n, dim: [*x.tensor_split(n, dim)][::-1]),
    "Tensor.__mul__": lambda m: add(torch.Tensor, "__mul__", lambda a, b: torch.mul(a, b).mul(1.5)),
    "Tensor.__add__": lambda m: add(torch.Tensor, "__add__", lambda a, b: torch.sub(a, b)),
    "the code of head": lambda m: setting(
        inspect.unwrap(QwenForCausalLM.head), "__code__", other_head.__code__),
    "the code of nn.Linear.forward": lambda m: setting(
        nn.Linear.forward, "__code__", twice_linear.__code__),
    "the operator silu": lambda m: operator("silu", lambda x: x * 2),
    "attention.apply_rope": lambda m: patch(attention_file, "apply_rope", lambda x, cos, sin: x),
    "attention.fused_attention": lambda m: times(attention_file, "fused_attention"),
    "qwen.positions": lambda m: times(qwen_file, "positions", 3),
    "mlp.tap": lambda m: patch(mlp_file, "tap", lambda trace, name, value: value * 0.7),
    "mlp.F": lambda m: patch(mlp_file, "F", SimpleNamespace(silu=torch.tanh)),
    "norm.torch": lambda m: patch(norm_file, "torch", SimpleNamespace(rsqrt=torch.ones_like)),
    "rope.torch": lambda m: patch(
        rope_file, "torch", SimpleNamespace(cat=lambda pair, dim: own.cat(pair[::-1], dim))),
    "qwen.enumerate": lambda m: add(qwen_file, "enumerate", backwards),
    "enumerate": lambda m: patch(builtins, "enumerate", backwards),
    "the code of MLP.forward rewritten": lambda m: setting(own.mlp, "__code__", loud_mlp.__code__),
    "the named defaults of a forward": lambda m: mock.patch.dict(
        inspect.unwrap(QwenForCausalLM.forward).__kwdefaults__, trace=negative_out),
    "a partial method": lambda m: patch(
        MLP, "forward", functools.partialmethod(lambda s, factor, x, trace=None: x * factor, 4)),
    "an object as MLP.__call__": lambda m: add(MLP, "__call__", Callable()),
    "an object as MLP._call_impl": lambda m: add(MLP, "_call_impl", Callable()),
    "MLP.__getattr__": lambda m: add(
        MLP, "__getattr__", lambda s, name: get(s, name.replace("up_", "gate_"))),
    "a property on the class": lambda m: add(MLP, "gate_proj", property(lambda s: s.up_proj)),
    "a module on the class": lambda m: add(MLP, "gate_proj", linear(m, "hidden", "intermediate")),
    "another base of MLP": lambda m: setting(MLP, "__bases__", (LoudModule,)),
    "a global forward hook": lambda m: hooks.register_module_forward_hook(negative_mlp),
    "a global pre-hook": lambda m: hooks.register_module_forward_pre_hook(negative_mlp),
    "a mode of torch's functions": lambda m: mode(TorchFunctionMode, F.linear),
    "a mode of torch's operators": lambda m: mode(TorchDispatchMode, silu),
}  # fmt: skip


FLOAT_CODE = {
    "nn.Linear.forward", "the code of nn.Linear.forward", "the code of head", "Tensor.__add__",
}  # fmt: skip


# --- made in the middle: edits of the cache, and what the taught model refuses ---


def each_buffer(cache, change):
    for buffers in (cache.keys, cache.values):
        buffers[:] = map(change, buffers)


def made_in_inference_mode(model, cache):
    with torch.inference_mode():
        each_buffer(cache, torch.clone)


def new_keys(change):
    return lambda m, c: c.keys.__setitem__(1, change(c.keys[1]))


def in_a_weight(model, cache):
    """Let a layer's keys lie in the memory of one of its weights."""
    memory = down(model).weight.view(cache.keys[1].dtype).flatten()
    cache.keys[1] = memory[: cache.keys[1].numel()].view(cache.keys[1].shape)


CACHES = {
    "keys of zeros": lambda m, c: [keys.zero_() for keys in c.keys],
    "a new buffer": new_keys(torch.ones_like),
    "a transposed buffer": new_keys(lambda k: (k * 2).transpose(2, 3).contiguous().transpose(2, 3)),
    "one kv head for all": new_keys(lambda k: k[:, :1].expand_as(k)),
    "keys with a sign to come": new_keys(torch._neg_view),
    "one buffer for two layers": lambda m, c: c.keys.__setitem__(1, c.keys[0]),
    "keys in the memory of a weight": in_a_weight,
    "longer buffers": lambda m, c: each_buffer(c, lambda one: torch.cat([one, one], dim=2)),
    "an older length": lambda m, c: put(c, length=c.length - 2),
    "a length of True": lambda m, c: put(c, length=True),
    "no length": lambda m, c: put(c, length=0),
    "a length in a tensor": lambda m, c: put(c, length=torch.tensor(c.length)),
    "a length below zero": lambda m, c: put(c, length=-1),
    "half a length": lambda m, c: put(c, length=c.length + 0.5),
    "less room": lambda m, c: put(c, max_length=LENGTH - 2),
    "two texts": lambda m, c: put(c, batch_size=2),
    "the cache of other heads": lambda m, c: put(c, config=replace(c.config, **OTHER_HEADS)),
    "the cache of another dtype": lambda m, c: each_buffer(c, torch.Tensor.double),
    "a cache of inference mode": made_in_inference_mode,
}
OTHER_HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}
REFUSED = {
    "wide embeddings": lambda m, c: put(m.model, embed_tokens=nn.Embedding(VOCAB, 64).to(m.dtype)),
    "embeddings in float64": lambda m, c: m.model.embed_tokens.double(),
    "fewer frequencies": lambda m, c: put(m.model.rotary_emb, _frequencies=torch.ones(1)),
    "more frequencies": lambda m, c: put(m.model.rotary_emb, _frequencies=torch.ones(8)),
    "a bias in float64": lambda m, c: attn(m).q_proj.double(),
    "a bias elsewhere": lambda m, c: put(attn(m).q_proj, bias=parameter(torch.ones(32).to("meta"))),
    "no eps": lambda m, c: put(layer(m).input_layernorm, eps=None),
    "no weight": lambda m, c: put(down(m), weight=None),
    "fewer heads than fit": lambda m, c: object.__setattr__(m.config, "num_attention_heads", 3),
    "a small vocabulary": lambda m, c: put(m.model, config=replace(m.config, vocab_size=2)),
    "other heads": lambda m, c: put(attn(m), config=replace(m.config, **OTHER_HEADS)),
    "a norm of NaN": lambda m, c: layer(m).input_layernorm.weight.data.fill_(float("nan")),
}


def test_the_tables_are_long():
    assert len(EDITS) + len(CODE) + len(CACHES) + len(REFUSED) >= 150


@pytest.mark.parametrize("dtype", NEAR)
def test_an_untouched_model_is_served_by_the_kernels_and_gives_the_same_numbers(dtype):
    from qwenkit.fast.kernels import lead_step

    model = loaded(dtype)
    assert qk.explain(model).fast
    with mock.patch("qwenkit.fast.kernels.lead_step", side_effect=lead_step) as kernel:
        got, served = decoded(model)
    assert served
    assert kernel.call_count == LENGTH - PROMPT
    assert relative_error(got, whole(model)) < NEAR[dtype]


def check(model, dtype, before, served):
    """Compare after an edit; the edit itself must show."""
    want = whole(model)
    got, by_kernels = decoded(model)
    assert relative_error(got, want) < NEAR[dtype]
    assert relative_error(want, before) > VISIBLE * NEAR[dtype]
    assert by_kernels == served, qk.explain(model)


@pytest.mark.parametrize(("name", "dtype"), rows(EDITS))
def test_after_an_edit_decoding_equals_the_whole_forward(name, dtype):
    model = loaded(dtype)
    before = whole(model)
    decoded(model)  # whatever the fast path keeps, it keeps from here
    EDITS[name](model)
    check(model, dtype, before, name in STAY)
    assert qk.explain(model).fast == (name in STAY | LATE | FLOAT_LATE), qk.explain(model)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, d) for name in CODE for d in NEAR if "int" not in d or name not in FLOAT_CODE],
)
def test_while_code_is_replaced_decoding_equals_the_whole_forward(name, dtype):
    model = loaded(dtype)
    before = whole(model)
    decoded(model)
    with CODE[name](model):
        check(model, dtype, before, served=False)
        assert not qk.explain(model).fast
    assert qk.explain(model).fast
    assert relative_error(decoded(model)[0], before) < NEAR[dtype]


def outcome(model, edit, caches=None):
    """Return the logits, or the error, of a text in whose middle an edit is made."""
    torch.manual_seed(0)  # some edits are random
    try:
        return decoded(model, edit, caches)[0]
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("name", "dtype"), rows(EDITS, CACHES, REFUSED))
def test_an_edit_in_the_middle_of_a_text_is_seen_by_the_next_token(name, dtype):
    edit = (CACHES | REFUSED).get(name) or (lambda model, cache: EDITS[name](model))
    found, model = outcome(loaded(dtype), edit), loaded(dtype)
    with qk.plain(model):
        want = outcome(model, edit)
    if isinstance(want, str) or isinstance(found, str):
        assert found == want
    else:
        assert relative_error(found, want) < NEAR[dtype]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("on_the_class", [True, False])
def test_another_update_of_the_cache_is_called_for_each_token(on_the_class, dtype):
    own, stack = KVCache.update, contextlib.ExitStack()

    def edit(model, cache):
        def own_update(*given):
            *_, index, keys, values = given
            return own(cache, index, keys * 2, values * -1)

        stack.enter_context(patch(KVCache if on_the_class else cache, "update", own_update))

    found = []
    for taught in (False, True):
        model = loaded(dtype)
        with stack, qk.plain(model) if taught else contextlib.nullcontext():
            found.append(decoded(model, edit)[0])
    assert relative_error(*found) < NEAR[dtype]
    assert relative_error(found[0], decoded(loaded(dtype))[0]) > VISIBLE * NEAR[dtype]


@pytest.mark.parametrize("dtype", NEAR)
def test_a_copy_reads_its_own_weights(dtype):
    model = loaded(dtype)
    before, _ = decoded(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        WEIGHTS["weight.data.zero_()"](twin)
        got, served = decoded(twin)
        assert served
        assert relative_error(got, whole(twin)) < NEAR[dtype]
        assert torch.equal(decoded(model)[0], before)
    WEIGHTS["weight.data.zero_()"](copy.copy(model))  # a shallow one shares them
    assert relative_error(decoded(model)[0], whole(twin)) < NEAR[dtype]


def test_a_model_that_changes_its_dtype_is_read_in_the_new_one():
    model = loaded("float32")
    decoded(model)
    for dtype, reason in ((torch.bfloat16, ""), (torch.float16, "float16")):
        model.to(dtype)
        assert reason in qk.explain(model).reason
        got, served = decoded(model)
        assert served == (not reason)
        assert relative_error(got, whole(model)) < NEAR["bfloat16"]


def test_code_that_was_replaced_before_qwenkit_was_imported_is_not_taken_for_torchs(monkeypatch):
    assert not identity._Noted(identity._MODULES).foreign
    monkeypatch.setattr(F, "silu", functools.wraps(F.silu)(lambda x: x))
    monkeypatch.setattr(identity, "_noted", identity._Noted(identity._MODULES))
    reason = "F.silu had been replaced before qwenkit was imported"
    assert qk.explain(loaded("float32")).reason == reason


def test_what_torch_compile_patches_takes_no_part(monkeypatch):
    """It puts its own functions in the place of these two, for the rest of the process."""
    for name in ("__init__", "__setstate__"):
        monkeypatch.setattr(nn.Module, name, print)
    assert qk.explain(made("float32")).fast
