"""A model with and without its tokenizer: from every kind of source, in every dtype."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import torch
from fixtures_toy import copied, plain_checkpoint, random_tensors, same_bits, small_config

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint, save_checkpoint
from qwenkit.errors import CheckpointError, InputError, QwenkitError, SourceError, TokenizerError
from qwenkit.files import read_json_object
from qwenkit.pretrained import _loading as loading
from qwenkit.pretrained import hub

IDS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def alone(toy, tmp_path_factory):
    """The toy's folder without its tokenizer."""
    folder = copied(toy, tmp_path_factory.mktemp("alone") / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    return folder


@pytest.fixture
def never_read(monkeypatch):
    """Make reading any weight fail the test."""
    monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("weights were read"))


def test_a_model_without_a_tokenizer_is_the_same_model(toy, alone):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        qk.load_pretrained(alone)
    model, (whole, tokenizer) = qk.load_model(alone), qk.load_pretrained(toy)
    assert torch.equal(model(IDS), whole(IDS))
    assert model.num_tokens == model.config.vocab_size > whole.num_tokens == tokenizer.num_tokens
    assert model.stop_ids == whole.stop_ids
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert len(list(qk.generate(model, IDS, 3, stop_ids=()))) == 3


@pytest.mark.parametrize("embedded", [False, True])
def test_every_source_is_taken(alone, monkeypatch, embedded):
    monkeypatch.setenv("QWENKIT_MODEL", "" if embedded else str(alone))
    monkeypatch.setattr(hub, "EMBEDDED", alone if embedded else alone / "none")
    monkeypatch.setattr(hub, "_download", lambda name: alone if name == "a/model" else None)
    want = qk.load_model(alone)(IDS)
    for source in (None, str(alone), "a/model", Checkpoint(alone)):
        assert torch.equal(qk.load_model(source)(IDS), want)


@pytest.mark.parametrize(("stored", "dtype", "want"), [
    (torch.bfloat16, "bfloat16", torch.bfloat16), (torch.bfloat16, "float32", torch.float32),
    (torch.bfloat16, torch.float16, torch.float16), (torch.bfloat16, "auto", torch.float32),
    (torch.float16, None, torch.float16), (torch.float32, None, torch.float32),
])  # fmt: skip
def test_every_dtype_is_taken_and_none_keeps_each_tensor_as_stored(tmp_path, stored, dtype, want):
    config = small_config()
    tensors = random_tensors(config, stored)
    if dtype is None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    model = qk.load_model(plain_checkpoint(tmp_path, config, tensors), dtype=dtype, device="cpu")
    for name, weight in model.state_dict().items():
        assert same_bits(weight, tensors[name].to(tensors[name].dtype if dtype is None else want))


def test_int8_is_made_at_loading_and_read_again(alone, tmp_path):
    made, want = qk.load_model(alone, dtype="int8"), qk.load_model(alone, dtype="bfloat16")
    qk.quantize(want)
    assert torch.equal(made(IDS), want(IDS))
    qk.save_pretrained(made, tmp_path)
    for dtype in ("auto", "int8", None):
        again = qk.load_model(tmp_path, dtype=dtype)
        assert again.model.layers[0].mlp.up_proj.weight.dtype == torch.int8
        assert torch.equal(again(IDS), want(IDS))
    with pytest.raises(InputError, match=f"dtype is 'float32' and {tmp_path} is stored in int8"):
        qk.load_model(tmp_path, dtype="float32")
    with pytest.raises(InputError, match=r"dtype is None and .* is stored in int8"):
        qk.load_pretrained(tmp_path, dtype=None)


@pytest.mark.parametrize(("error", "message", "change"), [
    (InputError, "device is 'tpu9'", {"device": "tpu9"}),
    (InputError, "device is 'meta', which holds no values", {"device": "meta"}),
    (InputError, "device is 'xpu'", {"device": "xpu"}),
    (InputError, "dtype is 'int3'", {"dtype": "int3"}),
    (InputError, "dtype is 'float64'", {"dtype": torch.float64}),
    (SourceError, "neither a folder here nor a Hub id", {"source": "nonsense"}),
])  # fmt: skip
@pytest.mark.parametrize("load", [qk.load_model, qk.load_pretrained])
def test_what_cannot_be_loaded_is_refused_unread(never_read, toy, load, error, message, change):
    with pytest.raises(error, match=message):
        load(**{"source": toy, **change})


def test_load_pretrained_refuses_more_unread(never_read, toy, tmp_path):
    with pytest.raises(InputError, match="dtype is None; it must be 'auto' or one of"):
        qk.load_pretrained(toy, dtype=None)
    folder = plain_checkpoint(tmp_path, small_config(), random_tensors(small_config()))
    qk.Tokenizer(toy).save(folder)
    wrong = "tokenizer has 1033 tokens, and the model's vocabulary only 8; they do not belong"
    with pytest.raises(CheckpointError, match=wrong):
        qk.load_pretrained(folder)
    folder = copied(toy, tmp_path / "copy")
    (folder / "generation_config.json").write_text('{"eos_token_id": ["x"]}')
    with pytest.raises(CheckpointError, match=r"eos_token_id is .'x'.; it must be token ids"):
        qk.load_pretrained(folder)


def test_a_stop_token_that_the_model_has_no_row_for_is_left_out_and_kept_on_saving(toy, tmp_path):
    folder = copied(toy, tmp_path / "copy")
    for eos, left in (("[5, 99999]", (5,)), ("99999", ())):
        (folder / "generation_config.json").write_text(f'{{"eos_token_id": {eos}}}')
        with pytest.warns(UserWarning, match="99999.*, which the vocabulary of 1088 has no row"):
            model, tokenizer = qk.load_pretrained(folder)
        assert model.stop_ids == left
        qk.save_pretrained(model, tmp_path / "saved", tokenizer)
        assert read_json_object(tmp_path / "saved" / "generation_config.json") == {
            "eos_token_id": json.loads(eos)
        }


def test_the_device_is_chosen_as_for_load_pretrained(alone, monkeypatch):
    asked, cpu = [], torch.device("cpu")
    monkeypatch.setattr(loading, "trusted_device", lambda *given: asked.append(given) or cpu)
    for given in ({"device": "mps", "dtype": "float16"}, {"dtype": None}, {"dtype": "int8"}):
        qk.load_model(alone, **given)
    assert asked == [("mps", "float16"), ("auto", torch.bfloat16), ("auto", torch.bfloat16)]


@pytest.mark.parametrize("changes", [
    {"num_hidden_layers": 5_000}, {"vocab_size": 2**62}, {"hidden_size": 2**40, "head_dim": 16},
    {"intermediate_size": 2**50}, {"num_attention_heads": 2**30},
])  # fmt: skip
def test_a_config_of_another_size_is_refused_before_a_model_is_made(alone, tmp_path, changes):
    """Building it first would fill the memory, or fail deep inside torch."""
    folder = copied(alone, tmp_path / "copy")
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | changes))
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json") as caught:
        qk.load_model(folder)
    assert time.process_time() - start < 2
    assert len(str(caught.value)) < 1_500


ADDED = "<|added later|>"


@pytest.fixture
def larger(toy, tmp_path):
    """A model with fewer rows than its tokenizer has tokens: one was added to that alone."""
    folder = copied(toy, tmp_path / "larger")
    tokenizer = qk.Tokenizer(folder)
    rows = tokenizer.num_tokens
    model = qk.load_model(folder, dtype=None)
    tensors = dict(model.state_dict())
    name = "model.embed_tokens.weight"
    tensors[name] = tensors[name][:rows].clone()
    shutil.rmtree(folder)
    save_checkpoint(folder, replace(model.config, vocab_size=rows), tensors)
    tokenizer.backend.add_special_tokens([ADDED])
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    return folder, rows


def test_a_token_without_a_row_does_no_harm_until_it_is_used(larger):
    folder, rows = larger
    model, tokenizer = qk.load_pretrained(folder)
    assert tokenizer.num_tokens == rows + 1
    assert model.num_tokens == model.config.vocab_size == rows
    text = "def f(x):"
    assert isinstance(qk.complete(model, tokenizer, text, max_new_tokens=3), str)
    assert tokenizer.encode(ADDED, special=False)  # spelled in letters it is no such token
    for use in (tokenizer.encode, tokenizer, lambda t: qk.complete(model, tokenizer, t)):
        with pytest.raises(QwenkitError, match=f"{rows}.*{rows - 1}|{rows - 1}.*{rows}"):
            use(f"{text}{ADDED}")
