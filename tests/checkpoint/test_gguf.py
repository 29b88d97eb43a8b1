"""GGUF files: each format by its definition, the model equal to the folder's, and what is refused.

`tests/checkpoint/test_gguf_header.py` has damaged headers; the tokenizer has a file of its own.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from fixtures_toy import (
    PEAK_OF_LOAD,
    ROOT,
    python,
    random_tensors,
    same_bits,
    small_config,
)
from gguf_writing import Kind, convert, gguf_name, write_gguf
from reference import YARN, pair

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint, read_alone
from qwenkit.checkpoint._values import dequantizer
from qwenkit.cli import main
from qwenkit.config import YarnScaling
from qwenkit.errors import CheckpointError, ConfigError, SourceError, TokenizerError
from qwenkit.gguf import QUANTIZED
from qwenkit.gguf._types import TYPES

IDS = torch.tensor([[5, 60, 0, 17, 17, 3, 42]])
CONFIG = small_config(hidden_size=256, intermediate_size=512, head_dim=128)
TENSORS = random_tensors(CONFIG, torch.float32)
WITH_LIBRARY = f"{ROOT}:{Path(gguf.__file__).parents[1]}"
ROUNDED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")  # what the gguf library can write


# --- the formats, by their definition in ggml's ggml-quants.c ---


def halves(block, *places):
    return [np.frombuffer(block[at : at + 2], "<f2")[0].astype(np.float32) for at in places]


def nibbles(data):
    """Return 4-bit values: the low halves of 16 bytes, then their high halves."""
    return np.array([byte & 15 for byte in data] + [byte >> 4 for byte in data])


def fifth_bits(data):
    number = int.from_bytes(data, "little")
    return np.array([16 * (number >> place & 1) for place in range(32)])


def scale_and_min(scales, number):
    """Unpack the six bits of scale and minimum of one of eight sub-blocks (get_scale_min_k4)."""
    if number < 4:
        return scales[number] & 63, scales[number + 4] & 63
    low, high, scale_top = scales[number + 4] & 15, scales[number + 4] >> 4, scales[number - 4] >> 6
    return low | scale_top << 4, high | (scales[number] >> 6) << 4


def k_block(block, bits):
    """Return the 256 values of a q4_K or q5_K block."""
    d, least = halves(block, 0, 2)
    scales, fifths, data = block[4:16], block[16:48], block[-128:]
    found = []
    for number in range(8):
        scale, minimum = scale_and_min(scales, number)
        for place in range(32):
            byte = data[32 * (number // 2) + place]
            value = byte >> 4 if number % 2 else byte & 15
            value += 16 * (fifths[place] >> number & 1) if bits == 5 else 0
            found.append(d * scale * value - least * minimum)
    return np.array(found)


def q6_block(block):
    """Return the 256 values of a q6_K block."""
    low, high, scales = block[:128], block[128:192], np.frombuffer(block[192:208], np.int8)
    (d,) = halves(block, 208)
    found = np.zeros(256, np.float32)
    for place in range(256):
        half, row, column = place // 128, place % 128 // 32, place % 32
        byte = low[64 * half + 32 * (row % 2) + column]
        four = byte >> 4 if row >= 2 else byte & 15
        two = high[32 * half + column] >> (2 * row) & 3
        found[place] = d * scales[place // 16] * ((four | two << 4) - 32)
    return found


def by_definition(kind, block):
    """Return the values of one block of bytes."""
    if kind in ("q4_K", "q5_K"):
        return k_block(block, int(kind[1]))
    if kind == "q6_K":
        return q6_block(block)
    d = halves(block, 0)[0]
    if kind == "q8_0":
        return d * np.frombuffer(block[2:], np.int8)
    values = nibbles(block[-16:]) + (fifth_bits(block[-20:-16]) if kind[1] == "5" else 0)
    if kind.endswith("_1"):
        return d * values + halves(block, 2)[0]
    return d * (values - (16 if kind[1] == "5" else 8))


def random_blocks(kind, count, seed=0):
    """Return random blocks whose scales are small and not zero."""
    _, size = QUANTIZED[kind]
    blocks = np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)
    places = {"q6_K": [208], "q8_0": [0], "q4_0": [0], "q5_0": [0]}.get(kind, [0, 2])
    for number, place in enumerate(places):
        scale = np.float16(0.01 * (number + 1)) * (1 + np.arange(count) % 7)
        blocks[:, place : place + 2] = scale.astype("<f2")[:, None].view(np.uint8)
    return blocks


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_format_is_read_as_it_is_defined(kind):
    blocks = random_blocks(kind, 9)
    want = np.concatenate([by_definition(kind, block.tobytes()) for block in blocks])
    assert len(np.unique(want)) > 60
    got = dequantizer(kind)(blocks.reshape(-1))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_the_table_of_types_is_the_librarys():
    theirs = {int(kind): (kind.name.lower(), *gguf.GGML_QUANT_SIZES[kind]) for kind in Kind}
    assert {n: (name.lower(), *sizes) for n, (name, *sizes) in TYPES.items()} == theirs


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_tensor_is_dequantized_in_chunks_to_any_dtype(tmp_path, monkeypatch, kind, dtype):
    monkeypatch.setattr("qwenkit.checkpoint._values._VALUES", 8192)  # several chunks

    def packed(values):
        if values.ndim < 2:
            return values, Kind.F32
        per_block, _ = QUANTIZED[kind]
        blocks = random_blocks(kind, values.size // per_block, seed=values.size)
        return blocks.reshape(len(values), -1), Kind[kind.upper()]

    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, packed)
    checkpoint = Checkpoint(path)
    assert {info.dtype for info in checkpoint.tensors.values()} == {"F32", kind}
    loaded = checkpoint.load(dtype)
    assert loaded.keys() == TENSORS.keys()
    for name in TENSORS:
        blocks, used = packed(TENSORS[name].numpy())
        want = blocks if used == Kind.F32 else dequantizer(kind)(blocks)
        want = torch.from_numpy(want).view(loaded[name].shape)
        assert same_bits(loaded[name], want.to(dtype))
        assert torch.equal(read_alone(checkpoint.tensors[name]).to(dtype), loaded[name])


# --- the model ---


@pytest.mark.parametrize("variant", [
    {}, {"tie_word_embeddings": True}, {"num_key_value_heads": 1}, {"num_key_value_heads": 4},
], ids=str)  # fmt: skip
def test_the_model_is_that_of_the_safetensors_and_of_transformers(tmp_path, variant):
    """Not even q and k are permuted: transformers reads the same file to the same logits."""
    theirs, ours = pair(**variant)
    tokens = {
        "tokenizer__ggml__model": "gpt2", "tokenizer__ggml__pre": "qwen2",
        "tokenizer__ggml__tokens": [f"t{number}" for number in range(61)],
        "tokenizer__ggml__token_type": [1] * 61, "tokenizer__ggml__merges": ["a b"],
    }  # fmt: skip
    path = write_gguf(tmp_path / "a.gguf", ours.config, ours.state_dict(), **tokens)
    qk.save_pretrained(ours, tmp_path / "folder")
    model = qk.load_model(path, dtype="float32", device="cpu")
    folder = qk.load_model(tmp_path / "folder", dtype="float32", device="cpu")
    assert torch.equal(model(IDS), folder(IDS))
    read = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="a.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for one in (read, theirs):
            torch.testing.assert_close(model(IDS), one(IDS).logits, rtol=1e-4, atol=1e-4)


def permuted(weight, heads):
    """Permute the rows as llama.cpp does for Llama's q and k."""
    parts = weight.view(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return parts.transpose(1, 2).reshape(weight.shape)


def test_permuted_q_and_k_would_show(tmp_path):
    _, ours = pair()
    weights = ours.state_dict()
    heads = {"q_proj": 4, "k_proj": 2}
    wrong = {
        name: permuted(weight, heads[name.split(".")[-2]]) if "q_proj" in name or "k_proj" in name
        else weight for name, weight in weights.items()
    }  # fmt: skip
    path = write_gguf(tmp_path / "a.gguf", ours.config, wrong)
    assert not torch.allclose(qk.load_model(path, dtype="float32")(IDS), ours(IDS), atol=1e-2)


@pytest.mark.parametrize(("kind", "stored"), [
    (Kind.F32, torch.float32), (Kind.F16, torch.float16), (Kind.BF16, torch.bfloat16),
    (Kind.Q8_0, torch.bfloat16), (Kind.Q4_0, torch.bfloat16),
])  # fmt: skip
def test_every_dtype_is_taken_and_none_is_one_dtype_for_all(tmp_path, kind, stored):
    """Norms and biases are float32 in every file; with a float16 matrix they could not compute."""
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, kind)
    checkpoint = Checkpoint(path)
    assert checkpoint.dtype == stored
    assert checkpoint.config.dtype == str(stored).removeprefix("torch.")
    for asked, want in ((None, stored), ("float16", torch.float16), ("auto", torch.float32)):
        model = qk.load_model(path, dtype=asked, device="cpu")
        assert {weight.dtype for weight in model.parameters()} == {want}
        assert model(IDS % 8).isfinite().all()
        assert not any(weight.requires_grad for weight in model.parameters())
    for asked, want in (("int8", torch.int8), ("int4", torch.uint8)):
        model = qk.load_model(path, dtype=asked, device="cpu")
        assert model.model.layers[0].mlp.up_proj.weight.dtype == want
        assert model(IDS % 8).isfinite().all()


def test_bfloat16_and_float16_are_the_stored_bits(tmp_path):
    for kind, dtype in ((Kind.F16, torch.float16), (Kind.BF16, torch.bfloat16)):
        path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, kind)
        loaded = Checkpoint(path).load(dtype)
        assert all(same_bits(loaded[name], TENSORS[name].to(dtype)) for name in TENSORS)


def test_the_library_writes_what_is_read(tmp_path):
    """With its own dequantize, for the formats that it can write."""
    for kind in ROUNDED:
        path = write_gguf(tmp_path / f"{kind}.gguf", CONFIG, TENSORS, Kind[kind.upper()])
        loaded = Checkpoint(path).load(torch.float32)
        for tensor in gguf.GGUFReader(path).tensors:
            (name,) = (name for name in TENSORS if gguf_name(name) == tensor.name)
            want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert torch.equal(loaded[name], torch.from_numpy(np.array(want)))


TEXT = '''
def area(width, height):
    """Return the area of a rectangle."""
    return width * height


class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()
'''


@pytest.mark.parametrize(("kind", "least"), [(Kind.F16, 1.0), (Kind.BF16, 1.0), (Kind.Q8_0, 0.95)])
def test_tiny_coder_keeps_its_most_likely_tokens(tmp_path, kind, least):
    folder = ROOT / "data" / "tiny-coder"
    want, tokenizer = qk.load_pretrained(folder)
    got, other = qk.load_pretrained(convert(folder, tmp_path / "a.gguf", kind))
    ids = tokenizer(TEXT)
    assert torch.equal(other(TEXT), ids)
    assert (got(ids).argmax(-1) == want(ids).argmax(-1)).float().mean() >= least
    assert got.stop_ids == want.stop_ids
    assert got.num_tokens == want.num_tokens
    short = {"max_new_tokens": 12}
    text = qk.complete(got, other, "def area(width, height):\n", **short)
    assert text == qk.complete(want, tokenizer, "def area(width, height):\n", **short)


def test_a_model_of_a_gguf_file_is_saved_as_a_folder(tmp_path, toy):
    path = convert(toy, tmp_path / "a.gguf", Kind.Q8_0)
    model, tokenizer = qk.load_pretrained(path, dtype="bfloat16")
    qk.save_pretrained(model, tmp_path / "out", tokenizer)
    again, other = qk.load_pretrained(tmp_path / "out", dtype="bfloat16")
    assert torch.equal(again(IDS), model(IDS))
    assert (again.config, again.stop_ids) == (model.config, model.stop_ids)
    assert other.encode(TEXT) == tokenizer.encode(TEXT)
    with open(tmp_path / "out" / "config.json", encoding="utf-8") as file:
        assert json.load(file)["torch_dtype"] == "bfloat16"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT).input_ids == (
        tokenizer.encode(TEXT)
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_loading_takes_little_more_than_the_tensors(tmp_path):
    config = small_config(vocab_size=40_000, hidden_size=1_024, intermediate_size=32)
    tensors = random_tensors(config, torch.float32)
    path = write_gguf(tmp_path / "a.gguf", config, tensors, Kind.Q8_0)
    size = 2 * sum(tensor.numel() for tensor in tensors.values())
    done = python(PEAK_OF_LOAD, path, "bfloat16", PYTHONPATH=WITH_LIBRARY)
    assert done.returncode == 0, done.stderr
    assert 0.9 <= int(done.stdout) / size <= 1.6  # in float32 it would be 3


# --- the config ---


@pytest.mark.parametrize(("changes", "field", "want"), [
    ({"qwen2__rope__freq_base": None}, "rope_theta", 10_000.0),
    ({"qwen2__attention__head_count_kv": None}, "num_key_value_heads", 2),
    ({"qwen2__attention__key_length": 128}, "head_dim", 128),
    ({"qwen2__attention__layer_norm_rms_epsilon": 1e-5}, "rms_norm_eps", 1e-5),
    ({"qwen2__vocab_size": 8}, "vocab_size", 8),
    ({"qwen2__rope__scaling__type": "none"}, "rope_scaling", None),
    ({"qwen2__rope__scaling__type": "yarn", "qwen2__rope__scaling__factor": 4.0,
      "qwen2__rope__scaling__original_context_length": 32}, "rope_scaling",
     YarnScaling(4.0, 32)),
    ({"qwen2__rope__scaling__type": "yarn", "qwen2__rope__scaling__factor": 2.0,
      "qwen2__rope__scaling__yarn_beta_fast": 16.0}, "rope_scaling",
     YarnScaling(2.0, 32768, beta_fast=16.0)),
    ({"qwen2__rope__scaling__type": "linear", "qwen2__rope__scaling__factor": 2.0}, "rope_scaling",
     qk.LinearScaling(2.0)),
    ({"qwen2__rope__scale_linear": 2.0}, "rope_scaling", qk.LinearScaling(2.0)),
    ({"qwen2__rope__scale_linear": 1.0}, "rope_scaling", None),
    ({"tokenizer__ggml__eos_token_id": 3}, "eos_token_id", (3,)),
    ({"tokenizer__ggml__padding_token_id": 2**32 - 1}, "pad_token_id", None),
], ids=str)  # fmt: skip
def test_the_config_is_read_from_the_metadata(tmp_path, changes, field, want):
    shapes = random_tensors(small_config(hidden_size=256, intermediate_size=512, head_dim=128,
                            num_key_value_heads=2), torch.float32)  # fmt: skip
    path = write_gguf(tmp_path / "a.gguf", CONFIG, shapes, **changes)
    assert getattr(Checkpoint(path).config, field) == want


def test_yarn_computes_what_transformers_computes(tmp_path):
    theirs, ours = pair(rope_parameters=YARN, head_dim=16)
    path = write_gguf(tmp_path / "a.gguf", ours.config, ours.state_dict(), **{
        "qwen2__rope__scaling__type": "yarn", "qwen2__rope__scaling__factor": 4.0,
        "qwen2__rope__scaling__original_context_length": 32, "qwen2__attention__key_length": 16,
    })  # fmt: skip
    model = qk.load_model(path, dtype="float32", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, rtol=1e-4, atol=1e-4)


def test_unknown_keys_of_the_model_are_named_in_a_warning(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, qwen2__swin_norm=True)
    with pytest.warns(UserWarning, match=r"does not know and ignores qwen2\.swin_norm"):
        Checkpoint(path)


@pytest.mark.parametrize(("changes", "error", "says"), [
    ({"general__architecture": "llama"}, CheckpointError, "architecture 'llama'; it must be"),
    ({"general__architecture": "qwen2moe"}, CheckpointError, "architecture 'qwen2moe'"),
    ({"general__type": "adapter", "adapter__type": "lora"}, CheckpointError, "a LoRA adapter"),
    ({"general__type": "mmproj"}, CheckpointError, "the vision part"),
    ({"general__type": "x\x1b[2J"}, CheckpointError, "'x\\x1b[2J'; qwenkit reads models"),
    ({"split__count": 3, "split__no": 0}, CheckpointError, "one of 3 parts of a model; join"),
    ({"split__count": "x"}, CheckpointError, "one of 'x' parts"),
    *(({f"qwen2__{key}": None}, ConfigError, f"missing qwen2.{key.replace('__', '.')}") for key in (
        "block_count", "context_length", "embedding_length", "feed_forward_length",
        "attention__head_count", "attention__layer_norm_rms_epsilon")),
    ({"qwen2__attention__head_count": [4, 4]}, ConfigError, "head_count is a list; it must be one"),
    ({"qwen2__block_count": 1_000_000_000}, ConfigError, "num_hidden_layers is 1000000000"),
    ({"qwen2__block_count": "x"}, ConfigError, "num_hidden_layers is 'x'"),
    ({"qwen2__block_count": True}, ConfigError, "num_hidden_layers is True"),
    ({"qwen2__embedding_length": 0}, ConfigError, "hidden_size is 0"),
    ({"qwen2__attention__head_count": 0}, ConfigError, "num_attention_heads is 0"),
    ({"qwen2__attention__head_count": "x"}, ConfigError, "num_attention_heads is 'x'"),
    ({"qwen2__rope__freq_base": float("nan")}, ConfigError, "rope_theta is nan"),
    ({"qwen2__rope__dimension_count": 64}, ConfigError, "dimension_count is 64, which qwenkit"),
    ({"qwen2__attention__causal": False}, ConfigError, "causal is False, which qwenkit does not"),
    ({"qwen2__rope__scaling__type": "longrope"}, ConfigError, "rope type is 'longrope'"),
    ({"qwen2__rope__scaling__type": "yarn"}, ConfigError, "factor is missing"),
    ({"qwen2__rope__scaling__type": "yarn", "qwen2__rope__scaling__factor": 2.0,
      "qwen2__rope__scaling__yarn_attn_factor": 0.5}, ConfigError, "yarn_attn_factor is 0.5"),
    ({"qwen2__block_count": 2}, CheckpointError, "missing model.layers.1.input_layernorm.weight"),
    ({"qwen2__embedding_length": 512}, CheckpointError, "expected [8, 512] from metadata"),
    ({"qwen2__vocab_size": 9}, CheckpointError, "[8, 256], expected [9, 256] from metadata"),
    ({"general__quantization_version": 1}, CheckpointError, "quantized by version 1"),
], ids=str)  # fmt: skip
def test_what_is_not_this_model_is_refused(tmp_path, changes, error, says):
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, Kind.Q8_0, **changes)
    with pytest.raises(error) as caught:
        qk.load_model(path)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.pop("model.norm.weight"), "missing model.norm.weight [256]"),
    (lambda t: t.pop("model.layers.0.self_attn.q_proj.bias"), "missing model.layers.0.self_attn"),
    (lambda t: t.update({"model.norm.weight": torch.ones(255)}), "wrong shape of model.norm"),
    (lambda t: t.update({"model.layers.0.self_attn.o_proj.bias": torch.ones(4)}),
     "unexpected model.layers.0.self_attn.o_proj.bias [4]"),
    (lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.ones(2, 2)}),
     "it has layers that metadata's num_hidden_layers of 1 leaves out: 1"),
    (lambda t: t.update({"lm_head.weight": torch.ones(8, 4)}), "wrong shape of lm_head.weight"),
    (lambda t: t.clear(), "holds no tensors"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(tmp_path, change, says):
    tensors = dict(TENSORS)
    change(tensors)
    path = write_gguf(tmp_path / "a.gguf", CONFIG, tensors)
    with pytest.raises(CheckpointError) as caught:
        qk.load_model(path)
    assert says in str(caught.value)


@pytest.mark.parametrize(("number", "name"), [
    (16, "iq2_xxs"), (20, "iq4_nl"), (11, "q3_K"), (24, "i8"), (28, "f64"), (31, "type 31"),
    (2**32 - 1, "type 4294967295"),
])  # fmt: skip
def test_a_type_that_is_not_read_is_named_and_the_rest_is_shown(tmp_path, capsys, number, name):
    path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, Kind.Q8_0)
    data = bytearray(path.read_bytes())
    place = data.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 4 + 2 * 8
    data[place : place + 4] = number.to_bytes(4, "little")
    where = place + 4  # at the end, where any type has room
    data[where : where + 8] = (len(data)).to_bytes(8, "little")
    path.write_bytes(data + bytes(2**20 + 256 * 512 * 8 + -len(data) % 32))
    checkpoint = Checkpoint(path)
    wrong = f"model.layers.0.mlp.up_proj.weight is stored as {name}, which qwenkit cannot read"
    assert checkpoint.problems() == [wrong]
    with pytest.raises(CheckpointError, match=f"stored as {name}: take a Q4_K_M, Q8_0 or F16 file"):
        checkpoint.load()
    assert main(["inspect", str(path), "--tensors"]) == 1
    assert name in capsys.readouterr().out


# --- where it is, and what is missing ---


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path, toy, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    convert(toy, folder / "a.GGUF")
    (folder / "README.md").write_text("a model")
    want, _ = qk.load_pretrained(toy)
    config = replace(want.config, dtype="float32", eos_token_id=want.config.eos_token_id[:1])
    for source in (folder, str(folder), folder / "a.GGUF"):
        model, tokenizer = qk.load_pretrained(source)
        assert torch.equal(model(IDS), want(IDS))
        assert (model.config, model.stop_ids) == (config, want.stop_ids)
        assert tokenizer.num_tokens == want.num_tokens
    monkeypatch.setenv("QWENKIT_MODEL", str(folder / "a.GGUF"))
    assert torch.equal(qk.load_model()(IDS), want(IDS))
    convert(toy, folder / "b.gguf")
    for call, error in ((Checkpoint, CheckpointError), (qk.Tokenizer, TokenizerError)):
        with pytest.raises(error, match=r"holds 2 GGUF files \(a\.GGUF, b\.gguf\); name one"):
            call(folder)
    qk.save_pretrained(model, folder, tokenizer)  # a folder of safetensors is that first
    assert Checkpoint(folder).gguf is None


def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path, toy):
    """Ollama names its files by a checksum."""
    path = convert(toy, tmp_path / "sha256-0a1b")
    model, _ = qk.load_pretrained(path)
    assert torch.equal(model(IDS), qk.load_model(toy)(IDS))
    (tmp_path / "x.gguf").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="does not begin with the letters GGUF"):
        qk.load_pretrained(tmp_path / "x.gguf")
    (tmp_path / "other").write_bytes(b"GGU")
    with pytest.raises(SourceError, match="name the folder that holds config"):
        qk.load_pretrained(tmp_path / "other")


def test_without_the_library_floats_are_read_and_the_error_says_how_to_get_it(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "gguf", None)
    plain = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, Kind.F16)
    assert qk.load_model(plain)(IDS % 8).isfinite().all()
    path = write_gguf(tmp_path / "b.gguf", CONFIG, TENSORS, Kind.Q8_0)
    assert Checkpoint(path).problems() == []
    with pytest.raises(CheckpointError, match=r"stored as q8_0 .* install it: pip install gguf"):
        qk.load_model(path)


def test_the_library_is_imported_only_for_a_quantized_file(tmp_path):
    code = """
import sys, qwenkit as qk
assert "gguf" not in sys.modules
qk.load_model(sys.argv[1])
print("gguf" in sys.modules)
"""
    for kind, want in ((Kind.F32, "False\n"), (Kind.Q8_0, "True\n")):
        path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, kind)
        done = python(code, path, PYTHONPATH=WITH_LIBRARY)
        assert done.stdout == want, done.stderr


def test_inspect_and_doctor_know_the_format(tmp_path, toy, capsys, monkeypatch):
    path = convert(toy, tmp_path / "a.gguf", Kind.Q8_0)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "model.layers.*.self_attn.q_proj.weight" in out
    assert "q8_0" in out
    assert "PROBLEMS  none" in out
    monkeypatch.setenv("QWENKIT_MODEL", str(path))
    main(["doctor"])
    assert f"{Checkpoint(toy).config.num_parameters:,} parameters, valid" in capsys.readouterr().out


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path):
    for kind in (Kind.Q8_0, Kind.F32):
        path = write_gguf(tmp_path / "a.gguf", CONFIG, TENSORS, kind)
        checkpoint = Checkpoint(path)
        path.write_bytes(path.read_bytes()[:-4000])
        with pytest.raises(CheckpointError, match="cannot be read: it ends within"):
            checkpoint.load(torch.float32)
        path.unlink()
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.load(torch.float32)
