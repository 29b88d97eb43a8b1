"""Weights lie in blocks of large pages, which are freed with the last tensor in them."""

import gc
import itertools
import mmap
import threading
from unittest import mock

import pytest
import torch

import qwenkit as qk
from qwenkit import large_pages
from qwenkit.large_pages import APART, BLOCK, PAGE, SMALL, empty

HAS_THEM = hasattr(mmap, "MADV_HUGEPAGE")
needs_them = pytest.mark.skipif(not HAS_THEM, reason="this system has no large pages")


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """Begin with no block, whatever other tests have left."""
    monkeypatch.setattr(large_pages, "_blocks", large_pages._Blocks())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0, 7), (3,), (700, 999), (BLOCK // 4 + 1, 5)])
def test_a_tensor_is_what_torch_would_make(shape, dtype):
    tensor, other = empty(shape, dtype), torch.empty(shape, dtype=dtype)
    assert (tensor.shape, tensor.dtype, tensor.stride()) == (shape, dtype, other.stride())
    assert tensor.untyped_storage().nbytes() == other.nbytes
    assert tensor.storage_offset() == 0
    assert tensor._base is None
    assert torch.equal(tensor.fill_(3), other.fill_(3))


@needs_them
def test_tensors_lie_one_after_the_other_and_share_no_byte():
    tensors = [empty((SMALL + 100 * n,), torch.uint8).fill_(n) for n in range(1, 9)]
    assert tensors[0].data_ptr() % PAGE == 0
    for before, after in itertools.pairwise(tensors):
        gap = after.data_ptr() - before.data_ptr() - before.nbytes
        assert 0 <= gap < APART
        assert after.data_ptr() % APART == 0
    assert all(bool((tensor == n).all()) for n, tensor in enumerate(tensors, 1))
    assert empty((SMALL - 1,), torch.uint8).data_ptr() != tensors[-1].data_ptr()


@needs_them
def test_the_system_is_asked_for_large_pages():
    with mock.patch("mmap.mmap", wraps=mmap.mmap) as made:
        tensor = empty((BLOCK + 1,), torch.uint8)
        assert empty((SMALL - 1,), torch.uint8).numel() == SMALL - 1
    assert made.call_count == 1
    inside, flags = False, ""
    with open("/proc/self/smaps") as maps:
        for line in maps:
            first, _, rest = line.partition(" ")
            if "-" in first and not first.endswith(":"):
                start, end = (int(one, 16) for one in first.split("-"))
                inside = start <= tensor.data_ptr() < end
            elif inside and first == "VmFlags:":
                flags = rest
    assert "hg" in flags.split()  # "huge page advise flag" of proc_pid_smaps(5)


@needs_them
def test_a_block_is_freed_with_its_last_tensor_and_not_before():
    one, two = empty((SMALL,), torch.uint8).fill_(1), empty((SMALL,), torch.uint8).fill_(2)
    block = large_pages._blocks._block
    del one
    gc.collect()
    assert block() is not None
    assert bool((two == 2).all())
    del two
    gc.collect()
    assert block() is None
    assert bool((empty((SMALL,), torch.uint8).fill_(3) == 3).all())  # in a new one


@needs_them
def test_where_the_system_refuses_torch_gives_the_memory(monkeypatch):
    monkeypatch.setattr(large_pages, "_new_block", mock.Mock(side_effect=OSError(22, "refused")))
    assert bool((empty((SMALL,), torch.float32).fill_(3) == 3).all())
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")  # as on macOS and Windows
    assert bool((empty((SMALL,), torch.float32).fill_(4) == 4).all())


def test_threads_get_memory_of_their_own():
    found: list[torch.Tensor] = []

    def take(number):
        found.extend(empty((SMALL + number,), torch.uint8).fill_(number) for _ in range(50))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    for tensor in found:
        assert bool((tensor == tensor.numel() - SMALL).all())


@needs_them
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_the_large_weights_of_a_model_lie_in_blocks(dtype, monkeypatch):
    made = []
    new = large_pages._new_block
    monkeypatch.setattr(large_pages, "_new_block", lambda size: made.append(new(size)) or made[-1])
    model, _ = qk.load_pretrained(qk.pretrained.EMBEDDED, device="cpu", dtype=dtype)
    starts = [large_pages._address(block) for block in made]
    ends = [start + len(block) for start, block in zip(starts, made, strict=True)]
    weights = [one for one in (*model.parameters(), *model.buffers()) if one.nbytes >= SMALL]
    assert len(weights) > 10
    for weight in weights:
        assert any(
            start <= weight.data_ptr() < end for start, end in zip(starts, ends, strict=True)
        )
