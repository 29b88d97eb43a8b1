"""Replacing a part: what runs instead, on every path, and that all is as it was afterwards."""

import pytest
import torch
from reference import ids, relative_error, tiny
from torch import nn

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import swap
from qwenkit.generate.steps import next_logits
from qwenkit.model import MLP, eager_attention, fused_attention, repeat_kv
from qwenkit.model import attention as attention_file

TOKENS = ids(1, 9)


@pytest.fixture(params=["taught", "fast"])
def model(request):
    made = tiny()
    return swap(made) if request.param == "fast" else made


def decoded(model):
    """Return the last token's logits, token by token behind a cache."""
    cache = qk.KVCache(model.config, 1, 9)
    next_logits(model, TOKENS[:, :5], cache, 0)
    return [next_logits(model, TOKENS[:, i : i + 1], cache, 0) for i in range(5, 9)][-1][0]


class Half(nn.Module):
    def forward(self, x):
        return x / 2


def loud(self, x, trace=None):
    return 3 * type(self).forward(self, x, trace)


def half_mlp(self, x, trace=None):
    return self.down_proj(torch.sigmoid(self.gate_proj(x)) * self.up_proj(x))


def itself(queries, past, *, real, window, device):
    return torch.eye(past + queries).bool()[None, None, -queries:]


CORE = ["fused_attention", "eager_attention"]
CASES = {  # target, what replaces it, names that are told
    "a function for every MLP": ("layers.*.mlp", lambda x: x * 0, ["layers.0.mlp", "layers.2.mlp"]),
    "with trace": ("layers.*.mlp", lambda x, trace: x * 0, ["layers.1.mlp"]),
    "with self": ("layers.1.mlp", loud, ["layers.1.mlp"]),
    "with self and its parts": ("layers.*.mlp", half_mlp, ["layers.1.mlp"]),
    "a module": ("layers.1.mlp", Half(), ["layers.1.mlp"]),
    "the same module twice": ("layers.*.mlp", Half(), ["layers.0.mlp", "layers.1.mlp"]),
    "a module that takes no trace": ("layers.0.mlp", nn.Identity(), ["layers.0.mlp"]),
    "a full name": ("model.layers.0.input_layernorm", nn.Identity(), ["layers.0.input_layernorm"]),
    "a projection": ("layers.2.self_attn.q_proj", lambda x: torch.ones(*x.shape[:2], 32), None),
    "attention": ("layers.1.self_attn", lambda x, rope, mask, cache: x, ["layers.1.self_attn"]),
    "attention, called as before":
        ("layers.1.self_attn", lambda self, *given: -type(self).forward(self, *given), None),
    "a layer": ("layers.1", lambda x, *rest: x, ["layers.1"]),
    "every norm": (["layers.*.*_layernorm", "norm"], lambda x: x / 2, ["layers.2.input_layernorm"]),
    "the embedding": ("embed_tokens", lambda i: torch.ones(*i.shape, 32), ["embed_tokens"]),
    "the head": ("lm_head", lambda x: x.repeat(1, 1, 2)[..., :61], ["lm_head"]),
    "RoPE's tables": (
        "rotary_emb", lambda self, p, dtype: type(self).forward(self, p * 0, dtype), ["rotary_emb"]
    ),
    "a taught function": ("apply_rope", lambda x, cos, sin: x, ["apply_rope"]),
    "one under another name": ("attention_mask", itself, ["attention_mask"]),
    "attention's core": (CORE, lambda q, k, v, mask: repeat_kv(v, 2)[:, :, -q.shape[2] :], CORE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_runs_on_every_path_and_is_taken_back(case, model):
    target, new, told = CASES[case]
    before, keys = model(TOKENS)[0, -1], [set(vars(m)) for m in model.modules()]
    with qk.replace(model, target, new) as replaced:
        whole = model(TOKENS)[0, -1]
        assert relative_error(whole, before) > 1e-3
        assert relative_error(decoded(model), whole) < 1e-5
        traced = model(TOKENS, trace=qk.Trace(keep=("attn.pattern",)))[0, -1]
        if "fused_attention" not in target or "eager_attention" in target:
            assert relative_error(traced, whole) < 1e-5
        assert not qk.explain(model).fast
        assert set(told or []) <= set(replaced.names)
        assert str(replaced).startswith(f"replaced {len(replaced.names)}: {replaced.names[0]}")
    assert torch.equal(model(TOKENS)[0, -1], before)
    assert [set(vars(m)) for m in model.modules()] == keys
    assert relative_error(decoded(model), before) < 1e-5


def test_after_an_error_all_is_as_it_was(model):
    before = model(TOKENS)

    replaced = qk.replace(model, ["layers.*.mlp", "apply_rope"], lambda x, *rest: x * 0)
    with pytest.raises(KeyError), replaced:
        raise KeyError
    assert torch.equal(model(TOKENS), before)
    assert attention_file.fused_attention is fused_attention


def test_blocks_may_be_nested_and_keep_what_a_reader_set_before(model):
    own = lambda x, trace=None: x * 2  # noqa: E731
    model.model.layers[1].mlp.forward = own
    first = model(TOKENS)
    with qk.replace(model, "layers.1.mlp", lambda x: x * 3):
        second = model(TOKENS)
        with qk.replace(model, "layers.*.mlp", Half()):
            assert not torch.equal(model(TOKENS), second)
        assert torch.equal(model(TOKENS), second)
    assert torch.equal(model(TOKENS), first)
    assert model.model.layers[1].mlp.forward is own


def test_a_module_is_replaced_in_this_model_alone_and_a_function_in_all(model):
    other = tiny(seed=1)
    before = other(TOKENS)
    with qk.replace(model, "layers.*.mlp", lambda x: x * 0):
        assert torch.equal(other(TOKENS), before)
    with qk.replace(model, "apply_rope", lambda x, cos, sin: x):
        assert not torch.equal(other(TOKENS), before)
    assert torch.equal(other(TOKENS), before)


def test_a_trace_sees_what_runs_instead(model):
    trace = qk.Trace(keep=("mlp.out", "resid_post", "resid_mid"))
    with qk.replace(model, "layers.1.mlp", lambda x: torch.ones_like(x)):
        model(TOKENS, trace=trace)
    assert "layers.1.mlp.out" not in trace  # the part that records it did not run
    difference = trace["layers.1.resid_post"] - trace["layers.1.resid_mid"]
    torch.testing.assert_close(difference, torch.ones_like(difference))


def test_a_block_keeps_trained_parameters_reachable(model):
    part = Half()
    with qk.replace(model, "layers.1.mlp", part):
        assert any(module is part for module in model.modules())
    assert isinstance(model.model.layers[1].mlp, MLP)


REFUSED = {
    "a name that is nowhere": ("layers.*.mpl", lambda x: x, "did you mean .*mlp"),
    "a missing layer": ("layers.9.mlp", lambda x: x, "neither a part of this model nor a"),
    "a private function": ("_yarn_", lambda x: x, "neither a part"),
    "no function": ("norm", 3, "new is 3; it must be a module or a function"),
    "too few arguments":
        ("layers.0", lambda x: x, r"\(x, rope, mask, cache, trace\); it takes \(x\)"),
    "a module that takes too few": ("layers.0.self_attn", Half(), "x, rope, mask, cache, trace"),
    "a function that takes too many": ("apply_rope", lambda a, b, c, d: a, r"\(x, cos, sin\)"),
    "one good, one bad": (["norm", "nom"], lambda x: x * 0, "did you mean 'norm'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_replaced_is_refused_and_nothing_is_changed(case, model):
    target, new, words = REFUSED[case]
    before = model(TOKENS)
    with pytest.raises(InputError, match=words), qk.replace(model, target, new):
        pass
    assert torch.equal(model(TOKENS), before)


def test_eager_attention_may_stand_in_for_the_fused_kernel(model):
    want = model(TOKENS)
    with qk.replace(model, "fused_attention", eager_attention):
        assert relative_error(model(TOKENS), want) < 1e-5


class Third(nn.Module):
    def forward(self, x, trace=None):
        return x / 3


def test_nested_blocks_reach_a_function_again_and_one_module_in_many_places(model):
    before = model(TOKENS)
    with qk.replace(model, "apply_rope", lambda x, cos, sin: x):
        without = model(TOKENS)
        with qk.replace(model, "apply_rope", lambda x, cos, sin: -x) as inner:
            assert inner.names == ("apply_rope",)
            assert relative_error(model(TOKENS), without) < 1e-5  # (-q)·(-k) = q·k
    with qk.replace(model, "layers.*.mlp", Half()), qk.replace(model, "layers.*.mlp", Third()) as r:
        assert len(r.names) == 3
        assert all(isinstance(layer.mlp, Third) for layer in model.model.layers)
    assert torch.equal(model(TOKENS), before)


@pytest.mark.parametrize("function", [torch.tanh, torch.zeros_like, torch.relu])
def test_a_function_written_in_c_is_not_given_the_trace(model, function):
    with qk.replace(model, "layers.*.mlp", function):
        got = model(TOKENS)
    with qk.replace(model, "layers.*.mlp", lambda x: function(x)):
        assert torch.equal(model(TOKENS), got)
