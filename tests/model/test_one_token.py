"""One token through all layers by compiled loops: the numbers of the layers, and when it serves."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from reference import VARIANTS, ids, pair, relative_error, tiny
from torch import nn

import qwenkit as qk
from qwenkit.model import qwen as room
from qwenkit.model import reading
from qwenkit.fast.kernels.layer import (
    Product,
    as_stored,
    attend,
    product,
    rms_norm,
    rotate,
    round_to_bfloat16,
)
from qwenkit.model.norm import RMSNorm
from qwenkit.model.reading import compiled_loop, prepare
from qwenkit.model.rope import apply_rope
from toy import write_toy_checkpoint

pytestmark = [
    pytest.mark.skipif(compiled_loop() is None, reason="the loops are not for this processor"),
    pytest.mark.usefixtures("every_model_is_large"),
]
LENGTH, PROMPT = 14, 5


@pytest.fixture
def every_model_is_large(monkeypatch):
    monkeypatch.setattr(reading, "LARGE_MODEL", 0)


@pytest.fixture
def served(monkeypatch):
    """Return a list that tells of each asked token whether the loops served."""
    answers, original = [], room.through_layers

    def watched(*given):
        found = original(*given)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(room, "through_layers", watched)
    return answers


def decoded(model, tokens, **settings):
    """Return the logits of a prompt and of each token after it, with the cache they left."""
    cache = qk.KVCache(model.config, 1, max_length=tokens.shape[1])
    parts = [model(tokens[:, :PROMPT], cache=cache)]
    for i in range(PROMPT, tokens.shape[1]):
        parts.append(model(tokens[:, i : i + 1], cache=cache, **settings))
    return torch.cat(parts, dim=1), cache


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_logits_are_those_of_transformers_without_a_cache(variant, served):
    theirs, ours = pair(**variant)
    prepare(ours.requires_grad_(False))
    tokens = ids(1, LENGTH)
    with torch.no_grad():
        want = theirs(tokens).logits
    got, _ = decoded(ours, tokens)
    assert relative_error(got, want) < 1e-5
    cut = "sliding_window" in variant  # shorter than the prompt: each layer needs a mask
    assert (any(served) and all(served)) != cut


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_dtype_decodes_as_by_the_layers(dtype, served, tmp_path, monkeypatch):
    model, _ = qk.load_pretrained(write_toy_checkpoint(tmp_path), device="cpu", dtype=dtype)
    tokens = ids(1, LENGTH) % 50
    got, cache = decoded(model, tokens)
    assert served == [True] * (LENGTH - PROMPT)
    monkeypatch.setattr(room, "through_layers", lambda *_: None)
    want, plain = decoded(model, tokens)
    near = 1e-5 if dtype == "float32" else 0.03
    assert got.dtype == want.dtype
    assert relative_error(got.float(), want.float()) < near
    assert cache.length == plain.length == LENGTH
    for mine, layers in ((cache.keys, plain.keys), (cache.values, plain.values)):
        for one, other in zip(mine, layers, strict=True):
            assert one.dtype == other.dtype
            assert relative_error(one.float(), other.float()) < near


def test_bfloat16_comes_no_further_from_the_truth_than_by_the_layers(tmp_path, monkeypatch):
    folder = write_toy_checkpoint(tmp_path)
    exact, _ = qk.load_pretrained(folder, device="cpu", dtype="float32")
    model, _ = qk.load_pretrained(folder, device="cpu", dtype="bfloat16")
    exact.load_state_dict({n: t.float() for n, t in model.state_dict().items()})
    tokens = ids(1, 60) % 50
    true = exact(tokens)
    by_loops, _ = decoded(model, tokens)
    monkeypatch.setattr(room, "through_layers", lambda *_: None)
    by_layers, _ = decoded(model, tokens)
    error, theirs = ((y.float() - true).abs().mean().item() for y in (by_loops, by_layers))
    assert error <= 1.02 * theirs


def hook(model):
    model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: None)


def own_module(model):
    old = model.model.layers[0].mlp.down_proj
    plain = nn.Linear(old.in_features, old.out_features, bias=False).requires_grad_(False)
    plain.weight = old.weight
    model.model.layers[0].mlp.down_proj = plain


def other_layer(model):
    class Loud(type(model.model.layers[0])):
        pass

    model.model.layers[1].__class__ = Loud


def trained_norm(model):
    model.model.layers[1].input_layernorm.weight.requires_grad_(True)


KEPT_AWAY = {
    "a hook": hook,
    "somebody's own module": own_module,
    "somebody's own layer": other_layer,
    "LoRA": lambda model: qk.add_lora(model, rank=2),
    "a replaced weight": lambda model: setattr(
        model.model.layers[0].self_attn.k_proj,
        "weight",
        nn.Parameter(model.model.layers[0].self_attn.k_proj.weight * 2, requires_grad=False),
    ),
}


@pytest.mark.parametrize("case", KEPT_AWAY)
def test_what_is_not_built_here_goes_by_the_layers(case, served):
    model = tiny()
    prepare(model)
    KEPT_AWAY[case](model)
    tokens = ids(1, LENGTH)
    with torch.no_grad():
        got, _ = decoded(model, tokens)
        assert not any(served)
        assert relative_error(got, model(tokens)) < 1e-5


def test_a_trace_a_batch_padding_and_a_fresh_cache_go_by_the_layers(served):
    model = tiny()
    prepare(model)
    cache = qk.KVCache(model.config, 1, max_length=4)
    model(ids(1, 1), cache=cache)
    assert served == [False]  # the cache had no memory yet
    served.clear()
    trace = qk.Trace(keep=("resid_post",))
    model(ids(1, 1), cache=cache, trace=trace)
    model(ids(1, 1))
    model(ids(1, 1), cache=cache, attention_mask=torch.tensor([[0, 1, 1]]))
    both = qk.KVCache(model.config, 2, max_length=4)
    model(ids(2, 1), cache=both)
    model(ids(2, 1), cache=both)
    assert served == []


@pytest.mark.parametrize("other", [{"num_key_value_heads": 1}, {"head_dim": 10}])
def test_the_cache_of_another_model_is_left_for_the_layers_to_refuse(other, served):
    model, stranger = tiny(), tiny(**other)
    prepare(model)
    cache = qk.KVCache(stranger.config, 1, max_length=4)
    stranger(ids(1, 2), cache=cache)
    with pytest.raises(qk.errors.InputError, match="make it with this model's config"):
        model(ids(1, 1), cache=cache)
    assert served == [False]


def test_a_weight_that_does_not_fit_is_refused_before_memory_is_read():
    weight, none = np.ones((6, 4), np.float32), np.empty(0, np.float32)
    six, five = np.ones(6, np.float32), np.ones(5, np.float32)
    assert product(np.ones(4, np.float32), Product(weight, none, six)).tolist() == [5.0] * 6
    with pytest.raises(ValueError, match="not as many columns"):
        product(five, Product(weight, none, none))
    for beside in ((none, five), (five, none)):
        with pytest.raises(ValueError, match="not as many numbers"):
            product(np.ones(4, np.float32), Product(weight, *beside))


def test_a_small_model_writes_without_loading_the_compiler():
    code = (
        "import sys, qwenkit; model, tokenizer = qwenkit.load_pretrained(device='cpu'); "
        "list(qwenkit.generate(model, tokenizer('def'), 3)); print('numba' in sys.modules)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "QWENKIT_MODEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain
    )
    assert done.stdout.split() == ["False"]


def test_an_edited_weight_counts_from_the_next_token_on(served):
    model = tiny()
    prepare(model, {n: t.bfloat16() for n, t in model.state_dict().items()})
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.mul_(1.5)
    tokens = ids(1, LENGTH)
    got, _ = decoded(model, tokens)
    assert any(served)
    assert relative_error(got, model(tokens)) < 1e-5


def test_a_weight_that_is_trained_goes_by_the_layers_where_gradients_are_asked_for(served):
    model = tiny()
    prepare(model)
    trained_norm(model)
    with torch.no_grad():
        decoded(model, ids(1, LENGTH))
    assert all(served)
    with pytest.raises(qk.errors.InputError, match="backpropagation"):
        decoded(model, ids(1, LENGTH))


# --- the loops one by one ---


def test_norm_rotation_and_attention_are_the_models_own():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(24, generator=generator) for _ in range(2))
    norm = RMSNorm(24, 1e-3)
    norm.weight.data = weight
    np.testing.assert_allclose(
        rms_norm(x.numpy(), weight.numpy(), 1e-3), norm(x).detach().numpy(), rtol=1e-5
    )
    heads, cos, sin = (torch.randn(n, 8, generator=generator) for n in (4, 1, 1))
    want = apply_rope(heads[None, :, None], cos[None], sin[None])[0, :, 0]
    rotate(heads.numpy(), cos[0].numpy(), sin[0].numpy())
    torch.testing.assert_close(heads, want)
    q, k, v = (torch.randn(n, 9, 8, generator=generator) for n in (4, 2, 2))
    z = attend(q[:, 0].numpy(), k.numpy(), v.numpy(), 7)  # two slots of the cache are empty yet
    one = nn.functional.scaled_dot_product_attention(
        q[None, :, :1], k[None, :, :7], v[None, :, :7], enable_gqa=True
    )
    torch.testing.assert_close(torch.from_numpy(z), one[0, :, 0])


def test_scores_of_any_size_give_no_infinity():
    q = np.full((2, 4), 300, np.float32)
    keys = np.stack([np.full((5, 4), 300, np.float32), np.full((5, 4), -300, np.float32)])
    z = attend(q, keys, np.ones_like(keys), 5)
    np.testing.assert_allclose(z, 1, rtol=1e-6)


def test_rounding_to_bfloat16_is_torchs():
    special = [0.0, -0.0, 1e-40, 3.3895e38, 3.4e38, float("inf"), float("-inf"), float("nan")]
    halves = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20]  # half-way, and just above
    numbers = torch.cat([torch.tensor(special + halves), torch.randn(500)])
    got = np.array([round_to_bfloat16(n) for n in numbers.numpy()], np.uint16)
    want = numbers.bfloat16()
    torch.testing.assert_close(
        torch.from_numpy(got).view(torch.bfloat16), want, rtol=0, atol=0, equal_nan=True
    )
    assert as_stored(np.empty(1, np.float32), 1.1) == 1.1
    assert as_stored(np.empty(1, np.uint16), np.float32(1.0)) == 0x3F80
