"""Int4 with calibration: GPTQ and AWQ keep a layer's output nearer than rounding to nearest."""

import bisect
import inspect
import textwrap

import pytest
import torch
import torch.nn.functional as F
from reference import ids, relative_error, tiny
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import calibration
from qwenkit.fast.awq import best_factors, scale_channels
from qwenkit.fast.calibration import READERS, calibrated, calibration_ids
from qwenkit.fast.gptq import gptq, pulls
from qwenkit.fast.int4 import dequantize, quantize_groups, steps_of, to_steps
from qwenkit.pretrained import EMBEDDED


def random(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def correlated(tokens, width, seed=0):
    """Return inputs that rise and fall together: four directions, and a little noise."""
    return random(tokens, 4, seed=seed) @ random(4, width, seed=seed + 1) + 0.1 * random(
        tokens, width, seed=seed + 2
    )


def output_error(weight, stored, x):
    return (F.linear(x, dequantize(*stored) - weight).norm() / F.linear(x, weight).norm()).item()


# --- GPTQ ---


def by_the_paper(weight, x, group, damping):
    """Algorithm 1 of Frantar et al., in float64: each error is taken from all later columns."""
    left, hessian = weight.double(), x.double().t() @ x.double()
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    restored = torch.empty_like(weight)
    for i in range(weight.shape[1]):
        if i % group == 0:
            scale, zero = steps_of(left[:, i : i + group].float())
        restored[:, i] = (to_steps(left[:, i].float(), scale, zero) - zero) * scale
        error = (left[:, i] - restored[:, i]) / factor[i, i]
        left[:, i:] -= error[:, None] * factor[i, i:]
    return restored


@pytest.mark.parametrize("damping", [0.01, 0.5])
@pytest.mark.parametrize("group", [8, 32])
def test_it_is_the_papers_algorithm(group, damping):
    weight, x = random(24, 32, seed=3), correlated(300, 32) + random(300, 32, seed=9)
    got = dequantize(*gptq(weight, x, group, damping))
    # A number that lies between two steps may fall either way, and others follow.
    assert (got - by_the_paper(weight, x, group, damping)).abs().gt(1e-5).float().mean() < 0.02
    assert (got - dequantize(*quantize_groups(weight, group))).abs().gt(1e-5).float().mean() > 0.05


def test_what_a_column_adds_makes_up_for_the_errors_before_it():
    """For fixed errors of earlier columns, no other values of the later ones cost less."""
    x, pull = correlated(300, 6).double(), pulls(correlated(300, 6), damping=1e-6)
    assert torch.equal(pull, pull.tril())
    assert torch.equal(pull.diagonal(), torch.ones(6))
    errors = torch.tensor([1.0, -2.0, 0, 0, 0, 0])
    for i in range(2, 6):
        errors[i] = -(errors[:i] @ pull[i, :i])
    best = torch.linalg.lstsq(x[:, 2:], -x[:, :2] @ errors[:2].double()).solution
    torch.testing.assert_close(errors[2:], best.float(), rtol=1e-2, atol=1e-2)


def test_two_columns_by_hand():
    """Both inputs are equal: what the first weight lost, the second one adds."""
    weight = torch.tensor([[1.4, 0.4, 0.0, 15.0]])  # steps of 1, of which step 0 is 0
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert dequantize(*quantize_groups(weight, 4)).tolist() == [[1, 0, 0, 15]]
    # 1.4 became 1, and of the 0.4 that it lost, 0.35 go to the other 0.4, which becomes 1
    assert dequantize(*gptq(weight, x, 4)).tolist() == [[1, 1, 0, 15]]


@pytest.mark.parametrize("group", [8, 64])
def test_with_a_diagonal_hessian_it_is_rounding_to_nearest(group):
    weight = random(24, 64) + 0.5
    x = torch.diag(torch.rand(64, generator=torch.Generator().manual_seed(1)) + 0.1)
    for got, want in zip(gptq(weight, x, group), quantize_groups(weight, group), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [16, 64])
def test_on_correlated_inputs_its_output_is_nearer_also_on_others_of_the_kind(group, dtype):
    weight = random(96, 128).to(dtype)
    both = correlated(800, 128, seed=5)
    x, held = both[:400], both[400:]
    stored, nearest = gptq(weight, x, group), quantize_groups(weight, group)
    assert [one.dtype for one in stored] == [one.dtype for one in nearest]
    assert [one.shape for one in stored] == [one.shape for one in nearest]
    for inputs in (x, held):
        errors = [output_error(weight.float(), one, inputs) for one in (stored, nearest)]
        assert errors[0] < 0.5 * errors[1]
    apart = [(dequantize(*one) - weight.float()).norm() for one in (stored, nearest)]
    assert apart[0] > apart[1]  # the weights themselves are further away


def test_channels_without_input_and_fewer_tokens_than_channels_do_no_harm():
    x = correlated(10, 64)
    x[:, ::3] = 0
    weight = random(16, 64)
    assert output_error(weight, gptq(weight, x, 16), x) < 0.15
    zeros = gptq(weight, torch.zeros(4, 64), 16)
    assert all(torch.equal(*two) for two in zip(zeros, quantize_groups(weight, 16), strict=True))
    large = gptq(weight, x * 1e12, 16)
    torch.testing.assert_close(dequantize(*large), dequantize(*gptq(weight, x, 16)))


def test_what_it_cannot_use_is_refused():
    weight, x = random(4, 64), random(8, 64)
    x[3, 5] = float("nan")
    with pytest.raises(InputError, match="activations are not finite"):
        gptq(weight, x, 16)
    with pytest.raises(InputError, match="group is 48"):
        gptq(weight, random(8, 64), 48)
    assert torch.equal(weight, random(4, 64))


# --- AWQ ---


def test_large_channels_get_large_factors_and_the_output_is_nearer():
    weight, x = random(96, 128), random(400, 128, seed=1)
    x[:, 5::32] *= 30
    factors = best_factors([weight], x, 64)
    assert factors[5::32].min() > 2 * factors[:5].max()
    scaled = dequantize(*quantize_groups(weight * factors, 64)) / factors
    errors = [
        (F.linear(x, one - weight)).norm() for one in (scaled, dequantize(*quantize_groups(weight)))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_equal_channels_are_left_alone():
    x = torch.ones(8, 64)
    assert torch.equal(best_factors([random(8, 64)], x, 16), torch.ones(64))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaling_leaves_the_float_models_output_as_it_was(dtype):
    model, tokens = tiny(), ids(2, 20)
    for layer in model.model.layers:  # some channels are large
        layer.input_layernorm.weight[3] *= 20
        layer.post_attention_layernorm.weight[::7] *= 9
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.copy_(norm.weight.to(dtype))
    want, before = model(tokens), {n: t.clone() for n, t in model.state_dict().items()}
    for layer, inputs in calibrated(model, tokens):
        scale_channels(layer, inputs, 8, dtype)
    assert relative_error(model(tokens), want) < 2e-5
    state = model.state_dict()
    moved = {name.split("layers.1.")[1] for name, tensor in state.items()
             if "layers.1." in name and not torch.equal(tensor, before[name])}  # fmt: skip
    assert moved == {
        "input_layernorm.weight", "post_attention_layernorm.weight",
        *(f"self_attn.{part}_proj.weight" for part in "qkv"),
        *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }  # fmt: skip
    norm = state["model.layers.1.input_layernorm.weight"]
    assert torch.equal(norm, norm.to(dtype).float())  # nothing is lost when it is stored


# --- calibration ---


@torch.no_grad()
def test_inputs_are_what_each_matrix_is_multiplied_by():
    model, tokens = tiny(), ids(2, 9)
    read = {}
    for name, part in model.named_modules():
        if name.endswith("_proj"):
            part.register_forward_hook(
                lambda _, given, out, name=name: read.update({name: given[0]})
            )
    for layer, inputs in calibrated(model, tokens):
        assert set(inputs) == {name for names in READERS.values() for name in names}
        for name, x in inputs.items():
            assert x.shape == (18, layer.get_submodule(name).in_features)
    model(tokens)
    for name, x in inputs.items():  # of the last layer
        want = F.normalize(read[f"model.layers.2.{name}"], dim=-1)  # every token counts alike,
        want[:, 0] *= 3  # but the first as much as all nine together
        torch.testing.assert_close(x, want.flatten(0, 1))


@torch.no_grad()
def test_a_layer_reads_what_the_changed_layers_before_it_give():
    model, tokens = tiny(), ids(1, 9)
    for index, (layer, inputs) in enumerate(calibrated(model, tokens)):
        if index == 1:
            trace = qk.Trace(keep=("mlp_norm",), layers=(1,))
            model(tokens, trace=trace)
            want = F.normalize(trace["layers.1.mlp_norm"][0])
            torch.testing.assert_close(inputs["mlp.up_proj"][1:], want[1:])
        layer.mlp.down_proj.weight.mul_(-0.5)


def test_the_text_is_cut_into_rows_and_without_one_it_is_pythons_library(monkeypatch):
    tokenizer = qk.Tokenizer(EMBEDDED)
    assert calibration_ids(tokenizer).shape == (8, 512)
    text = "def area(width, height):\n    return width * height\n" * 600
    assert torch.equal(calibration_ids(tokenizer, text).flatten(), tokenizer(text)[0, :4096])
    assert calibration_ids(tokenizer, text, 100).shape == (8, 100)
    assert calibration_ids(tokenizer, text[:40]).shape == (1, tokenizer(text[:40]).shape[1])
    with pytest.raises(InputError, match="text has 1 tokens"):
        calibration_ids(tokenizer, "def")
    monkeypatch.setattr(calibration, "MODULES", ("math",))
    with pytest.raises(InputError, match="no source here"):
        calibration_ids(tokenizer)


# --- the model ---


@pytest.fixture(scope="module")
def held():
    """Return the embedded model in float32, a text to calibrate on, and one to judge by."""
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")
    text, other = inspect.getsource(textwrap), inspect.getsource(bisect)
    return model, tokenizer, text, tokenizer(other)[:, :800]


@torch.no_grad()
def test_each_method_stores_the_same_form_and_gptq_comes_nearer_to_the_float_model(held, tmp_path):
    model, tokenizer, text, tokens = held
    want, errors = model(tokens).log_softmax(-1), {}
    for method in ("rtn", "awq", "gptq"):
        small = qk.load_model(EMBEDDED, device="cpu", dtype="bfloat16")
        names = set(small.state_dict())
        found = qk.quantize(
            small, "int4", method=method,
            **({} if method == "rtn" else {"tokenizer": tokenizer, "text": text}),
        )  # fmt: skip
        assert set(found) <= names
        assert len(found) == 7 * 6 + 1
        assert small.dtype == torch.bfloat16
        got = small(tokens).float().log_softmax(-1)
        errors[method] = F.kl_div(got, want, log_target=True, reduction="batchmean").item()
        qk.save_pretrained(small, tmp_path / method)
        again = qk.load_model(tmp_path / method, device="cpu")
        assert torch.equal(again(tokens), small(tokens))
        assert {n: t.dtype for n, t in again.state_dict().items()} == {
            n: t.dtype for n, t in small.state_dict().items()
        }
    # AWQ lowers the error of each layer's output. tiny-coder has no channels so much larger than
    # the others that this shows in its predictions.
    assert errors["awq"] < 1.1 * errors["rtn"]
    assert errors["gptq"] < 0.8 * errors["rtn"]


BAD = {
    "an unknown method": ({"method": "obq"}, "method is 'obq'; for int4 it must be 'rtn'"),
    "a method for int8": (
        {"dtype": "int8", "method": "gptq"}, "method is 'gptq'; for int8 it must be 'rtn'"
    ),
    "no tokenizer": ({"method": "awq"}, "method 'awq' reads a text; give the model's tokenizer="),
    "a text for nothing": ({"text": "x"}, "method 'rtn' reads no text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_and_nothing_is_changed(name, tmp_path):
    model = qk.load_model(write_toy_checkpoint(tmp_path), device="cpu")
    before = model.state_dict()
    arguments, message = BAD[name]
    with pytest.raises(InputError, match=message):
        qk.quantize(model, **{"dtype": "int4", "group": 16, **arguments} if name !=
                    "a method for int8" else arguments)  # fmt: skip
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.config.quantization is None
