"""Adapter files: PEFT reads ours, we read PEFT's, and what is damaged or more is refused."""

import json
import os
import re
from unittest import mock

import pytest
import torch
from learned import learned
from peft import LoraConfig, PeftModel, get_peft_model
from reference import ids, pair, relative_error, tiny
from safetensors.torch import load_file, save_file

import qwenkit as qk
from qwenkit.checkpoint import _saving as saving
from qwenkit.errors import CheckpointError, ConfigError, InputError
from qwenkit.lora import _regex, adapter, lora_layers
from qwenkit.lora.adapter import CONFIG, WEIGHTS

TEXT = ids(2, 9)


def with_lora(model=None, seed=5, **options):
    """Return a model with LoRA that has learned something."""
    model = tiny() if model is None else model
    qk.add_lora(model, **{"rank": 3, "alpha": 5, **options})
    return learned(model, seed)


@pytest.fixture
def saved(tmp_path):
    qk.save_adapter(with_lora(dropout=0.1), tmp_path)
    return tmp_path


# --- both ways ---


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj", "k_proj", "lm_head")])
def test_peft_reads_what_is_saved(tmp_path, targets):
    theirs, ours = pair()
    with_lora(ours, targets=targets)
    qk.save_adapter(ours, tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]
    peft = PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
    assert relative_error(ours(TEXT), peft(TEXT).logits.detach()) < 1e-5


SETTINGS = {
    "plain": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]},
    "all": {"r": 2, "lora_alpha": 7, "target_modules": "all-linear"},
    "rslora": {"r": 4, "lora_alpha": 6, "target_modules": ["o_proj"], "use_rslora": True},
    "dropout": {"r": 4, "target_modules": ["q_proj"], "lora_dropout": 0.2},
    "some layers": {"r": 3, "target_modules": ["up_proj"], "layers_to_transform": [0, 2]},
    "ranks": {"r": 3, "target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}},
    "gaussian": {"r": 3, "target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_what_peft_saves_is_read_and_read_again_when_saved_here(tmp_path, case):
    theirs, ours = pair()
    peft = learned(get_peft_model(theirs, LoraConfig(task_type="CAUSAL_LM", **SETTINGS[case])))
    peft.eval().save_pretrained(str(tmp_path / "theirs"))
    qk.load_adapter(ours, tmp_path / "theirs")
    want = peft(TEXT).logits.detach()
    assert relative_error(ours(TEXT), want) < 1e-5
    assert not any(p.requires_grad for p in ours.parameters())
    qk.save_adapter(ours, tmp_path / "ours")
    again = PeftModel.from_pretrained(pair()[0], str(tmp_path / "ours")).eval()
    assert relative_error(again(TEXT).logits.detach(), want) < 1e-5


def test_saved_and_loaded_the_logits_are_the_same_bits_merged_or_not(tmp_path):
    model = with_lora()
    want = model(TEXT)
    qk.save_adapter(model, tmp_path / "separate")
    qk.merge_lora(model)
    qk.save_adapter(model, tmp_path / "merged")
    for name in ("separate", "merged"):
        other = tiny()
        qk.load_adapter(other, tmp_path / name, trainable=True)
        assert torch.equal(other(TEXT), want)
        assert all(p.requires_grad == (".lora_" in n) for n, p in other.named_parameters())


def test_an_adapter_is_small_and_stays_frozen_through_a_merge(saved):
    model = tiny()
    qk.load_adapter(model, saved)
    qk.merge_lora(model)
    qk.unmerge_lora(model)
    assert not any(p.requires_grad for p in model.parameters())
    assert (saved / WEIGHTS).stat().st_size < 12_000  # 3 layers × (q: 3 × 64, v: 3 × 48) × 4 bytes
    assert json.loads((saved / CONFIG).read_text())["target_modules"] == ["q_proj", "v_proj"]
    assert (saved / WEIGHTS).stat().st_mode == (saved / CONFIG).stat().st_mode  # for all to read


# --- nothing is lost ---


def test_a_failed_save_leaves_the_old_adapter(saved, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(saving, "to_disk", full)  # the last thing before the file takes its name
    with pytest.raises(CheckpointError, match=r"nothing was saved .*No space left"):
        qk.save_adapter(with_lora(rank=2, alpha=9, seed=8), saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


@pytest.mark.parametrize(("rank", "alpha"), [(2, 5), (3, 9)])
def test_files_of_two_adapters_never_mix(saved, rank, alpha, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    killed = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(adapter, "write_json", killed)  # after the weights, before the config
    with pytest.raises(KeyboardInterrupt):
        qk.save_adapter(with_lora(rank=rank, alpha=alpha), saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_values_that_are_not_finite_are_neither_saved_nor_loaded(saved):
    model = with_lora()
    next(iter(lora_layers(model).values())).lora_B.weight.data[0, 0] = float("nan")
    before = (saved / WEIGHTS).read_bytes()
    with pytest.raises(CheckpointError, match="lora_B holds values that are not finite"):
        qk.save_adapter(model, saved)
    assert (saved / WEIGHTS).read_bytes() == before
    tensors = load_file(saved / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("inf")
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(CheckpointError, match="values that are not finite"):
        qk.load_adapter(tiny(), saved)


# --- what is refused ---

CONFIGS = {
    "another kind": ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
    "dora": ({"use_dora": True}, "use_dora is True, which plain LoRA does not have"),
    "more parts": ({"modules_to_save": ["lm_head"]}, "lm_head in modules_to_save, and it holds no"),
    "biases of a kind": ({"bias": "some"}, "bias is 'some'"),
    "ranks of text": ({"rank_pattern": {"q_proj": "3"}}, "rank_pattern is"),
    "a list as rank": ({"r": [2]}, "r is [2]; it must be an integer"),
    "other modules": ({"target_modules": ["o_proj"]}, "o_proj, and it holds no A and B"),
    "no expression": ({"target_modules": "(q_proj"}, "not a valid regular expression"),
    "a layer as target": ({"target_modules": ["mlp"]}, "where qwenkit has no LoRA"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    "of tomorrow": ({"use_tomorrow": True}, "use_tomorrow is True"),
    "no alpha": ({"lora_alpha": None}, "alpha is None; it must be a number"),
    "alpha below 0": ({"lora_alpha": -1}, "alpha is -1"),
    "a dropout above 1": ({"lora_dropout": 2}, "dropout is 2"),
    "another rank": ({"r": 4}, "its ranks are [3], and adapter_config.json has 4"),
    "another alpha": ({"lora_alpha": 6}, "its alpha is 5, and adapter_config.json has 6"),
}


def refused(folder, words):
    model = tiny()
    with pytest.raises(CheckpointError, match=re.escape(words)):
        qk.load_adapter(model, folder)
    assert not lora_layers(model)


@pytest.mark.parametrize(("change", "words"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_asks_for_more_or_makes_no_sense_is_refused(saved, change, words):
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps({**config, **change}))
    refused(saved, words)


def test_an_expression_that_takes_too_long_is_refused_and_only_expressions_need_a_process(
    saved, monkeypatch
):
    config = json.loads((saved / CONFIG).read_text())
    monkeypatch.setattr(_regex, "_SECONDS", 0.2)
    (saved / CONFIG).write_text(json.dumps({**config, "target_modules": "(.*)*(.*)*(.*)*!"}))
    refused(saved, "matching it takes more than 0.2 s")
    names = {"target_modules": ["q_proj", "model.layers.0.self_attn.v_proj", "v_proj"]}
    alphas = {"exclude_modules": ["lm_head"], "alpha_pattern": {"layers.0.self_attn.v_proj": 4}}
    (saved / CONFIG).write_text(json.dumps({**config, **names, **alphas}))
    monkeypatch.setattr(_regex.subprocess, "run", mock.Mock(side_effect=AssertionError))
    qk.load_adapter(tiny(), saved)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


def renamed(new):
    return lambda tensors: {new: tensors.pop(f"{Q}.lora_A.weight")} | tensors


def with_(**parts):
    return lambda tensors: tensors | {f"{Q}.lora_{n}.weight": value for n, value in parts.items()}


LAYER_7, NORM = Q.replace("0", "7"), Q.replace("self_attn.q_proj", "input_layernorm")
FILES = {
    "a whole weight": (renamed(f"{Q}.weight"), "is not an A or B of LoRA"),
    "no prefix": (renamed("q.lora_A.weight"), "is not an A or B of LoRA"),
    "a layer too many": (renamed(f"{LAYER_7}.lora_A.weight"), "the model has no model.layers.7"),
    "a norm": (renamed(f"{NORM}.lora_A.weight"), "the model has no model.layers.0.input_layernorm"),
    "A alone": (
        lambda tensors: {n: t for n, t in tensors.items() if n != f"{Q}.lora_B.weight"},
        "q_proj has only one of A and B",
    ),
    "a wrong shape": (with_(A=torch.zeros(3, 31)), "has A (3, 31) and B (32, 3)"),
    "no matrix": (with_(A=torch.zeros(())), "has A ()"),
    "rank 0": (with_(A=torch.zeros(0, 32), B=torch.zeros(32, 0)), "has A (0, 32)"),
    "integers": (with_(A=torch.zeros(3, 32, dtype=torch.int64)), "is I64"),
    "nothing": (lambda _tensors: {}, "it holds no tensor"),
}


@pytest.mark.parametrize(("change", "words"), FILES.values(), ids=FILES)
def test_tensors_that_do_not_fit_the_model_are_refused(saved, change, words):
    save_file(change(load_file(saved / WEIGHTS)), saved / WEIGHTS)
    refused(saved, words)


def test_damaged_and_missing_files_are_named(saved, tmp_path):
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-5])
    refused(saved, "not a valid safetensors file")
    (saved / WEIGHTS).unlink()
    refused(saved, WEIGHTS)
    (saved / CONFIG).write_text("{")
    for folder in (saved, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=CONFIG):
            qk.load_adapter(tiny(), folder)


def test_a_model_that_cannot_take_it_is_refused(saved):
    model = tiny()
    with pytest.raises(InputError, match="has no LoRA to save"):
        qk.save_adapter(model, saved)
    qk.load_adapter(model, saved)
    with pytest.raises(InputError, match="has LoRA already"):
        qk.load_adapter(model, saved)
    small = tiny()
    qk.quantize(small)
    with pytest.raises(InputError, match="float weights"):
        qk.load_adapter(small, saved)
