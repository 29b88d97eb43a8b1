"""Each part on a device next to the CPU: rounding passes, a wrong kernel is named."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from mps import rehearse
from torch.utils._python_dispatch import TorchDispatchMode

import qwenkit as qk
from qwenkit import device
from qwenkit.cli import _reports as reports
from qwenkit.pretrained import compare
from qwenkit.pretrained.compare import Difference, compare_with_cpu, disagreement

CPU, MPS = torch.device("cpu"), torch.device("mps")
F32, BF16 = torch.float32, torch.bfloat16
QWENS = (compare.FULL_VOCABULARY, compare.CONFIG.hidden_size)
VOCABULARY = 5_000  # of the full head in these tests: the real one takes a gigabyte, with its copy
HEAD = VOCABULARY * 896
ATTENTION, LONG = "scaled_dot_product", "one token after 1,100 cached ones"
WIDE, WIDE_TOKEN = "head_dim 128, a prompt", "head_dim 128, one token after a cache"
AFTER = {f"attention, {count} after a cache" for count in ("one token", "several tokens")}


@pytest.fixture(autouse=True)
def _smaller(monkeypatch):
    monkeypatch.setattr(compare, "FULL_VOCABULARY", VOCABULARY)
    disagreement.cache_clear()
    yield
    disagreement.cache_clear()


def wrong(found):
    return {one.part for one in found if not one.ok}


@pytest.mark.parametrize(("dtype", "inference"), [(F32, False), (BF16, False), (None, True)])
def test_the_cpu_agrees_with_itself(dtype, inference):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    with torch.inference_mode(inference):  # in which no gradients are kept
        found = compare_with_cpu(CPU, dtype)
    assert torch.equal(torch.rand(3), want)  # the caller's random numbers are left alone
    assert wrong(found) == set()
    assert len(found) == len({one.part for one in found}) == 17
    # What is allowed leaves room for rounding, and not for much else.
    assert dtype != BF16 or max(one.error for one in found) > compare.ALLOWED[dtype] / 1000
    assert QWENS == (151_936, 896)


class Breaks(TorchDispatchMode):
    """A device some of whose kernels are wrong: it changes an operator's result, if asked."""

    def __init__(self, name, when=lambda *args: True, by=1.5):
        super().__init__()
        self.name, self.when, self.by = name, when, by

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.name not in str(func) or not self.when(*args):
            return out
        for one in out if isinstance(out, tuple) else (out,):
            if torch.is_tensor(one) and one.is_floating_point():
                one.mul_(self.by)  # in place, as some operators give back their own argument
        return out


def judged(monkeypatch, mode, dtype=F32):
    """Compare with MPS as a rehearsal pretends it, where `mode` holds; so its ways are taken."""

    def on_device(part, *where):
        name, function, arguments = part
        contexts = iter((contextlib.nullcontext(), mode))  # on the CPU, then on the device

        def run(*given):
            with next(contexts):
                return function(*given)

        return difference((name, run, arguments), *where)

    difference = compare._difference
    monkeypatch.setattr(compare, "_difference", on_device)
    found = []
    rehearse(lambda: found.extend(compare_with_cpu(MPS, dtype)))
    return wrong(found)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_all_that_is_tried_would_run_on_mps(dtype):
    found = []
    report = rehearse(lambda: found.extend(compare_with_cpu(MPS, dtype)), torch_version="2.13")
    assert report.ok, str(report)
    assert wrong(found) == set()
    assert report.operators["aten::_weight_int8pack_mm"] == (dtype == BF16)


@pytest.mark.parametrize(("mode", "dtype", "parts", "others_too"), [
    (Breaks("int8pack"), BF16, {"int8 linear by rows, one token"}, False),
    (Breaks("aten._softmax.default"), F32, {"eager attention"}, False),
    (Breaks("silu_backward"), F32, {"gradients of one training step"}, False),
    (Breaks(ATTENTION, lambda q, k, *_: k.shape[2] > 1024), BF16, {LONG}, False),
    (Breaks(ATTENTION, lambda q, *_: q.shape[3] == 128), F32, {WIDE, WIDE_TOKEN}, False),
    (Breaks(ATTENTION, lambda q, k, *_: k.shape[2] > q.shape[2]), F32,
     AFTER | {LONG, WIDE_TOKEN}, False),
    (Breaks("mm", lambda *args: any(torch.is_tensor(one) and one.numel() == HEAD for one in args)),
     F32, {"full-vocabulary head"}, False),
    (Breaks("rsqrt"), F32, {"RMSNorm", "attention and RoPE, a prompt"}, True),
    (Breaks("silu", by=float("nan")), F32, {"MLP"}, True),  # NaN does not agree
])  # fmt: skip
def test_a_kernel_is_named_where_it_is_wrong(monkeypatch, mode, dtype, parts, others_too):
    found = judged(monkeypatch, mode, dtype)
    assert found >= parts if others_too else found == parts


def test_an_operator_that_fails_is_infinitely_wrong(monkeypatch):
    def fails(x):
        if x.dtype == BF16:
            raise NotImplementedError("aten::silu is not implemented for this device")
        return x * x.sigmoid()

    monkeypatch.setattr(F, "silu", fails)
    found = {one.part: (one.error, one.ok) for one in compare_with_cpu(CPU, BF16)}
    assert found["MLP"] == (float("inf"), False)
    assert found["RMSNorm"][1]


FOUND = [Difference("MLP", float("inf"), 0.1), Difference("RMSNorm", 0.0, 0.1)]


def test_disagreement_names_the_parts_and_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(compare, "compare_with_cpu", lambda _, dtype: tried.append(dtype) or FOUND)
    assert disagreement(CPU, F32).endswith("on cpu gets MLP wrong in float32")
    assert disagreement(CPU, F32)
    assert disagreement(CPU, BF16).endswith("wrong in bfloat16")
    assert tried == [F32, BF16]


@pytest.mark.parametrize(("asked", "dtype"), [
    ("auto", BF16), ("float32", F32), ("float16", torch.float16), ("int8", BF16), ("int4", BF16),
])  # fmt: skip
def test_a_device_that_disagrees_in_the_dtype_asked_for_is_left(monkeypatch, asked, dtype):
    tried = []
    monkeypatch.setattr(compare, "pick_device", lambda name: MPS)
    monkeypatch.setattr(compare, "known_problem", lambda device: None)
    monkeypatch.setattr(device.platform, "mac_ver", lambda: ("15.0", ("", "", ""), "arm64"))
    monkeypatch.setattr(compare, "disagreement", lambda *given: tried.append(given) or "MLP wrong")
    with pytest.warns(UserWarning, match=r"MLP wrong\. Using the CPU\."):
        assert qk.load_pretrained(dtype=asked)[0].device == CPU
    assert tried == [(MPS, dtype)]
    monkeypatch.setattr(compare, "pick_device", lambda name: CPU)
    qk.load_pretrained(dtype=asked)  # without a warning
    assert tried == [(MPS, dtype)]  # the CPU is not tried


def test_doctor_shows_each_part_of_an_accelerator(monkeypatch):
    monkeypatch.setattr(reports, "compare_with_cpu", lambda device, dtype: FOUND)
    monkeypatch.setattr(reports, "pick_device", lambda: MPS)
    facts, problems = reports.doctor()
    assert any("MLP" in line and "WRONG" in line for line in facts)
    assert any("RMSNorm" in line and "as on the CPU" in line for line in facts)
    assert any("gets MLP wrong in float32" in problem for problem in problems)
