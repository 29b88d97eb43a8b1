"""Every way to multiply gives what F.linear gives, and the right one is taken."""

import pytest
import torch
import torch.nn.functional as F

from qwenkit.model import linear as room
from qwenkit.fast.linear import (
    LARGE,
    Linear,
    by_slices,
    by_vector,
    from_the_left,
    linear,
    widened,
)

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
        (widened, torch.bfloat16, (2, 600)),
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


@pytest.mark.parametrize("way", [from_the_left, widened])
def test_what_may_stay_turned_has_the_same_numbers_and_is_not_copied(way):
    x, w, b = operands(12, 8, torch.bfloat16, (2, 3))
    turned = way(x, w, b, turned=True)
    assert torch.equal(turned, way(x, w, b))
    assert turned.shape == (2, 3, 12)
    assert turned.stride() == (3, 1, 6)  # column by column


def test_widening_goes_piece_by_piece_through_one_small_buffer(monkeypatch):
    monkeypatch.setattr(room, "PIECE", 100)
    x, w, b = operands(37, 24, torch.bfloat16, (6,))  # 4 rows a piece, the last one smaller
    want = F.linear(x.float(), w.float()).bfloat16() + b
    assert torch.equal(widened(x, w, b), want)
    made = room._buffer(1, torch.float32, x.device).data_ptr()
    widened(x, w, b)
    assert room._buffer(1, torch.float32, x.device).data_ptr() == made


@pytest.mark.parametrize("rows", [(2, 3), (2, 600)])
def test_what_was_widened_lies_in_its_order_from_the_start(rows, monkeypatch):
    monkeypatch.setattr(room, "PIECE", 100)
    x, w, _ = operands(37, 24, torch.bfloat16, rows)
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda _: pytest.fail("it was copied"))
    y = widened(x, w)
    assert y.is_contiguous()
    torch.testing.assert_close(y, F.linear(x.float(), w.float()).bfloat16())


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


LARGE_WEIGHT, SMALL_WEIGHT = (1024, 1024), (64, 64)
ABLE, LOOP, TURNED = "multiplies bfloat16", "has the loop", "may be turned"
WAYS = {  # rows, dtype, weight's size, what else holds -> the way
    "float32, one row": ((1, 1), torch.float32, LARGE_WEIGHT, (LOOP,), "by_loop"),
    "float32, one row, no loop": ((1, 1), torch.float32, LARGE_WEIGHT, (), "F.linear"),
    "float32, 3 rows": ((3, 1), torch.float32, LARGE_WEIGHT, (LOOP,), "by_loop"),
    "float32, 4 rows": ((1, 4), torch.float32, LARGE_WEIGHT, (LOOP,), "by_slices"),
    "float32, 12 rows": ((3, 4), torch.float32, LARGE_WEIGHT, (), "by_slices"),
    "float32, 13 rows": ((1, 13), torch.float32, LARGE_WEIGHT, (LOOP,), "from_the_left"),
    "float32, 48 rows": ((2, 24), torch.float32, LARGE_WEIGHT, (), "from_the_left"),
    "float32, 49 rows": ((49,), torch.float32, LARGE_WEIGHT, (), "F.linear"),
    "float32, 65 rows": ((65,), torch.float32, LARGE_WEIGHT, (), "F.linear"),
    "float32, 512 rows": ((1, 512), torch.float32, LARGE_WEIGHT, (), "F.linear"),
    "float32, 512 rows, turned": ((512,), torch.float32, LARGE_WEIGHT, (TURNED,), "from_the_left"),
    "float32, 1025 rows, turned": ((1025,), torch.float32, LARGE_WEIGHT, (TURNED,), "F.linear"),
    "float32, 512 rows, small": ((512,), torch.float32, SMALL_WEIGHT, (TURNED,), "F.linear"),
    "float32, no rows": ((0,), torch.float32, LARGE_WEIGHT, (LOOP,), "F.linear"),
    "bfloat16, one row": ((1, 1), torch.bfloat16, SMALL_WEIGHT, (LOOP,), "by_loop"),
    "bfloat16, one row, no loop": ((1, 1), torch.bfloat16, LARGE_WEIGHT, (), "by_vector"),
    "bfloat16, one row, small": ((1, 1), torch.bfloat16, SMALL_WEIGHT, (), "F.linear"),
    "bfloat16, two rows": ((2, 1), torch.bfloat16, LARGE_WEIGHT, (LOOP, ABLE), "by_loop"),
    "bfloat16, 3 rows": ((3, 1), torch.bfloat16, LARGE_WEIGHT, (LOOP, ABLE), "from_the_left"),
    "bfloat16, 64 rows": ((64,), torch.bfloat16, LARGE_WEIGHT, (ABLE,), "from_the_left"),
    "bfloat16, 65 rows": ((65,), torch.bfloat16, LARGE_WEIGHT, (ABLE,), "F.linear"),
    "bfloat16, 8 rows, no products": ((8,), torch.bfloat16, LARGE_WEIGHT, (LOOP,), "by_loop"),
    "bfloat16, 9 rows, no products": ((9,), torch.bfloat16, LARGE_WEIGHT, (LOOP,), "widened"),
    "bfloat16, rows, small": ((1, 9), torch.bfloat16, SMALL_WEIGHT, (ABLE,), "F.linear"),
    "bfloat16, rows, no products": ((1, 9), torch.bfloat16, SMALL_WEIGHT, (), "widened"),
    "bfloat16, two rows, no loop": ((2, 1), torch.bfloat16, SMALL_WEIGHT, (), "F.linear"),
    "bfloat16, two rows, no loop, large": ((2,), torch.bfloat16, LARGE_WEIGHT, (), "F.linear"),
    "bfloat16, two rows, products": ((2,), torch.bfloat16, LARGE_WEIGHT, (ABLE,), "from_the_left"),
    "float16": ((1, 1), torch.float16, LARGE_WEIGHT, (), "F.linear"),
    "no rows": ((0, 1), torch.bfloat16, SMALL_WEIGHT, (LOOP,), "F.linear"),
}


def way_taken(monkeypatch, x, w, holds=()):
    taken = []
    for name in ("by_slices", "by_vector", "from_the_left", "widened"):
        way = lambda x, w, *_, name=name, **__: taken.append(name) or F.linear(x, w)  # noqa: E731
        monkeypatch.setattr(room, name, way)
    monkeypatch.setattr(room, "by_loop", lambda x, *_: taken.append("by_loop") or F.linear(x, w))
    monkeypatch.setattr(room, "has_bfloat16_products", lambda: ABLE in holds)
    values = w.view(torch.uint16 if w.dtype == torch.bfloat16 else w.dtype)
    values = values.detach().numpy() if LOOP in holds and w.is_cpu else None
    monkeypatch.setattr(room, "reading", lambda _: values)
    linear(x, w, may_turn=TURNED in holds)
    return taken[0] if taken else "F.linear"


@pytest.mark.parametrize("case", WAYS)
def test_rows_dtype_and_processor_decide_the_way(case, monkeypatch):
    rows, dtype, (outer, inner), holds, want = WAYS[case]
    x, w, _ = operands(outer, inner, dtype, rows)
    assert way_taken(monkeypatch, x, w, holds) == want


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_is_trained_or_cast_or_elsewhere_goes_through_f_linear(dtype, monkeypatch):
    x, w, _ = operands(1024, 1024, dtype, (1,))
    assert LARGE <= w.numel()
    loop = (LOOP,)
    assert way_taken(monkeypatch, x, w, loop) == "by_loop"
    assert way_taken(monkeypatch, x, w.clone().requires_grad_(), loop) == "F.linear"
    assert way_taken(monkeypatch, x.clone().requires_grad_(), w, loop) == "F.linear"
    assert way_taken(monkeypatch, x, w.T.contiguous().T) == "F.linear"
    assert way_taken(monkeypatch, x.to("meta"), w.to("meta")) == "F.linear"
    with torch.autocast("cpu", torch.bfloat16):
        assert way_taken(monkeypatch, x, w, loop) == "F.linear"
    with torch.no_grad():
        assert way_taken(monkeypatch, x, w.clone().requires_grad_(), loop) == "by_loop"


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
