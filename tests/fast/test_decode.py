"""A decode step: the logits are the model's, and it serves where it may and nowhere else."""

from contextlib import nullcontext
from functools import partial
from unittest import mock

import pytest
import torch
from fixtures_toy import python
from interruptions import interrupted
from kernel_runs import in_python, late_thread, threads
from reference import VARIANTS, ids, pair, relative_error, tiny
from torch.autograd import forward_ad
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.errors import CacheFullError, InputError
from qwenkit.fast import FastLinear, decode, decode_step, swap
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.model import FastQwenForCausalLM
from qwenkit.generate.steps import next_logits
from qwenkit.model import PageBatch, PagePool, PageTable

pytestmark = pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem()))
LENGTH, PROMPT = 14, 5


def filled(model, length, max_length=LENGTH):
    """Return a cache that holds some tokens of the model."""
    cache = qk.KVCache(model.config, 1, max_length)
    next_logits(model, ids(1, length), cache, 0)
    return cache


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
    tokens = ids(1, LENGTH)
    with torch.no_grad():
        want = theirs(tokens).logits[:, PROMPT:]
    got, _, served = decoded(swap(ours.requires_grad_(False)), tokens)
    assert relative_error(got, want) < 1e-5
    cut = "sliding_window" in variant  # shorter than the prompt: each layer needs a mask
    assert served == [not cut] * (LENGTH - PROMPT)


DTYPES = [
    "float32", "bfloat16", "int8", "int8 in float32", "int8 by rows",
    "int4", "int4 in float32", "int4 untied",
]  # fmt: skip


def toy(folder, dtype):
    """Return an accelerated toy; its checkpoint is stored in bfloat16 unless the dtype says so."""
    write_toy_checkpoint(folder, tied="untied" not in dtype)
    if dtype.endswith(" in float32"):
        qk.save_pretrained(qk.load_model(folder, device="cpu", dtype="float32"), folder)
    kind = dtype.split()[0]
    if kind not in ("int8", "int4") or dtype == "int8 by rows":
        return swap(qk.load_model(folder, device="cpu", dtype=kind))
    model = qk.load_model(folder, device="cpu", dtype=None)
    qk.quantize(model, kind, group=16)  # 64 does not divide its rows
    return swap(model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_decodes_as_the_taught_model_does(dtype, tmp_path):
    model = toy(tmp_path, dtype)
    tokens = ids(1, LENGTH) % 50
    got, cache, served = decoded(model, tokens)
    assert all(served)
    with qk.plain(model):
        want, plain, served = decoded(model, tokens)
    assert not any(served)
    near = 0.03 if model.dtype == torch.bfloat16 else 1e-5 if dtype == "float32" else 1e-4
    assert got.dtype == want.dtype
    assert relative_error(got.float(), want.float()) < near
    assert cache.length == plain.length == LENGTH
    for one, other in zip(cache.keys + cache.values, plain.keys + plain.values, strict=True):
        assert one.dtype == other.dtype
        assert relative_error(one.float(), other.float()) < near


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_in_groups_of_64_tokens_become_integers_of_15_bits_and_a_sign(dtype):
    """So no nearer to the taught model than some 1e-5, but far nearer than bfloat16."""
    model = tiny(hidden_size=128, intermediate_size=320, num_hidden_layers=2)
    qk.quantize(model, dtype)
    model, tokens = swap(model.float()), ids(1, LENGTH)
    got, _, served = decoded(model, tokens)
    assert all(served)
    with qk.plain(model):
        want, _, _ = decoded(model, tokens)
    assert 1e-6 < relative_error(got, want) < 2e-4
    assert relative_error(want.bfloat16().float(), want) > 5e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_in_python_decode_as_compiled(dtype, tmp_path):
    model = toy(tmp_path, dtype)
    tokens = ids(1, PROMPT + 1) % 50
    want, _, _ = decoded(model, tokens)
    with in_python():
        got, _, served = decoded(model, tokens)
    assert served == [True]
    near = 1e-5 if model.dtype == torch.float32 else 0.01
    assert relative_error(got.float(), want.float()) < near


def in_pages(model, texts, steps=3, plan=None):
    """Return the last logits of texts in pages, and which passes were served.

    Args:
        model: a language model.
        texts: ids of each.
        steps: passes with one token of each, after one with all before.
        plan: instead, how many tokens of each are fed in each pass.
    """
    plan = plan or [[len(text) - steps for text in texts], *[[1] * len(texts)] * steps]
    size = 4  # pages for each text, in no order
    last = max(20, size * len(texts)) - 1
    pool = PagePool(model.config, last + 1, 3)
    tables = [PageTable([*range(last - i, -1, -len(texts))][:size]) for i in range(len(texts))]
    served = []
    for counts in plan:
        each = zip(texts, tables, counts, strict=True)
        rows = [text[table.length : table.length + count] for text, table, count in each]
        view = PageBatch(pool, tables, counts)
        padded = torch.tensor([[0] * (max(counts) - len(row)) + row for row in rows])
        with torch.no_grad():
            found = decode_step(model, padded, view, view.mask)
            served.append(found is not None)
            if found is None:
                found = model(padded, cache=view, attention_mask=view.mask, logits_to_keep=1)
        for table, count in zip(tables, counts, strict=True):
            table.length += count
    return found, served, pool


def check_as_taught(model, dtype, texts, got, pool, **how):
    """Check what `in_pages` gave, and all that stands in the pages, against the taught model."""
    with qk.plain(model):
        want, _, plain = in_pages(model, texts, **how)
    near = 0.03 if model.dtype == torch.bfloat16 else 1e-5 if dtype == "float32" else 1e-4
    assert got.shape == want.shape == (len(texts), 1, model.config.vocab_size)
    assert got.dtype == want.dtype
    for one, other in zip(got, want, strict=True):
        assert relative_error(one.float(), other.float()) < near
    for one, other in zip(pool.keys + pool.values, plain.keys + plain.values, strict=True):
        assert relative_error(one.float(), other.float()) < near


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_several_texts_in_pages_are_decoded_as_by_the_taught_model(dtype, compiled, tmp_path):
    model = toy(tmp_path, dtype)
    texts = [(ids(1, n, seed=n)[0] % 50).tolist() for n in (5, 12, 4)]
    if not compiled:
        texts = [text[:4] for text in texts[:2]]  # Python is slow
    steps = 3 if compiled else 1
    with nullcontext() if compiled else in_python():
        got, served, pool = in_pages(model, texts, steps)
    assert served == [False] + [True] * steps
    check_as_taught(model, dtype, texts, got, pool, steps=steps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_prompts_in_pages_are_read_as_by_the_taught_model(dtype, tmp_path):
    model = toy(tmp_path, dtype)
    for plan in (
        [[1, 1], [2, 3]],  # few tokens: each weight is read row by row
        [[1, 1, 1, 1], [2, 6, 1, 4], [2, 5, 2, 4]],  # more: in tiles
        [[1, 1], [2, 1], [1, 1], [2, 6]],  # between two passes, one token of each
    ):
        lengths = map(sum, zip(*plan, strict=True))
        texts = [(ids(1, n, seed=n)[0] % 50).tolist() for n in lengths]
        got, served, pool = in_pages(model, texts, plan=plan)
        assert served == [False] + [True] * (len(plan) - 1)  # the first pass makes the pages
        check_as_taught(model, dtype, texts, got, pool, plan=plan)


@torch.no_grad()
def test_what_is_not_a_view_of_pages_as_it_was_made_runs_as_taught(monkeypatch):
    model, pool = swap(tiny()), PagePool(tiny().config, 4, 3)
    tables = [PageTable([0, 1]), PageTable([2, 3])]
    first = PageBatch(pool, tables, [2, 1])
    model(ids(2, 2), cache=first, attention_mask=first.mask)
    before = [one.clone() for one in pool.keys]
    for lengths, counts, tokens in (
        ((2, 1), [1, 1], 2), ((6, 1), [1, 1], 1), ((5, 1), [2, 1], 2), ((2, 1), [2, 0], 2)
    ):  # fmt: skip
        tables[0].length, tables[1].length = lengths
        view = PageBatch(pool, tables, counts)
        assert decode_step(model, ids(2, tokens), view, view.mask) is None
    tables[0].length = 2
    view = PageBatch(pool, tables, [1, 1])
    assert decode_step(model, ids(2, 1), view) is None
    assert decode_step(model, ids(2, 1), view, view.mask.clone()) is None
    assert decode_step(model, ids(3, 1), view, view.mask) is None
    view = PageBatch(pool, tables, [2, 1])
    with monkeypatch.context() as patch:
        patch.setattr(decode, "READ", 2)
        assert decode_step(model, ids(2, 2), view, view.mask) is None
    for name, value in (("ends", [3, 2]), ("counts", [1, 1]), ("tables", tables[:1])):
        changed = PageBatch(pool, tables, [2, 1])
        setattr(changed, name, value)
        assert decode_step(model, ids(2, 2), changed, changed.mask) is None
    assert all(map(torch.equal, pool.keys, before))
    view = PageBatch(pool, tables, [1, 1])
    assert decode_step(model, ids(2, 1), view, view.mask) is not None


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_a_thread_that_comes_back_late_writes_what_stands_there(dtype):
    """It takes a chunk, and computes it when the others may have gone on to later stages."""
    large = tiny(hidden_size=512, intermediate_size=2048, num_hidden_layers=3)
    if dtype != "float32":
        qk.quantize(large, dtype)
    model, tokens = swap(large), ids(1, LENGTH)
    with threads(2):
        want, _, _ = decoded(model, tokens)
        with late_thread() as (late, _):
            for _ in range(300):
                got, _, served = decoded(model, tokens)
                assert all(served)
                assert torch.equal(got, want)
                if sum(late) > 5:
                    break


def test_bfloat16_comes_no_further_from_the_truth_than_the_taught_model(tmp_path):
    folder = write_toy_checkpoint(tmp_path)
    exact, model = (
        qk.load_model(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    exact.load_state_dict({n: t.float() for n, t in model.state_dict().items()})
    tokens = ids(1, 60) % 50
    true = exact(tokens)[:, PROMPT:]
    by_kernels, _, served = decoded(swap(model), tokens)
    assert all(served)
    with qk.plain(model):
        taught, _, _ = decoded(model, tokens)
    error, theirs = ((y.float() - true).abs().mean().item() for y in (by_kernels, taught))
    assert error <= 1.02 * theirs


@torch.no_grad()
def test_padding_in_the_middle_several_tokens_and_a_fresh_cache_run_as_taught():
    model = swap(tiny())
    fresh, cache, both = qk.KVCache(model.config), filled(model, 2), qk.KVCache(model.config, 2)
    model(ids(2, 2), cache=both)
    assert decode_step(model, ids(1, 1), cache, torch.tensor([[1, 0, 1]])) is None
    assert decode_step(model, ids(1, 2), cache) is None
    assert decode_step(model, ids(2, 2), both) is None
    assert decode_step(model, ids(1, 1), fresh) is None
    assert (fresh.length, cache.length, both.length) == (0, 2, 2)
    assert decode_step(model, ids(1, 1), cache) is not None
    assert cache.length == 3


@pytest.mark.parametrize("other", [{"num_key_value_heads": 1}, {"head_dim": 10}])
def test_the_cache_of_another_model_is_left_for_the_model_to_refuse(other):
    with pytest.raises(InputError, match="make it with this model's config"):
        next_logits(swap(tiny()), ids(1, 1), filled(tiny(**other), 2), 0)


def test_a_full_cache_a_wrong_id_and_too_long_a_text_are_met_as_by_the_model():
    model = swap(tiny(max_position_embeddings=2))
    with pytest.warns(UserWarning, match="3 tokens are more than the 2"):
        cache = filled(model, 3, max_length=4)
    with pytest.raises(InputError, match="ids must lie between 0 and 60"):
        next_logits(model, torch.tensor([[61]]), cache, 0)
    with pytest.warns(UserWarning, match="4 tokens are more than the 2"):
        next_logits(model, ids(1, 1), cache, 0)
    with (
        pytest.warns(UserWarning, match="tokens are more than"),
        pytest.raises(CacheFullError, match="4 of 4 tokens"),
    ):
        next_logits(model, ids(1, 1), cache, 0)


def test_a_toy_writes_without_loading_the_compiler_and_tiny_coder_by_it(tmp_path):
    done = python(
        "import sys, torch, qwenkit; model = qwenkit.load_model(sys.argv[1], device='cpu'); "
        "list(qwenkit.generate(model, torch.ones(1, 3, dtype=int), 3)); "
        "print('numba' in sys.modules)",
        write_toy_checkpoint(tmp_path),
    )
    assert done.stdout.split() == ["False"], done.stderr
    assert qk.explain(qk.load_pretrained(qk.pretrained.EMBEDDED, device="cpu")[0]).fast


def test_a_small_models_first_token_does_not_wait_for_the_compiler():
    done = python(
        "import sys, qwenkit as qk; "
        "steps = qk.stream(*qk.load_pretrained(device='cpu'), 'def fib(n):'); "
        "next(steps); print('numba' in sys.modules); next(steps); print('numba' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_where_gradients_are_asked_for_the_taught_model_runs():
    model = swap(tiny())
    cache = filled(model, 2)
    assert decode_step(model, ids(1, 1), cache) is None
    model.requires_grad_(True)  # sampled in the middle of a training
    next_logits(model, ids(1, 1), cache, 0)
    with torch.no_grad():
        assert decode_step(model, ids(1, 1), cache) is not None


# --- switching it on and off ---


def test_accelerate_changes_classes_alone_and_only_of_a_large_model(monkeypatch):
    def parts(model):
        return {n: (id(p), id(getattr(p, "weight", 0))) for n, p in model.named_modules()}

    model = tiny()
    kept = parts(model)
    assert type(qk.accelerate(model)) is qk.QwenForCausalLM  # small: as it is
    qk.quantize(small := tiny(), "int8")  # as taught it would be dequantized for each token
    assert type(small) is FastQwenForCausalLM
    monkeypatch.setattr("qwenkit.fast.switch.LARGE_MODEL", 0)
    assert qk.accelerate(model) is model
    assert parts(model) == kept
    assert type(model) is FastQwenForCausalLM
    assert {type(p) for n, p in model.named_modules() if n.endswith("_proj")} == {FastLinear}
    assert str(qk.explain(model)).splitlines()[0].endswith("compiled kernels")
    monkeypatch.setenv("QWENKIT_PLAIN", "1")
    assert qk.explain(model).reason == "QWENKIT_PLAIN is set"
    assert type(qk.accelerate(tiny())) is qk.QwenForCausalLM
    monkeypatch.setenv("QWENKIT_PLAIN", "0")
    assert qk.explain(model).fast


def test_plain_gives_the_taught_classes_and_takes_them_back_after_an_error():
    model = swap(tiny())
    before = [type(part) for part in model.modules()]

    def inside():
        with qk.plain(model) as same:
            assert same is model
            assert [type(part) for part in model.modules()] == list(map(type, tiny().modules()))
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


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (lambda: torch.autocast("cpu", torch.bfloat16), "autocast is on"),
        (forward_ad.dual_level, "forward-mode differentiation, is on"),
        (lambda: mock.patch("torch.compiler.is_compiling", return_value=True), "torch compiles"),
    ],
)
def test_explain_names_who_watches_torch(context, reason):
    with context():
        assert reason in qk.explain(swap(tiny())).reason
    assert "Linear, not a QwenForCausalLM" in qk.explain(torch.nn.Linear(2, 2)).reason


def test_after_ctrl_c_at_any_line_the_same_step_is_right():
    model, token = swap(pair()[1].requires_grad_(False)), ids(1, 1)
    want = next_logits(model, token, filled(model, PROMPT), 0)
    for at in range(1, 10_000, 9):
        cache = filled(model, PROMPT)
        if not interrupted(partial(next_logits, model, token, cache, 0), at):
            break
        cache.trim(PROMPT)  # at the last lines, only the answer was lost
        assert torch.equal(next_logits(model, token, cache, 0), want), at
    assert at > 100
