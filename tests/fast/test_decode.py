"""A decode step: the logits are the model's, and it serves where it may and nowhere else."""

import os
import subprocess
import sys

import pytest
import torch
from reference import VARIANTS, ids, pair, relative_error, tiny
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.errors import CacheFullError, InputError
from qwenkit.fast import FastLinear, decode_step, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.generate.steps import next_logits

pytestmark = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
LENGTH, PROMPT = 14, 5


def decoded(model, tokens):
    """Return the logits of each token after a prompt, the cache, and whether each was served."""
    cache = qk.KVCache(model.config, 1, max_length=tokens.shape[1])
    next_logits(model, tokens[:, :PROMPT], cache, 0)
    parts, served = [], []
    with torch.no_grad():
        for i in range(PROMPT, tokens.shape[1]):
            found = decode_step(model, tokens[:, i : i + 1], cache)
            served.append(found is not None)
            parts.append(model(tokens[:, i : i + 1], cache=cache) if found is None else found)
    return torch.cat(parts, dim=1), cache, served


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_logits_are_those_of_transformers_without_a_cache(variant):
    theirs, ours = pair(**variant)
    swap(ours.requires_grad_(False))
    tokens = ids(1, LENGTH)
    with torch.no_grad():
        want = theirs(tokens).logits[:, PROMPT:]
    got, _, served = decoded(ours, tokens)
    assert relative_error(got, want) < 1e-5
    cut = "sliding_window" in variant  # shorter than the prompt: each layer needs a mask
    assert served == [not cut] * (LENGTH - PROMPT)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_every_dtype_decodes_as_the_taught_model_does(dtype, tmp_path):
    model, _ = qk.load_pretrained(write_toy_checkpoint(tmp_path), device="cpu", dtype=dtype)
    swap(model)
    tokens = ids(1, LENGTH) % 50
    got, cache, served = decoded(model, tokens)
    assert all(served)
    with qk.plain(model):
        want, plain, served = decoded(model, tokens)
    assert not any(served)
    near = 1e-5 if dtype == "float32" else 0.03
    assert got.dtype == want.dtype
    assert relative_error(got.float(), want.float()) < near
    assert cache.length == plain.length == LENGTH
    for mine, theirs in ((cache.keys, plain.keys), (cache.values, plain.values)):
        for one, other in zip(mine, theirs, strict=True):
            assert one.dtype == other.dtype
            assert relative_error(one.float(), other.float()) < near


def test_bfloat16_comes_no_further_from_the_truth_than_the_taught_model(tmp_path):
    folder = write_toy_checkpoint(tmp_path)
    exact, _ = qk.load_pretrained(folder, device="cpu", dtype="float32")
    model, _ = qk.load_pretrained(folder, device="cpu", dtype="bfloat16")
    exact.load_state_dict({n: t.float() for n, t in model.state_dict().items()})
    tokens = ids(1, 60) % 50
    true = exact(tokens)[:, PROMPT:]
    swap(model)
    by_kernels, _, served = decoded(model, tokens)
    assert all(served)
    with qk.plain(model):
        taught, _, _ = decoded(model, tokens)
    error, theirs = ((y.float() - true).abs().mean().item() for y in (by_kernels, taught))
    assert error <= 1.02 * theirs


def test_a_batch_padding_several_tokens_and_a_fresh_cache_run_as_taught():
    model = swap(tiny())
    fresh, cache, both = (qk.KVCache(model.config, n, max_length=8) for n in (1, 1, 2))
    with torch.no_grad():
        model(ids(1, 2), cache=cache)
        model(ids(2, 2), cache=both)
        assert decode_step(model, ids(1, 1), cache, torch.tensor([[0, 1, 1]])) is None
        assert decode_step(model, ids(1, 2), cache) is None
        assert decode_step(model, ids(2, 1), both) is None
        assert decode_step(model, ids(1, 1), fresh) is None
        assert (fresh.length, cache.length, both.length) == (0, 2, 2)
        assert decode_step(model, ids(1, 1), cache) is not None
        assert cache.length == 3


@pytest.mark.parametrize("other", [{"num_key_value_heads": 1}, {"head_dim": 10}])
def test_the_cache_of_another_model_is_left_for_the_model_to_refuse(other):
    model, stranger = swap(tiny()), tiny(**other)
    cache = qk.KVCache(stranger.config, 1, max_length=4)
    stranger(ids(1, 2), cache=cache)
    with pytest.raises(InputError, match="make it with this model's config"):
        next_logits(model, ids(1, 1), cache, 0)


def test_a_full_cache_and_a_wrong_id_are_refused_as_by_the_model():
    model = swap(tiny())
    cache = qk.KVCache(model.config, 1, max_length=3)
    next_logits(model, ids(1, 2), cache, 0)
    with pytest.raises(InputError, match="ids must lie between 0 and 60"):
        next_logits(model, torch.tensor([[61]]), cache, 0)
    next_logits(model, ids(1, 1), cache, 0)
    with pytest.raises(CacheFullError, match="3 of 3 tokens"):
        next_logits(model, ids(1, 1), cache, 0)


def test_a_text_longer_than_the_model_was_made_for_warns_as_the_model_does():
    model = swap(tiny(max_position_embeddings=6))
    cache = qk.KVCache(model.config, 1, max_length=9)
    next_logits(model, ids(1, 6), cache, 0)
    with pytest.warns(UserWarning, match="7 tokens are more than the 6"):
        next_logits(model, ids(1, 1), cache, 0)


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


def test_where_gradients_are_asked_for_the_taught_model_runs():
    model = swap(tiny())
    cache = qk.KVCache(model.config, 1, max_length=4)
    model(ids(1, 2), cache=cache)
    assert decode_step(model, ids(1, 1), cache) is None
    model.requires_grad_(True)  # sampled in the middle of a training
    next_logits(model, ids(1, 1), cache, 0)
    with torch.no_grad():
        assert decode_step(model, ids(1, 1), cache) is not None


# --- switching it on and off ---


def test_accelerate_changes_classes_alone_and_only_of_a_large_model(monkeypatch):
    model = tiny()
    kept = {
        name: (id(part), id(getattr(part, "weight", 0))) for name, part in model.named_modules()
    }
    assert type(qk.accelerate(model)) is qk.QwenForCausalLM  # small: as it is
    monkeypatch.setattr("qwenkit.fast.switch.LARGE_MODEL", 0)
    assert qk.accelerate(model) is model
    now = {name: (id(part), id(getattr(part, "weight", 0))) for name, part in model.named_modules()}
    assert now == kept
    assert type(model) is FastQwenForCausalLM
    assert {type(p) for n, p in model.named_modules() if n.endswith("_proj")} == {FastLinear}
    assert str(qk.explain(model)).splitlines()[0].endswith("compiled kernels")


def test_plain_gives_the_taught_classes_and_takes_them_back_after_an_error():
    model = swap(tiny())
    before = [type(part) for part in model.modules()]
    taught = [type(part) for part in tiny().modules()]

    def inside():
        with qk.plain(model) as same:
            assert same is model
            assert [type(part) for part in model.modules()] == taught
            assert "not accelerated" in str(qk.explain(model))
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert [type(part) for part in model.modules()] == before


def test_lora_keeps_the_fast_product_and_plain_takes_it_away():
    model = swap(tiny())
    qk.add_lora(model, rank=2)
    kind = type(model.model.layers[0].self_attn.q_proj)
    assert issubclass(kind, FastLinear)
    with qk.plain(model):
        assert not any(isinstance(part, FastLinear) for part in model.modules())
    assert type(model.model.layers[0].self_attn.q_proj) is kind
    qk.remove_lora(model)
    assert qk.explain(model).fast


def test_an_environment_variable_switches_it_off(monkeypatch):
    model = swap(tiny())
    monkeypatch.setenv("QWENKIT_PLAIN", "1")
    assert qk.explain(model).reason == "QWENKIT_PLAIN is set"
    monkeypatch.setattr("qwenkit.fast.switch.LARGE_MODEL", 0)
    assert type(qk.accelerate(tiny())) is qk.QwenForCausalLM
    monkeypatch.setenv("QWENKIT_PLAIN", "0")
    assert qk.explain(model).fast


def test_explain_takes_no_stranger_for_a_model():
    assert "Linear, not a QwenForCausalLM" in qk.explain(torch.nn.Linear(2, 2)).reason
