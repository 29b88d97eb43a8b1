"""Attention in registers: each function does what NumPy does, and all of them what torch does."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_toy import python
from torch import nn

from qwenkit.fast._machine import kernels_problem

if kernels_problem() is not None:
    pytest.skip(kernels_problem(), allow_module_level=True)

import numba

from qwenkit.fast import kernels, vectors
from qwenkit.fast.vectors import KEYS, LANES, QUERIES

KINDS = (np.float32, np.uint16)  # of what is stored; the second is bfloat16


def stored(numbers, kind):
    """Return float32 as it is, or cut off to bfloat16."""
    numbers = numbers.astype(np.float32)
    return numbers if kind == np.float32 else (numbers.view(np.uint32) >> 16).astype(kind)


@numba.njit
def run(q, last, page, count, scores, width, tops, z):
    """Score the keys of a page after its first, and add them up, weighted by their scores."""
    scale = np.float32(0.3)
    vectors.score_keys(q, last, page[32:], count, 32, scale, scores, width, 1, tops)
    vectors.add_weighted(scores, width, 1, page[32:], count, 32, z)


@numba.njit
def powers(scores, top):
    """Return the sum of e^(score - top), which becomes the scores."""
    return vectors.exp_less(scores, top)


def test_the_vectors_are_numpys():
    random = np.random.default_rng(0)
    for case in range(2 * 9):
        count, last, kind = case % 9 + 1, case % QUERIES, KINDS[case // 9]
        width = 1 + count + KEYS
        q, page, *given = (
            random.standard_normal(size).astype(np.float32)
            for size in (32 * (1 + last), 32 * (1 + count), QUERIES * width, QUERIES * KEYS)
        )
        scores, tops, page = *given, stored(page, kind)
        z = random.standard_normal(QUERIES * 32).astype(np.float32)
        got, want = ([one.copy() for one in (scores, tops, z)] for _ in range(2))
        run(q, last, page, count, got[0], width, *got[1:])
        run.py_func(q, last, page, count, want[0], width, *want[1:])
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        before, after = (one.reshape(QUERIES, width) for one in (scores, got[0]))
        np.testing.assert_array_equal(after[:, 0], before[:, 0])  # of an earlier page
        both = np.maximum(tops.reshape(QUERIES, KEYS).max(1), after[:, 1 : 1 + count].max(1))
        np.testing.assert_array_equal(got[1].reshape(QUERIES, KEYS).max(1), both)


def test_powers_are_those_of_e():
    numbers = np.array([0, -1e-3, -0.5, -1, -20, -86.9, -90, -np.inf] * (LANES // 4), np.float32)
    want = np.exp(np.maximum(numbers.astype(np.float64), -87))
    got = numbers + np.float32(3)
    total = powers(got, np.float32(3))
    np.testing.assert_allclose(got[want > 1e-3], want[want > 1e-3], rtol=1e-6)
    np.testing.assert_allclose(got, want, rtol=2e-5)  # a difference of 1e-5 in what was subtracted
    np.testing.assert_allclose(total, want.sum(), rtol=1e-6)
    got[5] = np.nan
    assert np.isnan(powers(got, np.float32(3)))
    assert np.isnan(got).sum() == 1


@pytest.mark.parametrize("heads", range(1, QUERIES + 1))
@pytest.mark.parametrize("dim", [32, 64, 128, 8])
@pytest.mark.parametrize("first", [0, 5])
def test_heads_that_share_keys_attend_as_torch_does(heads, dim, first):
    random = torch.Generator().manual_seed(heads)
    q, k, v = (torch.randn(1, n, dim, generator=random) for n in (heads, 23, 23))
    want = nn.functional.scaled_dot_product_attention(q, k[:, first:21], v[:, first:21])
    for kind, size in ((np.float32, 23), (np.float32, 4), (np.uint16, 7)):
        z, pages = np.empty(heads * dim, np.float32), np.arange(-(-23 // size))
        own = np.empty(kernels.size_to_attend(21 - first, dim), np.float32)
        keys, values = (
            stored(torch.nn.functional.pad(x[0], (0, 0, 0, -23 % size)).numpy(), kind)
            .reshape(-1, 1, size, dim)
            for x in (k, v)
        )  # fmt: skip
        kernels.attend(q.numpy().ravel(), keys, values, 0, pages, first, 21, own, z)
        bound = 1e-5 if kind == np.float32 else 0.03
        torch.testing.assert_close(torch.from_numpy(z), want.ravel(), rtol=bound, atol=bound)


def test_without_the_instructions_of_newer_processors_they_are_the_same():
    code = """
import sys, llvmlite.binding
features = llvmlite.binding.get_host_cpu_features()
for name in ("avx512bf16", "avx512f"):
    features[name] = False
llvmlite.binding.get_host_cpu_features = lambda: features
sys.path[:0] = sys.argv[1:]
import test_vectors
print(test_vectors.QUERIES)
test_vectors.test_the_vectors_are_numpys()
test_vectors.test_powers_are_those_of_e()
"""
    done = python(code, *Path(__file__).parents[:2])
    assert done.stdout.split() == ["2"], done.stderr


def test_no_kernel_uses_memory_that_it_has_freed():
    library = "libc_malloc_debug.so.0"
    try:
        ctypes.CDLL(library)
    except OSError:
        pytest.skip(f"{library} of glibc is not here, which checks each block of memory")
    code = """
import torch, qwenkit as qk
model, tokenizer = qk.load_pretrained(device="cpu", dtype="bfloat16")
prompts = [tokenizer("def " + "a" * n) for n in range(12)]
for some in (prompts[:2], prompts):
    qk.generate_batch(model, some, max_new_tokens=24, stop_ids=())
print("done")
"""
    done = python(code, LD_PRELOAD=library, MALLOC_CHECK_="3")
    assert done.stdout.split() == ["done"], done.stderr[-2000:]
