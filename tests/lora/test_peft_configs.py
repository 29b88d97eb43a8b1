"""The same adapter folder gives PEFT's logits, whatever its config names; saved, it is the same."""

import json

import pytest
import torch
from learned import learned
from peft import LoraConfig, PeftModel, get_peft_model
from reference import ids, pair, relative_error
from safetensors.torch import load_file, save_file

import qwenkit as qk
from qwenkit.errors import CheckpointError, ConfigError
from qwenkit.lora.adapter import CONFIG, WEIGHTS

TEXT = ids(2, 9)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An adapter as PEFT saves it, on all matrices."""
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=ALL)
    folder = tmp_path_factory.mktemp("peft")
    learned(get_peft_model(pair()[0], config)).save_pretrained(str(folder))
    return folder


def changed(source, folder, change=None, tensors=lambda t: t):
    """Write the adapter with other keys in its config, and other tensors."""
    config = {**json.loads((source / CONFIG).read_text()), **(change or {})}
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors(load_file(source / WEIGHTS)), folder / WEIGHTS)
    return folder


CHANGES = {
    "a list": {"target_modules": ["q_proj", "mlp.up_proj"]},
    "an expression": {"target_modules": r".*\.(q|v)_proj"},
    "one layer's": {"target_modules": r"model\.layers\.1\..*_proj"},
    "all-linear": {"target_modules": "all-linear"}, "by default": {"target_modules": None},
    "excluded": {"exclude_modules": ["k_proj", "layers.0.mlp.up_proj"]},
    "excluded by expression": {"exclude_modules": r".*\.mlp\..*"},
    "layers": {"layers_to_transform": [0, 2]}, "a layer": {"layers_to_transform": 1},
    "layers by name": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "rslora": {"use_rslora": True}, "alphas": {"alpha_pattern": {"q_proj": 3, ".*mlp.*": 9}},
    "rslora and alphas": {"use_rslora": True, "alpha_pattern": {"layers.1.mlp.up_proj": 2}},
    "transposed": {"fan_in_fan_out": True}, "biases": {"bias": "all"},
    "other keys": {"revision": "main", "base_model_name_or_path": "a/b"},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_logits_are_those_of_peft(source, tmp_path, change):
    folder = changed(source, tmp_path, change)
    theirs, ours = pair()
    want = PeftModel.from_pretrained(theirs, str(folder)).eval()(TEXT).logits.detach()
    qk.load_adapter(ours, folder)
    assert relative_error(ours(TEXT), want) < 2e-5  # processors add in different orders: 1.005e-5
    qk.save_adapter(ours, tmp_path / "again")
    assert json.loads((tmp_path / "again" / CONFIG).read_text()) == json.loads(
        (folder / CONFIG).read_text()
    )
    stored, again = load_file(folder / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(again[name], stored[name]) for name in again)


def test_rslora_is_asked_of_all_layers(tmp_path):
    ranks = {"r": 1, "rank_pattern": {"v_proj": 4}, "use_rslora": True}
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], **ranks)
    theirs, ours = pair()
    peft = learned(get_peft_model(theirs, config)).eval()
    peft.save_pretrained(str(tmp_path))
    qk.load_adapter(ours, tmp_path)
    for layer in qk.lora.lora_layers(ours).values():
        layer.adapter = None  # as if it had been made here
    qk.save_adapter(ours, tmp_path / "ours")
    again = PeftModel.from_pretrained(pair()[0], str(tmp_path / "ours")).eval()
    assert relative_error(again(TEXT).logits.detach(), peft(TEXT).logits.detach()) < 1e-5


HEAD = "base_model.model.lm_head.weight"
EMBEDDING = "base_model.model.model.embed_tokens.weight"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_copy_of_the_frozen_head_is_accepted_and_a_trained_one_named(tmp_path, tied, dtype):
    theirs, ours = pair(tie_word_embeddings=tied)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    peft = learned(get_peft_model(theirs, config))
    peft.save_pretrained(str(tmp_path))
    copies = (HEAD, EMBEDDING) if tied else (HEAD,)  # PEFT stores a tied weight under both names
    head = theirs.lm_head.weight.detach().to(dtype)
    tensors = {**load_file(tmp_path / WEIGHTS), **{name: head.clone() for name in copies}}
    save_file(tensors, tmp_path / WEIGHTS)
    qk.load_adapter(ours, tmp_path)
    qk.save_adapter(ours, tmp_path / "again")
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    save_file({**tensors, HEAD: 2 * tensors[HEAD]}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="differs from the model's: it was trained too"):
        qk.load_adapter(pair(tie_word_embeddings=tied)[1], tmp_path)


NAMES = {
    "compiled": lambda n: n.replace("model.layers", "_orig_mod.model.layers", 1),
    "no prefix": lambda n: n.removeprefix("base_model.model."),
    "the adapter's name": lambda n: n.replace(".weight", ".default.weight"),
}


@pytest.mark.parametrize("rename", NAMES.values(), ids=NAMES)
def test_one_common_prefix_or_the_adapters_name_is_not_damage(source, tmp_path, rename):
    one, other = pair()[1], pair()[1]
    qk.load_adapter(one, source)
    renamed = changed(source, tmp_path, None, lambda t: {rename(n): t[n] for n in t})
    qk.load_adapter(other, renamed)
    assert torch.equal(one(TEXT), other(TEXT))
    qk.save_adapter(other, tmp_path / "again")
    again, before = (load_file(folder / WEIGHTS) for folder in (tmp_path / "again", renamed))
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_what_is_no_adapter_is_told_in_one_line(tmp_path, source):
    def refused(folder, words):
        with pytest.raises(ConfigError, match=words):
            qk.load_adapter(pair()[1], folder)

    refused(tmp_path, "holds no adapter_config.json")
    refused(source / CONFIG, "is a file")
    refused("someone/an-adapter", "snapshot_download")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "a whole model, .*load_pretrained loads it")
