"""Every way to multiply gives what F.linear gives, and the right one is taken."""

import time

import pytest
import torch
import torch.nn.functional as F

from qwenkit.model import linear as room
from qwenkit.model.linear import LARGE, Linear, by_slices, by_vector, from_the_left, linear, widened

SHAPES = [(1, 1), (7, 3), (64, 48), (1031, 1030)]  # the last: large, and a prime of rows


def operands(outer, inner, dtype, rows=(1,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, w, b = (torch.randn(s, generator=generator) for s in ((*rows, inner), (outer, inner), outer))
    return x.to(dtype), w.to(dtype), b.to(dtype)


def exact(x, w, b):
    """Return the product in float64, which no way here computes in."""
    return F.linear(x.double(), w.double(), None if b is None else b.double())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("outer", "inner"), SHAPES)
@pytest.mark.parametrize(
    ("way", "dtype", "rows"),
    [
        (by_slices, torch.float32, (1,)),
        (by_slices, torch.float32, (1, 1)),
        (by_slices, torch.float32, (2, 3)),
        (by_vector, torch.bfloat16, (1,)),
        (by_vector, torch.bfloat16, (1, 1)),
        (by_vector, torch.float32, ()),
        (from_the_left, torch.float32, (5,)),
        (from_the_left, torch.bfloat16, (2, 3)),
        (from_the_left, torch.bfloat16, (1,)),
        (widened, torch.bfloat16, (5,)),
        (widened, torch.bfloat16, (2, 3)),
        (linear, torch.float32, (1, 1)),
        (linear, torch.bfloat16, (1, 1)),
        (linear, torch.bfloat16, (2, 9)),
        (linear, torch.float16, (1, 1)),
    ],
)
def test_each_way_is_as_near_to_the_exact_product_as_f_linear(way, dtype, rows, outer, inner, bias):
    x, w, b = operands(outer, inner, dtype, rows)
    b = b if bias else None
    got, want, true = way(x, w, b), F.linear(x, w, b), exact(x, w, b)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    error, theirs = ((y.double() - true).abs().max().item() for y in (got, want))
    assert error <= 2 * theirs + torch.finfo(dtype).eps * true.abs().max().item()


def test_the_weight_on_the_left_gives_rows_that_lie_in_memory_as_those_of_f_linear():
    x, w, b = operands(12, 8, torch.float32, (2, 3))
    assert from_the_left(x, w, b).stride() == F.linear(x, w, b).stride()


def test_widening_goes_piece_by_piece_through_one_small_buffer(monkeypatch):
    monkeypatch.setattr(room, "PIECE", 100)
    x, w, b = operands(37, 24, torch.bfloat16, (6,))  # 4 rows a piece, the last one smaller
    want = F.linear(x.float(), w.float()).bfloat16() + b
    assert torch.equal(widened(x, w, b), want)
    made = room._buffer(1, torch.float32, x.device).data_ptr()
    widened(x, w, b)
    assert room._buffer(1, torch.float32, x.device).data_ptr() == made


def test_a_second_thread_has_a_buffer_of_its_own():
    import threading

    x, w, _ = operands(8, 8, torch.bfloat16, (4,))
    widened(x, w)
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append(
            (widened(x, w), room._buffer(8, torch.float32, x.device).data_ptr())
        )
    )
    thread.start()
    thread.join()
    assert torch.equal(seen[0][0], widened(x, w))
    assert seen[0][1] != room._buffer(8, torch.float32, x.device).data_ptr()


WAYS = {  # rows, dtype, weight's size, able -> the way. able: it multiplies bfloat16, on all cores
    "float32, one row": ((1, 1), torch.float32, (1024, 1024), True, "F.linear"),
    "float32, one row, one core": ((1, 1), torch.float32, (1024, 1024), False, "by_slices"),
    "float32, 3 rows, one core": ((3, 1), torch.float32, (1024, 1024), False, "by_slices"),
    "float32, 4 rows": ((1, 4), torch.float32, (1024, 1024), True, "by_slices"),
    "float32, 12 rows": ((3, 4), torch.float32, (1024, 1024), True, "by_slices"),
    "float32, 13 rows": ((1, 13), torch.float32, (1024, 1024), True, "from_the_left"),
    "float32, 64 rows": ((2, 32), torch.float32, (1024, 1024), True, "from_the_left"),
    "float32, 65 rows": ((65,), torch.float32, (1024, 1024), True, "F.linear"),
    "float32, one row, small": ((1, 1), torch.float32, (64, 64), True, "F.linear"),
    "float32, no rows": ((0,), torch.float32, (1024, 1024), False, "F.linear"),
    "bfloat16, two rows": ((2, 1), torch.bfloat16, (1024, 1024), True, "from_the_left"),
    "bfloat16, one row": ((1, 1), torch.bfloat16, (64, 64), True, "by_vector"),
    "bfloat16, one row, no products": ((1, 1), torch.bfloat16, (64, 64), False, "by_vector"),
    "bfloat16, rows, small": ((1, 9), torch.bfloat16, (64, 64), True, "F.linear"),
    "bfloat16, rows, no products": ((1, 9), torch.bfloat16, (64, 64), False, "widened"),
    "bfloat16, two rows, no products": ((2, 1), torch.bfloat16, (64, 64), False, "F.linear"),
    "float16": ((1, 1), torch.float16, (1024, 1024), True, "F.linear"),
    "no rows": ((0, 1), torch.bfloat16, (64, 64), False, "F.linear"),
}


def way_taken(monkeypatch, x, w, able=False):
    taken = []
    for name in ("by_slices", "by_vector", "from_the_left", "widened"):
        monkeypatch.setattr(room, name, lambda *a, name=name: taken.append(name) or F.linear(*a))
    monkeypatch.setattr(room, "has_bfloat16_products", lambda: able)
    monkeypatch.setattr(room, "leaves_cores_idle", lambda: not able)
    linear(x, w)
    return taken[0] if taken else "F.linear"


@pytest.mark.parametrize("case", WAYS)
def test_rows_dtype_and_processor_decide_the_way(case, monkeypatch):
    rows, dtype, (outer, inner), able, want = WAYS[case]
    x, w, _ = operands(outer, inner, dtype, rows)
    assert way_taken(monkeypatch, x, w, able) == want


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="a promise of MKL alone")
@pytest.mark.parametrize("rows", [1, 3])
def test_slices_of_so_few_rows_give_the_very_numbers_of_f_linear(rows):
    x, w, b = operands(1024, 896, torch.float32, (rows,))
    assert torch.equal(by_slices(x, w, b), F.linear(x, w, b))  # so that timing may choose


def test_cores_are_idle_where_slices_are_clearly_quicker(monkeypatch):
    slow = torch.zeros(1, 1)
    for side, want in (("by_slices", False), ("linear", True)):
        with monkeypatch.context() as patched:
            late = lambda *_: time.sleep(0.02) or slow  # noqa: E731
            patched.setattr(F if side == "linear" else room, side, late)
            room.leaves_cores_idle.cache_clear()
            assert room.leaves_cores_idle() is want
    room.leaves_cores_idle.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_is_trained_or_cast_or_elsewhere_goes_through_f_linear(dtype, monkeypatch):
    x, w, _ = operands(1024, 1024, dtype, (1,))
    assert LARGE <= w.numel()
    assert way_taken(monkeypatch, x, w.clone().requires_grad_()) == "F.linear"
    assert way_taken(monkeypatch, x.clone().requires_grad_(), w) == "F.linear"
    assert way_taken(monkeypatch, x, w.T.contiguous().T) == "F.linear"
    assert way_taken(monkeypatch, x.to("meta"), w.to("meta")) == "F.linear"
    with torch.autocast("cpu", torch.bfloat16):
        assert way_taken(monkeypatch, x, w) == "F.linear"
    with torch.no_grad():
        assert way_taken(monkeypatch, x, w.clone().requires_grad_()) != "F.linear"


def test_dtypes_that_differ_are_refused_as_f_linear_does():
    x, w, _ = operands(8, 8, torch.bfloat16, (1,))
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x.float(), w)


def test_gradients_pass_through_the_module():
    module = Linear(6, 4)
    x = torch.randn(1, 6, requires_grad=True)
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.sum(0, keepdim=True))
    torch.testing.assert_close(module.bias.grad, torch.ones(4))
