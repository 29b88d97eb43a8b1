"""The table of edits on a text whose cache is in pages, and edits of the pages themselves."""

import inspect

import pytest
import torch
from reference import relative_error
from test_edits import (
    CODE,
    EDITS,
    FLOAT_CODE,
    LENGTH,
    NEAR,
    PROMPT,
    REFUSED,
    STAY,
    VISIBLE,
    _no_shape_checks,  # noqa: F401
    add,
    decoded,
    loaded,
    outcome,
    patch,
    put,
    rows,
    setting,
    times,
    whole,
)

import qwenkit as qk
from qwenkit.fast._machine import kernels_problem
from qwenkit.model import KVCache, PageBatch, PagePool, PageTable

pytestmark = [
    pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem())),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
]
SIZE = 3  # tokens per page: the second page is full in the middle, and the third is begun


def views(model):
    """Yield the view of the pages for each forward pass; they are in no order."""
    pool = PagePool(model.config, 5, SIZE)
    for length, count in ((0, PROMPT), *((i, 1) for i in range(PROMPT, LENGTH))):
        yield PageBatch(pool, [PageTable([4, 1, 2], length)], [count])


def in_pages(model, edit=None):
    return decoded(model, edit, views(model))


@pytest.mark.parametrize("dtype", NEAR)
def test_from_pages_the_kernels_give_the_very_numbers_that_they_give_from_one_buffer(dtype):
    model = loaded(dtype)
    got, served = in_pages(model)
    assert served
    assert torch.equal(got, decoded(model)[0])
    with qk.plain(model):
        want, served = in_pages(model)
    assert not served
    assert relative_error(got, want) < NEAR[dtype]


def first_dtype(pairs):
    return [*{name: (name, dtype) for name, dtype in reversed(pairs)}.values()]


@pytest.mark.parametrize(("name", "dtype"), first_dtype(rows(EDITS)))
def test_after_an_edit_decoding_equals_the_whole_forward(name, dtype):
    model = loaded(dtype)
    before = whole(model)
    in_pages(model)
    EDITS[name](model)
    want = whole(model)
    got, served = in_pages(model)
    assert relative_error(got, want) < NEAR[dtype]
    assert relative_error(want, before) > VISIBLE * NEAR[dtype]
    assert served == (name in STAY), qk.explain(model)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in CODE), *((n, "int4") for n in CODE if n not in FLOAT_CODE)],
)
def test_while_code_is_replaced_decoding_is_that_of_the_taught_model(name, dtype):
    model = loaded(dtype)
    with CODE[name](model):
        found = outcome(model, None, views(model))
        assert not qk.explain(model).fast
        with qk.plain(model):
            same(found, outcome(model, None, views(model)), dtype)  # some break the taught one, too
    assert in_pages(model)[1]


def same(found, want, dtype):
    """Assert that two outcomes are, logits or errors."""
    if isinstance(want, str) or isinstance(found, str):
        assert found == want
    else:
        assert relative_error(found, want) < NEAR[dtype]


def twice(self, layer, keys, values):
    return tuple(2 * x for x in own_update(self, layer, keys, values))


def other_code(self, pool, new, is_new, written, read):
    vectors = pool.view(-1, new.shape[-1])
    vectors[written] = new.transpose(1, 2)[is_new] * 3
    return vectors.index_select(0, read).view(1, new.shape[1], -1, new.shape[-1])


own_update = PageBatch.update
PAGES_CODE = {
    "PageBatch.update": lambda: patch(PageBatch, "update", twice),
    "PageBatch._through": lambda: times(PageBatch, "_through", 2),
    "the code of _through": lambda: setting(
        inspect.unwrap(PageBatch._through), "__code__", other_code.__code__),
    "Tensor.index_select": lambda: add(
        torch.Tensor, "index_select", lambda x, dim, at: torch.index_select(x, dim, at) * 2),
    "KVCache._check": lambda: patch(KVCache, "_check", lambda s, layer, k, v: v.mul_(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES_CODE)
def test_while_the_code_of_pages_is_replaced_it_is_called_for_each_token(name):
    model = loaded("float32")
    before, _ = in_pages(model)
    with PAGES_CODE[name]():
        got, served = in_pages(model)
        with qk.plain(model):
            want, _ = in_pages(model)
    assert not served
    assert relative_error(got, want) < NEAR["float32"]
    assert relative_error(want, before) > VISIBLE * NEAR["float32"]
    assert in_pages(model)[1]


def new_keys(change):
    return lambda m, view: view.pool.keys.__setitem__(1, change(view.pool.keys[1]))


def each_pool(view, change):
    for pools in (view.pool.keys, view.pool.values):
        pools[:] = map(change, pools)


def own_update_of_one(model, view):
    view.update = lambda *given: twice(view, *given)


PAGES = {
    "keys of zeros": lambda m, view: [keys.zero_() for keys in view.pool.keys],
    "a new pool": new_keys(torch.ones_like),
    "a transposed pool": new_keys(lambda k: k.transpose(2, 3).contiguous().transpose(2, 3)),
    "one kv head for all": new_keys(lambda k: k[:, :1].expand_as(k)),
    "keys with a sign to come": new_keys(torch._neg_view),
    "one pool for two layers": lambda m, view: put(view.pool, keys=[view.pool.keys[0]] * 2),
    "fewer pools": lambda m, view: put(view.pool, keys=view.pool.keys[:1]),
    "pools in a tuple": lambda m, view: put(view.pool, keys=tuple(view.pool.keys)),
    "another dtype": lambda m, view: each_pool(view, torch.Tensor.double),
    "fewer pages": lambda m, view: each_pool(view, lambda one: one[:3].clone()),
    "smaller pages": lambda m, view: put(view.pool, page_size=2),
    "more pages than there are": lambda m, view: put(view.pool, num_pages=100),
    "another page": lambda m, view: view.tables[0].pages.__setitem__(0, 3),
    "a page twice": lambda m, view: view.tables[0].pages.__setitem__(0, 1),
    "a page that is not there": lambda m, view: view.tables[0].pages.__setitem__(0, 6),
    "a page below zero": lambda m, view: view.tables[0].pages.__setitem__(0, -1),
    "a page of text": lambda m, view: view.tables[0].pages.__setitem__(0, "0"),
    "a page too few": lambda m, view: view.tables[0].pages.pop(),
    "no pages": lambda m, view: view.tables[0].pages.clear(),
    "another table": lambda m, view: put(view, tables=[PageTable([0, 1, 2])]),
    "an older length": lambda m, view: put(view, length=view.length - 1),
    "a length of the table": lambda m, view: put(view.tables[0], length=1),
    "another end": lambda m, view: put(view, ends=[view.ends[0] - 1]),
    "another count": lambda m, view: put(view, counts=[2]),
    "two texts": lambda m, view: put(view, batch_size=2),
    "an update of its own": own_update_of_one,
}


@pytest.mark.parametrize(("name", "dtype"), first_dtype(rows(EDITS, REFUSED, PAGES)))
def test_an_edit_in_the_middle_of_a_text_is_seen_by_the_next_token(name, dtype):
    edit = (PAGES | REFUSED).get(name) or (lambda model, view: EDITS[name](model))
    model = loaded(dtype)
    found, model = outcome(model, edit, views(model)), loaded(dtype)
    with qk.plain(model):
        same(found, outcome(model, edit, views(model)), dtype)
