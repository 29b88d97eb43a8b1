"""Rehearsing for MPS: what would run there passes, and each planted fault is found at its line."""

import contextlib
import inspect
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchgen
from reference import VARIANTS, ids, left_padding, tiny
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchgen.gen import parse_native_yaml
from torchgen.model import DispatchKey
from train.small import held_out_loss, small_trainer

from mps import Finding, Report, rehearse
from mps.defects import DEFECTS, LARGE_SUM, met_by
from mps.defects import Attention as AttentionCall
from mps.defects import Linear as LinearCall
from mps.kernels import ON_MPS, SERVE_MPS, kernels, native_functions, runs_on_mps
from qwenkit.device import KNOWN_BAD_ON_MPS, LONGEST_SUM_ON_MPS
from qwenkit.errors import InputError, QwenkitError
from qwenkit.fast.linear import _buffers, upcast_in_chunks
from qwenkit.fast.quantize import quantize
from qwenkit.generate import beam_search, generate, generate_batch
from qwenkit.interpret import previous_token_scores
from qwenkit.lora import add_lora
from qwenkit.model import (
    MLP,
    Attention,
    DecoderLayer,
    KVCache,
    QwenForCausalLM,
    RMSNorm,
    RotaryEmbedding,
)
from qwenkit.model.mask import attention_mask
from qwenkit.trace import Trace

DTYPES = (torch.float32, torch.bfloat16)
VERSION = "2.13.0"  # the known defects of the installed torch are not what most tests are about
FUSED = "aten::_scaled_dot_product_attention_math_for_mps"


def no_problems(fn, *inputs) -> Report:
    report = rehearse(fn, *inputs, torch_version=VERSION)
    assert report.problems == [], str(report)
    assert report.ok
    return report


def line_of(fn) -> str:
    """Return file and line of the comment `# here` in a function, as a finding tells it."""
    lines, first = inspect.getsourcelines(fn)
    (number,) = (first + n for n, line in enumerate(lines) if "# here" in line)
    return f"test_mps.py:{number}"


def at(finding, place: str) -> bool:
    return finding.where.endswith(place)


# What qwenkit does


def config_of(**overrides):
    return tiny(**overrides).config


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_parts_of_the_model_would_run(dtype):
    config = config_of()
    x = torch.randn(2, 5, config.hidden_size, dtype=dtype)
    rotary = RotaryEmbedding(config)
    parts = [
        (RMSNorm(config.hidden_size), ()),
        (MLP(config), ()),
        (Attention(config, 0), (rotary(torch.arange(5)[None], dtype), None)),
        (DecoderLayer(config, 0), (rotary(torch.arange(5)[None], dtype), attention_mask(5, 0))),
        (
            DecoderLayer(config, 0),
            (rotary(torch.arange(5)[None], dtype), attention_mask(5, 0, window=2)),
        ),
    ]
    for part, others in parts:
        no_problems(part.to(dtype), x, *others)
    assert no_problems(rotary, torch.arange(5)[None], dtype).operators["aten::cos"] == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_model_would_run(variant, dtype):
    model = tiny(**VARIANTS[variant], dtype=dtype)
    report = no_problems(model, ids(2, 6))
    assert report.operators[FUSED] == model.config.num_hidden_layers
    notes = ["bfloat16 was used: on MPS it needs macOS 14 or newer"]
    assert report.notes == (notes if dtype == torch.bfloat16 else [])


@pytest.mark.parametrize("home", ["cpu", "meta"])
@pytest.mark.parametrize("variant", ["gqa", "sliding", "yarn"])
def test_padding_and_the_cache_would_run_with_values_and_without(variant, home):
    model = tiny(**VARIANTS[variant]).to(home)
    prompt, mask = ids(2, 6).to(home), left_padding([6, 4], 6).to(home)
    no_problems(lambda: model(prompt, attention_mask=mask))
    cache = KVCache(model.config, 2, 16)
    for length in (6, 3, 1):  # the prompt, a chunk, one token
        no_problems(lambda x: model(x, cache=cache), ids(2, length).to(home))
    assert cache.length == 10


def test_without_values_nothing_is_waited_for():
    report = no_problems(tiny().to("meta"), ids(2, 6).to("meta"))
    assert report.syncs == []
    assert report.operators[FUSED] == 3


def test_a_traced_and_edited_model_would_run():
    model = tiny()
    trace = Trace(keep=None, edits={"layers.1.mlp.out": lambda x: x * 0.5})
    report = no_problems(lambda x: model(x, trace=trace), ids(2, 6))
    assert report.operators["aten::_softmax"] == 3
    assert FUSED not in report.operators
    no_problems(previous_token_scores, model, ids(1, 6))


def test_generating_waits_once_a_token_for_the_logits_and_once_a_forward_to_check_the_ids():
    model = tiny()
    report = no_problems(lambda x: generate(model, x, max_new_tokens=4, stop_ids=()), ids(1, 6))
    found = Counter(
        {(sync.operator, sync.where.rpartition(":")[0]): sync.count for sync in report.syncs}
    )
    assert found["Tensor.cpu", "qwenkit/generate/steps.py"] == 4
    assert found["Tensor.tolist", "qwenkit/model/inputs.py"] == 4 + 1  # and the prompt, before
    assert "aten::argmax" not in report.operators  # choosing is done on the host


def test_every_way_of_generating_would_run():
    model = tiny()
    settings = {"max_new_tokens": 3, "stop_ids": (), "seed": 1}
    no_problems(
        lambda x: generate(
            model, x, temperature=0.8, top_k=9, top_p=0.9, repetition_penalty=1.3, **settings
        ),
        ids(1, 6),
    )
    no_problems(lambda: generate_batch(model, [[1, 2, 3], [4]], **settings))
    no_problems(lambda x: beam_search(model, x, num_beams=2, max_new_tokens=3), ids(1, 6))


def test_a_quantized_model_would_run():
    model = tiny()
    quantize(model)
    report = no_problems(model, ids(1, 1))
    assert report.operators["aten::_weight_int8pack_mm"] == 7 * 3 + 1  # each layer's, and the head
    no_problems(model, ids(2, 20))  # upcast in chunks
    no_problems(lambda x: generate(model, x, max_new_tokens=2, stop_ids=()), ids(1, 6))


@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_a_training_step_would_run(autocast):
    trainer = small_trainer(
        autocast=autocast,
        label_smoothing=0.1,
        accumulate=2,
        clip=0.5,
        evaluate_every=1,
        evaluate=held_out_loss,
    )
    report = no_problems(trainer.train_step)
    assert trainer.step == 1
    done = report.operators
    assert done["aten::_fused_adamw_"] == 2  # matrices, and what does not decay
    assert done["aten::_softmax_backward_data"] > 0  # attention is computed openly, as on MPS
    assert not [name for name in done if "flash" in name]
    assert done["aten::_foreach_norm.Scalar"] == 0  # on MPS each gradient's norm is its own
    assert bool(report.notes) == (autocast == "bfloat16")
    waits = {sync.where.rpartition(":")[0] for sync in report.syncs}
    assert waits == {
        "qwenkit/device.py", "qwenkit/model/inputs.py", "qwenkit/train/evaluation.py",
        "qwenkit/train/losses.py", "qwenkit/train/loop.py",
    }  # fmt: skip


def test_what_is_computed_again_in_the_backward_pass_would_run():
    model = tiny().requires_grad_(True)
    layer = model.model.layers[0]
    rope = model.model.rotary_emb(torch.arange(5)[None])
    x = torch.randn(2, 5, model.config.hidden_size, requires_grad=True)

    def learn(x):
        checkpoint(layer, x, rope, None, use_reentrant=False).sum().backward()

    def differentiate(x):
        torch.autograd.grad(layer(x, rope, None).sum(), x)

    again = no_problems(learn, x).operators["aten::rsqrt"]
    assert again == 2 * no_problems(differentiate, x).operators["aten::rsqrt"] == 4


# Planted faults


def float64_of_numpy(x):
    return x * torch.tensor(np.ones(4)).to(x.device)  # here


def float64_literal(x):
    return x + torch.ones(4, dtype=torch.float64, device=x.device)  # here


def float64_of_one_number(x):
    return x.long() * torch.tensor(0.5, dtype=torch.float64)  # here


def float64_by_double(x):
    return (
        x.double()  # here
    )


def float64_on_the_way_to_the_host(x):
    return x.to("cpu", torch.float64)  # here


def complex128(x):
    return x.to(torch.complex128)  # here


def float8(x):
    return x.to(torch.float8_e4m3fn)  # here


def operator_without_a_kernel(x):
    return x.mode()  # here


def operator_without_a_kernel_in_a_composite(x):
    return torch.frexp(x)  # here


def operator_without_a_kernel_backward(x):
    picture = x.clone().requires_grad_()[None, None]
    larger = F.interpolate(picture, scale_factor=2.0, mode="bilinear", antialias=True)
    larger.sum().backward()  # here


def host_arange(x):
    return x + torch.arange(4)  # here


def host_mask(x):
    mask = torch.ones(4, 4).triu(1).bool()
    return x.masked_fill(mask, 0.0)  # here


def host_tensor(x):
    return x * torch.tensor([1.0, 2.0, 3.0, 4.0])  # here


def host_array(x):
    return x * torch.from_numpy(np.ones(4, dtype=np.float32))  # here


def host_number_in_a_stack(x):
    return torch.stack([x[0, 0], torch.tensor(1.0)])  # here


def host_after_cpu(x):
    copy = x.cpu()
    return x + copy  # here


def host_told_by_name(x):
    return x + torch.zeros(4, device="cpu")  # here


def host_of_a_view(x):
    return x + torch.zeros(8)[::2]  # here


def host_tensor_indexed(x):
    return torch.arange(9)[x.argmax(-1)]  # here


def host_tensor_in_a_hook(x):
    def scale(gradient):
        return gradient * torch.ones(4)  # here

    x = x.clone().requires_grad_()
    x.register_hook(scale)
    x.sum().backward()


def host_generator(x):
    return torch.multinomial(x.softmax(-1), 1, generator=torch.Generator())  # here


def host_index_selected(x):
    return x.index_select(0, torch.tensor([0, 2]))  # here


def host_index_gathered(x):
    return x.gather(1, torch.zeros(4, 2, dtype=torch.int64))  # here


def host_side_of_a_comparison(x):
    return x.equal(torch.ones(4, 4))  # here


def numpy_of_the_device(x):
    return (x + 1).numpy()  # here


def array_of_the_device(x):
    return np.asarray(x)  # here


FAULTS = [
    (float64_of_numpy, {("Tensor.to", "dtype"), ("aten::mul.Tensor", "dtype")}),
    (float64_literal, {("aten::ones", "dtype"), ("aten::add.Tensor", "dtype")}),
    (float64_of_one_number, {("aten::mul.Tensor", "dtype")}),
    (float64_by_double, {("aten::_to_copy", "dtype")}),
    (float64_on_the_way_to_the_host, {("aten::_to_copy", "dtype")}),
    (complex128, {("aten::_to_copy", "dtype")}),
    (float8, {("aten::_to_copy", "dtype")}),
    (operator_without_a_kernel, {("aten::mode", "kernel")}),
    (
        operator_without_a_kernel_in_a_composite,
        {("aten::frexp.Tensor_out inside of aten::frexp.Tensor", "kernel")},
    ),
    (operator_without_a_kernel_backward, {("aten::_upsample_bilinear2d_aa_backward", "kernel")}),
    (host_arange, {("aten::add.Tensor", "host tensor")}),
    (host_mask, {("aten::masked_fill.Scalar", "host tensor")}),
    (host_tensor, {("aten::mul.Tensor", "host tensor")}),
    (host_array, {("aten::mul.Tensor", "host tensor")}),
    (host_number_in_a_stack, {("aten::stack", "host tensor")}),
    (host_after_cpu, {("aten::add.Tensor", "host tensor")}),
    (host_told_by_name, {("aten::add.Tensor", "host tensor")}),
    (host_of_a_view, {("aten::add.Tensor", "host tensor")}),
    (host_tensor_indexed, {("aten::index.Tensor", "host tensor")}),
    (host_tensor_in_a_hook, {("aten::mul.Tensor", "host tensor")}),
    (host_generator, {("aten::multinomial", "generator")}),
    (host_index_selected, {("aten::index_select", "host tensor")}),
    (host_index_gathered, {("aten::gather", "host tensor")}),
    (host_side_of_a_comparison, {("aten::equal", "host tensor")}),
    (numpy_of_the_device, {("Tensor.numpy", "numpy")}),
    (array_of_the_device, {("Tensor.__array__", "numpy")}),
]


@pytest.mark.parametrize(("fault", "found"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_is_found_at_its_line(fault, found):
    report = rehearse(fault, torch.rand(4, 4))
    assert not report.ok
    assert {(problem.operator, problem.kind) for problem in report.problems} == found
    assert all(at(problem, line_of(fault)) for problem in report.problems), str(report)
    assert all(problem.count == 1 for problem in report.problems)


def test_the_backward_pass_is_named():
    report = rehearse(operator_without_a_kernel_backward, torch.rand(4, 4))
    (problem,) = report.problems
    assert problem.where.startswith("in the backward pass that began at ")


class Keeps(nn.Module):
    """A module with a tensor that its `.to(device)` leaves where it is."""

    def __init__(self, keep):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        keep(self, torch.ones(4))

    def forward(self, x):
        return x * self.weight * self.kept  # here


def as_attribute(module, tensor):
    module.kept = tensor


def as_buffer(module, tensor):
    module.register_buffer("kept", tensor)


def as_view_of_a_parameter(module, tensor):
    module.kept = module.weight.detach()


@pytest.mark.parametrize("call", [lambda fn: fn, lambda fn: lambda x: fn(x), lambda fn: fn.forward])
def test_a_tensor_that_a_module_does_not_take_along_is_on_the_host(call):
    keeps = Keeps(as_attribute)
    (problem,) = rehearse(call(keeps), torch.rand(4, 4)).problems
    assert (problem.operator, problem.kind) == ("aten::mul.Tensor", "host tensor")
    assert at(problem, line_of(Keeps))
    for keep in (as_buffer, as_view_of_a_parameter):
        no_problems(call(Keeps(keep)), torch.rand(4, 4))


def test_what_a_part_keeps_in_a_dict_is_on_the_host_too():
    outer = nn.Sequential(Keeps(as_buffer))
    outer[0].kept_too = {"list": [torch.ones(4)]}
    no_problems(outer, torch.rand(4, 4))
    report = rehearse(lambda x: outer(x) + outer[0].kept_too["list"][0], torch.rand(4, 4))
    assert [problem.kind for problem in report.problems] == ["host tensor"]


def sound(x):
    """All that looks like a fault and is none."""
    x = x + torch.arange(4, device=x.device) + torch.zeros_like(x) + x.new_ones(4)
    x = (
        x * torch.tensor(2.0)
        + torch.ones(4).to(x.device)
        + torch.ones(4, dtype=torch.float16).to(x)
    )
    x = x + torch.randn(4, generator=torch.Generator()).to(x.device)
    x = x[torch.tensor([0, 1])]  # indices may come from the host
    x[0] = torch.zeros(4)  # so may what is copied
    x = x + nn.Linear(4, 4).to(x.device)(x[:, :4])
    total = torch.zeros(3, dtype=torch.float64).sum().item()  # float64 is fine on the host
    return x * total


def test_what_torch_allows_is_no_fault():
    report = rehearse(sound, torch.rand(4, 4))
    assert report.problems == []
    assert report.syncs == []  # the number was read from the host's memory


def test_a_part_that_is_added_inside_and_moved_would_run():
    model = tiny()

    def adapted(x):
        add_lora(model, rank=2, dropout=0.1)
        return model(x)

    no_problems(adapted, ids(1, 6))


def test_a_host_tensor_among_tensors_without_values_stops_the_rehearsal():
    with pytest.raises(
        InputError, match=r"would stop on MPS at aten::add\.Tensor: a tensor on"
    ) as info:
        rehearse(host_arange, torch.empty(4, 4, device="meta"))
    assert any(line_of(host_arange) in note for note in info.value.__notes__)


def test_devices_are_named_as_on_a_mac_inside_of_fn_alone():
    seen = []

    def look(x):
        host = torch.zeros(2)
        moved = host.to(x.device)
        seen.extend([x.device, (x + 1).device, host.device, moved.device, x.cpu().device])
        seen.extend([x.is_mps, x.is_cpu, host.is_cpu, moved.to(host).device])

    x = torch.rand(2)
    rehearse(look, x)
    mps, cpu = torch.device("mps:0"), torch.device("cpu")
    assert seen == [mps, mps, cpu, mps, cpu, True, False, True, cpu]
    assert x.device == cpu


def test_a_copy_from_the_device_is_a_copy():
    def change(x):
        x.cpu().zero_()
        torch.ones(2).to(x.device).add_(x)

    x = torch.ones(2)
    rehearse(change, x)
    assert x.tolist() == [1, 1]


# Waiting


def items(x):
    total = 0.0
    for value in x[0]:
        total += value.item()  # here
    return total


def truth(x):
    return bool((x > 0).all())  # here


def as_list(x):
    return x.tolist()  # here


def printed(x):
    return f"{x}"  # here


def nonzero(x):
    return x.nonzero()  # here


def picked(x):
    return x[x > 0.5]  # here


def condition(x):
    if x.sum() > 0:  # here
        return x
    return -x


def selected(x):
    return x.masked_select(x > 0.5)  # here


def where_true(x):
    return torch.where(x > 0.5)  # here


def unique(x):
    return x.unique()  # here


def written_by_mask(x):
    x[x > 0.5] = torch.zeros(1, device=x.device)  # here


def put_by_mask(x):
    return x.index_put((x > 0.5,), x.new_zeros(()))  # here


def compared(x):
    return torch.equal(x, x + 1)  # here


def drawn(x):
    return torch.multinomial(x, 1, replacement=True)  # here


def drawn_without_replacement(x):
    return x.multinomial(2)  # here


def written_to_host(x):
    torch.empty(4, 4).copy_(x)  # here


SYNCS = [
    (items, "aten::_local_scalar_dense", 4), (truth, "aten::_local_scalar_dense", 1),
    (as_list, "Tensor.tolist", 1), (printed, "Tensor.__format__", 1), (nonzero, "aten::nonzero", 1),
    (picked, "aten::index.Tensor", 1), (written_to_host, "aten::copy_", 1),
    (condition, "aten::_local_scalar_dense", 1), (selected, "aten::masked_select", 1),
    (where_true, "aten::nonzero", 1), (unique, "aten::_unique2", 1),
    (written_by_mask, "aten::index_put_", 1), (put_by_mask, "aten::index_put", 1),
    (compared, "aten::equal", 1), (drawn, "aten::multinomial", 1),
    (drawn_without_replacement, "aten::multinomial", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wait", "operator", "count"), SYNCS, ids=[wait.__name__ for wait, *_ in SYNCS]
)
def test_waiting_for_the_device_is_counted_and_is_no_problem(wait, operator, count):
    report = rehearse(wait, torch.rand(4, 4))
    assert report.ok
    (sync,) = report.syncs
    assert (sync.operator, sync.count, sync.kind) == (operator, count, "sync")
    assert at(sync, line_of(wait))


def test_drawing_several_with_replacement_does_not_wait():
    assert rehearse(lambda x: x.multinomial(2, True), torch.rand(4, 4)).syncs == []


# Known defects


def strided(*shape, dtype=torch.float32):
    """Queries, keys or values (B, H, T, D) as a view and a transpose leave them."""
    batch, heads, length, head_dim = shape
    return torch.rand(batch, length, heads, head_dim, dtype=dtype).transpose(1, 2)


HALF = torch.bfloat16
DEFECT_CALLS = [  # call, its keywords, versions with the defect, and those just outside
    (F.linear, (torch.rand(4, 3).t(), torch.rand(2, 4)), {}, ("2.8.1+cpu",), ("2.7", "2.9")),
    (F.linear, (torch.rand(3, 4), torch.rand(4, 2).t()), {}, ("2.8",), ("2.9",)),
    (
        F.linear, (torch.rand(1, 3, 4, dtype=HALF), torch.rand(2, 4, dtype=HALF)),
        {}, ("2.12",), ("2.13",),
    ),
    (
        F.linear, (torch.rand(1, 3, 4), torch.rand(2, 4), torch.rand(2)),
        {}, ("2.13.0", "2.14.0.dev20260810"), ("2.12",),
    ),
    (F.scaled_dot_product_attention, (strided(1, 2, 8, 64),) * 3, {}, ("2.8",), ("2.9", "2.10.0")),
    (F.scaled_dot_product_attention, (strided(2, 2, 8, 64),) * 3, {}, ("2.9", "2.11.1"), ("2.12",)),
    (
        F.scaled_dot_product_attention,
        (torch.rand(1, 1, 1, 64, dtype=HALF), *(torch.rand(1, 1, 1024, 64, dtype=HALF),) * 2),
        {}, ("2.8", "2.10"), ("2.7", "2.11"),
    ),
    (
        F.scaled_dot_product_attention, (torch.rand(1, 1, 5, 8, dtype=HALF),) * 3,
        {"is_causal": True}, ("2.5", "2.12.1"), ("2.4", "2.13.0"),
    ),
    (
        F.scaled_dot_product_attention, (torch.rand(2, 2, 3, 64),) * 3,
        {"attn_mask": torch.ones(2, 1, 3, 3, dtype=torch.bool)}, ("2.12",), ("2.13",),
    ),
    (torch.mm, (torch.rand(16, 32767), torch.rand(32767, 16)), {}, ("2.13.0",), ("2.14",)),
    (torch.bmm, (torch.rand(1, 16, 32767), torch.rand(1, 32767, 16)), {}, ("2.14",), ("2.6",)),
]  # fmt: skip
HARMLESS = [
    (F.linear, (torch.rand(3, 4), torch.rand(2, 4)), {}),
    (F.linear, (torch.rand(3, 4), torch.rand(2, 4), torch.rand(2)), {}),  # 2 dimensions
    (
        lambda x, w, b: F.linear(x, w) + b,
        (torch.rand(1, 3, 4), torch.rand(2, 4), torch.rand(2)),
        {},
    ),
    (F.scaled_dot_product_attention, (strided(2, 2, 9, 64),) * 3, {}),  # more than 8 queries
    (F.scaled_dot_product_attention, (strided(2, 2, 8, 32),) * 3, {}),  # another head_dim
    (F.scaled_dot_product_attention, (torch.rand(1, 1, 5, 8),) * 3, {"is_causal": True}),  # float32
    (torch.mm, (torch.rand(15, 32767), torch.rand(32767, 16)), {}),
]


@pytest.mark.parametrize(("function", "inputs", "keywords", "bad", "good"), DEFECT_CALLS)
def test_shapes_with_wrong_numbers_are_found_in_the_versions_that_have_them(
    function, inputs, keywords, bad, good
):
    for version in (*bad, *good):
        report = rehearse(lambda *x: function(*x, **keywords), *inputs, torch_version=version)
        kinds = [problem.kind for problem in report.problems]
        assert kinds == ["known bad"] * (version in bad), (version, str(report))
        assert all("test_mps.py" in problem.where for problem in report.problems)


@pytest.mark.parametrize(("function", "inputs", "keywords"), HARMLESS)
def test_other_shapes_are_not_suspected(function, inputs, keywords):
    for version in ("2.8", "2.9", "2.12", "2.13"):
        assert rehearse(lambda *x: function(*x, **keywords), *inputs, torch_version=version).ok


def test_attention_that_learns_takes_none_of_the_kernels_with_defects():
    q = torch.rand(1, 1, 5, 8, dtype=HALF, requires_grad=True)
    run = lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)  # noqa: E731
    assert rehearse(run, q, torch_version="2.12").ok
    with torch.no_grad():
        assert not rehearse(run, q, torch_version="2.12").ok


def test_versions_that_device_calls_bad_are_those_whose_attention_is_wrong():
    """Attention cannot be had in another way; what others of the defects meet, can."""
    wrong = {
        f"2.{minor}"
        for minor in range(8, 16)
        for defect in DEFECTS
        if defect.call is AttentionCall and defect.since <= (2, minor)
        if defect.fixed is None or (2, minor) < defect.fixed
    }
    assert set(KNOWN_BAD_ON_MPS) == wrong
    for version, problem in KNOWN_BAD_ON_MPS.items():
        report = rehearse(F.silu, torch.rand(2), torch_version=version)
        assert report.ok
        assert problem in report.notes[0]
    assert all(defect.fixed is None or defect.since < defect.fixed for defect in DEFECTS)


def test_what_is_said_of_a_bad_version_is_true_of_it():
    half = torch.rand(1, 1, 5, 8, dtype=HALF)
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    calls = {
        "causal attention": AttentionCall(half, half, half, is_causal=True),
        "the sequences of a batch": AttentionCall(*(strided(2, 2, 8, 64),) * 3),
        "mask for all of a batch": AttentionCall(*(torch.rand(2, 2, 3, 64),) * 3, attn_mask=mask),
        "F.linear on non-contiguous input": LinearCall(torch.rand(4, 3).t(), torch.rand(2, 4)),
    }
    for version, problem in KNOWN_BAD_ON_MPS.items():
        said = [call for words, call in calls.items() if words in problem]
        assert said
        assert all(met_by(call, version) for call in said), version


@pytest.mark.parametrize("tied", [True, False])
def test_training_qwens_vocabulary_is_wrong_before_torch_2_14(tied):
    """The head's input gradient is a sum over all tokens; `training_problem` warns of it."""
    with torch.device("meta"):
        model = QwenForCausalLM(config_of(vocab_size=151_936, tie_word_embeddings=tied))
        tokens = torch.zeros(2, 16, dtype=torch.int64)

    def learn(x):
        F.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()

    (problem,) = rehearse(learn, tokens, torch_version="2.13").problems
    assert (problem.operator, problem.kind, problem.count) == ("aten::mm", "known bad", 1)
    assert "on an M1 or M2" in problem.message
    assert "upgrade torch to 2.14" in problem.message
    assert problem.where.startswith("in the backward pass")
    assert LARGE_SUM == LONGEST_SUM_ON_MPS + 1
    assert rehearse(learn, tokens, torch_version="2.14").ok
    assert rehearse(model, tokens, torch_version="2.13").ok  # no gradient, no such sum


# The list of kernels


def test_known_operators_have_the_kernels_they_are_known_to_have():
    for name in (
        "mm",
        "addmm",
        "silu",
        "rsqrt",
        "cos",
        "_softmax",
        "embedding_dense_backward",
        "where.self",
    ):
        assert "MPS" in kernels(f"aten::{name}"), name
    for name in (
        "_fused_adamw_",
        "linear",
        "linear_backward",
        "_scaled_dot_product_attention_math_for_mps",
    ):
        assert "MPS" in kernels(f"aten::{name}"), name
    for name in ("embedding", "stack", "_to_copy", "zeros", "masked_fill.Scalar"):  # composites
        assert runs_on_mps(f"aten::{name}"), name
        assert "MPS" not in kernels(f"aten::{name}"), name
    for name in ("mode", "geqrf", "_linalg_svd", "take", "_fused_adagrad_", "mkldnn_linear"):
        assert not runs_on_mps(f"aten::{name}"), name
    for name in ("aten::no_such_operator", "qwenkit::mm"):
        assert not runs_on_mps(name), name


def test_what_mps_takes_instead_of_the_cpus_kernels_is_there():
    assert all("MPS" in kernels(name) for name in ON_MPS.values())
    assert all("MPS" not in kernels(name) for name in ON_MPS)


def test_torchs_own_parser_reads_the_same():
    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    parsed = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    by_name = {function.func.name: function for function in parsed.native_functions}
    keys = [DispatchKey.parse(key) for key in SERVE_MPS]
    ours = native_functions()
    differ = {}
    for name, function in by_name.items():
        if "generated" in function.tags:  # these call what they are generated from
            continue
        if function.structured_delegate is not None:
            function = by_name[function.structured_delegate]
        theirs = {str(key) for key in keys if parsed.backend_indices[key].has_kernel(function)}
        if function.has_composite_implicit_autograd_kernel:
            theirs.add("CompositeImplicitAutograd")
        if theirs != ours[str(name)] & set(SERVE_MPS):
            differ[str(name)] = theirs
    assert differ == {}
    assert len(by_name) > 3000


def test_a_torch_without_its_list_is_explained(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(QwenkitError, match=r"native_functions\.yaml is missing; torch's wheel"):
        native_functions.__wrapped__()


# The report, and what is refused


def test_the_report_is_readable():
    text = str(
        rehearse(lambda x: (x + torch.arange(4)).sum().item(), torch.rand(4), torch_version="2.13")
    )
    place = r"\S*test_mps\.py:\d+"
    assert re.fullmatch(
        r"would NOT run \(1 problem\) on MPS with torch 2\.13: 3 operators, 3 calls, 1 sync\n\n"
        rf"PROBLEMS\n  {place}: aten::add\.Tensor, once \(host tensor\)\n"
        r"      a tensor on the host, \(4,\) torch\.int64, meets tensors on the device: make it "
        r"with device=x\.device, or move it with \.to\(x\.device\)\n\n"
        rf"SYNCS\n  {place}: aten::_local_scalar_dense, once \(sync\)\n"
        r"      one number of a tensor becomes Python's, by \.item\(\), int\(\), float\(\) or "
        r"bool\(\)",
        text,
    ), text
    report = rehearse(
        lambda x: [x + 1 for _ in range(1000)], torch.rand(4).bfloat16(), torch_version="2.13"
    )
    assert str(report) == (
        "would run on MPS with torch 2.13: 1 operator, 1,000 calls, 0 syncs\n\n"
        "NOTES\n  bfloat16 was used: on MPS it needs macOS 14 or newer"
    )
    assert str(Finding("aten::mm", "kernel", 1200, "a.py:3", "why")) == (
        "  a.py:3: aten::mm, 1,200 times (kernel)\n      why"
    )


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
    model = tiny()
    with pytest.raises(
        InputError, match=r"input_ids is on cpu and the model on mps:0.*inside of fn"
    ):
        rehearse(lambda: model(ids(1, 3)))
    no_problems(lambda: model(ids(1, 3).to(model.device)))
    stored = model.device
    with pytest.raises(InputError, match=r"input_ids is on cpu and the model on mps:0"):
        rehearse(lambda x: model(x.to(stored)), ids(1, 3))


def test_a_product_on_the_host_takes_no_buffer_of_before_for_its_own():
    x, weight = torch.rand(20, 4), torch.ones(3, 4, dtype=torch.int8)
    upcast_in_chunks(x, weight)
    assert no_problems(lambda: upcast_in_chunks(x.cpu(), weight.cpu()).to(x.device) + x[:, :3])


def test_any_other_error_is_raised_as_it_is_with_the_findings_so_far():
    def stop(x):
        x.item()
        raise KeyError("x")

    with pytest.raises(KeyError) as info:
        rehearse(stop, torch.rand(1))
    (note,) = info.value.__notes__
    assert "aten::_local_scalar_dense, once" in note


def test_what_cannot_be_rehearsed_is_refused(monkeypatch):
    x = torch.rand(2)
    with pytest.raises(InputError, match="fn is a Tensor; it must be a function"):
        rehearse(x, x)
    with pytest.raises(InputError, match="fn used no tensor that would be on MPS"):
        rehearse(lambda x: torch.ones(2) + 1, x)
    with pytest.raises(InputError, match="torch_version: version is 'new'; it must begin with two"):
        rehearse(F.silu, x, torch_version="new")


def test_nothing_is_left_behind():
    model = tiny()
    before = (torch.autocast.__init__, torch.mps.synchronize, torch.autograd._engine_run_backward)
    want = model(ids(1, 3))
    with contextlib.suppress(ZeroDivisionError):
        rehearse(lambda: 1 / 0)
    rehearse(model, ids(1, 3))
    after = (torch.autocast.__init__, torch.mps.synchronize, torch.autograd._engine_run_backward)
    assert before == after
    assert model(ids(1, 3)).equal(want)
    quantize(model)
    model(ids(2, 20))
    held = dict(_buffers.held)  # what weights are upcast into
    rehearse(model, ids(2, 20))
    assert _buffers.held.keys() == held.keys()
    assert all(_buffers.held[key] is buffer for key, buffer in held.items())
    assert nn.Linear(2, 2)(torch.rand(2)).device.type == "cpu"
