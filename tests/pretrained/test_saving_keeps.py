"""Loading and saving is the identity on all that qwenkit did not change, key by key."""

import copy
import json
import os
from dataclasses import replace

import pytest
import torch
from fixtures_toy import copied, plain_checkpoint, random_tensors, same_bits, small_config, toy_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

import qwenkit as qk
from qwenkit.checkpoint import INDEX, SINGLE, Checkpoint
from qwenkit.config import QwenConfig, YarnScaling
from qwenkit.files import write_json

CONFIG = small_config()
PLAIN = CONFIG.to_dict()
ROPE = {"rope_theta": 5e5, "rope_type": "default"}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def without(*names, **more):
    return {n: value for n, value in PLAIN.items() if n not in names} | more


CONFIGS = {
    "ours": PLAIN,
    "of transformers 4": without(
        "head_dim", torch_dtype="bfloat16", transformers_version="4.44.0", use_cache=True,
        attention_dropout=0.0, sliding_window=131072, max_window_layers=21, eos_token_id=7),
    "of transformers 5": without(
        "rope_theta", "torch_dtype", dtype="bfloat16", transformers_version="5.0.0",
        rope_parameters=ROPE, layer_types=["full_attention"], rope_scaling=None),
    "YaRN": without(rope_scaling=YARN, eos_token_id=[3, 5], bos_token_id=None),
    "YaRN of transformers 5": without("rope_theta", rope_parameters={**YARN, "rope_theta": 1e6}),
    "no dtype": without("torch_dtype", "architectures"), "null dtype": without(dtype=None),
    "unread keys": without(unsloth_version="2025.1", unsloth_fixed=True, zeta={"a": [1, None]},
                           text="面積", quantization_config=None, _name_or_path="/x"),
    "other order": dict(reversed(PLAIN.items())),
}  # fmt: skip


def saved_again(folder, to, **changes):
    model = qk.load_model(folder, dtype=None)
    for name, value in changes.items():
        setattr(model, name, value)
    qk.save_pretrained(model, to)
    return model


def read(path):
    return json.loads(path.read_text())


@pytest.mark.filterwarnings("ignore:.*does not know and ignores")
@pytest.mark.parametrize("data", CONFIGS.values(), ids=CONFIGS)
def test_config_json_is_kept_key_by_key(tmp_path, data):
    plain_checkpoint(tmp_path / "a", CONFIG, random_tensors(CONFIG))
    (tmp_path / "a" / "config.json").write_text(json.dumps(data))
    saved_again(tmp_path / "a", tmp_path / "b")
    assert list(read(tmp_path / "b" / "config.json").items()) == list(data.items())


CHANGES = [  # config, changed fields, what config.json then differs in
    ("of transformers 4", {"rope_theta": 1e4}, {"rope_theta": 1e4}),
    ("of transformers 5", {"rope_theta": 1e4}, {"rope_parameters": {**ROPE, "rope_theta": 1e4}}),
    ("of transformers 5", {"rope_scaling": YarnScaling(2.0, 32)},
     {"rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn", "factor": 2.0, "beta_fast": 32.0,
                          "beta_slow": 1.0, "original_max_position_embeddings": 32}}),
    ("YaRN of transformers 5", {"rope_scaling": None},
     {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}),
    ("YaRN", {"rope_scaling": None}, {"rope_scaling": None}),
    ("of transformers 4", {"eos_token_id": (2, 3)}, {"eos_token_id": [2, 3]}),
    ("unread keys", {"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-5}),
    ("ours", {"pad_token_id": 2}, {"pad_token_id": 2}),
    ("of transformers 4", {"dtype": "float32"}, {"torch_dtype": "float32"}),
    ("of transformers 5", {"dtype": "float32"}, {"dtype": "float32"}),
    ("no dtype", {"dtype": "float16"}, {"torch_dtype": "float16"}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not know and ignores")
@pytest.mark.parametrize(("name", "fields", "differs"), CHANGES)
def test_only_a_changed_field_differs_and_keeps_its_spelling(tmp_path, name, fields, differs):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS[name]))
    config = replace(QwenConfig.from_file(path), **fields)
    want = {n: v for n, v in (CONFIGS[name] | differs).items() if v is not None or n not in differs}
    assert config.to_file() == want
    path.write_text(json.dumps(config.to_file()))
    assert QwenConfig.from_file(path) == config
    Qwen2Config(**config.to_file())


def test_the_raw_file_is_no_part_of_a_configs_equality(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    config = QwenConfig.from_file(tmp_path)
    assert config == CONFIG
    assert hash(config) == hash(CONFIG)
    assert "raw" not in repr(config)
    assert "raw" not in config.to_dict()
    assert CONFIG.to_file() == CONFIG.to_dict()
    with pytest.warns(UserWarning, match="ignores quantization, raw"):
        assert QwenConfig.from_dict({**PLAIN, "raw": 1, "quantization": "int8"}) == CONFIG


# --- generation_config.json ---

GENERATION = {
    "do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05,
    "eos_token_id": [5, 3], "pad_token_id": 5, "bos_token_id": 5, "transformers_version": "4.44.0",
    "unknown": {"x": [1]},
}  # fmt: skip


@pytest.mark.parametrize("data", [
    GENERATION, {**GENERATION, "eos_token_id": 3}, {"temperature": 0.1}, {}, None,
    {"eos_token_id": []}, {"eos_token_id": None, "top_k": 3},
])  # fmt: skip
def test_generation_config_json_is_kept_whole(tmp_path, data):
    folder, out = tmp_path / "a", tmp_path / "b"
    plain_checkpoint(folder, CONFIG, random_tensors(CONFIG))
    if data is not None:
        write_json(folder / "generation_config.json", data)
    saved_again(folder, out)
    saved_again(out, out)
    if data is None:
        assert not (out / "generation_config.json").exists()
    else:
        assert read(out / "generation_config.json") == data
        GenerationConfig.from_pretrained(out)


@pytest.mark.parametrize("eos", [(), (3,)])
@pytest.mark.parametrize("stops", [(), (2,), (2, 6)])
def test_stop_ids_that_were_changed_come_back(tmp_path, eos, stops):
    config = replace(CONFIG, eos_token_id=eos)
    folder = plain_checkpoint(tmp_path / "a", config, random_tensors(config))
    write_json(folder / "generation_config.json", {"temperature": 0.1, "eos_token_id": 5})
    model = saved_again(folder, tmp_path / "b", stop_ids=stops)
    assert qk.load_model(tmp_path / "b").stop_ids == stops
    assert read(tmp_path / "b" / "generation_config.json")["temperature"] == 0.1
    made = qk.model.QwenForCausalLM(config)  # not loaded from anywhere
    made.load_state_dict(model.state_dict())
    made.stop_ids = stops
    qk.save_pretrained(made, tmp_path / "b")
    assert qk.load_model(tmp_path / "b").stop_ids == stops
    if not eos and not stops:
        assert not (tmp_path / "b" / "generation_config.json").exists()


# --- files ---

STYLES = [
    "model-{i:05}-of-{n:05}.safetensors", "model-{i:05}-of-{n:06}.safetensors",
    "model.safetensors-{i:05}-of-{n:05}.safetensors", "consolidated-{i}.safetensors",
    "parts/{i}.safetensors",
]  # fmt: skip


def notes_of(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return toy_of(tmp_path_factory, max_shard_bytes=150_000)


@pytest.mark.parametrize("style", STYLES)
def test_shards_keep_their_names_their_tensors_and_their_notes(tmp_path, sharded, style):
    folder, out = copied(sharded, tmp_path / "a"), tmp_path / "b"
    index = read(folder / INDEX)
    old = sorted(set(index["weight_map"].values()))
    names = {file: style.format(i=i + 1, n=len(old)) for i, file in enumerate(old)}
    (folder / "parts").mkdir()
    for number, (file, name) in enumerate(names.items()):
        tensors = load_file(folder / file)
        (folder / file).unlink()
        save_file(tensors, folder / name, {"format": "pt", "note": str(number)})
    index["weight_map"] = {n: names[file] for n, file in index["weight_map"].items()}
    index["metadata"] |= {"total_parameters": 12, "by": "somebody"}
    write_json(folder / INDEX, index)
    model = saved_again(folder, out)
    assert read(out / INDEX) == index
    for number, name in enumerate(names.values()):
        before, after = load_file(folder / name), load_file(out / name)
        assert before.keys() == after.keys()
        assert all(same_bits(after[one], before[one]) for one in before)
        assert notes_of(out / name) == {"format": "pt", "note": str(number)}
    qk.save_pretrained(model, out, max_shard_bytes=10**9)  # asked for: one file
    left = {p.name for p in out.rglob("*") if p.is_file()}
    assert left == {SINGLE, "config.json", "generation_config.json"}
    assert notes_of(out / SINGLE)["note"] == "0"
    qk.save_pretrained(copy.deepcopy(model), out)  # a copy remembers too
    assert read(out / INDEX) == index
    assert not (out / SINGLE).exists()
    Qwen2ForCausalLM.from_pretrained(out)


def test_the_total_is_true_in_another_dtype_and_int8_is_divided_anew(tmp_path, sharded):
    model = qk.load_model(sharded, dtype="float32")
    qk.save_pretrained(model, tmp_path)
    index, before = read(tmp_path / INDEX), read(sharded / INDEX)
    assert index["weight_map"] == before["weight_map"]
    assert index["metadata"]["total_size"] == 2 * before["metadata"]["total_size"]
    qk.quantize(model)
    qk.save_pretrained(model, tmp_path / "int8")
    assert [file.name for file in Checkpoint(tmp_path / "int8").files] == [SINGLE]


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_a_dtype_and_a_total_that_were_wrong_are_kept_unless_the_weights_change(
    tmp_path, sharded, stored
):
    folder = tmp_path / "a"
    qk.save_pretrained(qk.load_model(sharded, dtype=stored), folder, max_shard_bytes=20_000)
    config, index = read(folder / "config.json"), read(folder / INDEX)
    write_json(folder / "config.json", {**config, "torch_dtype": "float16"})
    write_json(folder / INDEX, {**index, "metadata": {"total_size": 17, "by": "x"}})
    saved_again(folder, tmp_path / "b")
    assert read(tmp_path / "b" / "config.json") == read(folder / "config.json")
    assert read(tmp_path / "b" / INDEX) == read(folder / INDEX)
    other = torch.float32 if stored == torch.bfloat16 else torch.bfloat16
    qk.save_pretrained(qk.load_model(folder, dtype=other), tmp_path / "c")
    name = str(other).removeprefix("torch.")
    assert read(tmp_path / "c" / "config.json")["torch_dtype"] == name
    total = index["metadata"]["total_size"]
    total = total * 2 if other == torch.float32 else total // 2
    assert read(tmp_path / "c" / INDEX)["metadata"] == {"total_size": total, "by": "x"}


@pytest.mark.parametrize(
    "notes", [None, {"format": "pt"}, {"format": "mlx", "by": "x", "path": ""}]
)
def test_the_notes_of_one_file_are_kept(tmp_path, notes):
    folder = plain_checkpoint(tmp_path / "a", CONFIG, random_tensors(CONFIG))
    save_file(load_file(folder / SINGLE), folder / SINGLE, notes)
    saved_again(folder, tmp_path / "b")
    assert notes_of(tmp_path / "b" / SINGLE) == {"format": "pt", **(notes or {})}


def test_a_compiled_model_is_saved_as_the_model_it_is(tmp_path, toy):
    model = qk.load_model(toy, dtype=None)
    model.model.layers[0].mlp = torch.compile(model.model.layers[0].mlp, backend="eager")
    qk.save_pretrained(torch.compile(model, backend="eager"), tmp_path)
    assert (tmp_path / SINGLE).read_bytes() == (toy / SINGLE).read_bytes()
    assert read(tmp_path / "config.json") == read(toy / "config.json")


def test_saving_again_is_byte_for_byte_the_same(tmp_path, sharded):
    saved_again(sharded, tmp_path / "a")
    saved_again(tmp_path / "a", tmp_path / "b")
    names = sorted(os.listdir(tmp_path / "a"))
    assert names == sorted(os.listdir(tmp_path / "b"))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
