"""The compiled loop: its numbers, for each dtype it reads, and when a model is read by it."""

import copy
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qwenkit as qk
from qwenkit import pretrained
from qwenkit.errors import InputError
from qwenkit.model import linear as products
from qwenkit.model import reading as room
from qwenkit.fast.kernels.gemv import few_rows, loop
from qwenkit.fast.linear import Linear, linear
from qwenkit.model.reading import compiled_loop, prepare, reading
from toy import write_toy_checkpoint

pytestmark = pytest.mark.skipif(
    compiled_loop() is None, reason="the compiled loop is not for this processor"
)
SHAPES = [(1, 1), (3, 7), (4, 16), (5, 3), (67, 130)]


def stored(outer, inner, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(outer, inner, generator=generator) * 30
    return values.clamp(-127, 127).to(dtype)


def bits(weight):
    return (weight.view(torch.uint16) if weight.dtype == torch.bfloat16 else weight).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("outer", "inner"), SHAPES)
@pytest.mark.parametrize("rows", [1, 3])
def test_numbers_are_those_of_the_float32_product(rows, outer, inner, dtype):
    weight = stored(outer, inner, dtype)
    x = torch.randn(rows, inner, generator=torch.Generator().manual_seed(1))
    true = F.linear(x.double(), weight.double())
    theirs = (F.linear(x, weight.float()) - true).abs().max().item()
    got = few_rows(x.numpy(), bits(weight), threads=2)
    assert got.shape == (rows, outer)
    error = np.abs(got - true.numpy()).max()
    assert error <= 2 * theirs + 1e-6 * true.abs().max().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_the_loop_itself_is_python_with_the_same_numbers(dtype):
    weight, x = stored(6, 5, dtype), np.ones((2, 5), np.float32)
    y = np.empty((2, 6), np.float32)
    loop(bits(weight), x, y)
    np.testing.assert_allclose(y, x @ weight.float().numpy().T, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-40, 3e38])
def test_no_number_is_taken_for_another(value):
    weight = torch.tensor([[value, 1.0]] * 5).bfloat16()
    got = few_rows(np.array([[1.0, 0.5]], np.float32), bits(weight))
    want = F.linear(torch.tensor([[1.0, 0.5]]), weight.float())
    torch.testing.assert_close(torch.from_numpy(got), want, equal_nan=True)


def test_shapes_that_do_not_fit_are_refused_before_anything_is_read():
    weight = bits(stored(4, 6, torch.bfloat16))
    for x in (np.ones((1, 5), np.float32), np.ones((1, 7), np.float32), np.ones(6, np.float32)):
        with pytest.raises(InputError, match=r"they must be \(N, I\) and \(O, I\)"):
            few_rows(x, weight)


def test_two_threads_may_multiply_at_once():
    weight = bits(stored(64, 256, torch.bfloat16))
    x = np.ones((1, 256), np.float32)
    want = few_rows(x, weight)
    wrong = []

    def work():
        for _ in range(50):
            if not np.array_equal(few_rows(x, weight, threads=2), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- which weights are read by it ---


@pytest.fixture
def every_model_is_large(monkeypatch):
    monkeypatch.setattr(room, "LARGE_MODEL", 0)


def frozen(dtype=torch.float32, bias=False):
    layer = Linear(24, 10, bias=bias).requires_grad_(False)
    layer.weight.copy_(layer.weight.bfloat16())
    return layer.to(dtype)


def test_a_small_model_is_left_to_torch():
    layer = frozen()
    prepare(layer)
    assert reading(layer.weight) is None


@pytest.mark.usefixtures("every_model_is_large")
def test_a_float32_weight_is_read_in_half_its_bytes_and_multiplied_as_float32():
    layer = frozen(bias=True)
    values = layer.weight.bfloat16()
    prepare(layer, {"weight": values})
    assert reading(layer.weight).dtype == np.uint16
    assert np.shares_memory(reading(layer.weight), bits(values))
    x = torch.randn(1, 1, 24)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def no_grad_edit(layer):
    with torch.no_grad():
        layer.weight[3] = 0


def inference_edit(layer):
    with torch.inference_mode():
        layer.weight.mul_(2)


def one_step(layer, **settings):
    layer.requires_grad_(True)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, **settings)
    layer(torch.ones(1, 24)).sum().backward()
    optimizer.step()
    layer.requires_grad_(False)


CHANGES = {
    "an edit": no_grad_edit,
    "an edit in inference mode": inference_edit,
    "an edit of a view": lambda layer: layer.weight.detach()[0].zero_(),
    "another tensor": lambda layer: setattr(layer.weight, "data", torch.ones(10, 24)),
    "another parameter": lambda layer: setattr(
        layer, "weight", nn.Parameter(torch.ones(10, 24), requires_grad=False)
    ),
    "fewer rows": lambda layer: setattr(layer.weight, "data", layer.weight.data[:7]),
    "other rows": lambda layer: setattr(layer.weight, "data", layer.weight.data[3:]),
    "a rounding": lambda layer: layer.to(torch.float16).float(),
    "new values": lambda layer: layer.load_state_dict({"weight": torch.ones(10, 24)}),
    "training": one_step,
    "training, fused": lambda layer: one_step(layer, fused=True),
    "training, foreach": lambda layer: one_step(layer, foreach=True),
}


@pytest.mark.usefixtures("every_model_is_large")
@pytest.mark.parametrize("change", CHANGES)
def test_a_weight_that_was_changed_is_read_as_it_is_now(change):
    layer = frozen()
    prepare(layer, {"weight": layer.weight.bfloat16()})
    x = torch.randn(1, 24)
    before = layer(x)
    CHANGES[change](layer)
    got = layer(x)
    torch.testing.assert_close(got, F.linear(x, layer.weight))
    assert change == "a rounding" or not torch.equal(got, before)


@pytest.mark.usefixtures("every_model_is_large")
def test_a_copy_and_a_pickle_find_their_own_memory(tmp_path):
    layer = frozen()
    prepare(layer, {"weight": layer.weight.bfloat16()})
    twin = copy.deepcopy(layer)
    assert reading(twin.weight) is None
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    assert torch.equal(torch.load(tmp_path / "state.pt")["weight"], layer.weight)


@pytest.mark.usefixtures("every_model_is_large")
def test_nothing_is_kept_of_a_weight_that_is_gone():
    layer = frozen()
    prepare(layer)
    count = len(room._readings)
    del layer
    assert len(room._readings) == count - 1


@pytest.mark.usefixtures("every_model_is_large")
@pytest.mark.parametrize(("free", "read"), [(1 << 40, np.uint16), (1, np.float32)])
def test_float32_reads_the_bfloat16_file_where_both_fit_in(free, read, tmp_path, monkeypatch):
    model, _ = qk.load_pretrained(write_toy_checkpoint(tmp_path / "toy"), dtype="bfloat16")
    qk.save_pretrained(model, folder := tmp_path / "bfloat16")
    monkeypatch.setattr(pretrained, "free_memory", lambda: free)
    model = pretrained.load_model(qk.Checkpoint(folder), torch.float32)
    assert reading(model.model.embed_tokens.weight).dtype == read
    again = torch.from_numpy(reading(model.model.embed_tokens.weight).copy())
    again = again.view(torch.bfloat16) if read == np.uint16 else again
    assert torch.equal(again.float(), model.model.embed_tokens.weight)


@pytest.mark.usefixtures("every_model_is_large")
@pytest.mark.parametrize("wide", [23, 25])
def test_a_row_of_another_width_is_left_for_torch_to_refuse(wide):
    layer = frozen()
    prepare(layer)
    assert products.loop_reads(torch.ones(1, 24), layer.weight) is not None
    assert products.loop_reads(torch.ones(1, wide), layer.weight) is None


def test_torch_keeps_its_number_of_threads():
    code = (
        "import torch; before = torch.get_num_threads(); "
        "from qwenkit.model.reading import compiled_loop; "
        "assert compiled_loop() is not None; print(before, torch.get_num_threads())"
    )
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=one
    )
    assert done.stdout.split() == ["1", "1"]


def test_where_numba_fails_it_is_said_and_torch_multiplies(monkeypatch):
    compiled_loop.cache_clear()
    monkeypatch.setitem(sys.modules, "qwenkit.model.few_rows", None)  # its import fails
    with pytest.warns(UserWarning, match="slower than it could be"):
        assert compiled_loop() is None
    compiled_loop.cache_clear()


def test_other_processors_are_left_to_torch(monkeypatch):
    compiled_loop.cache_clear()
    monkeypatch.setattr(room.platform, "machine", lambda: "arm64")
    assert compiled_loop() is None
    monkeypatch.undo()
    compiled_loop.cache_clear()
    assert linear(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [[2.0, 2.0, 2.0]]
