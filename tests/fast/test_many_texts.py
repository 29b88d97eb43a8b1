"""Many texts at once: products in tiles, and a decode step of a batch padded on the left."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from fixtures_toy import python
from kernel_runs import in_python, late_thread, threads
from reference import ids, relative_error, tiny
from test_decode import DTYPES, in_pages, toy
from test_edits import (
    CODE,
    EDITS,
    NEAR,
    REFUSED,
    STAY,
    VISIBLE,
    _no_shape_checks,  # noqa: F401
    fewer_neurons,
    loaded,
    rows,
)
from test_edits_pages import first_dtype, same

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import decode, decode_step, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.int4 import dequantize, quantize_groups
from qwenkit.fast.int8 import dequantize_rows, quantize_rows
from qwenkit.fast.linear import by_kernel

if kernels_problem() is not None:
    pytest.skip(kernels_problem(), allow_module_level=True)

from qwenkit.fast import kernels, tiles

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
NUMBERS = (9, 16, 17, 40)  # tokens: half a panel and less, a panel, one that is begun


@pytest.fixture(params=["compiled", "python"])
def way(request):
    with in_python() if request.param == "python" else nullcontext():
        yield request.param


def given(kind, out_features, in_features):
    """Return what `by_kernel` takes after the tokens, and the exact weight that it stands for."""
    weight = torch.randn(out_features, in_features, generator=torch.Generator().manual_seed(0))
    if kind in ("float32", "bfloat16"):
        weight = weight.to(getattr(torch, kind))
        return (weight, torch.ones(out_features, dtype=weight.dtype)), weight.double()
    group = 64 if in_features % 64 == 0 else None
    if kind == "int8":
        small, scale = quantize_rows(weight, group)
        return (small, None, scale), dequantize_rows(small, scale.double())
    packed, scale, zero = quantize_groups(weight, group or in_features)
    return (packed, None, scale, zero), dequantize(packed, scale, zero).double()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("size", [(1, 2), (3, 6), (8, 64), (67, 130), (20, 192)])
@pytest.mark.parametrize("tokens", NUMBERS)
def test_tiles_give_the_product(tokens, size, kind, way):
    if way == "python" and (tokens, size) not in {(9, (3, 6)), (40, (8, 64)), (17, (1, 2))}:
        pytest.skip("Python is slow")
    more, weight = given(kind, *size)
    x = torch.randn(tokens, size[1], generator=torch.Generator().manual_seed(1))
    bias = 1.0 if more[1] is not None else 0.0
    for dtype in (torch.float32, torch.bfloat16):
        own = x.to(dtype)
        true = F.linear(own.double(), weight) + bias
        got = by_kernel(own, *more)
        assert got.dtype == dtype
        # In bfloat16 a weight that is dequantized is rounded, too; the sum's own rounding is last.
        rounded = 2e-6 if dtype == torch.float32 else 2**-8
        bound = rounded * (F.linear(own.double().abs(), weight.abs()) + bias)
        assert ((got - true).abs() <= bound + 2**-8 * (dtype == torch.bfloat16) * true.abs()).all()


@pytest.mark.parametrize("tokens", [9, 40])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_infinity_and_nan_stay_in_their_own_token(tokens, value):
    for kind in ("float32", "bfloat16", "int8", "int4"):
        more, _ = given(kind, 8, 64)
        x = torch.randn(tokens, 64)
        x[3, 7] = value
        good = torch.isfinite(by_kernel(x, *more)).all(1)
        assert good.tolist() == [row != 3 for row in range(tokens)]


def test_without_the_instructions_of_newer_processors_tiles_are_the_same():
    code = """
import sys, numpy as np, numba, llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
lacking = {"pairs": ("avx512bf16",), "avx2": ("avx512bf16", "avx512f")}
for name in lacking[sys.argv[1]]:
    features[name] = False
llvmlite.binding.get_host_cpu_features = lambda: features
from qwenkit.fast import tiles
from qwenkit.fast.tiles import HALF, ROWS, WIDTH, multiply_half_tile, multiply_tile
APART = ROWS + 3
@numba.njit
def run(weight, x, steps, begin, out, half):
    if half:
        multiply_half_tile(weight, steps, x, steps, begin, out, APART, weight, 1)
    else:
        multiply_tile(weight, steps, x, steps, begin, out, APART, weight, 1)
random = np.random.default_rng(0)
weight = random.standard_normal(ROWS * 24).astype(np.float32)
x = random.standard_normal(WIDTH * 24).astype(np.float32)
begin = random.standard_normal(ROWS).astype(np.float32)
got, want = np.zeros((2, WIDTH * APART), np.float32)
multiply_tile(weight, 24, x, 24, begin, want, APART, weight, 1)
run(weight, x, 24, begin, got, False)
print(tiles.PAIRS, tiles.WIDE, abs(got - want).max() < 1e-5)
got[:] = 0
run(weight, x, 24, begin, got, True)
half = HALF * APART
print(abs(got - want)[:half].max() < 1e-5, not got[half:].any())
"""
    for lacking, wide in (("pairs", tiles.WIDE), ("avx2", False)):
        done = python(code, lacking)
        assert done.stdout.split() == ["False", str(wide), "True", "True", "True"], done.stderr


# --- a decode step ---

LENGTH, PROMPT = 12, 6


def padding_of(texts):
    """Return how many tokens of each text's prompt are padding: none of the first."""
    return torch.arange(texts) % (PROMPT - 1)


def batch(model, texts, edit=None, length=LENGTH, hidden=None):
    """Return the last logits of a padded batch fed token by token, its cache, and what was served.

    Args:
        model: a language model.
        texts: how many.
        edit: done to the model and the cache before the last token but one.
        length: of the batch in tokens.
        hidden: (text, token) that the mask hides in addition.
    """
    tokens = ids(texts, length, seed=3) % 50
    mask = (torch.arange(length) >= padding_of(texts)[:, None]).long()
    if hidden is not None:
        mask[hidden] = 0
    cache, served = qk.KVCache(model.config, texts, length), []
    with torch.no_grad():
        model(tokens[:, :PROMPT], cache=cache, attention_mask=mask[:, :PROMPT])
        for i in range(PROMPT, length):
            if edit is not None and i == length - 2:
                edit(model, cache)
            new, own = tokens[:, i : i + 1], mask[:, : i + 1]
            found = decode_step(model, new, cache, own)
            served.append(found is not None)
            if found is None:
                found = model(new, cache=cache, attention_mask=own)
    return found, cache, served


@pytest.mark.parametrize("texts", [1, 3, 9, 33])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_padded_batch_is_decoded_as_by_the_taught_model(dtype, texts, tmp_path):
    model = toy(tmp_path, dtype)
    got, cache, served = batch(model, texts)
    assert all(served)
    with qk.plain(model):
        want, plain, served = batch(model, texts)
    assert not any(served)
    near = 0.03 if model.dtype == torch.bfloat16 else 1e-5 if dtype == "float32" else 1e-4
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    for one, other in zip(got, want, strict=True):
        assert relative_error(one.float(), other.float()) < near
    assert cache.length == plain.length == LENGTH
    for one, other in zip(cache.keys + cache.values, plain.keys + plain.values, strict=True):
        for text, start in enumerate(padding_of(texts)):
            both = (tensor[text, :, start:].float() for tensor in (one, other))
            assert relative_error(*both) < near


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int4"])
def test_the_kernels_in_python_decode_a_batch_as_compiled(dtype, tmp_path):
    model = toy(tmp_path, dtype)
    want, _, _ = batch(model, 9, length=PROMPT + 1)
    with in_python():
        got, _, served = batch(model, 9, length=PROMPT + 1)
    assert served == [True]
    near = 1e-5 if model.dtype == torch.float32 else 0.02
    assert relative_error(got.float(), want.float()) < near


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_many_texts_in_pages_are_decoded_as_by_the_taught_model(dtype, tmp_path):
    model = toy(tmp_path, dtype)
    texts = [(ids(1, 4 + n % 7, seed=n)[0] % 50).tolist() for n in range(10)]
    got, served, _ = in_pages(model, texts)
    assert served == [False, True, True, True]
    with qk.plain(model):
        want, _, _ = in_pages(model, texts)
    near = 0.03 if model.dtype == torch.bfloat16 else 1e-5 if dtype == "float32" else 1e-4
    for one, other in zip(got, want, strict=True):
        assert relative_error(one.float(), other.float()) < near


@pytest.mark.parametrize("texts", [1, 4, 9, 16, 33])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_layers_may_have_different_numbers_of_neurons(dtype, texts):
    """A whole tile is written where it belongs, and each row begins where its layer's rows do."""
    model = tiny(hidden_size=64, intermediate_size=192, num_hidden_layers=3)
    fewer_neurons(model.model.layers[1].mlp, 64)
    if dtype in ("int8", "int4"):
        qk.quantize(model, dtype, group=64)
    swap(model.bfloat16() if dtype == "bfloat16" else model.float())
    got, _, served = batch(model, texts)
    assert all(served)
    with qk.plain(model):
        want, _, _ = batch(model, texts)
    near = 0.03 if dtype == "bfloat16" else 1e-5 if dtype == "float32" else 3e-4
    for one, other in zip(got, want, strict=True):
        assert relative_error(one.float(), other.float()) < near


def test_a_text_decodes_alike_alone_and_among_others():
    model = swap(tiny(hidden_size=64, intermediate_size=96, head_dim=32))
    together, _, _ = batch(model, 12)
    for text, start in enumerate(padding_of(12)):
        tokens = (ids(12, LENGTH, seed=3) % 50)[text : text + 1, start:]
        alone = model(tokens)[0, -1]
        assert relative_error(together[text, 0], alone) < 1e-5


def test_where_a_mask_hides_more_than_padding_the_taught_model_runs():
    model = swap(tiny())
    _, _, served = batch(model, 3, hidden=(2, 4))
    assert not any(served)
    cache = batch(model, 3)[1]
    cache.trim(LENGTH - 1)
    with pytest.raises(InputError, match="attention_mask has shape"), torch.no_grad():
        decode_step(model, ids(3, 1), cache, torch.ones(3, 3))
    with torch.no_grad():
        assert decode_step(model, ids(2, 1), cache) is None
        assert decode_step(model, ids(3, 1), cache) is not None


def test_on_a_processor_where_nobody_measured_tiles_a_step_is_for_few_texts(monkeypatch):
    model = swap(tiny())
    monkeypatch.setattr("qwenkit.fast._machine.platform.machine", lambda: "arm64")
    for texts, served in ((kernels.FEW, True), (kernels.FEW + 1, False)):
        assert set(batch(model, texts)[2]) == {served}


def test_what_a_step_works_in_is_kept_for_a_few_numbers_of_texts(monkeypatch):
    model = swap(tiny())
    for texts in (1, 9, 3, 2, 1, 4):
        batch(model, texts)
    with torch.no_grad():
        found, _ = decode.memory_of(model)
    assert [*found.scratch] == [(n, 0) for n in (3, 2, 1, 4)]  # those that were used last
    monkeypatch.setattr(decode, "MOST", 1000)
    assert not any(batch(model, 3)[2])


def outcome(model, edit=None):
    """Return the logits, or the error, of a batch in the middle of which an edit is made."""
    torch.manual_seed(0)  # some edits are random
    try:
        found = batch(model, 17, edit)[0].float()
        return found if torch.isfinite(found).all() else "not finite"
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("name", "dtype"), first_dtype(rows(EDITS, REFUSED)))
def test_an_edit_in_the_middle_of_a_batch_is_seen_by_the_next_token(name, dtype):
    edit = REFUSED.get(name) or (lambda model, cache: EDITS[name](model))
    found, model = outcome(loaded(dtype), edit), loaded(dtype)
    with qk.plain(model):
        same(found, outcome(model, edit), dtype)
    if name in EDITS and not isinstance(found, str):
        assert batch(loaded(dtype), 17, edit)[2][-1] == (name in STAY)


@pytest.mark.parametrize("name", CODE)
def test_while_code_is_replaced_a_batch_is_decoded_by_the_taught_model(name):
    model = loaded("float32")
    with CODE[name](model):
        found = outcome(model)
        with qk.plain(model):
            same(found, outcome(model), "float32")
    assert all(batch(model, 17)[2])


ROWS_OF_CACHE = {
    "keys of zeros": lambda m, cache: [keys.zero_() for keys in cache.keys],
    "rows in another order": lambda m, cache: cache.reorder([16, *range(16)]),
    "keys of the row before": lambda m, cache: cache.keys.__setitem__(1, cache.keys[1].roll(1, 0)),
    "one kv head for all": lambda m, cache: cache.keys.__setitem__(
        1, cache.keys[1][:, :1].expand_as(cache.keys[1])),
    "another dtype": lambda m, cache: cache.keys.__setitem__(1, cache.keys[1].double()),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS_OF_CACHE)
def test_an_edit_of_a_batchs_cache_is_seen_by_the_next_token(name):
    model = loaded("float32")
    before, found = outcome(model), outcome(model, ROWS_OF_CACHE[name])
    with qk.plain(model):
        same(found, outcome(model, ROWS_OF_CACHE[name]), "float32")
    if not isinstance(found, str):
        assert relative_error(found, before) > VISIBLE * NEAR["float32"]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_thread_that_is_late_changes_nothing_for_many_texts(dtype):
    model = tiny(hidden_size=256, intermediate_size=1024, num_hidden_layers=2)
    if dtype != "float32":
        qk.quantize(model, dtype)
    swap(model)
    with threads(2):
        want, _, _ = batch(model, 20)
        with late_thread() as (late, _):
            for _ in range(100):
                got, _, served = batch(model, 20)
                assert all(served)
                assert torch.equal(got, want)
                if sum(late) > 5:
                    break


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("texts", [2, 12])
def test_prompts_of_a_batch_are_read_as_by_the_taught_model(texts, dtype):
    model, tokens = loaded(dtype), ids(texts, PROMPT + 1) % 50
    padding = padding_of(texts)
    mask = (torch.arange(PROMPT + 1) >= padding[:, None]).long()
    caches, found = [], []
    for plain in (False, True):
        cache, loop = qk.KVCache(model.config, texts, LENGTH), qk.fast.ClosedLoop()
        with qk.plain(model) if plain else nullcontext(), torch.no_grad():
            given = tokens[:, :PROMPT], cache, mask[:, :PROMPT], loop
            first = decode_step(model, *given)
            assert (first is None) == plain
            if plain:
                own = {"cache": cache, "attention_mask": mask[:, :PROMPT]}
                first = model(tokens[:, :PROMPT], **own, logits_to_keep=1)
            # the padding's slots, which the kernels leave empty, change nothing
            second = model(tokens[:, PROMPT:], cache=cache, attention_mask=mask)
        caches.append(cache)
        found.append(torch.cat([first, second], 1).float())
    near = NEAR[dtype]
    assert relative_error(*found) < near
    real = mask.bool()[:, None, :, None]
    for one, other in zip(*(cache.keys + cache.values for cache in caches), strict=True):
        slots = (buffer[:, :, : PROMPT + 1].float() * real for buffer in (one, other))
        assert relative_error(*slots) < near


def test_long_prompts_of_a_batch_and_single_ones_are_read_by_the_taught_model(monkeypatch):
    model, loop = loaded("float32"), qk.fast.ClosedLoop()
    monkeypatch.setattr(decode, "READ", 8)
    for shape, given, served in (
        ((2, 4), loop, True), ((2, 5), loop, False), ((1, 4), loop, False), ((2, 4), None, False),
    ):  # fmt: skip
        cache = qk.KVCache(model.config, shape[0], LENGTH)
        with torch.no_grad():
            found = decode_step(model, ids(*shape) % 50, cache, None, given)
        assert (found is not None) == served
        assert cache.length == (shape[1] if served else 0)


def test_generate_batch_decodes_by_the_kernels(monkeypatch):
    model, served = swap(tiny()), []
    own = decode._through_layers
    monkeypatch.setattr(
        decode,
        "_through_layers",
        lambda *a: served.append((len(a[2].x), len(a[2].asked))) or own(*a),
    )
    prompts = [ids(1, n, seed=n)[0] % 50 for n in (3, 5, 9)]
    got = qk.generate_batch(model, prompts, max_new_tokens=6, stop_ids=())
    assert (served[0], {*served[1:]}) == ((17, 3), {(3, 3)})  # the prompts; then some steps
    with qk.plain(model):
        assert got == qk.generate_batch(model, prompts, max_new_tokens=6, stop_ids=())
