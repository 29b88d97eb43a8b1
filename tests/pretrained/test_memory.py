"""Forecasts equal what is really taken, and what cannot fit is refused before it is loaded."""

import pytest
import torch
from fixtures_toy import PUBLISHED, published, small_config

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint
from qwenkit.errors import InputError, MemoryForecastError
from qwenkit.files import format_bytes
from qwenkit.pretrained import _loading as loading
from qwenkit.pretrained import _memory as memory
from qwenkit.pretrained import forecast
from qwenkit.pretrained._memory import refuse_what_cannot_fit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "overrides", [{}, {"tie_word_embeddings": False}, {"head_dim": 6}, {"num_hidden_layers": 3}]
)
def test_weights_equal_the_bytes_of_the_built_model(dtype, overrides):
    config = small_config(**overrides)
    model = qk.QwenForCausalLM(config).to(DTYPES[dtype])
    assert forecast(config, dtype).weights == sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("length", "batch"), [(1, 1), (17, 1), (9, 3)])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_cache_equals_the_bytes_of_the_real_one(dtype, length, batch, kv_heads):
    config = small_config(num_key_value_heads=kv_heads, num_hidden_layers=2)
    model = qk.QwenForCausalLM(config).to(DTYPES[dtype]).requires_grad_(False)
    cache = qk.KVCache(config, batch_size=batch, max_length=length)
    model(torch.zeros(batch, 1, dtype=torch.long), cache=cache)
    assert cache.nbytes > 0
    assert forecast(config, dtype, length, batch).cache == cache.nbytes


def test_weights_of_the_published_sizes_and_the_cache_of_one():
    for size, (*_, parameters) in PUBLISHED.items():
        assert forecast(published(size), "bfloat16").weights == 2 * parameters
        assert forecast(published(size), "float32").weights == 4 * parameters
    # 2 (keys and values) × 24 layers × 2 kv heads × 64 dimensions × 2 bytes = 12,288 per token
    assert forecast(published("0.5B"), "bfloat16", 1_000).cache == 12_288_000


@pytest.fixture(params=[True, False], ids=["bfloat16 products", "none"])
def native(request, monkeypatch):
    """Whether the processor has bfloat16 instructions; the tests try both kinds."""
    monkeypatch.setattr(memory, "has_bfloat16_products", lambda: request.param)
    return request.param


def test_activations_in_float32_by_hand(native):
    config = small_config()  # hidden 4, intermediate 6, 2 heads, vocabulary 8
    few = forecast(config, "float32", 10, logits_to_keep=1).activations
    assert few == 8 * 10 * 4 * 4 + 4 * 10 * 6 * 4  # stream and attention; the MLP, as below
    assert forecast(config, "float32", 10, 2, logits_to_keep=1).activations == 2 * few
    wide = small_config(vocab_size=1_000)
    assert forecast(wide, "float32", 10).activations == 8 * 10 * 4 * 4 + 10 * 1_000 * 4  # logits
    opened = forecast(config, "float32", 100, logits_to_keep=1, eager_attention=True)
    assert opened.activations == 8 * 100 * 4 * 4 + 2 * 100 * 100 * (4 + 4)  # masked and softmax
    traced = forecast(config, "float32", 1, logits_to_keep=1, eager_attention=True)
    assert traced.activations == 8 * 4 * 4 + 4 * 6 * 4  # gate, SiLU(gate), up and their product


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_activations_in_bfloat16_by_hand(dtype, native):
    # a token's stream: eight tensors, and three float32 copies in the norm, five of products
    stream = 8 * 4 * 2 + (3 if native else 8) * 4 * 4
    config = small_config()
    few = forecast(config, dtype, 10, logits_to_keep=1).activations
    assert few == 10 * (stream + 6 * (4 * 2 + (0 if native else 4)))  # MLP; its product upcast
    wide = small_config(vocab_size=1_000)
    in_logits = 4 if dtype == "int8" else 2
    assert forecast(wide, dtype, 10).activations == 10 * (stream + 1_000 * in_logits)  # once
    opened = forecast(config, dtype, 100, logits_to_keep=1, eager_attention=True)
    # masked scores, the same in float32, and their softmax
    assert opened.activations == 100 * stream + 2 * 100 * 100 * (2 + 4 + 4)


def test_float16_is_multiplied_as_it_is_and_the_total_is_the_sum(native):
    few = forecast(small_config(), "float16", 10, logits_to_keep=1).activations
    assert few == 10 * (8 * 4 * 2 + 3 * 4 * 4 + 4 * 6 * 2)
    found = forecast(small_config(), "bfloat16", 64, 2)
    assert found.total == found.weights + found.cache + found.activations
    assert min(found.weights, found.cache, found.activations) > 0


def test_bad_arguments_are_refused_and_bytes_are_written_for_people():
    for settings, message in (
        ({"dtype": "int3"}, "dtype is 'int3'"), ({"dtype": "torch.float32"}, "dtype is"),
        ({"length": 0}, "length is 0"), ({"length": -3}, "length is -3"),
        ({"batch_size": 0}, "batch_size 0"), ({"logits_to_keep": -1}, "logits_to_keep -1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            forecast(small_config(), **settings)
    shown = [format_bytes(count) for count in (988_097_824, 15_231_233_024, 0)]
    assert shown == ["988 MB", "15.2 GB", "0 B"]


# --- refusing ---


@pytest.mark.parametrize(("dtype", "free", "advice"), [
    ("float32", 20, "bfloat16"), *((dtype, 8, "smaller") for dtype in DTYPES),
])  # fmt: skip
def test_bfloat16_is_advised_where_that_would_fit_else_a_smaller_model(dtype, free, advice):
    with pytest.raises(MemoryError) as caught:
        refuse_what_cannot_fit(published("7B"), dtype, free * 10**9, "Qwen/some-model")
    assert type(caught.value) is MemoryForecastError
    message = str(caught.value)
    if dtype == "float32":
        assert "Qwen/some-model in float32 needs about 30.7 GB (weights 30.5 GB" in message
    assert f"{free} GB is free" in message
    assert ('load it with dtype="bfloat16" (15.4 GB)' in message) == (advice == "bfloat16")
    assert ("take a smaller model" in message) == (advice == "smaller")


@pytest.mark.parametrize(("dtype", "advice"), [("float32", "bfloat16"), ("bfloat16", "smaller")])
@pytest.mark.parametrize("load", [qk.load_pretrained, qk.load_model])
def test_what_cannot_fit_is_refused_before_it_is_read(toy, monkeypatch, load, dtype, advice):
    # Without such products, float32 copies outweigh what a model this small saves in bfloat16.
    monkeypatch.setattr(memory, "has_bfloat16_products", lambda: True)
    need = forecast(Checkpoint(toy).config, dtype, logits_to_keep=1).total
    monkeypatch.setattr(loading, "free_memory", lambda: need)
    model = load(toy, dtype=dtype)  # it fits to the byte
    assert (model if load is qk.load_model else model[0]).dtype == DTYPES[dtype]
    monkeypatch.setattr(loading, "free_memory", lambda: need - 1)
    monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(MemoryForecastError, match=f"{toy} in {dtype} needs .*{advice}"):
        load(toy, dtype=dtype)
