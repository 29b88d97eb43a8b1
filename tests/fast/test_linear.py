"""Every way to multiply gives what F.linear gives, and the right one is taken."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad

from qwenkit.fast import linear as linear_file
from qwenkit.fast.int8 import FastInt8Linear, Int8Linear, quantize_rows
from qwenkit.fast.linear import (
    LARGE,
    FastLinear,
    _buffers,
    by_kernel,
    by_slices,
    by_vector,
    from_the_left,
    linear,
    upcast_in_chunks,
)

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
SHAPES = [(1, 1), (7, 3), (64, 48), (1031, 1030)]  # the last: large, and a prime of rows


def operands(out_features, in_features, dtype, tokens=(1,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((*tokens, in_features), (out_features, in_features), out_features)
    return [torch.randn(size, generator=generator).to(dtype) for size in sizes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("out_features", "in_features"), SHAPES)
@pytest.mark.parametrize(
    ("way", "dtype", "tokens"),
    [
        (by_slices, FLOAT32, (1,)), (by_slices, FLOAT32, (1, 1)), (by_slices, FLOAT32, (2, 3)),
        (by_vector, BFLOAT16, (1,)), (by_vector, BFLOAT16, (1, 1)), (by_vector, FLOAT32, ()),
        (from_the_left, FLOAT32, (5,)), (from_the_left, BFLOAT16, (2, 3)),
        (from_the_left, BFLOAT16, (1,)), (upcast_in_chunks, BFLOAT16, (5,)),
        (upcast_in_chunks, BFLOAT16, (2, 3)), (upcast_in_chunks, BFLOAT16, (2, 600)),
        (by_kernel, FLOAT32, (1, 1)), (by_kernel, FLOAT32, (3,)), (by_kernel, BFLOAT16, (1, 1)),
        (by_kernel, BFLOAT16, (2, 4)), (linear, FLOAT32, (1, 1)), (linear, BFLOAT16, (1, 1)),
        (linear, BFLOAT16, (2, 9)), (linear, torch.float16, (1, 1)),
    ],
)  # fmt: skip
def test_each_way_is_as_near_to_the_exact_product_as_f_linear(
    way, dtype, tokens, out_features, in_features, bias
):
    x, w, b = operands(out_features, in_features, dtype, tokens)
    b = b if bias else None
    got, want = way(x, w, b), F.linear(x, w, b)
    true = F.linear(x.double(), w.double(), b.double() if bias else None)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    error, theirs = ((y.double() - true).abs().max().item() for y in (got, want))
    assert error <= 2 * theirs + torch.finfo(dtype).eps * true.abs().max().item()


def test_the_weight_on_the_left_gives_tokens_that_lie_in_memory_as_those_of_f_linear():
    x, w, b = operands(12, 8, torch.float32, (2, 3))
    assert from_the_left(x, w, b).stride() == F.linear(x, w, b).stride()


def test_upcasting_goes_chunk_by_chunk_through_one_small_buffer(monkeypatch):
    monkeypatch.setattr(linear_file, "CHUNK", 100)
    x, w, b = operands(37, 24, torch.bfloat16, (6,))  # 4 rows per chunk, the last one smaller
    want = F.linear(x.float(), w.float()).bfloat16() + b
    assert torch.equal(upcast_in_chunks(x, w, b), want)
    made = linear_file._buffer(1, torch.float32, x.device).data_ptr()
    upcast_in_chunks(x, w, b)
    assert linear_file._buffer(1, torch.float32, x.device).data_ptr() == made


@pytest.mark.parametrize("tokens", [(2, 3), (2, 600)])
def test_what_was_upcast_lies_in_its_final_order_from_the_start(tokens, monkeypatch):
    monkeypatch.setattr(linear_file, "CHUNK", 100)
    x, w, _ = operands(37, 24, torch.bfloat16, tokens)
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda _: pytest.fail("it was copied"))
    y = upcast_in_chunks(x, w)
    assert y.is_contiguous()
    torch.testing.assert_close(y, F.linear(x.float(), w.float()).bfloat16())


def test_a_second_thread_has_a_buffer_of_its_own():
    x, w, _ = operands(8, 8, torch.bfloat16, (4,))
    upcast_in_chunks(x, w)

    def buffer():
        return linear_file._buffer(8, torch.float32, x.device).data_ptr()

    seen = []
    thread = threading.Thread(target=lambda: seen.append((upcast_in_chunks(x, w), buffer())))
    thread.start()
    thread.join()
    assert torch.equal(seen[0][0], upcast_in_chunks(x, w))
    assert seen[0][1] != buffer()


def test_what_was_upcast_in_inference_mode_is_upcast_again_outside():
    x, w, _ = operands(64, 32, torch.bfloat16, (20,))
    _buffers.held.clear()
    with torch.inference_mode():
        want = upcast_in_chunks(x, w)
    assert torch.equal(upcast_in_chunks(x, w), want)


BIG, SMALL = (1024, 1024), (64, 64)
ABLE, KERNEL = "multiplies bfloat16", "has the kernel"
WAYS = {  # tokens, dtype, the weight's size, what else holds -> the way
    "float32, one token": ((1, 1), FLOAT32, BIG, (KERNEL,), "by_kernel"),
    "float32, one token, no kernel": ((1, 1), FLOAT32, BIG, (), "F.linear"),
    "float32, 3 tokens": ((3, 1), FLOAT32, BIG, (KERNEL,), "by_kernel"),
    "float32, 4 tokens": ((1, 4), FLOAT32, BIG, (KERNEL,), "by_slices"),
    "float32, 12 tokens": ((3, 4), FLOAT32, BIG, (), "by_slices"),
    "float32, 13 tokens": ((1, 13), FLOAT32, BIG, (KERNEL,), "from_the_left"),
    "float32, 48 tokens": ((2, 24), FLOAT32, BIG, (), "from_the_left"),
    "float32, 49 tokens": ((49,), FLOAT32, BIG, (), "F.linear"),
    "float32, 65 tokens": ((65,), FLOAT32, BIG, (), "F.linear"),
    "float32, 512 tokens": ((1, 512), FLOAT32, BIG, (), "F.linear"),
    "float32, 512 tokens, small": ((512,), FLOAT32, SMALL, (), "F.linear"),
    "float32, no tokens": ((0,), FLOAT32, BIG, (KERNEL,), "F.linear"),
    "bfloat16, one token": ((1, 1), BFLOAT16, SMALL, (KERNEL,), "by_kernel"),
    "bfloat16, one token, no kernel": ((1, 1), BFLOAT16, BIG, (), "by_vector"),
    "bfloat16, one token, small": ((1, 1), BFLOAT16, SMALL, (), "F.linear"),
    "bfloat16, two tokens": ((2, 1), BFLOAT16, BIG, (KERNEL, ABLE), "by_kernel"),
    "bfloat16, 3 tokens": ((3, 1), BFLOAT16, BIG, (KERNEL, ABLE), "from_the_left"),
    "bfloat16, 64 tokens": ((64,), BFLOAT16, BIG, (ABLE,), "from_the_left"),
    "bfloat16, 65 tokens": ((65,), BFLOAT16, BIG, (ABLE,), "F.linear"),
    "bfloat16, 8 tokens, no products": ((8,), BFLOAT16, BIG, (KERNEL,), "by_kernel"),
    "bfloat16, 9 tokens, no products": ((9,), BFLOAT16, BIG, (KERNEL,), "upcast_in_chunks"),
    "bfloat16, tokens, small": ((1, 9), BFLOAT16, SMALL, (ABLE,), "F.linear"),
    "bfloat16, tokens, no products": ((1, 9), BFLOAT16, SMALL, (), "upcast_in_chunks"),
    "bfloat16, two tokens, no kernel": ((2, 1), BFLOAT16, SMALL, (), "F.linear"),
    "bfloat16, two tokens, no kernel, large": ((2,), BFLOAT16, BIG, (), "F.linear"),
    "bfloat16, two tokens, products": ((2,), BFLOAT16, BIG, (ABLE,), "from_the_left"),
    "float16": ((1, 1), torch.float16, BIG, (KERNEL,), "F.linear"),
    "no tokens": ((0, 1), BFLOAT16, SMALL, (KERNEL,), "F.linear"),
}


def way_taken(monkeypatch, x, w, holds=()):
    taken = []
    for name in ("by_slices", "by_vector", "from_the_left", "upcast_in_chunks", "by_kernel"):
        way = lambda x, w, *_, name=name, **__: taken.append(name) or F.linear(x, w)  # noqa: E731
        monkeypatch.setattr(linear_file, name, way)
    monkeypatch.setattr(linear_file, "has_bfloat16_products", lambda: ABLE in holds)
    monkeypatch.setattr(linear_file, "kernels_problem", lambda: None if KERNEL in holds else "no")
    linear(x, w)
    return taken[0] if taken else "F.linear"


@pytest.mark.parametrize("case", WAYS)
def test_tokens_dtype_and_processor_decide_the_way(case, monkeypatch):
    tokens, dtype, size, holds, want = WAYS[case]
    x, w, _ = operands(*size, dtype, tokens)
    assert way_taken(monkeypatch, x, w, holds) == want


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_whatever_is_trained_or_cast_or_elsewhere_goes_through_f_linear(dtype, monkeypatch):
    x, w, _ = operands(1024, 1024, dtype, (1,))
    assert LARGE <= w.numel()
    kernel = (KERNEL,)
    assert way_taken(monkeypatch, x, w, kernel) == "by_kernel"
    assert way_taken(monkeypatch, x, w.clone().requires_grad_(), kernel) == "F.linear"
    assert way_taken(monkeypatch, x.clone().requires_grad_(), w, kernel) == "F.linear"
    assert way_taken(monkeypatch, x, w.T.contiguous().T, kernel) == "F.linear"
    assert way_taken(monkeypatch, x.to("meta"), w.to("meta"), kernel) == "F.linear"
    with torch.autocast("cpu", torch.bfloat16):
        assert way_taken(monkeypatch, x, w, kernel) == "F.linear"
    with torch.no_grad():
        assert way_taken(monkeypatch, x, w.clone().requires_grad_(), kernel) == "by_kernel"


def test_dtypes_or_widths_that_differ_are_refused_as_f_linear_does():
    x, w, _ = operands(8, 8, torch.bfloat16, (1,))
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x.float(), w)
    for width in (7, 9):
        with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size"):
            linear(torch.ones(1, width), w.float())
        with pytest.raises(ValueError, match="x has shape"):
            by_kernel(torch.ones(1, width), w.float())


def test_gradients_pass_through_the_module():
    module = FastLinear(6, 4)
    x = torch.randn(1, 6, requires_grad=True)
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, module.weight.sum(0, keepdim=True))
    torch.testing.assert_close(module.bias.grad, torch.ones(4))


def tangent(function, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x * 2))).tangent


TRANSFORMS = {
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x * 2,))[1],
    "forward mode": tangent,
    "jit.trace": lambda f, x: torch.jit.trace(f, x * 0, check_trace=False)(x),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_follows_each_product_sees_it(name, int8):
    x, w, b = operands(8, 64, FLOAT32, (1, 1))
    taught, fast = [], []
    for kind, found in ((Int8Linear, taught), (FastInt8Linear, fast)):
        module = kind(*quantize_rows(w), b)
        if not int8:
            module = (nn.Linear if kind is Int8Linear else FastLinear)(64, 8)
            module.load_state_dict({"weight": w, "bias": b})
        with torch.no_grad():
            found.append(TRANSFORMS[name](module, x))
    torch.testing.assert_close(fast, taught, rtol=0, atol=0)
