"""The int8 cache: what is stored, how near it stays, and that everything takes it as a cache."""

import pytest
import torch
from fixtures_toy import small_config
from reference import VARIANTS, ids, left_padding, relative_error, tiny
from speaking import tokens

import qwenkit as qk
from qwenkit.config import CACHE_GROUP
from qwenkit.errors import CacheFullError, InputError, MemoryForecastError
from qwenkit.fast import Int8Cache, decode_step, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.int8_cache import pack, unpack
from qwenkit.generate import _prompts as prompts_file
from qwenkit.generate import cache_for
from qwenkit.pretrained import EMBEDDED

pytestmark = pytest.mark.usefixtures("one_thread")
TOTAL = 14
FLOATS = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def coder():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")


def by_hand(vectors):
    """Round vectors (..., D) to int8 and back, group by group, in float64."""
    size = vectors.shape[-1] if vectors.shape[-1] % CACHE_GROUP else CACHE_GROUP
    parts = []
    for part in vectors.split(size, dim=-1):
        step = (part.float().abs().amax(-1, keepdim=True) / 127).bfloat16().double()
        numbers = (part.double() / step.clamp(min=1e-300)).round().clamp(-127, 127)
        parts.append((numbers * step).to(vectors.dtype))
    return torch.cat(parts, dim=-1)


def rounded(model, tokens, mask=None):
    """Return the logits of a forward pass without a cache whose keys and values are rounded."""
    edits = {"attn.k_rot": by_hand, "attn.v": by_hand}
    return model(tokens, attention_mask=mask, trace=qk.Trace(keep=(), edits=edits))


def in_parts(model, tokens, sizes, mask=None, cache=None):
    """Return the logits of tokens that are fed in parts, after those that the cache holds."""
    cache, parts = cache or Int8Cache(model.config, len(tokens), tokens.shape[1]), []
    for size in sizes:
        begin, end = cache.length, cache.length + size
        seen = None if mask is None else mask[:, :end]
        parts.append(model(tokens[:, begin:end], cache=cache, attention_mask=seen))
    return torch.cat(parts, dim=1)


# --- rounding ---


def test_a_vector_is_stored_as_integers_and_the_bytes_of_its_scales():
    vector = torch.tensor([[1.0, -0.25, 100.0, 30.0]])
    packed = pack(vector, 2)
    assert packed.dtype == torch.int8
    assert packed.shape == (1, 4 + 2 * 2)
    assert packed[0, :4].tolist() == [127, -32, 127, 38]
    scales = torch.tensor([1 / 127, 100 / 127]).bfloat16()
    assert torch.equal(packed[0, 4:], scales.view(torch.int8))
    want = torch.tensor([[127.0, -32, 127, 38]]) * scales.float().repeat_interleave(2)
    assert torch.equal(unpack(packed, 2, torch.float32), want)
    whole = pack(vector, 1)
    assert whole[0, :4].tolist() == [1, 0, 127, 38]
    assert whole.shape == (1, 4 + 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("groups", [1, 4])
def test_each_number_is_off_by_half_a_step_at_most(dtype, size, groups):
    if dtype == "float16":
        size = max(size, 1e-3)  # its smallest numbers have fewer bits than int8
    vectors = torch.randn(2, 3, 5, 32) * torch.logspace(0, -3, 5)[:, None] * size
    vectors[..., 7] *= 4  # outliers
    vectors = vectors.clamp(-6e4, 6e4).to(FLOATS[dtype])
    packed = pack(vectors, groups)
    assert packed.shape == (2, 3, 5, 32 + 2 * groups)
    got = unpack(packed, groups, FLOATS[dtype])
    assert got.dtype == FLOATS[dtype]
    grouped = vectors.double().unflatten(-1, (groups, -1))
    step = (grouped.abs().amax(-1, keepdim=True) / 127).bfloat16().double()
    error = (got.double().unflatten(-1, (groups, -1)) - grouped).abs()
    info = torch.finfo(FLOATS[dtype])
    reading = grouped.abs() * info.eps + info.smallest_normal * info.eps  # rounds once more
    assert (error <= step / 2 + reading).all()
    assert (error > step / 4).any()  # as it would not be without rounding


def test_zeros_stay_zeros_and_an_outlier_costs_its_own_group_alone():
    vectors = torch.zeros(1, 2, 3, 32)
    vectors[0, 1, 2] = torch.randn(32)
    before = unpack(pack(vectors, 2), 2, torch.float32)
    assert torch.equal(before[0, 0], torch.zeros(3, 32))
    assert torch.equal(before[0, 1, :2], torch.zeros(2, 32))
    vectors[0, 1, 2, 20] = -3e4
    after = unpack(pack(vectors, 2), 2, torch.float32)
    assert torch.equal(after[0, 1, 2, :16], before[0, 1, 2, :16])
    assert after[0, 1, 2, 20].item() == pytest.approx(-3e4, rel=1 / 254)
    assert torch.equal(after[0, 1, 2, 21:], torch.zeros(11))  # below half a step of 236


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
def test_what_is_not_finite_makes_its_group_so_and_no_other(value, dtype):
    vectors = torch.randn(1, 2, 3, 32).to(FLOATS[dtype])
    sound = unpack(pack(vectors, 2), 2, FLOATS[dtype])
    vectors[0, 1, 0, 17] = value
    got = unpack(pack(vectors, 2), 2, FLOATS[dtype])
    bad = torch.zeros(1, 2, 3, 32).bool()
    bad[0, 1, 0, 16:] = True
    assert torch.equal(got.isfinite(), ~bad)
    assert torch.equal(got[~bad], sound[~bad])


@pytest.mark.parametrize("part", ["k_proj", "v_proj"])
@pytest.mark.parametrize("value", [NAN, INFINITE])
def test_generate_refuses_a_damaged_model_as_with_any_cache(part, value):
    model = tiny()
    list(qk.generate(model, [1, 2, 3], 2, cache_dtype="int8"))
    getattr(model.model.layers[1].self_attn, part).bias[0] = value
    for cache_dtype in ("auto", "int8"):
        with pytest.raises(InputError, match="not finite"):
            list(qk.generate(model, [1, 2, 3], 2, cache_dtype=cache_dtype))


# --- the model ---


@pytest.mark.parametrize("lengths", [None, (5, 9)], ids=["unpadded", "left-padded"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_rounded_keys_and_values(variant, lengths):
    model, tokens = tiny(**VARIANTS[variant]), ids(3, TOTAL)
    mask = lengths and left_padding([TOTAL, *lengths], TOTAL)
    real = torch.ones(3, TOTAL).bool() if mask is None else mask.bool()
    got = in_parts(model, tokens, [TOTAL], mask)
    assert relative_error(got[real], rounded(model, tokens, mask)[real]) < 1e-5
    apart = relative_error(got[real], model(tokens, attention_mask=mask)[real])
    assert 1e-4 < apart < 0.1  # rounding costs something, and not much


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_reads_what_it_wrote(dtype):
    model, tokens = tiny(dtype=FLOATS[dtype]), ids(2, TOTAL)
    cache = Int8Cache(model.config, 2, TOTAL)
    got = model(tokens, cache=cache)
    assert got.dtype == FLOATS[dtype]
    assert cache.keys[0].dtype == torch.int8
    near = 1e-5 if dtype == "float32" else 1e-2
    assert relative_error(got.float(), rounded(model, tokens).float()) < near


# In float64, as numbers that differ in their last bits may round to two integers.
@pytest.mark.parametrize("lengths", [None, (5, 9)], ids=["unpadded", "left-padded"])
@pytest.mark.parametrize("sizes", [[1] * TOTAL, [TOTAL - 4, 1, 1, 1, 1], [3, 1, 6, 4]], ids=str)
@pytest.mark.parametrize("variant", ["gqa", "mqa", "head_dim", "sliding"])
def test_logits_do_not_depend_on_the_division_into_forward_passes(variant, sizes, lengths):
    model, tokens = tiny(**VARIANTS[variant], dtype=torch.float64), ids(3, TOTAL)
    mask = lengths and left_padding([TOTAL, *lengths], TOTAL)
    real = torch.ones(3, TOTAL).bool() if mask is None else mask.bool()
    got = in_parts(model, tokens, sizes, mask)
    assert relative_error(got[real], rounded(model, tokens, mask)[real]) < 1e-5


def test_it_goes_on_after_trim_reset_and_reorder():
    model, tokens, other = tiny(dtype=torch.float64), ids(3, 8), ids(3, 12, seed=7)
    cache = Int8Cache(model.config, 3, 12)
    model(tokens, cache=cache)
    cache.trim(5)
    mixed = torch.cat([tokens[:, :5], other[:, 5:]], dim=1)
    got = model(mixed[:, 5:10], cache=cache)
    assert relative_error(got, rounded(model, mixed)[:, 5:10]) < 1e-5
    rows = [2, 0, 0, 1]
    cache.reorder(rows)
    assert (cache.batch_size, cache.length) == (4, 10)
    last = torch.cat([mixed[rows, :10], ids(4, 2, seed=5)], dim=1)
    got = model(last[:, 10:], cache=cache)
    assert relative_error(got, rounded(model, last)[:, 10:]) < 1e-5
    cache.reset()
    got = model(last, cache=cache)
    assert relative_error(got, rounded(model, last)) < 1e-5


def test_what_is_begun_in_inference_mode_goes_on_outside_of_it():
    model, tokens = tiny(dtype=torch.float64), ids(2, TOTAL)
    cache = Int8Cache(model.config, 2, TOTAL)
    with torch.inference_mode():
        model(tokens[:, :5], cache=cache)
        cache.reorder([0, 1])
    got = in_parts(model, tokens, [TOTAL - 5], cache=cache)
    assert relative_error(got, rounded(model, tokens)[:, 5:]) < 1e-5


def test_two_dtypes_may_share_it_and_what_does_not_fit_is_refused():
    model, tokens = tiny(), ids(1, 6)
    cache = Int8Cache(model.config, 1, 7)
    model(tokens[:, :3], cache=cache)
    tiny(dtype=torch.bfloat16)(tokens[:, 3:], cache=cache)
    assert cache.length == 6
    before = [buffer.clone() for buffer in cache.keys + cache.values]
    with pytest.raises(CacheFullError, match="6 of 7"):
        model(tokens, cache=cache)
    with pytest.raises(InputError, match="make it with this model's config"):
        tiny(head_dim=16)(tokens[:, :1], cache=cache)
    with pytest.raises(InputError, match="backpropagation"):
        tiny().requires_grad_(True)(tokens[:, :1], cache=cache)
    with pytest.raises(InputError, match="max_length is 0"):
        Int8Cache(model.config, 1, 0)
    assert cache.length == 6
    assert all(map(torch.equal, before, cache.keys + cache.values))


# --- bytes ---


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(1, 16), (2, 64), (2, 10)])
def test_its_bytes_are_those_of_the_forecast(dtype, kv_heads, head_dim):
    config = small_config(
        num_key_value_heads=kv_heads, head_dim=head_dim, num_hidden_layers=2
    )  # fmt: skip
    model = qk.QwenForCausalLM(config).to(FLOATS[dtype]).requires_grad_(False)
    cache = Int8Cache(config, 3, 20)
    assert cache.nbytes == 0
    model(torch.zeros(3, 2, dtype=torch.long), cache=cache)
    groups = 1 if head_dim == 10 else head_dim // CACHE_GROUP
    assert cache.nbytes == 2 * 2 * 3 * kv_heads * 20 * (head_dim + 2 * groups)
    assert cache.nbytes == 3 * 20 * config.kv_bytes_per_token("int8")
    found = qk.forecast(config, dtype, 20, 3, cache_dtype="int8")
    assert found.cache == cache.nbytes
    plain = qk.forecast(config, dtype, 20, 3)
    assert (found.weights, found.activations) == (plain.weights, plain.activations)
    assert found.cache < plain.cache
    assert repr(cache) == f"Int8Cache(2 of 20 tokens, batch 3, {cache.nbytes:,} bytes)"


def test_a_quantized_model_may_have_either_cache():
    config = small_config(head_dim=64)
    floats = qk.forecast(config, "int8").cache
    assert floats == 512 * config.kv_bytes_per_token("bfloat16")
    assert qk.forecast(config, "int8", cache_dtype="int8").cache < floats


def test_memory_that_is_enough_for_int8_alone(monkeypatch):
    model = tiny()
    need = 8 * model.config.kv_bytes_per_token("int8")
    monkeypatch.setattr(prompts_file, "free_memory", lambda: need)
    assert type(cache_for(model, 1, 8, "int8")) is Int8Cache
    with pytest.raises(MemoryForecastError):
        cache_for(model, 1, 8)
    monkeypatch.setattr(prompts_file, "free_memory", lambda: need - 1)
    with pytest.raises(MemoryForecastError):
        cache_for(model, 1, 8, "int8")


# --- generation ---


@pytest.fixture
def layers_written(monkeypatch):
    """Collect the layers that were written to int8 caches."""
    written, own = [], Int8Cache.update

    def update(self, layer, keys, values):
        written.append(layer)
        return own(self, layer, keys, values)

    monkeypatch.setattr(Int8Cache, "update", update)
    return written


WAYS = {
    "generate": lambda m, t, **o: list(qk.generate(m, t("a b"), 3, **o)),
    "complete": lambda m, t, **o: qk.complete(m, t, "a b", 3, **o),
    "stream": lambda m, t, **o: list(qk.stream(m, t, "a b", max_new_tokens=3, **o)),
    "fill": lambda m, t, **o: qk.fill(m, t, "a", "b", 3, **o),
    "generate_batch": lambda m, t, **o: qk.generate_batch(m, [[1], [2, 3]], max_new_tokens=3, **o),
    "complete_batch": lambda m, t, **o: qk.complete_batch(m, t, ["a"], max_new_tokens=3, **o),
    "beam_search": lambda m, t, **o: qk.beam_search(m, t("a b"), max_new_tokens=3, **o),
    "speculate": lambda m, t, **o: list(qk.speculate(m, t("a b"), max_new_tokens=3, **o)),
    "Conversation": lambda m, t, **o: qk.Conversation(m, t, **o).say("a", max_new_tokens=3),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_generate_takes_it(coder, layers_written, way):
    WAYS[way](*coder)
    assert layers_written == []
    WAYS[way](*coder, cache_dtype="int8")
    assert set(layers_written) == set(range(coder[0].config.num_hidden_layers))
    with pytest.raises(InputError, match=r"cache_dtype is 'int4'; it must be 'auto'.* or 'int8'"):
        WAYS[way](*coder, cache_dtype="int4")


def test_all_of_them_give_the_same_text(coder):
    model, tokenizer = coder
    prompts = [tokenizer.encode(text) for text in ("def add(a, b):\n    return", "import")]
    alone = [tokens(model, prompt, 8, cache_dtype="int8") for prompt in prompts]
    assert qk.generate_batch(model, prompts, max_new_tokens=8, cache_dtype="int8") == alone
    guessed = qk.speculate(model, prompts[0], max_new_tokens=8, cache_dtype="int8")
    assert [step.token_id for step in guessed] == alone[0]
    (best,) = qk.beam_search(
        model, prompts[0], num_beams=1, max_new_tokens=8, cache_dtype="int8"
    )  # fmt: skip
    assert list(best.ids) == alone[0]


@pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
@torch.no_grad()
def test_the_compiled_kernels_step_aside():
    model = swap(tiny())
    prompt = ids(1, 5)
    floats, small = qk.KVCache(model.config, 1, 9), Int8Cache(model.config, 1, 9)
    for cache in (floats, small):
        model(prompt, cache=cache)
    assert decode_step(model, prompt[:, :1], floats) is not None
    before = [buffer.clone() for buffer in small.keys + small.values]
    assert decode_step(model, prompt[:, :1], small) is None
    assert small.length == 5
    assert all(map(torch.equal, before, small.keys + small.values))
    assert qk.explain(model).fast
    assert "the model as taught: the cache holds int8" in str(
        qk.explain(model, cache_dtype="int8")
    )  # fmt: skip
    fast = list(qk.generate(model, prompt, 6, stop_ids=(), cache_dtype="int8"))
    with qk.plain(model):
        plain = list(qk.generate(model, prompt, 6, stop_ids=(), cache_dtype="int8"))
    for one, other in zip(fast, plain, strict=True):
        assert one.token_id == other.token_id
        torch.testing.assert_close(one.logits, other.logits, atol=1e-3, rtol=1e-3)


def test_tiny_coder_writes_nearly_the_same(coder):
    model, tokenizer = coder
    texts = (
        "def count_vowels(text):\n", "class Stack:\n    def __init__(self):\n", "import os\n\n",
        "def fib(n):\n",
    )  # fmt: skip
    same = total = 0
    for text in texts:
        prompt = tokenizer(text)
        pair = [tokens(model, prompt, 24, stop_ids=(), cache_dtype=c) for c in ("auto", "int8")]
        same += sum(one == other for one, other in zip(*pair, strict=True))
        total += 24
    assert same >= 0.9 * total
