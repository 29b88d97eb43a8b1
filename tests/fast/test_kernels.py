"""The compiled kernels: their numbers, for each dtype they read, and where they run."""

import math
import os
import sys
import threading
import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures_toy import python
from interruptions import interrupted
from kernel_runs import in_python
from torch import nn

from qwenkit.fast import _machine, team
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.int4 import dequantize, quantize_groups
from qwenkit.fast.int8 import dequantize_rows, quantize_rows
from qwenkit.fast.linear import by_kernel, linear
from qwenkit.model import RMSNorm, apply_rope

if kernels_problem() is not None:
    pytest.skip(kernels_problem(), allow_module_level=True)

from qwenkit.fast import kernels as module
from qwenkit.fast.race import NEAR, Race, race

SHAPES = [(1, 1), (3, 7), (4, 16), (5, 3), (67, 130)]


@pytest.fixture(params=["compiled", "python"])
def kernels(request):
    """Return the kernels as they are compiled, then as the Python functions that one reads."""
    with in_python() if request.param == "python" else nullcontext():
        yield module


def stored(out_features, in_features, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(out_features, in_features, generator=generator) * 30
    return values.clamp(-127, 127).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("out_features", "in_features"), SHAPES)
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.usefixtures("kernels")
def test_numbers_are_those_of_the_float32_product(tokens, out_features, in_features, dtype):
    weight = stored(out_features, in_features, dtype)
    x = torch.randn(tokens, in_features, generator=torch.Generator().manual_seed(1))
    true = F.linear(x.double(), weight.double())
    theirs = (F.linear(x, weight.float()) - true).abs().max().item()
    got = by_kernel(x, weight, scale=torch.ones(out_features) if dtype == torch.int8 else None)
    assert got.shape == (tokens, out_features)
    assert (got - true).abs().max().item() <= 2 * theirs + 1e-6 * true.abs().max().item()


def bound(x, weight, groups):
    """Return how far a product with an integer weight may be from the true one.

    In groups of 64 (in int8 with a scale per row, too) the token becomes integers, each at most
    half a step away from its value; the rest is what adding up in float32 rounds.
    """
    rounded = 2e-6 * F.linear(x.double().abs(), weight.double().abs())
    if x.shape[1] != groups * 64:
        return rounded
    step = x.double().unflatten(1, (groups, 64)).abs().amax(-1) / 32767  # (tokens, G)
    size = weight.double().unflatten(1, (groups, 64)).abs().sum(-1)  # (O, G)
    return rounded + F.linear(step / 2, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "sizes",
    [(1, 2, 1), (67, 128, 2), (9, 96, 1), (5, 70, 7), (2, 64, 1), (7, 1280, 20), (67, 192, 1),
     (5, 1152, 1)],
)  # fmt: skip
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.usefixtures("kernels")
def test_int8_numbers_are_those_of_the_float32_product(tokens, sizes, dtype):
    out_features, in_features, groups = sizes
    weight, scale = quantize_rows(
        stored(out_features, in_features, torch.float32), in_features // groups
    )
    scale = scale.to(dtype)
    x = torch.randn(tokens, in_features, generator=torch.Generator().manual_seed(1))
    true = F.linear(x.double(), dequantize_rows(weight, scale.double()))
    got = by_kernel(x, weight, scale=scale)
    assert got.shape == (tokens, out_features)
    restored = dequantize_rows(weight, scale.double())
    of_token = in_features // 64 if groups == 1 and in_features % 64 == 0 else groups
    assert ((got - true).abs() <= bound(x, restored, of_token)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "sizes", [(1, 2, 1), (3, 6, 3), (67, 128, 2), (9, 192, 3), (5, 64, 8), (6, 1088, 17)]
)
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.usefixtures("kernels")
def test_int4_numbers_are_those_of_the_float32_product(tokens, sizes, dtype):
    """Groups of 64, which have a loop of their own, and of other sizes."""
    out_features, in_features, groups = sizes
    packed, scale, zero = quantize_groups(
        stored(out_features, in_features, torch.float32) + 9, in_features // groups
    )
    scale = scale.to(dtype)
    x = torch.randn(tokens, in_features, generator=torch.Generator().manual_seed(1))
    weight = dequantize(packed, scale, zero)
    true = F.linear(x.double(), weight.double())
    got = by_kernel(x, packed, None, scale, zero)
    assert got.shape == (tokens, out_features)
    assert ((got - true).abs() <= bound(x, weight, groups)).all()


def quantized(bits, in_features):
    """Return an int8 or int4 weight of four rows in groups of 64, and what `by_kernel` takes."""
    weight = stored(4, in_features, torch.float32) + 9
    if bits == 8:
        packed, scale = quantize_rows(weight, 64)
        return dequantize_rows(packed, scale.double()), (packed, None, scale)
    packed, scale, zero = quantize_groups(weight, 64)
    return dequantize(packed, scale, zero).double(), (packed, None, scale, zero)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.usefixtures("kernels")
def test_a_large_value_makes_only_its_own_group_coarse(bits):
    """As one does in each of Qwen2.5's down_proj."""
    weight, given = quantized(bits, 256)
    x = torch.randn(1, 256, generator=torch.Generator().manual_seed(1))
    x[0, 70] = 1e6
    weight[:, 64:128] = 0  # what the large value meets
    alone = by_kernel(torch.cat([x[:, :64], 0 * x[:, 64:128], x[:, 128:]], 1), *given)
    both, only = by_kernel(x, *given), by_kernel(x * (torch.arange(256) // 64 == 1), *given)
    torch.testing.assert_close(both - only, alone, rtol=0, atol=2e-6 * both.abs().max().item())
    assert ((alone - F.linear(x.double(), weight)).abs() <= bound(x, weight, 4)).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.usefixtures("kernels")
@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, in Python
def test_infinity_and_nan_do_not_become_numbers(bits, value):
    _, given = quantized(bits, 128)
    x = torch.randn(2, 128)
    x[1, 100] = value
    got = by_kernel(x, *given)
    assert torch.isfinite(got[0]).all()
    assert not torch.isfinite(got[1]).any()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1e-20, 1e30])
@pytest.mark.usefixtures("kernels")
def test_tokens_of_any_size_are_multiplied(bits, size):
    weight, given = quantized(bits, 128)
    x = size * torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    true = F.linear(x.double(), weight)
    assert ((by_kernel(x, *given) - true).abs() <= bound(x, weight, 2) + 1e-25).all()


def test_without_the_instructions_of_newer_processors_the_sums_are_the_same(monkeypatch):
    """Integers are added up exactly, by whatever instruction."""
    code = """
import sys, numpy as np, numba, llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
lacking = {"avx2": ("avx512f", "avx512bw", "avx512vl", "avx512dq"), "none": ("avx2", "avx512bw")}
for name in lacking[sys.argv[1]]:
    features[name] = False
llvmlite.binding.get_host_cpu_features = lambda: features
from qwenkit.fast import integers
from qwenkit.fast.intrinsics import LANES, on_stack
@numba.njit
def run(out, weight, token):
    sums = on_stack()
    for lane in range(LANES):
        sums[0, lane] = sums[1, lane] = 0
    integers.add_group(sums, 1, np.float32(0.5), weight, 0, token, 0)
    out[:] = sums
random = np.random.default_rng(0)
for kind in (np.int8, np.uint8):
    weight = random.integers(-127, 127, 64).astype(kind)
    token = random.integers(-32767, 32767, 64).astype(np.int16)
    sums, want = np.zeros((2, 2, LANES), np.float32)
    run(sums, weight, token)
    integers.add_group(want, 1, np.float32(0.5), weight, 0, token, 0)
    print(sums[1].sum(dtype=np.float64) == want[1].sum(dtype=np.float64), sums[0].any())
"""
    for lacking in ("avx2", "none"):
        done = python(code, lacking)
        assert done.stdout == "True False\n" * 2, done.stderr


def test_scales_and_bias_may_differ_in_dtype():
    weight, scale = quantize_rows(stored(6, 128, torch.float32), 64)
    x, bias = torch.randn(2, 128), torch.randn(6)
    want = F.linear(x, dequantize_rows(weight, scale.float()), bias)
    far = bound(x, dequantize_rows(weight, scale.float()), 2) + 1e-6
    assert ((by_kernel(x, weight, bias, scale) - want).abs() <= far).all()
    want = F.linear(x, dequantize_rows(weight, scale.half().float()), bias.half().float())
    got = by_kernel(x.half(), weight, bias.half(), scale.half())
    torch.testing.assert_close(got.float(), want, rtol=1e-2, atol=0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-40, 3e38])
def test_no_number_is_taken_for_another(value):
    weight, x = torch.tensor([[value, 1.0]] * 5).bfloat16(), torch.tensor([[1.0, 0.5]])
    want = F.linear(x, weight.float())
    torch.testing.assert_close(by_kernel(x, weight), want, equal_nan=True)


def test_two_threads_may_multiply_at_once():
    weight, x = stored(64, 256, torch.bfloat16), torch.ones(1, 256)
    want = by_kernel(x, weight)
    wrong = []

    def work():
        for _ in range(50):
            if not torch.equal(by_kernel(x, weight), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_after_ctrl_c_at_any_line_another_thread_may_multiply():
    """A lock that the interrupted thread keeps would let all others wait forever."""
    weight, x = stored(64, 256, torch.bfloat16), torch.ones(1, 256)
    at = 1
    while interrupted(partial(by_kernel, x, weight), at):
        at += 1
    assert at > 5
    thread = threading.Thread(target=by_kernel, args=(x, weight), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_a_chunk_whose_thread_never_comes_back_is_computed_again(monkeypatch):
    taken = []

    def absent(board, counts, done, job, me):
        while board[module.OPEN] == 1 and not taken:
            stage, first, _ = module.take(board, counts, me)
            taken.extend([first] if stage >= 0 else [])
        return False

    monkeypatch.setattr(module, "follow", absent)
    weight, x = torch.randn(4096, 4096), torch.randn(1, 4096)
    for _ in range(5000):  # a thread may still follow what an earlier test has interrupted
        torch.testing.assert_close(by_kernel(x, weight), F.linear(x, weight), rtol=1e-3, atol=1e-3)
        if taken:
            break
    assert taken


@pytest.mark.parametrize("chunks", [11, 100])
def test_each_chunk_is_taken_once_whoever_asks(chunks):
    board, counts = module.board(3), np.array([0, chunks], np.int64)
    assert module.take(board, counts, 0)[0] == -1  # nothing is open yet
    for region in range(3):
        board[module.TICKETS + module.APART * region] = 1 << module.BITS
    found = [module.take(board, counts, me) for me in (2, 2, 0)]
    while (one := module.take(board, counts, 1))[0] == 1:
        found.append(one)
    starts = [first for _, first, _ in found]
    # Each begins in its own region. Half of what is left there is taken, but not too many.
    assert starts[:3] == [2 * chunks // 3, found[0][2], 0]
    sizes = [end - first for _, first, end in found]
    assert (max(sizes), min(sizes)) == ((2, 1) if chunks == 11 else (module.AT_ONCE, 1))
    taken = [chunk for _, first, end in found for chunk in range(first, end)]
    assert sorted(taken) == list(range(chunks))
    assert module.take(board, counts, 1)[0] == -1


def test_a_layer_takes_a_row_of_its_own_while_a_thread_is_late(kernels):
    board, rows = kernels.board(3), np.full(7, -1, np.int64)
    rows[0] = 0
    counts = np.full(7 * kernels.STAGES, 9, np.int64)

    def row(index):
        return kernels.row_of(board, rows, index, index * kernels.STAGES)

    def open_stage(stage):
        for region in range(3):
            kernels.store(board, kernels.TICKETS + kernels.APART * region, stage << kernels.BITS)

    assert [row(index) for index in range(3)] == [0, 0, 0]
    open_stage(2 * kernels.STAGES + kernels.DOWN)  # in layer 2
    assert kernels.take(board, counts, 2)[0] == 2 * kernels.STAGES + kernels.DOWN
    assert row(2) == 0  # that is its own layer
    assert [row(index) for index in (3, 4)] == [3, 4]
    open_stage(4 * kernels.STAGES)  # the late thread comes back, and takes a chunk of layer 4
    assert kernels.take(board, counts, 2)[0] == 4 * kernels.STAGES
    assert row(5) == 5
    while kernels.take(board, counts, 1)[0] >= 0:  # another takes all that is left
        pass
    assert row(5) == 5  # the first is still at its chunk
    assert kernels.take(board, counts, 2)[0] == -1
    assert row(6) == 5


def test_a_thread_leaves_a_job_whose_leader_is_gone(monkeypatch):
    monkeypatch.setattr(team, "GIVEN_UP", 0.05)
    team._help(lambda board: True, np.zeros(3, np.int64))  # returns


def test_the_exponential_is_numpys(kernels):
    x = np.linspace(-87, 88, 2001).astype(np.float32)
    got = np.array([kernels.exp(one) for one in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=5e-7)
    assert kernels.exp(np.float32(-1e30)) < 1e-37
    with np.errstate(invalid="ignore"):
        assert np.isnan(kernels.exp(np.float32("nan")))


def test_an_input_that_does_not_fit_is_refused_before_memory_is_read():
    with pytest.raises(ValueError, match="x has shape"):
        by_kernel(torch.ones(1, 5), torch.ones(6, 4))
    packed, scale, zero = quantize_groups(torch.ones(6, 8), 4)
    small, one = torch.ones(6, 8, dtype=torch.int8), torch.ones
    for given in (
        (one(1, 4), packed, None, scale, zero),
        (one(1, 8), packed, None, scale[:5], zero),
        (one(1, 8), packed, None, scale, zero[:5]),
        (one(1, 8), packed, one(5), scale, zero),
        (one(1, 8), small),
        (one(1, 8), small, None, one(5)),
        (one(1, 8), small, None, one(6, 3)),
        (one(1, 8), one(6, 8), one(5)),
        (one(1, 8), one(6, 8), None, one(6)),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            by_kernel(*given)


def test_norm_rotation_and_attention_are_the_models_own(kernels):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(24, generator=generator) for _ in range(2))
    norm = RMSNorm(24, 1e-3)
    norm.weight.data = weight
    got = np.empty(24, np.float32)
    kernels.rms_norm(x.numpy(), weight.numpy(), 1e-3, got)
    np.testing.assert_allclose(got, norm(x).detach().numpy(), rtol=1e-5)
    heads, cos, sin = (torch.randn(n, 8, generator=generator) for n in (4, 1, 1))
    want = apply_rope(heads[None, :, None], cos[None], sin[None])[0, :, 0]
    turned = np.empty((4, 8), np.float32)
    kernels.rotate(heads.numpy(), cos[0].numpy(), sin[0].numpy(), turned)
    torch.testing.assert_close(torch.from_numpy(turned), want)
    q, k, v = (torch.randn(n, 9, 8, generator=generator) for n in (4, 2, 2))
    one = nn.functional.scaled_dot_product_attention(
        q[None, :, :1], k[None, :, :7], v[None, :, :7], enable_gqa=True
    )
    own = np.empty(kernels.size_to_attend(7, 8), np.float32)
    for size in (9, 1, 3, 4):  # one page, of which two positions are still empty, and more
        z, (keys, values) = np.empty((4, 8), np.float32), (paged(x, size) for x in (k, v))
        pages = np.arange(len(keys))[::-1].copy()
        for head in range(4):
            kernels.attend(q[head, 0].numpy(), keys, values, head // 2, pages, 0, 7, own, z[head])
        torch.testing.assert_close(torch.from_numpy(z), one[0, :, 0])


def paged(x, size):
    """Return keys or values, (KV, S, D), as pages of so many tokens, the first tokens last."""
    pages = F.pad(x, (0, 0, 0, -x.shape[1] % size), value=float("nan")).split(size, dim=1)
    return torch.stack(pages[::-1]).numpy()  # (pages, KV, size, D)


def test_scores_of_any_size_give_no_infinity(kernels):
    q = np.full((2, 4), 300, np.float32)
    keys = np.stack([np.full((5, 4), 300, np.float32), np.full((5, 4), -300, np.float32)])
    z, own = np.empty_like(q), np.empty(kernels.size_to_attend(5, 4), np.float32)
    page = np.zeros(1, np.int64)
    for head in range(2):
        one = keys[head][None, None]
        kernels.attend(q[head], one, np.ones_like(one), 0, page, 0, 5, own, z[head])
    np.testing.assert_allclose(z, 1, rtol=1e-6)


def test_rounding_to_bfloat16_is_torchs(kernels):
    special = [0.0, -0.0, 1e-40, 3.3895e38, 3.4e38, float("inf"), float("-inf"), float("nan")]
    halves = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20]  # half-way, and just above
    numbers = torch.cat([torch.tensor(special + halves), torch.randn(500)])
    got = np.array([kernels.round_to_bfloat16(n) for n in numbers.numpy()], np.uint16)
    torch.testing.assert_close(
        torch.from_numpy(got).view(torch.bfloat16), numbers.bfloat16(),
        rtol=0, atol=0, equal_nan=True,
    )  # fmt: skip
    assert kernels.as_stored(np.empty(1, np.float32), 1.1) == 1.1
    assert kernels.as_stored(np.empty(1, np.uint16), np.float32(1.0)) == 0x3F80


# --- where they run ---


@pytest.fixture
def asked_again():
    """Let `kernels_problem` look again, in the test and after it."""
    _machine.problem_here.cache_clear()
    yield
    _machine.problem_here.cache_clear()


def test_torch_keeps_its_number_of_threads():
    code = (
        "import torch; before = torch.get_num_threads(); "
        "from qwenkit.fast._machine import kernels_problem; "
        "assert kernels_problem() is None; print(before, torch.get_num_threads())"
    )
    assert python(code, OMP_NUM_THREADS="1").stdout.split() == ["1", "1"]


@pytest.mark.usefixtures("asked_again")
def test_where_numba_fails_a_warning_says_so_and_torch_multiplies(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwenkit.fast.kernels", None)  # its import fails
    monkeypatch.delattr("qwenkit.fast.kernels")
    with pytest.warns(UserWarning, match="slower than it could be"):
        assert "numba says" in kernels_problem()
    assert linear(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_multiplies_too():
    """The threads that helped stay in the parent; the child must not wait for them."""
    weight, x = stored(64, 256, torch.bfloat16), torch.ones(1, 256)
    want = by_kernel(x, weight)
    with warnings.catch_warnings(action="ignore"):  # this process has other threads too
        child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(by_kernel(x, weight), want) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("asked_again")
@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Race(1.2, 1.0, 1e-7), None),
        (Race(1.3, 1.0, 1e-7), "on this arm64 processor a product takes 1.3 times as long"),
        (Race(0.5, 1.0, 0.2), "a kernel's result is wrong by 2.0e-01"),
        (Race(0.5, 1.0, math.nan), "is wrong by nan"),
    ],
)
def test_on_other_processors_one_product_decides_once(found, why, monkeypatch):
    asked = []
    monkeypatch.setattr(_machine.platform, "machine", lambda: "arm64")
    monkeypatch.setattr("qwenkit.fast.race.race", lambda: asked.append(1) or found)
    assert [kernels_problem() is None for _ in range(3)] == [why is None] * 3
    assert why is None or why in kernels_problem()
    assert len(asked) == 1
    assert linear(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [[2.0, 2.0, 2.0]]


def test_the_product_that_decides_is_timed_on_both_sides_and_right():
    found = race()
    assert 0 < found.kernel < 10
    assert 0 < found.torch < 10
    assert 0 <= found.difference < NEAR
