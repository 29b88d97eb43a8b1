"""Each part on a device beside the CPU: rounding passes, a wrong kernel is named."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from mps import rehearse
from torch.utils._python_dispatch import TorchDispatchMode

import qwenkit as qk
from qwenkit import device
from qwenkit.cli import _reports as reports
from qwenkit.pretrained import compare
from qwenkit.pretrained.compare import compare_with_cpu, disagreement

CPU, MPS = torch.device("cpu"), torch.device("mps")
QWENS = (compare.FULL_VOCABULARY, compare.CONFIG.hidden_size)
VOCABULARY = 5_000  # of the full head in these tests: the real one takes a gigabyte, with its copy
HEAD, GRADIENTS = "full-vocabulary head", "gradients of one training step"


@pytest.fixture(autouse=True)
def _smaller(monkeypatch):
    monkeypatch.setattr(compare, "FULL_VOCABULARY", VOCABULARY)
    disagreement.cache_clear()
    yield
    disagreement.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_agrees_with_itself(dtype):
    found = compare_with_cpu(CPU, dtype)
    assert [one.part for one in found if not one.ok] == []
    assert len(found) == 16
    assert len({one.part for one in found}) == 16
    # What is allowed leaves room for rounding, and not for much else.
    assert (
        max(one.error for one in found) > compare.ALLOWED[dtype] / 1000 or dtype != torch.bfloat16
    )


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    compare_with_cpu(CPU)
    assert torch.equal(torch.rand(3), want)


def test_it_may_be_tried_where_no_gradients_are_kept():
    with torch.inference_mode():
        assert all(one.ok for one in compare_with_cpu(CPU))


class Breaks(TorchDispatchMode):
    """A device some of whose kernels are wrong: it changes what an operator gives, if asked."""

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


def judged(monkeypatch, mode, dtype=torch.float32):
    """Compare with MPS as a rehearsal pretends it, where `mode` holds; so its ways are taken."""

    def on_device(part, function, arguments, device, dtype):
        def broken(*moved):
            with mode:
                return function(*moved)

        want = function(*arguments)
        got = broken(*(compare._moved(a, device, dtype) for a in arguments))
        error = float((got.cpu().float() - want).abs().max() / want.abs().max())
        return compare.Difference(part, error, compare.ALLOWED[dtype])

    monkeypatch.setattr(compare, "_difference", on_device)
    found = []
    rehearse(lambda: found.extend(compare_with_cpu(MPS, dtype)))
    return {one.part for one in found if not one.ok}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_that_is_tried_would_run_on_mps(dtype):
    found = []
    report = rehearse(lambda: found.extend(compare_with_cpu(MPS, dtype)), torch_version="2.13")
    assert reports.ok, str(report)
    assert [one.part for one in found if not one.ok] == []
    assert reports.operators["aten::_weight_int8pack_mm"] == (dtype == torch.bfloat16)


def test_a_wrong_kernel_is_named_where_it_is_wrong(monkeypatch):
    assert judged(monkeypatch, Breaks("rsqrt")) >= {"RMSNorm", "attention and RoPE, a prompt"}


def test_a_kernel_that_is_wrong_for_one_token_alone_is_named(monkeypatch):
    single = Breaks("scaled_dot_product", lambda q, k, *rest: k.shape[2] > q.shape[2])
    assert judged(monkeypatch, single) == {
        "attention, one token after a cache", "attention, several tokens after a cache",
        "one token after 1,100 cached ones", "head_dim 128, one token after a cache",
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "dtype", "parts"), [
    (Breaks("int8pack"), torch.bfloat16, {"int8 linear, one row"}),
    (Breaks("aten._softmax.default"), torch.float32, {"attention in the open"}),
    (Breaks("silu_backward"), torch.float32, {GRADIENTS}),
    (
        Breaks("scaled_dot_product", lambda q, k, *rest: k.shape[2] > 1024), torch.bfloat16,
        {"one token after 1,100 cached ones"},
    ),
    (
        Breaks("scaled_dot_product", lambda q, *rest: q.shape[3] == 128), torch.float32,
        {"head_dim 128, a prompt", "head_dim 128, one token after a cache"},
    ),
])  # fmt: skip
def test_a_kernel_that_is_wrong_in_one_use_alone_is_named_there(monkeypatch, mode, dtype, parts):
    assert judged(monkeypatch, mode, dtype) == parts


def test_numbers_that_are_none_are_no_agreement(monkeypatch):
    assert "MLP" in judged(monkeypatch, Breaks("silu", by=float("nan")))


def test_an_operator_that_fails_is_infinitely_wrong(monkeypatch):
    def fails(*args, **kwargs):
        if args[0].dtype == torch.bfloat16:
            raise NotImplementedError("aten::silu is not implemented for this device")
        return silu(*args, **kwargs)

    silu = F.silu
    monkeypatch.setattr(F, "silu", fails)
    found = {one.part: one for one in compare_with_cpu(CPU, torch.bfloat16)}
    assert found["MLP"].error == float("inf")
    assert not found["MLP"].ok
    assert found["RMSNorm"].ok


def _reads_the_full_head(*args):
    return any(torch.is_tensor(a) and a.numel() == VOCABULARY * 896 for a in args)


def test_a_product_that_is_wrong_for_the_full_vocabulary_alone_is_named(monkeypatch):
    assert judged(monkeypatch, Breaks("mm", _reads_the_full_head)) == {HEAD}


def test_the_full_head_is_qwens():
    assert QWENS == (151_936, 896)


def test_a_device_that_disagrees_is_left_for_the_cpu_and_it_is_said(monkeypatch):
    monkeypatch.setattr(compare, "pick_device", lambda name: torch.device("mps"))
    monkeypatch.setattr(compare, "known_problem", lambda device: None)
    monkeypatch.setattr(compare, "disagreement", lambda *_: "torch on mps gets MLP wrong")
    with pytest.warns(UserWarning, match=r"gets MLP wrong\. Using the CPU\."):
        model, _ = qk.load_pretrained()
    assert model.device == CPU


def test_the_cpu_is_not_tried_before_loading(monkeypatch):
    monkeypatch.setattr(compare, "disagreement", lambda *_: pytest.fail("tried"))
    monkeypatch.setattr(compare, "pick_device", lambda name: CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qk.load_pretrained()


def test_disagreement_names_the_parts_and_is_tried_once(monkeypatch):
    tried = []

    def compared(device, dtype):
        tried.append(dtype)
        return [compare.Difference("MLP", 2.0, 0.1), compare.Difference("RMSNorm", 0.0, 0.1)]

    monkeypatch.setattr(compare, "compare_with_cpu", compared)
    assert disagreement(CPU, torch.float32).endswith("on cpu gets MLP wrong in float32")
    assert disagreement(CPU, torch.float32)
    assert disagreement(CPU, torch.bfloat16).endswith("wrong in bfloat16")
    assert tried == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(("asked", "tried"), [
    ("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16),
    ("int8", torch.bfloat16),
])  # fmt: skip
def test_the_dtype_that_will_be_computed_in_is_the_one_that_is_tried(monkeypatch, asked, tried):
    monkeypatch.setattr(compare, "pick_device", lambda name: MPS)
    monkeypatch.setattr(device.platform, "mac_ver", lambda: ("15.0", ("", "", ""), "arm64"))
    judge = []
    monkeypatch.setattr(compare, "disagreement", lambda *given: judge.append(given) or "wrong")
    with pytest.warns(UserWarning, match="wrong"):
        model, _ = qk.load_pretrained(dtype=asked)
    assert judge == [(MPS, tried)]
    assert model.device == CPU


def test_doctor_shows_each_part_of_an_accelerator(monkeypatch):
    found = [compare.Difference("MLP", float("inf"), 0.1), compare.Difference("RMSNorm", 0.0, 0.1)]
    monkeypatch.setattr(reports, "compare_with_cpu", lambda device, dtype: found)
    monkeypatch.setattr(reports, "pick_device", lambda: torch.device("mps"))
    facts, problems = reports.doctor()
    lines = [line for line in facts if "CPU" in line or "WRONG" in line]
    assert any("MLP" in line and "WRONG" in line for line in lines)
    assert any("RMSNorm" in line and "as on the CPU" in line for line in lines)
    assert any("gets MLP wrong in float32" in problem for problem in problems)
