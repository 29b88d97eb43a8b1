"""The table of edits on the real Qwen2.5-Coder-0.5B. Needs QWENKIT_MODEL to name its folder."""

import copy
import functools
import os

import pytest
import test_edits
from reference import relative_error
from test_edits import CODE, EDITS, FLOAT_CODE, STAY, VISIBLE, decoded, rows, whole
from test_real import REASON

import qwenkit as qk
from qwenkit.fast._machine import kernels_problem

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(REASON), reason=REASON),
    pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem())),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
]
NEAR = {"float32": 1e-4, "bfloat16": 0.06, "int8": 0.06, "int4": 0.06}
TOY = {"another model inside", "another window inside"}  # they put a toy in


@functools.lru_cache(maxsize=1)
def real(dtype):
    """Return the model as `load_pretrained` gives it, and the start of a function."""
    folder = os.environ["QWENKIT_MODEL"]
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype=dtype)
    return model, tokenizer("def area(width, height):\n    return")[:, : test_edits.LENGTH]


@pytest.fixture
def model(dtype, monkeypatch):
    model, tokens = real(dtype)
    monkeypatch.setattr(test_edits, "TOKENS", tokens)
    return copy.deepcopy(model)


@pytest.mark.parametrize("dtype", NEAR)
def test_an_untouched_model_is_served_by_the_kernels(model, dtype):
    got, served = decoded(model)
    assert served
    assert relative_error(got, whole(model)) < NEAR[dtype]


@pytest.mark.parametrize(
    ("name", "dtype"),
    sorted((row for row in rows(EDITS) if row[0] not in TOY), key=lambda row: row[1]),
)
def test_after_an_edit_decoding_equals_the_whole_forward(name, dtype, model):
    before = whole(model)
    decoded(model)
    EDITS[name](model)
    check(model, dtype, before, name in STAY)


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d in NEAR for n in CODE])
def test_while_code_is_replaced_decoding_equals_the_whole_forward(name, dtype, model):
    if dtype in ("int8", "int4") and name in FLOAT_CODE:
        return  # no layer of a quantized model calls it
    before = whole(model)
    decoded(model)
    with CODE[name](model):
        check(model, dtype, before, served=False)


def check(model, dtype, before, served):
    want = whole(model)
    got, by_kernels = decoded(model)
    assert by_kernels == served, qk.explain(model)
    if not relative_error(got, want) < NEAR[dtype]:  # random weights make rounding grow
        with qk.plain(model):
            taught, _ = decoded(model)
        if relative_error(got, want) < 3 * relative_error(taught, want):
            return
        # Both are far from the truth: a score's rounding decides which token attention sees.
        exact = whole(copy.deepcopy(model).float())
        assert relative_error(got, exact) < 1.1 * relative_error(want, exact)
    if dtype == "float32":  # the edit shows
        assert relative_error(want, before) > VISIBLE * NEAR[dtype]
