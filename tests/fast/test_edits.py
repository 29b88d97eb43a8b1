"""What you read is what runs: after any edit of a model, decoding equals the whole forward.

Each edit is made on a model whose decode step is served by compiled kernels, before a text is read
and in its middle. Afterwards either the kernels see the edit, or they step aside; the last test of
each row says which.
"""

import contextlib
import copy
import functools
import inspect
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import ids, relative_error, tiny
from torch import nn
from torch.nn.utils import parametrize, prune

import qwenkit as qk
from qwenkit.fast import swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.generate.steps import next_logits
from qwenkit.model import MLP, Attention, DecoderLayer, KVCache, QwenForCausalLM, QwenModel, RMSNorm
from qwenkit.model import attention as attention_file
from qwenkit.model import mlp as mlp_file
from qwenkit.model import qwen as qwen_file

pytestmark = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
PROMPT, LENGTH = 5, 9
NEAR = {"float32": 1e-4, "bfloat16": 0.06, "int8": 0.06}  # bfloat16 rounds to 8 bits
VISIBLE = 2  # an edit must change the logits by so many times what counts as equal


@functools.cache
def made():
    return tiny(tie_word_embeddings=True, intermediate_size=56)


def loaded(dtype):
    """Return a tied model with biases and without a trivial norm, and its decode step forced."""
    model = copy.deepcopy(made())
    if dtype == "int8":
        qk.quantize(model)
    return swap(model.to(torch.float32 if dtype == "float32" else torch.bfloat16))


def decoded(model, tokens, edit=None):
    """Return the last token's logits, decoded token by token; `edit` comes in the middle."""
    cache = KVCache(model.config, 1, LENGTH)
    next_logits(model, tokens[:, :PROMPT], cache, 0)
    for i in range(PROMPT, LENGTH):
        if edit is not None and i == LENGTH - 2:
            edit()
        found = next_logits(model, tokens[:, i : i + 1], cache, i)
    return found[0]


@torch.no_grad()
def whole(model, tokens):
    """Return the same from one forward pass without a cache."""
    return model(tokens)[0, -1].float()


# --- the edits: name -> (what is done, whether the kernels go on serving) ---


def down(model):
    return model.model.layers[1].mlp.down_proj


def zero_under_no_grad(model):
    with torch.no_grad():
        down(model).weight.zero_()


def zero_in_inference_mode(model):
    with torch.inference_mode():
        down(model).weight.zero_()


def one_step(model, make):
    model.requires_grad_(True)
    optimizer = make(model.parameters())
    F.cross_entropy(model(ids(1, 8))[0].float(), ids(1, 8, seed=3)[0]).backward()
    optimizer.step()
    model.requires_grad_(False)


def new_state(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["model.layers.1.mlp.down_proj.weight"].zero_()
    model.load_state_dict(state)


def parameter(value):
    return nn.Parameter(value, requires_grad=False)


WEIGHTS = {
    "weight.data.zero_()": lambda m: down(m).weight.data.zero_(),
    "weight.data[:] = 0": lambda m: down(m).weight.data.__setitem__(slice(None), 0),
    "weight.data = other": lambda m: setattr(
        down(m).weight, "data", torch.zeros_like(down(m).weight)
    ),
    "detach().mul_(0)": lambda m: down(m).weight.detach().mul_(0),
    "under no_grad": zero_under_no_grad,
    "in inference mode": zero_in_inference_mode,
    "copy_": lambda m: down(m).weight.data.copy_(torch.zeros_like(down(m).weight)),
    "state_dict()[name]": lambda m: m.state_dict()["model.layers.1.mlp.down_proj.weight"].zero_(),
    "load_state_dict": new_state,
    "a view of one row": lambda m: m.model.layers[0].self_attn.v_proj.weight.detach()[3].mul_(9),
}
FLOAT_WEIGHTS = {
    "through numpy()": lambda m: np.copyto(down(m).weight.detach().view(torch.uint8).numpy(), 0),
    "a new Parameter": lambda m: setattr(
        down(m), "weight", parameter(torch.zeros_like(down(m).weight))
    ),
    "a bias": lambda m: m.model.layers[1].self_attn.q_proj.bias.data.mul_(-3),
    "a norm's weight": lambda m: m.model.layers[1].input_layernorm.weight.data.mul_(0.2),
    "a norm's eps": lambda m: setattr(m.model.layers[1].post_attention_layernorm, "eps", 5.0),
    "the tied embedding": lambda m: m.model.embed_tokens.weight.data.mul_(-1),
    "the final norm": lambda m: m.model.norm.weight.data.neg_(),
    "an optimizer's step": lambda m: one_step(m, lambda p: torch.optim.SGD(p, lr=0.5)),
    "a fused optimizer's step": lambda m: one_step(
        m, lambda p: torch.optim.AdamW(p, lr=0.3, fused=True)
    ),
    "prune, made permanent": lambda m: prune.remove(
        prune.l1_unstructured(down(m), "weight", amount=0.9), "weight"
    ),
    "a weight as a plain attribute": lambda m: plain_attribute(down(m)),
    "fewer neurons": lambda m: fewer_neurons(m.model.layers[1].mlp, 16),
    "RoPE's frequencies": lambda m: m.model.rotary_emb._frequencies.mul_(7),
    "RoPE's factor": lambda m: setattr(m.model.rotary_emb, "factor", 0.3),
    "LoRA, merged and removed": lambda m: merged_lora(m) or qk.remove_lora(m),
}
INT8_WEIGHTS = {
    "an int8 scale": lambda m: down(m).weight_scale.mul_(-2),
    "a new int8 buffer": lambda m: setattr(down(m), "weight", torch.zeros_like(down(m).weight)),
    "an int8 embedding": lambda m: m.model.embed_tokens.weight.neg_(),
    "an int8 embedding's scale": lambda m: m.model.embed_tokens.weight_scale[::2].mul_(-1),
    "an int8 bias": lambda m: m.model.layers[1].self_attn.q_proj.bias.data.mul_(-3),
}


def fewer_neurons(mlp, keep):
    for name in ("gate_proj", "up_proj"):
        part = getattr(mlp, name)
        part.weight = parameter(part.weight[:keep].clone())
    mlp.down_proj.weight = parameter(mlp.down_proj.weight[:, :keep].contiguous())


def with_lora(model):
    qk.add_lora(model, rank=2, targets=("q_proj", "down_proj"))
    for part in qk.lora.lora_layers(model).values():
        nn.init.normal_(part.lora_B.weight)


def merged_lora(model):
    with_lora(model)
    qk.merge_lora(model)


def rewrite(function, other):
    """Give a function another's code, as an extension that reloads files does."""

    @contextlib.contextmanager
    def rewritten():
        before = function.__code__
        function.__code__ = other.__code__
        try:
            yield
        finally:
            function.__code__ = before

    return rewritten()


def patch(target, name, new):
    return mock.patch.object(target, name, new)


own = SimpleNamespace(  # what the patches below call
    norm=RMSNorm.forward, mlp=MLP.forward, attention=Attention.forward, layer=DecoderLayer.forward,
    linear=nn.Linear.forward, f_linear=F.linear, silu=F.silu, update=KVCache.update,
    made=KVCache.__init__,
    rope=attention_file.apply_rope, fused=attention_file.fused_attention,
    sdpa=F.scaled_dot_product_attention, positions=qwen_file.positions, tap=mlp_file.tap,
    head=QwenForCausalLM.head, model=QwenModel.forward, whole=QwenForCausalLM.forward,
)  # fmt: skip
CODE = {  # entered while the texts run
    "RMSNorm.forward": lambda m: patch(RMSNorm, "forward", lambda s, x: own.norm(s, x) * 0.5 + 0.1),
    "MLP.forward": lambda m: patch(MLP, "forward", lambda s, x, t=None: own.mlp(s, x, t) * -1),
    "Attention.forward": lambda m: patch(
        Attention, "forward", lambda s, *a: own.attention(s, *a) * -1
    ),
    "DecoderLayer.forward": lambda m: patch(
        DecoderLayer, "forward", lambda s, *a: own.layer(s, *a) * 0.5 + 0.2
    ),
    "QwenModel.forward": lambda m: patch(
        QwenModel, "forward", lambda s, *a, **k: own.model(s, *a, **k) * -1
    ),
    "QwenForCausalLM.forward": lambda m: patch(
        QwenForCausalLM, "forward", lambda s, *a, **k: own.whole(s, *a, **k) * -1
    ),
    "QwenForCausalLM.head": lambda m: patch(QwenForCausalLM, "head", lambda s, x: -x @ head_of(s)),
    "nn.Linear.forward": lambda m: patch(nn.Linear, "forward", lambda s, x: -own.linear(s, x)),
    "F.linear": lambda m: patch(F, "linear", lambda *a: -own.f_linear(*a)),
    "F.silu": lambda m: patch(F, "silu", lambda x: own.silu(x) * -2),
    "F.scaled_dot_product_attention": lambda m: patch(
        F, "scaled_dot_product_attention", lambda *a, **k: -own.sdpa(*a, **k)
    ),
    "attention.apply_rope": lambda m: patch(attention_file, "apply_rope", lambda x, cos, sin: x),
    "attention.fused_attention": lambda m: patch(
        attention_file, "fused_attention", lambda *a: own.fused(*a) * -1
    ),
    "qwen.positions": lambda m: patch(qwen_file, "positions", lambda *a: own.positions(*a) * 3),
    "mlp.tap": lambda m: patch(mlp_file, "tap", lambda t, n, v: own.tap(t, n, v) * 0.7),
    "the code of MLP.forward rewritten": lambda m: rewrite(inspect.unwrap(MLP.forward), loud_mlp),
    "a global forward hook": lambda m: contextlib.closing(
        handle(torch.nn.modules.module.register_module_forward_hook(negative_mlp))
    ),
    "a property on the class": lambda m: mock.patch.object(
        MLP, "gate_proj", property(lambda s: s._modules["up_proj"]), create=True
    ),
}


def head_of(model):
    table = model.model.embed_tokens
    scale = getattr(table, "weight_scale", None)
    weight = table.weight if scale is None else table.weight.to(scale.dtype) * scale[:, None]
    return weight.T


def loud_mlp(self, x, trace=None):
    return self.down_proj(self.gate_proj(x) * self.up_proj(x) * 3)


def handle(removable):
    return SimpleNamespace(close=removable.remove)


def negative_mlp(module, given, out):
    return -out if isinstance(module, MLP) else None


class Other(MLP):
    def forward(self, x, trace=None):
        return -super().forward(x, trace)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, *rest):
        return x - self.inner(x, *rest)


class Constant(nn.Module):
    def forward(self, x, trace=None):
        return torch.ones_like(x)


class Negative(nn.Module):
    def forward(self, weight):
        return -weight


def wrap(model):
    model.model.layers[1] = Wrapped(model.model.layers[1])


def swap_layers(model):
    layers = model.model.layers
    layers[0], layers[1] = layers[1], layers[0]


def own_forward(part, factor=-1.0):
    """Override forward on one instance."""
    before = part.forward
    part.forward = lambda *a, **k: before(*a, **k) * factor


MODULES = {
    "a layer's own forward": lambda m: own_forward(m.model.layers[0], 0.4),
    "an MLP's own forward": lambda m: own_forward(m.model.layers[1].mlp),
    "a projection's own forward": lambda m: own_forward(m.model.layers[1].self_attn.q_proj),
    "a norm's own forward": lambda m: own_forward(m.model.layers[1].input_layernorm),
    "the model's own forward": lambda m: own_forward(m.model),
    "the whole model's own forward": lambda m: own_forward(m),
    "RoPE's own forward": lambda m: setattr(
        m.model.rotary_emb, "forward", lambda p, d: m.model.rotary_emb.__class__.forward(
            m.model.rotary_emb, p * 2, d
        )
    ),
    "a subclass's MLP": lambda m: setattr(m.model.layers[1].mlp, "__class__", Other),
    "a wrapped layer": wrap,
    "two layers exchanged": swap_layers,
    "a layer removed": lambda m: m.model.layers.__delitem__(1),
    "somebody's own MLP": lambda m: setattr(m.model.layers[1], "mlp", Constant()),
}  # fmt: skip
FLOAT_MODULES = {
    "prune, with its mask": lambda m: prune.l1_unstructured(down(m), "weight", amount=0.9),
    "a parametrization": lambda m: parametrize.register_parametrization(
        down(m), "weight", Negative()
    ),
    "somebody's own Linear": lambda m: setattr(
        m.model.layers[1].mlp, "down_proj", nn.Linear(56, 32).to(m.dtype).requires_grad_(False)
    ),
    "LoRA": with_lora,
    "LoRA, merged": merged_lora,
    "a transposed weight": lambda m: setattr(
        m.model.layers[1].self_attn.o_proj, "weight",
        parameter((m.model.layers[1].self_attn.o_proj.weight * -2).T.contiguous().T),
    ),
}  # fmt: skip
PARTS = (
    "", "model", "model.embed_tokens", "model.rotary_emb", "model.norm", "model.layers.1",
    "model.layers.1.self_attn", "model.layers.1.self_attn.k_proj", "model.layers.1.mlp",
    "model.layers.1.mlp.up_proj", "model.layers.1.input_layernorm",
)  # fmt: skip


def plain_attribute(part):
    value = -part.weight.detach()
    del part.weight
    part.weight = value


def hooked(name):
    def edit(model):
        def hook(module, given, out):
            return tuple(o * 0.5 for o in out) if isinstance(out, tuple) else out * -0.5

        model.get_submodule(name).register_forward_hook(hook)

    return edit


def pre_hooked(model):
    model.model.layers[1].register_forward_pre_hook(lambda m, given: (given[0] * -1, *given[1:]))


MODULES |= {f"a hook on {name or 'the whole model'}": hooked(name) for name in PARTS}
MODULES["a pre-hook on a layer"] = pre_hooked
STAY = WEIGHTS | FLOAT_WEIGHTS | INT8_WEIGHTS  # the kernels go on serving
EDITS = STAY | MODULES | FLOAT_MODULES
FLOAT_ONLY, INT8_ONLY = FLOAT_WEIGHTS | FLOAT_MODULES, INT8_WEIGHTS
ROWS = [
    (name, dtype)
    for name in EDITS
    for dtype in NEAR
    if not (name in FLOAT_ONLY and dtype == "int8") and not (name in INT8_ONLY and dtype != "int8")
]


def test_the_table_is_long():
    assert len(EDITS) + len(CODE) >= 60


@pytest.mark.parametrize("dtype", NEAR)
def test_an_untouched_model_is_served_by_the_kernels_and_gives_the_same_numbers(dtype):
    model, tokens = loaded(dtype), ids(1, LENGTH)
    assert qk.explain(model).fast
    calls = []
    with mock.patch("qwenkit.fast.kernels.decoder_layer", counted(calls)):
        got = decoded(model, tokens)
    assert len(calls) == (LENGTH - PROMPT) * model.config.num_hidden_layers
    assert relative_error(got, whole(model, tokens)) < NEAR[dtype]


def counted(calls):
    from qwenkit.fast.kernels import decoder_layer

    return lambda *given: calls.append(1) or decoder_layer(*given)


def check(model, tokens, dtype, before, edit):
    """Edit before the text and compare; the edit itself must show."""
    edit(model)
    want = whole(model, tokens)
    assert relative_error(decoded(model, tokens), want) < NEAR[dtype]
    assert relative_error(want, before) > VISIBLE * NEAR[dtype]


@pytest.mark.parametrize(("name", "dtype"), ROWS)
def test_after_an_edit_decoding_equals_the_whole_forward(name, dtype):
    model, tokens = loaded(dtype), ids(1, LENGTH)
    before = whole(model, tokens)
    decoded(model, tokens)  # whatever the fast path keeps, it keeps from here
    check(model, tokens, dtype, before, EDITS[name])
    assert qk.explain(model).fast == (name in STAY), qk.explain(model).reason


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, d) for name in CODE for d in NEAR if (name, d) != ("nn.Linear.forward", "int8")],
)
def test_while_code_is_replaced_decoding_equals_the_whole_forward(name, dtype):
    model, tokens = loaded(dtype), ids(1, LENGTH)
    before = whole(model, tokens)
    decoded(model, tokens)
    with CODE[name](model):
        check(model, tokens, dtype, before, lambda m: None)
        assert not qk.explain(model).fast
    assert qk.explain(model).fast
    assert relative_error(decoded(model, tokens), before) < NEAR[dtype]


@pytest.mark.parametrize(("name", "dtype"), ROWS)
def test_an_edit_in_the_middle_of_a_text_is_seen_by_the_next_token(name, dtype):
    tokens, found = ids(1, LENGTH), []
    for taught in (False, True):
        model = loaded(dtype)
        with qk.plain(model) if taught else contextlib.nullcontext():
            torch.manual_seed(0)  # some edits are random
            found.append(decoded(model, tokens, lambda m=model: EDITS[name](m)))
    assert relative_error(found[0], found[1]) < NEAR[dtype]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("on_the_class", [True, False])
def test_another_update_of_the_cache_is_called_for_each_token(on_the_class, dtype):
    tokens, found = ids(1, LENGTH), []

    caches, stack = [], contextlib.ExitStack()

    def made(self, *given):
        caches.append(self)
        return own.made(self, *given)

    def edit():
        cache = KVCache if on_the_class else caches[-1]
        stack.enter_context(patch(cache, "update", own_update))

    def own_update(*given):
        *first, keys, values = given
        cache = first[0] if on_the_class else caches[-1]
        return own.update(cache, first[-1], keys * 2, values * -1)

    for taught in (False, True):
        model = loaded(dtype)
        with stack, qk.plain(model) if taught else contextlib.nullcontext():
            stack.enter_context(patch(KVCache, "__init__", made))
            found.append(decoded(model, tokens, edit))
    assert relative_error(found[0], found[1]) < NEAR[dtype]
    assert relative_error(found[0], decoded(loaded(dtype), tokens)) > VISIBLE * NEAR[dtype]


@pytest.mark.parametrize("dtype", NEAR)
def test_a_copy_reads_its_own_weights(dtype):
    model, tokens = loaded(dtype), ids(1, LENGTH)
    before = decoded(model, tokens)
    twin = copy.deepcopy(model)
    WEIGHTS["weight.data.zero_()"](twin)
    assert qk.explain(twin).fast
    assert relative_error(decoded(twin, tokens), whole(twin, tokens)) < NEAR[dtype]
    assert torch.equal(decoded(model, tokens), before)


def test_a_model_that_changes_its_dtype_is_read_in_the_new_one():
    model, tokens = loaded("float32"), ids(1, LENGTH)
    decoded(model, tokens)
    model.to(torch.bfloat16)
    assert qk.explain(model).fast
    assert relative_error(decoded(model, tokens), whole(model, tokens)) < NEAR["bfloat16"]
    model.to(torch.float16)
    assert "float16" in qk.explain(model).reason
    assert relative_error(decoded(model, tokens), whole(model, tokens)) < NEAR["bfloat16"]
