"""What a file holds too much of, or under other names, is read; where it contradicts, one line."""

import json

import pytest
import torch
from fixtures_toy import copied, entry, pack, plain_checkpoint, random_tensors, small_config, toy_of
from safetensors.torch import load_file, save_file

import qwenkit as qk
from qwenkit.checkpoint import INDEX, SINGLE, Checkpoint, save_checkpoint
from qwenkit.errors import CheckpointError
from qwenkit.files import write_json

CONFIG = small_config(num_hidden_layers=2)
WEIGHTS = random_tensors(CONFIG)
EMBEDDING, HEAD = WEIGHTS["model.embed_tokens.weight"], "lm_head.weight"
ATTN = "model.layers.0.self_attn."


def opened(tmp_path, tensors, config=CONFIG):
    return Checkpoint(plain_checkpoint(tmp_path / "plain", config, tensors))


def is_whole(checkpoint, want=WEIGHTS):
    """Tell whether loading gives exactly these tensors."""
    loaded = checkpoint.load()
    return loaded.keys() == want.keys() and all(torch.equal(loaded[n], want[n]) for n in want)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    save_checkpoint(folder, CONFIG, WEIGHTS, 120)
    return folder


@pytest.fixture
def shards(tmp_path, sharded):
    """A copy of a checkpoint in shards, and its index's contents."""
    folder = copied(sharded, tmp_path / "shards")
    return folder, json.loads((folder / INDEX).read_text())


# --- a copy of what is there ---

NAN = EMBEDDING.clone()
NAN[0, 0] = float("nan")


@pytest.mark.parametrize(("tensors", "fits"), [
    ({HEAD: EMBEDDING.clone()}, True), ({HEAD: EMBEDDING.float()}, True),
    ({HEAD: NAN.clone(), "model.embed_tokens.weight": NAN}, True),
    ({HEAD: EMBEDDING + 1}, False), ({HEAD: EMBEDDING.float() + 1e-5}, False),
    ({HEAD: EMBEDDING[:4].clone()}, False), ({HEAD: EMBEDDING.to(torch.float8_e5m2)}, False),
])  # fmt: skip
def test_a_tied_head_in_the_file_must_equal_the_embedding(tmp_path, tensors, fits):
    checkpoint = opened(tmp_path, WEIGHTS | tensors)
    if fits:
        assert checkpoint.load().keys() == WEIGHTS.keys()
        assert checkpoint.problems() == []
        return
    with pytest.raises(CheckpointError, match=r"1 problem.*\n  lm_head.weight differs from") as e:
        checkpoint.load()
    assert len(str(e.value).splitlines()) == 2


@pytest.mark.parametrize("in_shards", [False, True])
def test_a_shared_tensor_may_be_stored_under_the_heads_name_alone(tmp_path, shards, in_shards):
    """So does safetensors' save_model."""
    folder, index = shards
    stored = renamed(WEIGHTS, "model.embed_tokens.weight", HEAD)
    if in_shards:
        file = index["weight_map"].pop("model.embed_tokens.weight")
        save_file(
            renamed(load_file(folder / file), "model.embed_tokens.weight", HEAD), folder / file
        )
        index["weight_map"][HEAD] = file
        write_json(folder / INDEX, index)
    assert is_whole(Checkpoint(folder) if in_shards else opened(tmp_path, stored))


def test_a_head_that_differs_late_in_a_large_matrix_is_seen(tmp_path):
    config = small_config(vocab_size=600_000, hidden_size=2, num_attention_heads=1)
    weights = random_tensors(config)
    head = weights["model.embed_tokens.weight"].clone()
    assert is_whole(opened(tmp_path, weights | {HEAD: head}, config), weights)
    head[-1, -1] += 1
    with pytest.raises(CheckpointError, match="differs from the embedding"):
        opened(tmp_path, weights | {HEAD: head}, config).load()


def test_an_int8_model_may_repeat_its_embedding_too(tmp_path, toy):
    model = qk.load_model(toy, dtype="int8")
    qk.save_pretrained(model, tmp_path)
    stored = load_file(tmp_path / SINGLE)
    for ending in ("", "_scale"):
        stored[HEAD + ending] = stored[f"model.embed_tokens.weight{ending}"].clone()
    save_file(stored, tmp_path / SINGLE)
    ids = torch.arange(9)[None]
    assert torch.equal(qk.load_model(tmp_path)(ids), model(ids))
    stored[f"{HEAD}_scale"] *= 2
    save_file(stored, tmp_path / SINGLE)
    with pytest.raises(CheckpointError, match=r"lm_head.weight_scale differs from the emb"):
        qk.load_model(tmp_path)


@pytest.mark.parametrize(("change", "fits"), [(0.0, True), (1.0, False)])
def test_one_tensor_in_two_shards_must_be_equal(shards, change, fits):
    folder, index = shards
    last = max(set(index["weight_map"].values()))
    again = {"model.embed_tokens.weight": EMBEDDING + change}
    save_file({**load_file(folder / last), **again}, folder / last)
    checkpoint = Checkpoint(folder)
    if fits:
        assert is_whole(checkpoint)
    else:
        with pytest.raises(CheckpointError, match=r"embed_tokens.weight is in both model-00001"):
            checkpoint.load()


# --- what can be derived ---

MASK = {f"{ATTN}bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}


@pytest.mark.parametrize("extra", [
    {f"{ATTN}rotary_emb.inv_freq": torch.ones(1)}, {"model.rotary_emb.inv_freq": torch.ones(1)},
    {f"{ATTN}rotary_emb.cos_cached": torch.ones(1, 1, 8, 2)}, MASK,
    {f"{ATTN}masked_bias": torch.tensor(-1e4)}, {HEAD: EMBEDDING},
], ids=lambda extra: next(iter(extra)))  # fmt: skip
def test_what_can_be_derived_may_be_in_the_file_or_in_the_index_alone(tmp_path, shards, extra):
    assert is_whole(opened(tmp_path, WEIGHTS | {name: one.clone() for name, one in extra.items()}))
    folder, index = shards
    index["weight_map"] |= dict.fromkeys(extra, index["weight_map"]["model.norm.weight"])
    write_json(folder / INDEX, index)
    assert is_whole(Checkpoint(folder))


def test_a_bias_is_no_mask(tmp_path):
    checkpoint = opened(tmp_path, {**WEIGHTS, f"{ATTN}bias": torch.zeros(4)})
    assert checkpoint.problems() == [f"unexpected {ATTN}bias [4]"]


@pytest.mark.parametrize("change", [
    {"metadata": {"total_size": 3}}, {"metadata": None}, {"metadata": {"total_size": "many"}},
])  # fmt: skip
def test_a_wrong_total_and_a_tensor_that_the_index_leaves_out_do_no_harm(shards, change):
    folder, index = shards
    del index["weight_map"]["model.norm.weight"]
    write_json(folder / INDEX, index | change)
    assert is_whole(Checkpoint(folder))


# --- other names ---


def renamed(name, old="", new=""):
    return {n.replace(old, new, 1) if old else new + n: t.clone() for n, t in name.items()}


BARE = renamed(WEIGHTS, "model.", "")
PREFIXES = {
    **{prefix: renamed(WEIGHTS, new=prefix) for prefix in (
        "_orig_mod.", "module.", "base_model.model.", "module._orig_mod.", "llm.", "a.b.c.")},
    "no model.": BARE, "no model., and a head": BARE | {HEAD: EMBEDDING.clone()},
    "transformer.": renamed(WEIGHTS, "model.", "transformer."),
    "layers compiled": renamed(WEIGHTS, "self_attn.", "_orig_mod.self_attn."),
    "model compiled": renamed(WEIGHTS, "model.", "model._orig_mod."),
    "with a head": renamed(WEIGHTS | {HEAD: EMBEDDING}, new="base_model.model."),
    "with frequencies": renamed(
        WEIGHTS | {f"{ATTN}rotary_emb.inv_freq": torch.ones(1)}, new="_orig_mod."),
}  # fmt: skip


@pytest.mark.parametrize("tensors", PREFIXES.values(), ids=PREFIXES)
def test_one_prefix_on_all_names_is_read_past(tmp_path, tensors):
    assert is_whole(opened(tmp_path, tensors))


def test_a_prefix_in_shards_and_of_an_untied_model(tmp_path, shards):
    folder, index = shards
    for file in set(index["weight_map"].values()):
        save_file(renamed(load_file(folder / file), new="_orig_mod."), folder / file)
    index["weight_map"] = renamed_map = {
        f"_orig_mod.{n}": f for n, f in index["weight_map"].items()
    }
    write_json(folder / INDEX, index)
    assert is_whole(Checkpoint(folder))
    assert Checkpoint(folder).tensors.keys() == renamed_map.keys()  # shown as they are stored
    untied = small_config(tie_word_embeddings=False)
    for old in ("", "model."):
        weights = random_tensors(untied)
        assert is_whole(opened(tmp_path, renamed(weights, old, ""), untied), weights)


AMBIGUOUS = {
    "two prefixes": (renamed(WEIGHTS, new="a.") | renamed(WEIGHTS, new="b."),
                     "its names are not those of Qwen2: a.model."),
    "one more": (WEIGHTS | {"vision.tower": torch.ones(3)}, "unexpected vision.tower [3]"),
    "one more, and a prefix": (renamed(WEIGHTS, new="llm.") | {"vision.tower": torch.ones(3)},
                               "its names are not those of Qwen2: "),
    "a classifier": (WEIGHTS | {"score.weight": torch.ones(2, 8)},
                     "(it has a part that Qwen2ForCausalLM does not have: score)"),
    "more layers": (WEIGHTS | {"model.layers.2.mlp.up_proj.weight": torch.ones(3)},
                    "(it has layers that config.json's num_hidden_layers of 2 leaves out: 2)"),
    "integers": ({n: t.to(torch.int8) for n, t in WEIGHTS.items()},
                 "(stored as I8: take a checkpoint in F32, BF16, F16)"),
    "another family": ({f"transformer.h.{i}.attn.weight": torch.ones(3) for i in range(40)},
                       "its names are not those of Qwen2: transformer.h"),
    "LoRA within": ({n.replace("q_proj.", "q_proj.base_layer."): t for n, t in WEIGHTS.items()},
                    "PEFT's merge_and_unload"),
}  # fmt: skip


@pytest.mark.parametrize(("tensors", "says"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_other_names_are_refused_in_few_lines_that_name_the_cause(tmp_path, tensors, says):
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path, tensors).load()
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 7
    assert len(str(caught.value)) < 1_000


# --- dtypes ---


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "F64", "FUTURE_7"])
def test_a_dtype_that_is_not_read_is_named_and_the_rest_is_shown(tmp_path, dtype):
    folder = plain_checkpoint(tmp_path, CONFIG, {})
    size = {"C64": 8, "F64": 8}.get(dtype, 1)
    header, at = {}, 0
    for name, shape in CONFIG.tensor_shapes().items():
        part = shape[0] * (shape[1] if len(shape) == 2 else 1) * size
        header[name] = entry(dtype, shape, (at, at + part))
        at += part
    (folder / SINGLE).write_bytes(pack(header, bytes(at)))
    checkpoint = Checkpoint(folder)
    assert {info.dtype for info in checkpoint.tensors.values()} == {dtype}
    assert checkpoint.nbytes == at
    says = f"model.norm.weight is stored as {dtype}, which qwenkit cannot read"
    assert says in checkpoint.problems()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load()
    assert f"stored as {dtype}" in str(caught.value)
    assert "fetch it again" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 7


# --- folders that hold something else ---


@pytest.mark.parametrize(("files", "says"), [
    ({"adapter_config.json": '{"base_model_name_or_path": "Qwen/Q"}', "adapter_model.safetensors":
      ""}, "load_pretrained('Qwen/Q'), then load_adapter(model, "),
    ({"adapter_config.json": "{}", "adapter_model.bin": "", "config.json": "{}"},
     "load_pretrained(its base model), then load_adapter(model, "),
    ({"config.json": None, "model.q4.gguf": ""}, "model.q4.gguf is not a valid GGUF file"),
    ({"config.json": None, "tf_model.h5": ""}, "a file of TensorFlow"),
    ({"config.json": None, "pytorch_model.bin": ""}, "a Python pickle; qwenkit refuses those"),
    ({"config.json": None, "adapter_model.safetensors": ""}, "holds no weights"),
])  # fmt: skip
def test_a_folder_of_another_kind_is_told_what_it_is(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(json.dumps(CONFIG.to_dict()) if text is None else text)
    with pytest.raises(CheckpointError) as caught:
        qk.load_pretrained(tmp_path)
    assert says in str(caught.value)


def test_a_model_with_an_adapter_beside_it_is_a_model(tmp_path):
    checkpoint = opened(tmp_path, WEIGHTS)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (checkpoint.folder / name).write_text("{}")
    assert is_whole(Checkpoint(checkpoint.folder))
    for other in ("other.safetensors", "model-00001-of-00001.safetensors"):
        checkpoint.folder.joinpath(SINGLE).rename(checkpoint.folder / other)
        assert is_whole(Checkpoint(checkpoint.folder))
        checkpoint.folder.joinpath(other).rename(checkpoint.folder / SINGLE)


def test_shards_in_a_subfolder_are_found_by_the_index(tmp_path, shards):
    folder, index = shards
    (folder / "parts").mkdir()
    for file in set(index["weight_map"].values()):
        (folder / file).rename(folder / "parts" / file)
    index["weight_map"] = {n: f"parts/{f}" for n, f in index["weight_map"].items()}
    write_json(folder / INDEX, index)
    assert is_whole(Checkpoint(folder))


def test_the_toys_of_other_tests_have_no_copies(tmp_path_factory):
    folder = toy_of(tmp_path_factory, tied=False, max_shard_bytes=100_000)
    checkpoint = Checkpoint(folder)
    assert checkpoint.problems() == []
    assert checkpoint.layout.files.keys() == checkpoint.tensors.keys()
