"""Which device and dtype are taken, and how much memory is said to be free."""

import re
import types
from pathlib import Path

import pytest
import torch
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit import device
from qwenkit.errors import InputError
from qwenkit.pretrained import _loading as loading
from qwenkit.pretrained import compare

CPU, MPS = torch.device("cpu"), torch.device("mps")


@pytest.fixture
def has_mps(monkeypatch):
    return lambda there: monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)


@pytest.fixture
def macos(monkeypatch):
    return lambda version: monkeypatch.setattr(
        device.platform, "mac_ver", lambda: (version, ("", "", ""), "arm64")
    )


# --- device ---


def test_a_device_is_taken_by_name_or_as_itself_and_auto_is_mps_where_there_is_one(has_mps):
    has_mps(True)
    assert device.pick_device("auto") == device.pick_device() == MPS
    assert device.pick_device("cpu") == device.pick_device(CPU) == CPU
    assert device.pick_device("mps") == device.pick_device(MPS) == MPS
    assert device.pick_device("meta").type == "meta"
    has_mps(False)
    assert device.pick_device("auto") == device.pick_device() == CPU


@pytest.mark.parametrize("name", ["gpu", "", "metal", "cpu:x", "CPU", "mps:-5", "auto ", "cuda:a",
                                  "xpu", "hpu", "vulkan", "xla:0", torch.device("xpu"), "cpu:1",
                                  "mps:1", None, 3, 1.5])  # fmt: skip
def test_an_unknown_device_is_refused(name):
    named = str(name) if isinstance(name, torch.device) else name
    with pytest.raises(InputError, match=f"device is {named!r}"):
        device.pick_device(name)


@pytest.mark.parametrize("name", ["mps", MPS, "cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(has_mps, monkeypatch, name):
    has_mps(False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="which is not on this machine; use 'auto' or 'cpu'"):
        device.pick_device(name)


# --- dtype ---


@pytest.mark.parametrize(("version", "want"), [
    ("", torch.float32), ("13.6.1", torch.float32), ("14.0", torch.bfloat16),
    ("15.2", torch.bfloat16), ("26", torch.bfloat16),
])  # fmt: skip
def test_auto_dtype_on_mps_depends_on_macos(macos, version, want):
    macos(version)
    assert device.default_dtype(MPS) == device.pick_dtype("auto", MPS) == want
    assert device.pick_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_dtype_is_taken_by_name_or_as_itself(dtype):
    name = str(dtype).removeprefix("torch.")
    assert device.pick_dtype(name, CPU) == device.pick_dtype(dtype, CPU) == dtype


@pytest.mark.parametrize(
    "name", ["fp32", "half", "", "Float32", "torch.float32", "int8", torch.float64, torch.int8,
             None, 32, ["float32"]],
)  # fmt: skip
def test_an_unknown_dtype_is_refused(name):
    with pytest.raises(InputError, match="it must be 'auto' or one of float32, bfloat16, float16"):
        device.pick_dtype(name, CPU)


# --- memory ---


STAT = "anon 100\nfile 2800\ninactive_file 2500\nactive_file 300\n"


@pytest.mark.parametrize(("available", "files", "free"), [
    (8_000, {}, 8_000),  # without a container the machine's free memory counts
    (8_000, {"max": "max\n", "current": "5000\n"}, 8_000),  # the container has no limit
    (8_000, {"max": "3000\n", "current": "1000\n"}, 2_000),  # its limit is lower
    (500, {"max": "3000\n", "current": "1000\n"}, 500),
    (8_000, {"max": "3000\n", "current": "2900\n", "stat": STAT}, 2_600),  # cached files are free
    (8_000, {"max": "3000\n", "current": "3500\n"}, 0),  # it is over its limit
])  # fmt: skip
def test_free_memory_heeds_the_container(monkeypatch, tmp_path, available, files, free):
    monkeypatch.setattr(device, "Path", lambda path: tmp_path / Path(path).name)
    fake = types.SimpleNamespace(available=available)
    monkeypatch.setattr(device.psutil, "virtual_memory", lambda: fake)
    for name, content in files.items():
        (tmp_path / f"memory.{name}").write_text(content)
    assert device.free_memory() == free


def test_free_memory_of_this_machine_is_plausible():
    assert 10**7 < device.free_memory() <= device.psutil.virtual_memory().total


# --- known problems ---


@pytest.mark.parametrize(
    ("version", "bad"),
    [("2.8.0", True), ("2.8.1+cpu", True), ("2.8", True), ("2.9.0", True), ("2.10.0", True),
     ("2.12.1+cpu", True), ("2.7.1", True), ("2.4.1", False), ("2.13.0+cpu", False),
     ("2.14.0.dev20260810", False), ("2.80.0", False), ("2.1.0", False), ("12.8.0", False)],
)  # fmt: skip
def test_known_bad_versions_are_bad_on_mps_alone(monkeypatch, version, bad):
    monkeypatch.setattr(torch, "__version__", version)
    problem = device.known_problem(MPS)
    assert (problem is not None) == bad
    if problem:
        minor = re.match(r"\d+\.\d+", version)[0]
        assert problem.startswith(f"torch {minor} on MPS: ")
        assert problem.endswith("; upgrade torch to 2.13 or newer")
    assert device.known_problem(CPU) is None


@pytest.mark.parametrize(
    ("where", "version", "vocabulary", "wrong"),
    [(MPS, "2.13.0", 151_936, True), (MPS, "2.13.0+cpu", 32_767, True), (MPS, "2.9", 40_000, True),
     (MPS, "2.13.0", 32_766, False), (MPS, "2.14.0", 151_936, False), (MPS, "3.0", 151_936, False),
     (CPU, "2.13.0", 151_936, False)],
)  # fmt: skip
def test_a_large_vocabulary_is_bad_to_train_on_mps(monkeypatch, where, version, vocabulary, wrong):
    monkeypatch.setattr(torch, "__version__", version)
    problem = device.training_problem(where, vocabulary)
    assert (problem is not None) == wrong
    if problem:
        for words in ("on an M1 or M2", f"{vocabulary:,} tokens", 'device="cpu"', "2.14 or newer"):
            assert words in problem


def test_load_pretrained_avoids_a_known_bad_device_only_when_it_may_choose(
    tmp_path_factory, monkeypatch, has_mps
):
    toy = toy_of(tmp_path_factory)
    has_mps(True)
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    with pytest.warns(UserWarning, match=r"torch 2\.8 on MPS.*Using the CPU"):
        model, _ = qk.load_pretrained(toy)
    assert model.device == CPU
    assert model.dtype == torch.float32
    asked = []
    monkeypatch.setattr(loading, "_load", lambda c, device, *_: asked.append(device) or model)
    with pytest.warns(UserWarning, match=r'torch 2\.8 on MPS.*, or use device="cpu"\.') as said:
        qk.load_pretrained(toy, device="mps")  # asked for by name: it is given
    assert said[0].filename == __file__
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr(compare, "disagreement", lambda *_: None)  # as a sound device says
    qk.load_pretrained(toy)
    assert asked == [MPS, MPS]


def test_synchronize_waits_for_the_device_it_is_given(monkeypatch):
    called = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: called.append("mps"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda where: called.append(str(where)))
    device.synchronize(CPU)
    assert called == []
    device.synchronize(MPS)
    device.synchronize(torch.device("cuda:1"))
    assert called == ["mps", "cuda:1"]
