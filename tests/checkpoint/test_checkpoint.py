"""Opening, validating and loading a checkpoint; what is broken is refused in words."""

import json
import random
import re
from pathlib import Path

import pytest
import torch
from fixtures_toy import (
    PEAK_OF_LOAD,
    copied,
    entry,
    pack,
    plain_checkpoint,
    python,
    random_tensors,
    same_bits,
    small_config,
    toy_of,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint
from qwenkit.checkpoint._checkpoint import INDEX, SINGLE
from qwenkit.errors import CheckpointError, ConfigError, QwenkitError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_of(tmp_path_factory)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return toy_of(tmp_path_factory, tied=False, max_shard_bytes=150_000)


# --- what is read ---


def test_headers_alone_tell_what_safetensors_tells(toy):
    checkpoint = Checkpoint(toy)
    assert checkpoint.files == [toy / SINGLE]
    with safe_open(toy / SINGLE, "pt") as theirs:
        assert set(checkpoint.tensors) == set(theirs.keys())
        for name, info in checkpoint.tensors.items():
            part = theirs.get_slice(name)
            assert (info.dtype, list(info.shape)) == (part.get_dtype(), part.get_shape())
    assert checkpoint.nbytes == sum(t.nbytes for t in load_file(toy / SINGLE).values())
    assert checkpoint.dtype == torch.bfloat16
    assert f"{len(checkpoint.tensors)} tensors" in repr(checkpoint)
    assert repr(checkpoint).endswith("in 1 file)")


def test_shards_are_read_as_one(sharded):
    checkpoint = Checkpoint(str(sharded))
    assert len(checkpoint.files) > 2
    theirs = {}
    for file in checkpoint.files:
        theirs |= load_file(file)
    loaded = checkpoint.load()
    assert list(loaded) == list(checkpoint.config.tensor_shapes())
    assert loaded.keys() == theirs.keys()
    assert all(same_bits(loaded[name], theirs[name]) for name in theirs)
    assert "lm_head.weight" in loaded


def test_one_safetensors_file_of_any_name_will_do(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    (folder / SINGLE).rename(folder / "weights.safetensors")
    theirs = load_file(folder / "weights.safetensors")
    loaded = Checkpoint(folder).load()
    assert all(same_bits(loaded[name], theirs[name]) for name in theirs)


# --- folders that are refused ---


def rewrite_index(folder: Path, change) -> None:
    data = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(change(data)))


def placing(file):
    """Change the index so that one tensor stands in `file`."""

    def change(folder):
        def put(data):
            return {**data, "weight_map": {**data["weight_map"], "model.norm.weight": file}}

        rewrite_index(folder, put)

    return change


def weight_map(value):
    return lambda folder: rewrite_index(folder, lambda data: {**data, "weight_map": value})


def no_weight_map(folder):
    rewrite_index(folder, lambda data: {"metadata": {}})


def without_a_tensor(folder):
    def change(data):
        del data["weight_map"]["model.norm.weight"]
        return data

    rewrite_index(folder, change)


def with_a_tensor_too_many(folder):
    def change(data):
        some = next(iter(data["weight_map"].values()))
        return {**data, "weight_map": {**data["weight_map"], "model.layers.9.extra": some}}

    rewrite_index(folder, change)


def swapped(folder):
    def change(data):
        names = data["weight_map"]
        first, last = min(names.values()), max(names.values())
        a, b = (next(n for n in names if names[n] == file) for file in (first, last))
        names[a], names[b] = last, first
        return data

    rewrite_index(folder, change)


def duplicated(folder):
    first, *_, last = sorted(folder.glob("*.safetensors"))
    tensors = load_file(last)
    tensors["model.embed_tokens.weight"] = load_file(first)["model.embed_tokens.weight"]
    save_file(tensors, last)


def absent_shard(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def cut_shard(folder):
    file = sorted(folder.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-10])


def no_index(folder):
    (folder / INDEX).unlink()


def index_text(text):
    return lambda folder: (folder / INDEX).write_bytes(text)


def pickle_only(name):
    def change(folder):
        for file in [*folder.glob("*.safetensors"), folder / INDEX]:
            file.unlink()
        (folder / name).write_bytes(b"\x80\x04.")

    return change


def no_weights(folder):
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()


def config_text(text):
    return lambda folder: (folder / "config.json").write_bytes(text)


OUTSIDE = "only a plain name in the checkpoint's own folder"
BROKEN = {
    "shard absent": (absent_shard, CheckpointError, INDEX, "which is absent"),
    "index names an absent file": (
        placing("model-7.safetensors"), CheckpointError, INDEX, "model-7.safetensors, which is"),
    "parent folder": (placing("../x.safetensors"), CheckpointError, INDEX, OUTSIDE),
    "absolute path": (placing("/etc/x.safetensors"), CheckpointError, INDEX, OUTSIDE),
    "subfolder": (placing("sub/x.safetensors"), CheckpointError, INDEX, OUTSIDE),
    "backslash": (placing("..\\x.safetensors"), CheckpointError, INDEX, OUTSIDE),
    "current folder": (placing("./x.safetensors"), CheckpointError, INDEX, OUTSIDE),
    "two dots": (placing(".."), CheckpointError, INDEX, "only .safetensors shards"),
    "empty name": (placing(""), CheckpointError, INDEX, OUTSIDE),
    "name with NUL": (placing("a\0.safetensors"), CheckpointError, INDEX, "a"),
    "name too long": (placing("a" * 300 + ".safetensors"), CheckpointError, INDEX, "aaaa"),
    "name that is no Unicode": (placing("\ud800.safetensors"), CheckpointError, INDEX, "absent"),
    "pickle in the index": (
        placing("pytorch_model.bin"), CheckpointError, INDEX, "only .safetensors shards are read"),
    "name is null": (placing(None), CheckpointError, INDEX, "names the file None"),
    "name is a number": (placing(1), CheckpointError, INDEX, "names the file 1"),
    "name is a list": (placing(["x.safetensors"]), CheckpointError, INDEX, "['x.safetensors']"),
    "weight_map is a list": (weight_map([1]), CheckpointError, INDEX, "no weight_map"),
    "weight_map is a string": (weight_map("x"), CheckpointError, INDEX, "no weight_map"),
    "weight_map is null": (weight_map(None), CheckpointError, INDEX, "no weight_map"),
    "weight_map is empty": (weight_map({}), CheckpointError, INDEX, "no weight_map"),
    "weight_map is missing": (no_weight_map, CheckpointError, INDEX, "no weight_map"),
    "index is empty": (index_text(b""), CheckpointError, INDEX, "not valid JSON"),
    "index is a list": (index_text(b"[]"), CheckpointError, INDEX, "must hold an object"),
    "index is not UTF-8": (index_text(b'{"\xff": 1}'), CheckpointError, INDEX, "not UTF-8"),
    "index is nested deeply": (
        index_text(b"[" * 100_000 + b"]" * 100_000), CheckpointError, INDEX, "nested too deeply"),
    "index with a number of 5,000 digits": (
        index_text(b'{"weight_map": ' + b"9" * 5_000 + b"}"), CheckpointError, INDEX, "JSON"),
    "index lacks a tensor": (
        without_a_tensor, CheckpointError, INDEX, "'model.norm.weight' in no file"),
    "index has a tensor too many": (
        with_a_tensor_too_many, CheckpointError, INDEX, "'model.layers.9.extra'"),
    "index disagrees with the headers": (swapped, CheckpointError, INDEX, "2 such in total"),
    "a tensor in two shards": (
        duplicated, CheckpointError, "model-00001-of", "embed_tokens.weight' is in both"),
    "a shard cut short": (cut_shard, CheckpointError, "model-00002-of", "cut short"),
    "several files without index": (no_index, CheckpointError, INDEX, "safetensors files and no"),
    "a .bin alone": (
        pickle_only("pytorch_model.bin"), CheckpointError, "pytorch_model.bin", "Python pickle"),
    "a .pth alone": (
        pickle_only("consolidated.00.pth"), CheckpointError, "consolidated.00.pth", "any code"),
    "no weights": (no_weights, CheckpointError, SINGLE, "holds no weights"),
    "no config": (
        lambda folder: (folder / "config.json").unlink(), ConfigError, "config.json",
        "does not exist"),
    "config is not JSON": (config_text(b"{"), ConfigError, "config.json", "not valid JSON"),
    "config is a list": (config_text(b"[]"), ConfigError, "config.json", "must hold an object"),
    "config is empty": (config_text(b"{}"), ConfigError, "config.json", "missing"),
    "config is not UTF-8": (config_text(b"\xff\xfe{}"), ConfigError, "config.json", "not UTF-8"),
    "config with a number of 5,000 digits": (
        config_text(b'{"vocab_size": ' + b"9" * 5_000 + b"}"), ConfigError, "config.json", "JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "file", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_folders_are_refused_with_words(tmp_path, sharded, spoil, error, file, words):
    folder = copied(sharded, tmp_path / "copy")
    Checkpoint(folder)  # sound before
    spoil(folder)
    with pytest.raises(QwenkitError) as caught:
        Checkpoint(folder)
    assert type(caught.value) is error
    message = str(caught.value)
    assert str(tmp_path) in message or "is in both" in message
    assert file in message
    assert words in message


def test_a_file_outside_is_not_even_opened(tmp_path, sharded):
    folder = copied(sharded, tmp_path / "copy")
    (tmp_path / "x.safetensors").write_bytes(b"not sound")
    placing("../x.safetensors")(folder)
    with pytest.raises(CheckpointError, match=re.escape("'../x.safetensors'")):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "absent"])
def test_what_is_no_folder_is_refused(toy, name):
    with pytest.raises(CheckpointError, match=f"{name} is not a folder"):
        Checkpoint(toy / name)


def test_a_broken_single_file_is_refused_by_name(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    (folder / SINGLE).write_bytes(pack({"a": entry(offsets=(4, 8))}, bytes(8)))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound .* gap"):
        Checkpoint(folder)


# --- fuzz ---


def mutations(content: bytes, header_end: int, count: int, seed: int):
    """Yield damaged copies: a bit or a byte of the header changed, taken out or doubled, or a cut.

    Digits, quotes and brackets become each other, so that many copies are still JSON.
    """
    chance = random.Random(seed)
    for _ in range(count):
        at = chance.randrange(header_end)
        way = chance.randrange(6)
        if way == 0:
            changed = bytes([content[at] ^ (1 << chance.randrange(8))])
        elif way in (1, 2):
            changed = chance.choice(b'0123456789"{}[],:- eE.\\').to_bytes(1, "little")
        elif way == 3:
            changed = b""
        elif way == 4:
            changed = content[at : at + 1] * 2
        else:
            yield content[:at]
            continue
        mutant = content[:at] + changed + content[at + 1 :]
        if len(changed) != 1 and at >= 8:  # keep the length true, to get past the first check
            mutant = (header_end - 8 + len(changed) - 1).to_bytes(8, "little") + mutant[8:]
        yield mutant


def test_a_damaged_header_is_refused_or_loads_what_safetensors_loads(tmp_path):
    config = small_config()
    folder = plain_checkpoint(tmp_path, config, random_tensors(config))
    content = save(random_tensors(config), {"note": "a change in here does no harm " * 12})
    header_end = 8 + int.from_bytes(content[:8], "little")
    refused = loaded = 0
    for mutant in mutations(content, header_end, count=600, seed=1):
        (folder / SINGLE).unlink()  # a new file: the old one may still be mapped
        (folder / SINGLE).write_bytes(mutant)
        for dtype in (None, torch.float32):
            try:
                ours = Checkpoint(folder).load(dtype)
            except QwenkitError:  # any other exception fails the test
                refused += 1
                continue
            theirs = load(mutant)  # refuses? then we should have
            for name, tensor in ours.items():
                assert same_bits(tensor, theirs[name].to(dtype or theirs[name].dtype)), mutant
            loaded += 1
    assert refused > 800
    assert loaded > 20


def test_cut_at_every_byte_is_refused(tmp_path):
    config = small_config()
    folder = plain_checkpoint(tmp_path, config, random_tensors(config))
    content = (folder / SINGLE).read_bytes()
    for length in range(0, len(content), 7):
        (folder / SINGLE).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="not a sound safetensors file"):
            Checkpoint(folder)


# --- validation ---


def test_validation_names_every_problem_at_once(tmp_path):
    config = small_config()
    tensors = random_tensors(config)
    first = "model.layers.0."
    del tensors[first + "self_attn.q_proj.bias"]
    del tensors["model.norm.weight"]
    tensors[first + "self_attn.o_proj.bias"] = torch.zeros(4)
    tensors[first + "mlp.up_proj.weight"] = tensors[first + "mlp.up_proj.weight"].T.contiguous()
    tensors[first + "mlp.gate_proj.weight"] = torch.zeros(6, 4, dtype=torch.int8)
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, config, tensors))
    expected = {
        f"missing {first}self_attn.q_proj.bias [4]",
        "missing model.norm.weight [4]",
        f"unexpected {first}self_attn.o_proj.bias [4]",
        f"wrong shape of {first}mlp.up_proj.weight: [4, 6], expected [6, 4] from config.json",
        f"wrong dtype of {first}mlp.gate_proj.weight: I8, expected F32, BF16, F16",
    }
    assert set(checkpoint.problems()) == expected
    for call in (checkpoint.validate, checkpoint.load):
        with pytest.raises(CheckpointError, match="5 problems") as caught:
            call()
        assert all(problem in str(caught.value) for problem in expected)
        assert str(tmp_path) in str(caught.value)


def test_a_sound_checkpoint_has_no_problems(toy, sharded):
    assert Checkpoint(toy).problems() == Checkpoint(sharded).problems() == []


def test_one_problem_is_counted_as_one(tmp_path):
    config = small_config()
    tensors = random_tensors(config)
    del tensors["model.norm.weight"]
    with pytest.raises(CheckpointError, match="1 problem:"):
        Checkpoint(plain_checkpoint(tmp_path, config, tensors)).validate()


def test_a_head_missing_or_too_many_gets_a_hint(tmp_path):
    tied, untied = small_config(), small_config(tie_word_embeddings=False)
    missing = Checkpoint(plain_checkpoint(tmp_path / "a", untied, random_tensors(tied)))
    assert missing.problems() == [
        "missing lm_head.weight [8, 4] (is the head tied? then config.json must say "
        "tie_word_embeddings: true)"
    ]
    extra = Checkpoint(plain_checkpoint(tmp_path / "b", tied, random_tensors(untied)))
    assert extra.problems() == [
        "unexpected lm_head.weight [8, 4] (tie_word_embeddings is true: the embedding is the head)"
    ]


def test_stored_rotary_frequencies_are_tolerated_and_left_out(tmp_path):
    config = small_config()
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(1)}
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, config, random_tensors(config) | old))
    assert checkpoint.problems() == []
    assert checkpoint.load().keys() == config.tensor_shapes().keys()


def test_a_quantised_checkpoint_is_refused_in_words(tmp_path):
    config = small_config()
    tensors = {n: torch.zeros(s, dtype=torch.int8) for n, s in config.tensor_shapes().items()}
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, config, tensors))
    with pytest.raises(CheckpointError, match="stored as I8; qwenkit reads F32, BF16, F16"):
        _ = checkpoint.dtype
    with pytest.raises(CheckpointError, match="wrong dtype of"):
        checkpoint.load()


# --- loading ---


@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("wanted", [None, *DTYPES], ids=str)
def test_a_cast_equals_that_of_torch_bit_for_bit(tmp_path, stored, wanted):
    config = small_config()
    tensors = random_tensors(config, torch.float32)
    nasty = [float("inf"), float("-inf"), -0.0, 1e-41, 65519.9, 1 + 2**-9, 1 + 3 * 2**-9]
    tensors["model.embed_tokens.weight"].view(-1)[: len(nasty)] = torch.tensor(nasty)
    tensors["model.embed_tokens.weight"].view(-1)[20] = float("nan")
    tensors = {name: tensor.to(stored) for name, tensor in tensors.items()}
    loaded = Checkpoint(plain_checkpoint(tmp_path, config, tensors)).load(wanted)
    assert list(loaded) == list(config.tensor_shapes())
    for name, tensor in tensors.items():
        assert same_bits(loaded[name], tensor.to(wanted or stored)), name


def test_cast_tensors_do_not_share_the_buffer_they_passed_through(toy):
    loaded = Checkpoint(toy).load(torch.float32)
    assert len({t.untyped_storage().data_ptr() for t in loaded.values()}) == len(loaded)


def begin_at(path, place, line=64):
    """Pad the header so that the tensors begin `place` bytes after a multiple of `line`."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].rstrip()
    header += b" " * ((place - 8 - len(header)) % line)
    path.write_bytes(pack(header, content[end:]))


def test_what_begins_at_a_cache_line_is_mapped_once_and_not_copied(tmp_path):
    config = small_config(hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
    folder = plain_checkpoint(tmp_path, config, random_tensors(config, torch.float32))
    begin_at(folder / SINGLE, 0)
    checkpoint = Checkpoint(folder)
    loaded = checkpoint.load()
    infos = checkpoint.tensors
    # Each lies in memory as far from the others as in the file: all are parts of one mapping.
    bases = {tensor.data_ptr() - infos[name].start for name, tensor in loaded.items()}
    assert len(bases) == 1
    assert sum(t.untyped_storage().nbytes() for t in loaded.values()) == checkpoint.nbytes
    cast = checkpoint.load(torch.bfloat16)
    assert len({t.data_ptr() - infos[name].start for name, t in cast.items()}) > 1


@pytest.mark.parametrize("padding", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32], ids=str)
def test_tensors_that_lie_askew_in_the_file_load_right(tmp_path, stored, padding):
    config = small_config()
    tensors = random_tensors(config, stored)
    plain_checkpoint(tmp_path, config, tensors)
    content = save(tensors)
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].rstrip() + b" " * padding
    (tmp_path / SINGLE).write_bytes(pack(header, content[end:]))
    starts = {info.start % 8 for info in Checkpoint(tmp_path).tensors.values()}
    for wanted in (None, torch.float32, torch.bfloat16):
        loaded = Checkpoint(tmp_path).load(wanted)
        for name, tensor in tensors.items():
            assert same_bits(loaded[name], tensor.to(wanted or stored)), (name, starts)
            assert loaded[name].data_ptr() % 64 == 0


def test_the_model_takes_the_loaded_tensors_themselves(toy, monkeypatch):
    given = {}
    load_ = Checkpoint.load

    def watched(self, *arguments):
        given.update(load_(self, *arguments))
        return dict(given)

    monkeypatch.setattr(Checkpoint, "load", watched)
    model = qk.load_model(toy, dtype=None)
    weights = model.state_dict()
    assert weights.keys() == given.keys()
    for name, tensor in given.items():
        assert weights[name].data_ptr() == tensor.data_ptr()
        assert same_bits(weights[name], tensor)
    buffers = [*model.parameters(), *model.buffers()]
    assert not any(t.is_meta or t.requires_grad for t in buffers)
    assert not model.training


def test_loading_brings_in_no_compiler(toy):
    """It would cost a second and some 80 MB, for initial values that the file replaces."""
    done = python(
        "import sys, qwenkit as qk; model = qk.load_model(sys.argv[1], dtype=None);"
        "print('torch._dynamo' in sys.modules, model.num_tokens)",
        toy,
    )
    assert done.stdout.split()[0] == "False", done.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_loading_costs_the_file_once(tmp_path):
    config = small_config(vocab_size=50_000, hidden_size=1_000, intermediate_size=8)
    folder = plain_checkpoint(tmp_path, config, random_tensors(config))
    size = (folder / SINGLE).stat().st_size
    assert size > 95e6
    peaks = {}
    for dtype in ("bfloat16", "float32"):
        done = python(PEAK_OF_LOAD, folder, dtype)
        assert done.returncode == 0, done.stderr
        peaks[dtype] = int(done.stdout) / size
    assert 0.9 <= peaks["bfloat16"] <= 1.1
    assert peaks["float32"] <= 3.2  # the float32 copy (2 ×) and the largest tensor's buffer
    assert peaks["float32"] >= 1.9  # the measure does see a copy


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    checkpoint = Checkpoint(folder)
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(torch.float32)
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load()


def test_safetensors_refuses_what_a_header_of_utf16_says(tmp_path):
    """Python's JSON would read UTF-16; the format is UTF-8 alone."""
    config = small_config()
    tensors = random_tensors(config)
    folder = plain_checkpoint(tmp_path, config, tensors)
    content = save(tensors)
    end = 8 + int.from_bytes(content[:8], "little")
    mutant = pack(content[8:end].decode().encode("utf-16-le"), content[end:])
    (folder / SINGLE).write_bytes(mutant)
    with pytest.raises(SafetensorError):
        load(mutant)
    with pytest.raises(CheckpointError):
        Checkpoint(folder).load()
