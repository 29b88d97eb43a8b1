"""Weight-only int8: what is stored, how near it stays, and that nothing else changes."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.errors import CheckpointError, ConfigError, InputError
from qwenkit.fast import int8 as int8_file
from qwenkit.fast import swap
from qwenkit.fast.int4 import dequantize
from qwenkit.fast.int8 import (
    FastInt8Embedding,
    Int8Embedding,
    Int8Linear,
    dequantize_rows,
    int8_linear,
    int8_reference,
    quantize_rows,
)
from qwenkit.fast.quantize import is_quantized
from qwenkit.pretrained import EMBEDDED

TEXT = 'def read(path):\n    """Return the lines."""\n    with open(path) as file:\n        return'


@pytest.fixture
def loaded():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="bfloat16")


@pytest.fixture(scope="module")
def small():
    return qk.load_pretrained(EMBEDDED, device="cpu", dtype="int8")


# --- rounding ---


def test_each_row_is_rounded_to_its_own_255_steps():
    weight = torch.tensor([[1.0, -0.5, 0.25], [100.0, 0.0, -100.0], [0.0, 0.0, 0.0]])
    small, scale = quantize_rows(weight)
    assert small.dtype == torch.int8
    assert small.tolist()[1:] == [[127, 0, -127], [0, 0, 0]]
    assert small.tolist()[0][0] == 127
    assert scale.shape == (3,)
    assert scale.dtype == torch.bfloat16
    error = (small * scale.float()[:, None] - weight).abs().amax(1)
    # Half a step at most, but for the largest, which a scale rounded down cannot reach.
    assert (error <= weight.abs().amax(1) / 127 * 0.5 * 1.01 + 1e-12).all()


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_rounding_errors_are_at_most_half_a_step_at_any_size(size):
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * size
    small, scale = quantize_rows(weight)
    assert small.abs().max() == 127
    # The bfloat16 scale may lie 1/256 below: the largest weight then ends half a step short.
    step = weight.abs().amax(1) / 127
    assert ((small * scale.float()[:, None] - weight).abs().amax(1) <= step * 0.52).all()


def test_each_group_of_a_row_has_steps_of_its_own():
    weight = torch.tensor([[1.0, -0.25, 100.0, 30.0], [0.0, 0.0, -2.0, 2.0]])
    small, scale = quantize_rows(weight, 2)
    assert small.tolist() == [[127, -32, 127, 38], [0, 0, -127, 127]]
    want = torch.tensor([[1 / 127, 100 / 127], [0, 2 / 127]]).bfloat16()
    assert torch.equal(scale, want)
    restored = small * want.float().repeat_interleave(2, 1)
    assert torch.equal(dequantize_rows(small, scale.float()), restored)
    whole, of_rows = quantize_rows(weight)
    assert torch.equal(dequantize_rows(whole, of_rows.float()), whole * of_rows.float()[:, None])


def test_a_large_weight_makes_its_own_group_coarse_and_no_other():
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    weight[:, 5] = 90
    errors = [
        dequantize_rows(*quantize_rows(weight, group)).float() - weight for group in (64, None)
    ]
    assert errors[0][:, 64:].abs().max() < 0.02
    assert errors[1][:, 64:].abs().max() > 0.3


def test_a_weight_and_its_negative_round_alike():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(quantize_rows(weight)[0], -quantize_rows(-weight)[0])


# --- the product ---


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [(1, 1), (1, 3), (2, 8), (1, 17), (3, 40), (0, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("width", [96, 56])  # torch's int8 product takes multiples of 32 alone
@pytest.mark.parametrize("group", [None, 8])
@pytest.mark.parametrize("product", [int8_linear, int8_reference])
def test_the_product_is_that_with_the_dequantized_weight(
    product, group, width, tokens, dtype, native, bias, monkeypatch
):
    monkeypatch.setattr(int8_file, "has_bfloat16_products", lambda: native)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*tokens, width, generator=generator).to(dtype)
    weight, scale = quantize_rows(torch.randn(160, width, generator=generator), group)
    scale = scale.to(dtype)
    b = torch.randn(160, generator=generator).to(dtype) if bias else None
    each = scale.double().view(160, -1).repeat_interleave(group or width, 1)  # (O, I)
    want = F.linear(x.double(), weight.double() * each)
    want = want if b is None else want + b.double()
    got = product(x, weight, scale, b)
    assert got.dtype == dtype
    tolerance = {torch.bfloat16: 3e-2, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * 10)


def test_tokens_that_are_a_view_are_read_in_their_own_order():
    x = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight, scale = quantize_rows(torch.randn(32, 64, generator=torch.Generator().manual_seed(1)))
    last = x[:, -1:]
    assert torch.equal(int8_linear(last, weight, scale), int8_linear(last.clone(), weight, scale))


@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("kind", [Int8Embedding, FastInt8Embedding])
def test_an_embedding_looks_up_scaled_rows_and_is_a_head_too(kind, group):
    table = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    weight, scale = quantize_rows(table, group)
    embedding = kind(weight, scale)
    ids = torch.tensor([[3, 3, 9]])
    want = dequantize_rows(weight, scale.float())[ids].bfloat16()
    assert torch.equal(embedding(ids), want)
    assert embedding(ids).shape == (1, 3, 64)
    assert embedding(ids[:, :0]).shape == (1, 0, 64)
    scores = embedding.as_head(want)
    assert scores.argmax(-1).tolist() == [[3, 3, 9]]  # a random vector is nearest to itself


def test_gradients_are_refused():
    module = Int8Linear(*quantize_rows(torch.randn(4, 4)))
    with pytest.raises(InputError, match="int8 weights cannot take part in backpropagation"):
        module(torch.randn(1, 4, requires_grad=True))
    with torch.no_grad():
        module(torch.randn(1, 4, requires_grad=True))


# --- the model ---


def test_every_matrix_is_int8_and_nothing_else(loaded):
    model, _ = loaded
    floats = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    errors = qk.quantize(model)
    assert set(errors) == {name for name, tensor in floats.items() if tensor.dim() == 2}
    state = model.state_dict()
    for name, tensor in floats.items():
        if tensor.dim() == 2:
            weight = state[name]
            assert weight.dtype == torch.int8
            scale = state[f"{name}_scale"]
            assert scale.shape == (len(tensor), tensor.shape[1] // 64)
            error = dequantize_rows(weight, scale.float()) - tensor.float()
            assert errors[name] == pytest.approx((error.norm() / tensor.float().norm()).item())
            assert 0 < errors[name] < 0.02
        else:
            assert torch.equal(state[name], tensor)
    assert not [m for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    assert is_quantized(model)
    assert model.config.group_size == 64


def test_groups_are_chosen_and_whole_rows_taken_where_64_does_not_divide_them(tmp_path):
    folder = write_toy_checkpoint(tmp_path)  # intermediate_size is 176
    for group, shape in ((None, (64,)), (16, (64, 11))):
        model = qk.load_model(folder, device="cpu", dtype="bfloat16")
        before = model.config
        qk.quantize(model, group=group)
        assert model.config.group_size == group
        assert model.model.layers[0].mlp.down_proj.weight_scale.shape == shape
        count = sum(tensor.nbytes for tensor in model.state_dict().values())
        assert qk.forecast(model.config, "int8").weights == count
        assert qk.forecast(before, "int8").weights == count or group
    model = qk.load_model(folder, device="cpu", dtype="bfloat16")
    for group in (64, 0, 3, -2):
        with pytest.raises(InputError, match=rf"group is {group}; it must be even, and divide"):
            qk.quantize(model, group=group)


def test_it_takes_about_half_the_bytes_and_the_forecast_knows(loaded, small):
    bytes_of = {
        name: sum(tensor.nbytes for tensor in model.state_dict().values())
        for name, (model, _) in {"bfloat16": loaded, "int8": small}.items()
    }
    assert bytes_of["int8"] <= 0.6 * bytes_of["bfloat16"]
    config = loaded[0].config
    for name, count in bytes_of.items():
        assert qk.forecast(config, name).weights == count
    assert qk.forecast(small[0].config, "bfloat16").weights == bytes_of["int8"]
    assert config.num_parameters == small[0].config.num_parameters
    assert qk.forecast(config, "int8").cache == qk.forecast(config, "bfloat16").cache


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_head_computes_in_float32(tmp_path, dtype, tied):
    """In bfloat16 two logits are often equal, and the most likely token is a matter of chance."""
    model = qk.load_model(write_toy_checkpoint(tmp_path, tied=tied), device="cpu", dtype=None)
    qk.quantize(model, dtype, group=16)
    part, ids = model.model.embed_tokens if tied else model.lm_head, torch.arange(24)[None]
    restore = dequantize if len([*part.buffers()]) == 3 else dequantize_rows
    packed, scale, *zero = part.buffers()
    x = model.model(ids)
    want = F.linear(x.double(), restore(packed, scale.float(), *zero).double())
    for change in (qk.accelerate, swap):  # a small model stays as it is; then by the fast products
        for tokens in (24, 1):  # in chunks, and by the kernel
            logits = change(model).head(x[:, :tokens])
            assert (model.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
            near = 1e-5 if tokens > 1 else 1e-4  # a row of 64 is one group: 16-bit integers
            torch.testing.assert_close(logits.double(), want[:, :tokens], rtol=near, atol=near)
    with qk.plain(model):
        assert torch.equal(model.head(x).argmax(-1), want.argmax(-1))
        assert model(ids).dtype == torch.float32


def test_logits_stay_near(loaded, small):
    model, tokenizer = loaded
    ids = tokenizer(TEXT)
    with torch.no_grad():
        float_logits = qk.load_pretrained(EMBEDDED, device="cpu", dtype="float32")[0](ids)
        ours, half = small[0](ids).float(), model(ids).float()
    assert ours.dtype == torch.float32
    error, rounding = ((logits - float_logits).std() for logits in (ours, half))
    assert error < 0.03 * float_logits.std()
    assert error > rounding / 10  # it is another model, not the float one


def test_cache_and_no_cache_agree_and_it_generates(small):
    model, tokenizer = small
    ids = tokenizer(TEXT)
    whole = model(ids).float()
    cache = qk.KVCache(model.config, max_length=64)
    parts = [model(ids[:, :20], cache=cache)]
    parts += [model(ids[:, i : i + 1], cache=cache) for i in range(20, ids.shape[1])]
    torch.testing.assert_close(torch.cat(parts, 1).float(), whole, rtol=0.05, atol=0.15)
    assert cache.keys[0].dtype == torch.bfloat16
    assert len(qk.complete(model, tokenizer, TEXT, max_new_tokens=8)) > 0


def test_it_is_refused_twice_and_while_training(loaded):
    model, _ = loaded
    model.requires_grad_(True)
    with pytest.raises(InputError, match=r"call model\.requires_grad_\(False\) first"):
        qk.quantize(model)
    assert not is_quantized(model)
    model.requires_grad_(False)
    qk.quantize(model)
    with pytest.raises(InputError, match="quantized already"):
        qk.quantize(model)


# --- on disk ---


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path, tied):
    folder = write_toy_checkpoint(tmp_path / "toy", tied=tied)
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="int8")
    ids = tokenizer("def f(x):")
    qk.save_pretrained(model, tmp_path / "int8", tokenizer)
    again, _ = qk.load_pretrained(tmp_path / "int8", device="cpu")
    assert again.config == model.config
    assert again.dtype == torch.bfloat16
    assert torch.equal(again(ids), model(ids))
    assert (again.num_tokens, again.stop_ids) == (model.num_tokens, model.stop_ids)
    with safe_open(tmp_path / "int8" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert ("lm_head.weight_scale" in names) is not tied
        assert file.get_tensor("model.embed_tokens.weight").dtype == torch.int8
    named = json.loads((tmp_path / "int8" / "config.json").read_text())
    assert named["quantization_config"] == {"quant_method": "qwenkit-int8"}
    assert named["torch_dtype"] == "bfloat16"


@torch.no_grad()
def test_a_checkpoint_of_float32_computes_in_float32_so_that_rows_of_a_batch_are_as_alone(tmp_path):
    """Bfloat16 rounds logits so coarsely that two tokens often tie."""
    folder = write_toy_checkpoint(tmp_path / "toy")
    half, _ = qk.load_pretrained(folder, device="cpu", dtype="int8")
    whole, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="float32")
    qk.save_pretrained(whole, tmp_path / "float32", tokenizer)
    model, _ = qk.load_pretrained(tmp_path / "float32", device="cpu", dtype="int8")
    assert (half.dtype, model.dtype) == (torch.bfloat16, torch.float32)
    qk.quantize(whole)  # of a bfloat16 checkpoint, whatever it was loaded in
    assert whole.dtype == torch.bfloat16
    text = tokenizer(TEXT)
    assert (model(text) - half(text).float()).abs().max() < 0.05 * model(text).abs().max()
    caches = [qk.forecast(one.config, "int8").cache for one in (half, model)]
    assert caches[1] == 2 * caches[0]
    prompts = [[5, 9, 30], [7] * 20 + [8, 10], list(range(40, 51)), [3]]
    alone = [[s.token_id for s in qk.generate(model, p, 16, stop_ids=())] for p in prompts]
    assert qk.generate_batch(model, prompts, max_new_tokens=16, stop_ids=()) == alone
    qk.save_pretrained(model, tmp_path / "int8", tokenizer)
    again, _ = qk.load_pretrained(tmp_path / "int8", device="cpu")
    assert again.dtype == torch.float32
    assert torch.equal(again(text), model(text))
    with pytest.raises(InputError, match="stored in int8, which computes in float32"):
        qk.load_pretrained(tmp_path / "int8", dtype="bfloat16")


def test_a_model_saved_before_there_were_groups_is_loaded_as_it_was(tmp_path, small):
    """Its config.json names no group_size, and each row has one scale."""
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="bfloat16")
    text, state = tokenizer(TEXT), model.state_dict()
    for name in [name for name, tensor in state.items() if tensor.dim() == 2]:
        state[name], state[f"{name}_scale"] = quantize_rows(state[name])
    qk.save_pretrained(small[0], tmp_path, tokenizer)
    file = tmp_path / "config.json"
    named = json.loads(file.read_text())
    assert named["quantization_config"] == {"quant_method": "qwenkit-int8", "group_size": 64}
    del named["quantization_config"]["group_size"]
    file.write_text(json.dumps(named))
    save_file(state, tmp_path / "model.safetensors")
    old = qk.load_model(tmp_path, device="cpu")
    assert (old.config.quantization, old.config.group_size) == ("int8", None)
    assert all(torch.equal(tensor, state[name]) for name, tensor in old.state_dict().items())
    error = (old(text).float() - model(text).float()).std()
    assert 0 < error < 0.05 * model(text).float().std()
    qk.save_pretrained(old, tmp_path / "again", tokenizer)
    again = qk.load_model(tmp_path / "again", device="cpu")
    assert again.config == old.config
    assert torch.equal(again(text), old(text))


def test_sharded_too(tmp_path):
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="int8")
    qk.save_pretrained(model, tmp_path, tokenizer, max_shard_bytes=1_000_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    again, _ = qk.load_pretrained(tmp_path, device="cpu")
    assert torch.equal(again(tokenizer(TEXT)), model(tokenizer(TEXT)))


def test_a_float_dtype_for_it_is_refused(tmp_path):
    model, tokenizer = qk.load_pretrained(EMBEDDED, device="cpu", dtype="int8")
    qk.save_pretrained(model, tmp_path, tokenizer)
    with pytest.raises(InputError, match=r"dtype is 'float32' .* stored in int8"):
        qk.load_pretrained(tmp_path, dtype="float32")
    assert qk.load_pretrained(tmp_path, dtype="int8")[0].dtype == torch.bfloat16


def changed(tmp_path, change):
    """Save a quantized toy with a changed state, past the checks of saving."""
    from safetensors.torch import load_file, save_file

    model, tokenizer = qk.load_pretrained(
        write_toy_checkpoint(tmp_path / "toy"), dtype="int8", device="cpu"
    )
    qk.save_pretrained(model, tmp_path / "int8", tokenizer)
    file = tmp_path / "int8" / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    return tmp_path / "int8"


NAME = "model.layers.0.mlp.up_proj.weight"
BROKEN = {
    "no scale": (lambda s: s.pop(f"{NAME}_scale"), f"missing {NAME}_scale"),
    "wrong scale": (
        lambda s: s.update({f"{NAME}_scale": torch.ones(1)}), f"wrong shape of {NAME}_scale"
    ),
    "float weight": (
        lambda s: s.update({NAME: s[NAME].float()}), f"wrong dtype of {NAME}: F32, expected I8"
    ),
    "int8 scale": (
        lambda s: s.update({f"{NAME}_scale": s[f"{NAME}_scale"].to(torch.int8)}),
        f"wrong dtype of {NAME}_scale: I8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(case, tmp_path):
    change, message = BROKEN[case]
    with pytest.raises(CheckpointError, match=message):
        qk.load_pretrained(changed(tmp_path, change), device="cpu")


def test_int8_weights_without_the_config_saying_so_are_refused(tmp_path):
    folder = changed(tmp_path, lambda state: None)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["quantization_config"]
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"wrong dtype|unexpected"):
        qk.load_pretrained(folder, device="cpu")


@pytest.mark.parametrize("other", [{"quant_method": "gptq"}, {"bits": 8}, "int8"])
def test_other_quantizations_are_still_refused(other, small):
    data = {**small[0].config.to_dict(), "quantization_config": other}
    with pytest.raises(ConfigError, match="quantization_config is"):
        qk.QwenConfig.from_dict(data)
    with pytest.raises(ConfigError, match="quantization is 'int3'"):
        dataclasses.replace(small[0].config, quantization="int3")
