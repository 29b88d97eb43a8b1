"""The KV cache: cached decoding equals the full forward, and the cache keeps its books."""

import random

import pytest
import torch
from reference import LAYERS, VARIANTS, ids, left_padding, relative_error, tiny

from qwenkit.errors import CacheFullError, InputError
from qwenkit.model import KVCache
from qwenkit.trace import Trace

TOTAL = 14
PADDING = pytest.mark.parametrize("lengths", [None, (5, 9)], ids=["unpadded", "left-padded"])


def random_chunks(total):
    draw, chunks = random.Random(3), []
    while sum(chunks) < total:
        chunks.append(min(draw.randint(1, 5), total - sum(chunks)))
    return chunks


SPLITS = {"ones": [1] * TOTAL, "random": random_chunks(TOTAL), "prompt": [TOTAL - 4, 1, 1, 1, 1]}


def filled(model, tokens, max_length=8, mask=None):
    """Return a cache of some tokens."""
    cache = KVCache(model.config, len(tokens), max_length)
    model(tokens, cache=cache, attention_mask=mask)
    return cache


def buffers(cache):
    return cache.keys + cache.values


@pytest.mark.parametrize("trace", [None, "eager"])
@PADDING
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("variant", ["gqa", "mqa", "mha", "yarn", "sliding"])
def test_cached_decoding_equals_the_full_forward(variant, split, lengths, trace):
    model, tokens = tiny(**VARIANTS[variant]), ids(3, TOTAL)
    mask = lengths and left_padding([TOTAL, *lengths], TOTAL)
    real = torch.ones(3, TOTAL).bool() if mask is None else mask.bool()
    trace = trace and Trace(keep="attn.pattern")
    cache, parts = KVCache(model.config, 3, TOTAL), []
    for size in SPLITS[split]:
        begin, end = cache.length, cache.length + size
        seen = None if mask is None else mask[:, :end]
        parts.append(model(tokens[:, begin:end], cache=cache, attention_mask=seen, trace=trace))
        assert cache.length == end
    got, want = torch.cat(parts, dim=1), model(tokens, attention_mask=mask)
    assert got.isfinite().all()
    assert relative_error(got[real], want[real]) < 1e-5


def test_it_stores_unrepeated_rotated_keys_and_values():
    model, tokens = tiny(num_attention_heads=4, num_key_value_heads=2), ids(2, 5)
    cache = KVCache(model.config, batch_size=2, max_length=9)
    trace = Trace(keep=("attn.k_rot", "attn.v"))
    model(tokens, cache=cache, trace=trace)
    for layer in range(LAYERS):
        assert torch.equal(cache.keys[layer][:, :, :5], trace[f"layers.{layer}.attn.k_rot"])
        assert torch.equal(cache.values[layer][:, :, :5], trace[f"layers.{layer}.attn.v"])
        assert cache.keys[layer].shape == (2, 2, 9, 8)


@pytest.mark.parametrize("variant", ["gqa", "mqa", "mha", "head_dim"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_exact(variant, dtype):
    model = tiny(**VARIANTS[variant], dtype=dtype)
    config = model.config
    assert KVCache(config, batch_size=3, max_length=20).nbytes == 0
    cache = filled(model, ids(3, 2), 20)
    values = 2 * LAYERS * 3 * config.num_key_value_heads * 20 * config.head_dim
    assert cache.nbytes == values * dtype.itemsize
    name = str(dtype).removeprefix("torch.")
    assert cache.nbytes == 3 * 20 * config.kv_bytes_per_token(name)
    assert all(buffer.dtype == dtype for buffer in buffers(cache))
    assert repr(cache) == f"KVCache(2 of 20 tokens, batch 3, {cache.nbytes:,} bytes)"


def test_it_is_written_in_place_and_its_length_advances_once_a_forward():
    model, tokens = tiny(), ids(1, 8)
    cache = filled(model, tokens[:, :3])
    before = [buffer.data_ptr() for buffer in buffers(cache)]
    kept, lengths = cache.keys[0][:, :, :3].clone(), [cache.length]
    for chunk in (tokens[:, 3:4], tokens[:, 4:]):
        model(chunk, cache=cache)
        lengths.append(cache.length)
    assert lengths == [3, 4, 8]
    assert [buffer.data_ptr() for buffer in buffers(cache)] == before
    assert torch.equal(cache.keys[0][:, :, :3], kept)
    view, _ = cache.update(0, *torch.zeros(2, 1, 2, 0, 8))
    assert view.data_ptr() == before[0]  # what attention reads is a view, not a copy


@pytest.mark.parametrize("keep", [0, 1, 5, 8])
def test_after_trim_it_continues_like_a_fresh_run(keep):
    model, tokens, other = tiny(), ids(1, 8), ids(1, 12, seed=7)
    cache = filled(model, tokens, 12)
    cache.trim(keep)
    assert cache.length == keep
    mixed = torch.cat([tokens[:, :keep], other[:, keep:]], dim=1)
    got = model(mixed[:, keep:], cache=cache)
    assert relative_error(got, model(mixed)[:, keep:]) < 1e-5
    assert ((got - model(mixed[:, keep:])).abs().max() > 1e-2) == (keep > 0)  # the cache is read


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0], [2], [0, 0, 0, 0, 2]])
@PADDING
def test_after_reorder_each_row_goes_on_from_the_row_it_was(rows, lengths):
    model, tokens = tiny(), ids(3, 8)
    mask = lengths and left_padding([8, 3, 6], 12)
    cache = filled(model, tokens, 12, None if mask is None else mask[:, :8])
    cache.reorder(rows)
    assert (cache.batch_size, cache.length) == (len(rows), 8)
    more = ids(len(rows), 4, seed=7)
    mask = None if mask is None else mask[rows]
    got = model(more, cache=cache, attention_mask=mask)
    want = model(torch.cat([tokens[rows], more], dim=1), attention_mask=mask)[:, 8:]
    assert relative_error(got, want) < 1e-5
    assert cache.length == 12
    assert cache.keys[0].shape == (len(rows), 2, 12, 8)


def test_an_empty_cache_can_be_reordered_a_full_one_reset_and_equal_rows_are_copies():
    model = tiny()
    cache = KVCache(model.config, batch_size=1, max_length=6)
    cache.reorder([0, 0])
    assert torch.equal(model(ids(2, 6), cache=cache), model(ids(2, 6)))
    cache.reset()
    assert cache.length == 0
    assert torch.equal(model(ids(2, 4, seed=5), cache=cache), model(ids(2, 4, seed=5)))
    cache.reorder([1, 1])
    kept = [buffer.clone() for buffer in buffers(cache)]
    assert torch.equal(cache.keys[0][0], cache.keys[0][1])
    model(torch.tensor([[1, 2], [3, 4]]), cache=cache)
    for buffer, before in zip(buffers(cache), kept, strict=True):
        assert torch.equal(buffer[:, :, :4], before[:, :, :4])
    assert not torch.equal(cache.keys[0][0], cache.keys[0][1])


# --- what is refused ---


@pytest.mark.parametrize("rows", [[], [3], [-1], [0, 1, 5], [True]])
@pytest.mark.parametrize("length", [-1, 3])
def test_rows_and_lengths_that_are_not_there_are_refused(rows, length):
    cache = filled(tiny(), ids(3, 2))
    with pytest.raises(InputError, match="row numbers from 0 to 2"):
        cache.reorder(rows)
    with pytest.raises(InputError, match=f"length is {length}; it must lie between 0 and 2"):
        cache.trim(length)
    assert (cache.batch_size, cache.length) == (3, 2)


def test_a_full_cache_refuses_with_advice_and_stays_as_it_was():
    model, tokens = tiny(), ids(1, 6)
    cache = filled(model, tokens, 7)
    before = [buffer.clone() for buffer in buffers(cache)]
    with pytest.raises(CacheFullError) as caught:
        model(tokens[:, :3], cache=cache, trace=Trace())
    for fragment in ("6 of 7", "3 more", "max_length=9", "reset()", "trim("):
        assert fragment in str(caught.value)
    assert cache.length == 6
    assert all(map(torch.equal, buffers(cache), before))
    model(tokens[:, :1], cache=cache)  # there was room for one
    assert cache.length == 7


@pytest.mark.parametrize("changes", [
    {"num_key_value_heads": 1}, {"num_key_value_heads": 4}, {"head_dim": 10},
    {"num_hidden_layers": LAYERS - 1},
], ids=str)  # fmt: skip
def test_a_cache_that_was_made_for_another_model_or_batch_size_is_refused(changes):
    model, other = tiny(), tiny(**changes)
    cache = KVCache(model.config, batch_size=2, max_length=8)
    with pytest.raises(InputError, match=r"3 sequences and the cache 2.*batch_size=3"):
        model(ids(3, 2), cache=cache)
    assert cache.length == 0
    cache = KVCache(other.config, max_length=8)
    for length in (0, 2):  # before it has memory, and with the other's tokens
        with pytest.raises(InputError, match="make it with this model's config"):
            model(ids(1, 2), cache=cache)
        assert cache.length == length
        other(ids(1, 2), cache=cache)


def test_gradients_are_refused_and_inference_is_not():
    model, tokens = tiny().requires_grad_(True), ids(1, 3)
    cache = KVCache(model.config, max_length=8)
    with pytest.raises(InputError, match=r"backpropagation.*torch\.no_grad\(\)"):
        model(tokens, cache=cache)
    assert cache.length == 0
    with torch.no_grad():
        assert torch.equal(model(tokens, cache=cache), model(tokens))


@pytest.mark.parametrize("name", ["batch_size", "max_length"])
@pytest.mark.parametrize("value", [0, -2])
def test_sizes_below_one_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}; .*integer of at least 1"):
        KVCache(tiny().config, **{name: value})


def test_two_layers_of_one_number_are_refused_with_a_cache_and_run_without():
    model = tiny()
    model.model.layers[1] = model.model.layers[0]
    cache = KVCache(model.config, 1, 8)
    for _ in range(2):  # and nothing of the refused pass is left
        with pytest.raises(InputError, match="two layers of the model have the number 0"):
            model(ids(1, 3), cache=cache)
        assert cache.length == 0
    assert model(ids(1, 3)).isfinite().all()
    assert torch.equal(tiny()(ids(1, 3), cache=cache), tiny()(ids(1, 3)))
