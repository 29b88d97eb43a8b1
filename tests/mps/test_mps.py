"""A rehearsal for MPS: each planted fault, wait and known defect is found at its line."""

import inspect
import operator
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchgen
from reference import ids, tiny
from torch import nn

from mps import Finding, rehearse
from mps._defects import attention, linear, matmul
from mps._kernels import ON_MPS, kernels, native_functions, runs_on_mps
from qwenkit.device import DEFECTS_OF_MPS, LONGEST_SUM_ON_MPS, known_defects, known_problem
from qwenkit.errors import InputError, QwenkitError
from qwenkit.fast import quantize, swap
from qwenkit.fast.linear import _buffers, upcast_in_chunks
from qwenkit.model import QwenForCausalLM

CPU, MPS, HALF = torch.device("cpu"), torch.device("mps:0"), torch.bfloat16


def line_of(fn) -> str:
    """Return file and line of the comment `# here`, or of a lambda, as a finding tells it."""
    lines, first = inspect.getsourcelines(fn)
    if fn.__name__ == "<lambda>":
        return f"test_mps.py:{first}"
    (number,) = (first + n for n, line in enumerate(lines) if "# here" in line)
    return f"test_mps.py:{number}"


def spelled(operator):
    return operator if operator.startswith("Tensor.") else f"aten::{operator}"


# --- planted faults ---


def operator_without_a_kernel_backward(x):
    picture = x.clone().requires_grad_()[None, None]
    larger = F.interpolate(picture, scale_factor=2.0, mode="bilinear", antialias=True)
    larger.sum().backward()  # here


def host_tensor_in_a_hook(x):
    x = x.clone().requires_grad_()
    x.register_hook(lambda gradient: gradient * torch.ones(4))  # here
    x.sum().backward()


F64, C128, F8 = torch.float64, torch.complex128, torch.float8_e4m3fn
HOST = "host tensor"
FAULTS = {  # name: the computation, the kind of problem, and the operators that have it
    "float64_of_numpy": (lambda x: x * torch.tensor(np.ones(4)).to(x.device),
                         "dtype", "Tensor.to", "mul.Tensor"),
    "float64_literal": (lambda x: x + torch.ones(4, dtype=F64, device=x.device),
                        "dtype", "ones", "add.Tensor"),
    "float64_of_one_number": (lambda x: x.long() * torch.tensor(0.5, dtype=F64),
                              "dtype", "mul.Tensor"),
    "float64_by_double": (lambda x: x.double(), "dtype", "_to_copy"),
    "float64_on_the_way_to_the_host": (lambda x: x.to("cpu", F64), "dtype", "_to_copy"),
    "complex128": (lambda x: x.to(C128), "dtype", "_to_copy"),
    "float8": (lambda x: x.to(F8), "dtype", "_to_copy"),
    "operator_without_a_kernel": (lambda x: x.mode(), "kernel", "mode"),
    "operator_without_a_kernel_in_a_composite": (
        lambda x: torch.frexp(x), "kernel", "frexp.Tensor_out inside of aten::frexp.Tensor"),
    "operator_without_a_kernel_backward": (
        operator_without_a_kernel_backward, "kernel", "_upsample_bilinear2d_aa_backward"),
    "host_arange": (lambda x: x + torch.arange(4), HOST, "add.Tensor"),
    "host_mask": (lambda x: x.masked_fill(torch.ones(4, 4).triu(1).bool(), 0.0),
                  HOST, "masked_fill.Scalar"),
    "host_tensor": (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]), HOST, "mul.Tensor"),
    "host_array": (lambda x: x * torch.from_numpy(np.ones(4, np.float32)), HOST, "mul.Tensor"),
    "host_number_in_a_stack": (lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]), HOST, "stack"),
    "host_after_cpu": (lambda x: x + x.cpu(), HOST, "add.Tensor"),
    "host_told_by_name": (lambda x: x + torch.zeros(4, device="cpu"), HOST, "add.Tensor"),
    "host_of_a_view": (lambda x: x + torch.zeros(8)[::2], HOST, "add.Tensor"),
    "host_tensor_indexed": (lambda x: torch.arange(9)[x.argmax(-1)], HOST, "index.Tensor"),
    "host_tensor_in_a_hook": (host_tensor_in_a_hook, HOST, "mul.Tensor"),
    "host_generator": (lambda x: x.softmax(-1).multinomial(1, generator=torch.Generator()),
                       "generator", "multinomial"),
    "host_index_selected": (lambda x: x.index_select(0, torch.arange(2)), HOST, "index_select"),
    "host_index_gathered": (lambda x: x.gather(1, torch.zeros(4, 2).long()), HOST, "gather"),
    "host_side_of_a_comparison": (lambda x: x.equal(torch.ones(4, 4)), HOST, "equal"),
    "numpy_of_the_device": (lambda x: (x + 1).numpy(), "numpy", "Tensor.numpy"),
    "array_of_the_device": (lambda x: np.asarray(x), "numpy", "Tensor.__array__"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_at_its_line(name):
    fault, kind, *operators = FAULTS[name]
    report = rehearse(fault, torch.rand(4, 4))
    assert not report.ok
    found = {(problem.operator, problem.kind, problem.count) for problem in report.problems}
    assert found == {(spelled(operator), kind, 1) for operator in operators}
    assert all(one.where.endswith(line_of(fault)) for one in report.problems), str(report)
    backward = report.problems[0].where.startswith("in the backward pass that began at ")
    assert backward == name.endswith("_backward")


class Keeps(nn.Module):
    """A module with a tensor that its `.to(device)` may leave where it is."""

    def __init__(self, kind):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        if kind == "buffer":
            self.register_buffer("kept", torch.ones(4))
        else:
            self.kept = self.weight.detach() if kind == "view" else torch.ones(4)

    def forward(self, x):
        return x * self.weight * self.kept  # here


@pytest.mark.parametrize("call", [lambda fn: fn, lambda fn: lambda x: fn(x), lambda fn: fn.forward])
def test_a_tensor_that_a_module_does_not_take_along_is_on_the_host(call):
    (problem,) = rehearse(call(Keeps("attribute")), torch.rand(4, 4)).problems
    assert (problem.operator, problem.kind) == ("aten::mul.Tensor", HOST)
    assert problem.where.endswith(line_of(Keeps))
    for kind in ("buffer", "view"):  # of a parameter
        assert rehearse(call(Keeps(kind)), torch.rand(4, 4)).ok
    outer = nn.Sequential(Keeps("buffer"))
    outer[0].kept_too = {"list": [torch.ones(4)]}  # in a dict too
    assert rehearse(call(outer), torch.rand(4, 4)).ok
    report = rehearse(lambda x: outer(x) + outer[0].kept_too["list"][0], torch.rand(4, 4))
    assert [problem.kind for problem in report.problems] == [HOST]


def test_what_torch_allows_is_not_a_fault():
    def sound(x):
        x.multinomial(2, True)  # without a wait: several, with replacement
        x = x + torch.arange(4, device=x.device) + torch.zeros_like(x) + x.new_ones(4)
        x = x * torch.tensor(2.0) + torch.ones(4).to(x.device)
        x = x + torch.ones(4, dtype=torch.float16).to(x)
        x = x + torch.randn(4, generator=torch.Generator()).to(x.device)
        x = x[torch.tensor([0, 1])]  # indices may come from the host
        x[0] = torch.zeros(4)  # so may what is copied
        x = x + nn.Linear(4, 4).to(x.device)(x[:, :4])
        total = torch.zeros(3, dtype=torch.float64).sum().item()  # float64 is fine on the host
        return x * total

    report = rehearse(sound, torch.rand(4, 4))
    assert report.problems == []
    assert report.syncs == []  # the number was read from the host's memory


def test_a_host_tensor_among_tensors_without_values_stops_the_rehearsal():
    fault = FAULTS["host_arange"][0]
    stops = r"would stop on MPS at aten::add\.Tensor: a tensor on"
    with pytest.raises(InputError, match=stops) as info:
        rehearse(fault, torch.empty(4, 4, device="meta"))
    assert any(line_of(fault) in note for note in info.value.__notes__)


def test_devices_are_named_as_on_a_mac_inside_of_fn_alone_and_copies_are_copies():
    seen = []

    def look(x):
        host = torch.zeros(2)
        moved = host.to(x.device)
        seen.extend([x.device, (x + 1).device, host.device, moved.device, x.cpu().device])
        seen.extend([x.is_mps, x.is_cpu, host.is_cpu, moved.to(host).device])
        x.cpu().zero_()
        torch.ones(2).to(x.device).add_(x)

    x = torch.ones(2)
    rehearse(look, x)
    assert seen == [MPS, MPS, CPU, MPS, CPU, True, False, True, CPU]
    assert x.device == CPU
    assert x.tolist() == [1, 1]  # a copy from the device is a copy


# --- waiting ---

SYNCS = {
    "items": (lambda x: sum(value.item() for value in x[0]), "_local_scalar_dense", 4),
    "truth": (lambda x: bool((x > 0).all()), "_local_scalar_dense", 1),
    "as_list": (lambda x: x.tolist(), "Tensor.tolist", 1),
    "printed": (lambda x: f"{x}", "Tensor.__format__", 1),
    "nonzero": (lambda x: x.nonzero(), "nonzero", 1),
    "picked": (lambda x: x[x > 0.5], "index.Tensor", 1),
    "written_to_host": (lambda x: torch.empty(4, 4).copy_(x), "copy_", 1),
    "condition": (lambda x: x if x.sum() > 0 else -x, "_local_scalar_dense", 1),
    "selected": (lambda x: x.masked_select(x > 0.5), "masked_select", 1),
    "where_true": (lambda x: torch.where(x > 0.5), "nonzero", 1),
    "unique": (lambda x: x.unique(), "_unique2", 1),
    "written_by_mask": (lambda x: operator.setitem(x, x > 0.5, torch.zeros(1, device=x.device)),
                        "index_put_", 1),
    "put_by_mask": (lambda x: x.index_put((x > 0.5,), x.new_zeros(())), "index_put", 1),
    "compared": (lambda x: torch.equal(x, x + 1), "equal", 1),
    "drawn": (lambda x: torch.multinomial(x, 1, replacement=True), "multinomial", 1),
    "drawn_without_replacement": (lambda x: x.multinomial(2), "multinomial", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", SYNCS)
def test_waiting_for_the_device_is_counted_and_is_not_a_problem(name):
    wait, operator, count = SYNCS[name]
    report = rehearse(wait, torch.rand(4, 4))
    assert report.ok
    (sync,) = report.syncs
    assert (sync.operator, sync.count, sync.kind) == (spelled(operator), count, "sync")
    assert sync.where.endswith(line_of(wait))


# --- known defects ---


def strided(*shape):
    """Return queries, keys and values (B, H, T, D) as a view and a transpose leave them."""
    batch, heads, length, head_dim = shape
    return (torch.rand(batch, length, heads, head_dim).transpose(1, 2),) * 3


ATTEND, rand = F.scaled_dot_product_attention, torch.rand
CAUSAL, MASKS = {"is_causal": True}, {"attn_mask": torch.ones(2, 1, 3, 3, dtype=torch.bool)}
HALF_QUERIES = (rand(1, 1, 5, 8).to(HALF),) * 3
LONG_PAST = (rand(1, 1, 1, 64).to(HALF), *(rand(1, 1, 1024, 64).to(HALF),) * 2)
A, B, X, W, BIAS = rand(16, 32767), rand(32767, 16), rand(1, 3, 4), rand(2, 4), rand(2)
NEVER = ((), ("2.8", "2.9", "2.12", "2.13"))
DEFECT_CALLS = [  # issue, function, inputs, options, versions with the defect, some without
    (161641, F.linear, (rand(4, 3).t(), W), {}, ("2.8.1+cpu",), ("2.7", "2.9")),
    (161641, F.linear, (X[0], rand(4, 2).t()), {}, ("2.8",), ("2.9",)),
    (181466, F.linear, (X.to(HALF), W.to(HALF)), {}, ("2.12",), ("2.13",)),
    (192934, F.linear, (X, W, BIAS), {}, ("2.13.0", "2.14.0.dev20260810"), ("2.12",)),
    (163598, ATTEND, strided(1, 2, 8, 64), {}, ("2.8",), ("2.9", "2.10.0")),
    (181151, ATTEND, strided(2, 2, 8, 64), {}, ("2.9", "2.11.1"), ("2.12",)),
    (174945, ATTEND, LONG_PAST, {}, ("2.8", "2.10"), ("2.7", "2.11")),
    (181575, ATTEND, HALF_QUERIES, CAUSAL, ("2.5", "2.12.1"), ("2.4", "2.13.0")),
    (184180, ATTEND, (rand(2, 2, 3, 64),) * 3, MASKS, ("2.12",), ("2.13",)),
    (183535, torch.mm, (A, B), {}, ("2.13.0",), ("2.14",)),
    (195012, torch.bmm, (A[None], B[None]), {}, ("2.14",), ("2.6",)),
    (161641, F.linear, (X[0], W), {}, *NEVER),  # both contiguous
    (192934, F.linear, (X[0], W, BIAS), {}, *NEVER),  # 2 dimensions
    (192934, lambda x, w, b: F.linear(x, w) + b, (X, W, BIAS), {}, *NEVER),
    (181151, ATTEND, strided(2, 2, 9, 64), {}, *NEVER),  # more than 8 queries
    (181151, ATTEND, strided(2, 2, 8, 32), {}, *NEVER),  # another head_dim
    (181575, ATTEND, (rand(1, 1, 5, 8),) * 3, CAUSAL, *NEVER),  # float32
    (183535, torch.mm, (A[1:], B), {}, *NEVER),  # 15 rows
]


@pytest.mark.parametrize(("issue", "function", "inputs", "options", "bad", "good"), DEFECT_CALLS)
def test_shapes_with_wrong_numbers_are_found_in_the_versions_that_have_them(
    issue, function, inputs, options, bad, good
):
    for version in (*bad, *good):
        report = rehearse(lambda *x: function(*x, **options), *inputs, torch_version=version)
        kinds = [problem.kind for problem in report.problems]
        assert kinds == ["known bad"] * (version in bad), (version, str(report))
        assert all("test_mps.py" in problem.where for problem in report.problems)
        assert all(f"#{issue})" in problem.message for problem in report.problems)


def test_attention_that_learns_takes_none_of_the_kernels_with_defects():
    q = HALF_QUERIES[0].clone().requires_grad_()
    run = lambda q: ATTEND(q, q, q, is_causal=True)  # noqa: E731
    assert rehearse(run, q, torch_version="2.12").ok
    with torch.no_grad():
        assert not rehearse(run, q, torch_version="2.12").ok


def test_every_defect_is_looked_for_and_those_of_attention_say_not_to_use_mps():
    """Attention cannot be computed in another way; the other calls can."""
    judged = {*attention(*HALF_QUERIES), *linear(X, W), *matmul(A, B)}
    assert judged == {d.issue for d in DEFECTS_OF_MPS} == {issue for issue, *_ in DEFECT_CALLS}
    for defect in DEFECTS_OF_MPS:
        assert defect.avoid == (defect.issue in attention(*HALF_QUERIES))
        assert defect in known_defects(MPS, defect.since)
        assert defect.fixed is None or defect not in known_defects(MPS, defect.fixed)
    for version in [f"2.{minor}" for minor in range(4, 16)]:
        wrong = [defect.wrong for defect in known_defects(MPS, version) if defect.avoid]
        problem = known_problem(MPS, version)
        assert bool(problem) == bool(wrong) == (5 <= int(version[2:]) <= 12)
        report = rehearse(F.silu, torch.rand(2), torch_version=version)
        assert report.ok
        assert report.notes == ([problem] if wrong else [])
        assert all(words in problem for words in wrong)


@pytest.mark.parametrize("tied", [True, False])
def test_training_qwens_vocabulary_is_wrong_before_torch_2_14(tied):
    """The head's input gradient is a sum over all tokens; `training_problem` warns of it."""
    config = tiny(vocab_size=151_936, tie_word_embeddings=tied).config
    with torch.device("meta"):
        model = swap(QwenForCausalLM(config))
        tokens = torch.zeros(2, 16, dtype=torch.int64)

    def learn(x):
        F.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()

    (problem,) = rehearse(learn, tokens, torch_version="2.13").problems
    assert (problem.operator, problem.kind, problem.count) == ("aten::mm", "known bad", 1)
    for words in ("on an M1 or M2", f"{LONGEST_SUM_ON_MPS + 1:,} terms", "upgrade torch to 2.14"):
        assert words in problem.message
    assert problem.where.startswith("in the backward pass")
    assert rehearse(learn, tokens, torch_version="2.14").ok
    assert rehearse(model, tokens, torch_version="2.13").ok  # no gradient, no such sum


# --- the list of kernels ---

KNOWN = [  # operators, whether they have a kernel written for MPS, whether they run there
    ("mm addmm silu rsqrt cos _softmax embedding_dense_backward where.self _fused_adamw_ linear "
     "linear_backward _scaled_dot_product_attention_math_for_mps", True, True),
    ("embedding stack _to_copy zeros masked_fill.Scalar", False, True),  # composites
    ("mode geqrf _linalg_svd take _fused_adagrad_ mkldnn_linear no_such_operator", False, False),
]  # fmt: skip


def test_known_operators_have_the_kernels_they_are_known_to_have():
    for names, own, runs in KNOWN:
        for name in names.split():
            assert ("MPS" in kernels(f"aten::{name}")) == own, name
            assert runs_on_mps(f"aten::{name}") == runs, name
    assert not runs_on_mps("qwenkit::mm")
    assert len(native_functions()) > 3000
    assert all("MPS" in kernels(there) for there in ON_MPS.values())
    assert all("MPS" not in kernels(here) for here in ON_MPS)


def test_a_torch_without_its_list_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(torchgen, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(QwenkitError, match=r"native_functions\.yaml is missing; torch's wheel"):
        native_functions.__wrapped__()


# --- the report, and what is refused ---

READABLE = r"""would NOT run \(1 problem\) on MPS with torch 2\.13: 3 operators, 3 calls, 1 sync

PROBLEMS
  \S*test_mps\.py:\d+: aten::add\.Tensor, once \(host tensor\)
      a tensor on the host, \(4,\) torch\.int64, meets tensors on the device: make it with \
device=x\.device, or move it with \.to\(x\.device\)

SYNCS
  \S*test_mps\.py:\d+: aten::_local_scalar_dense, once \(sync\)
      Python reads one value of a tensor, by \.item\(\), int\(\), float\(\) or bool\(\)"""


def test_the_report_is_readable():
    x = torch.rand(4)
    report = rehearse(lambda x: (x + torch.arange(4)).sum().item(), x, torch_version="2.13")
    assert re.fullmatch(READABLE.replace("\\\n", ""), str(report)), str(report)
    report = rehearse(lambda x: [x + 1 for _ in range(1000)], x.bfloat16(), torch_version="2.13")
    counts = "would run on MPS with torch 2.13: 1 operator, 1,000 calls, 0 syncs"
    note = "NOTES\n  bfloat16 was used: on MPS it needs macOS 14 or newer"
    assert str(report) == f"{counts}\n\n{note}"
    finding = Finding("aten::mm", "kernel", "a.py:3", "why", 1200)
    assert str(finding) == "  a.py:3: aten::mm, 1,200 times (kernel)\n      why"


def test_code_of_the_package_is_named_from_the_package(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    report = rehearse(tiny(), ids(1, 3))
    assert {sync.where.rpartition(":")[0] for sync in report.syncs} == {"qwenkit/model/inputs.py"}


def test_a_line_of_a_notebook_is_named_by_its_number():
    cell = {"torch": torch}
    exec(compile("\n\nf = lambda x: x + torch.ones(2)", "/tmp/ipykernel_1/2.py", "exec"), cell)
    (problem,) = rehearse(cell["f"], torch.rand(2)).problems
    assert problem.where == "a notebook cell, line 3"


def test_a_computation_that_stops_at_the_devices_is_explained():
    model = swap(tiny())
    stored = model.device
    stops = r"input_ids is on cpu and the model on mps:0.*inside of fn"
    with pytest.raises(InputError, match=stops):
        rehearse(lambda: model(ids(1, 3)))
    with pytest.raises(InputError, match=stops):
        rehearse(lambda x: model(x.to(stored)), ids(1, 3))
    assert rehearse(lambda: model(ids(1, 3).to(model.device)), torch_version="2.13").ok


def test_a_product_on_the_host_takes_no_buffer_of_before_for_its_own():
    x, weight = torch.rand(20, 4), torch.ones(3, 4, dtype=torch.int8)
    upcast_in_chunks(x, weight)
    assert rehearse(lambda: upcast_in_chunks(x.cpu(), weight.cpu()).to(x.device) + x[:, :3]).ok


def test_any_other_error_is_raised_as_it_is_with_the_findings_so_far():
    with pytest.raises(KeyError) as info:
        rehearse(lambda x: {}[x.item()], torch.rand(1))
    (note,) = info.value.__notes__
    assert "aten::_local_scalar_dense, once" in note


def test_what_cannot_be_rehearsed_is_refused():
    x = torch.rand(2)
    with pytest.raises(InputError, match="fn is a Tensor; it must be a function"):
        rehearse(x, x)
    with pytest.raises(InputError, match="fn used no tensor that would be on MPS"):
        rehearse(lambda x: torch.ones(2) + 1, x)
    with pytest.raises(InputError, match="version is 'new'; it must begin with two numbers"):
        rehearse(F.silu, x, torch_version="new")


def test_nothing_is_left_behind():
    def patched():
        return torch.autocast.__init__, torch.mps.synchronize, torch.autograd._engine_run_backward

    model, before = tiny(), patched()
    want = model(ids(1, 3))
    with pytest.raises(ZeroDivisionError):
        rehearse(lambda: 1 / 0)
    rehearse(model, ids(1, 3))
    assert patched() == before
    assert model(ids(1, 3)).equal(want)
    quantize(model)
    swap(model)(ids(2, 20))
    held = dict(_buffers.held)  # what weights are upcast into
    assert held
    rehearse(model, ids(2, 20))
    assert _buffers.held.keys() == held.keys()
    assert all(_buffers.held[key] is buffer for key, buffer in held.items())
    assert nn.Linear(2, 2)(torch.rand(2)).device.type == "cpu"
