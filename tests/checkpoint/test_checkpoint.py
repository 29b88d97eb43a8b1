"""Opening, validating and loading a checkpoint; what is broken is refused with a clear error."""

import json
import random
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
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint, read_header
from qwenkit.checkpoint._folder import INDEX, SINGLE
from qwenkit.errors import CheckpointError, ConfigError, QwenkitError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CONFIG = small_config()
WEIGHTS = random_tensors(CONFIG)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return toy_of(tmp_path_factory, tied=False, max_shard_bytes=150_000)


def all_same(left, right, dtype=None):
    """Tell whether two sets of tensors are the same bit for bit, the right one cast to `dtype`."""
    pairs = ((left[name], right[name].to(dtype or right[name].dtype)) for name in left)
    return left.keys() == right.keys() and all(same_bits(*pair) for pair in pairs)


# --- what is read ---


def test_a_checkpoint_is_known_by_its_headers_alone(toy):
    checkpoint = Checkpoint(toy)
    assert checkpoint.files == [toy / SINGLE]
    assert checkpoint.tensors == read_header(toy / SINGLE)
    assert checkpoint.nbytes == sum(t.nbytes for t in load_file(toy / SINGLE).values())
    assert (checkpoint.dtype, checkpoint.problems()) == (torch.bfloat16, [])
    assert f"{len(checkpoint.tensors)} tensors" in repr(checkpoint)
    assert repr(checkpoint).endswith("in 1 file)")


def test_shards_are_read_as_one(sharded):
    checkpoint = Checkpoint(str(sharded))
    assert len(checkpoint.files) > 2
    theirs = {name: tensor for f in checkpoint.files for name, tensor in load_file(f).items()}
    loaded = checkpoint.load()
    assert list(loaded) == list(checkpoint.config.tensor_shapes())
    assert all_same(loaded, theirs)
    assert "lm_head.weight" in loaded
    assert checkpoint.problems() == []


def test_one_safetensors_file_of_any_name_is_taken(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    (folder / SINGLE).rename(folder / "weights.safetensors")
    assert all_same(Checkpoint(folder).load(), load_file(folder / "weights.safetensors"))


# --- folders that are refused ---


def index(change):
    """Return a change of a folder's index: `change` gets its parsed content, to alter it."""

    def spoil(folder):
        data = json.loads((folder / INDEX).read_text())
        change(data)
        (folder / INDEX).write_text(json.dumps(data))

    return spoil


def with_weight_map(value):
    return index(lambda data: data.update(weight_map=value))


def placing(file, tensor="model.norm.weight"):
    """Change the index so that one tensor is in `file`."""
    return index(lambda data: data["weight_map"].update({tensor: file}))


def swap(data):
    names = data["weight_map"]
    first, last = min(names.values()), max(names.values())
    a, b = (next(n for n in names if names[n] == file) for file in (first, last))
    names[a], names[b] = last, first


def copy_of_a_tensor(folder, change=0.0):
    first, *_, last = shards(folder)
    name = "model.embed_tokens.weight"
    save_file({**load_file(last), name: load_file(first)[name] + change}, last)


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def text_of(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def without_weights(folder):
    for file in [*shards(folder), folder / INDEX]:
        file.unlink()


def only_file(name):
    """Remove the weights; leave a file of that name instead."""
    return lambda folder: [without_weights(folder), text_of(name, b"\x80\x04.")(folder)]


OUTSIDE = "only a file in the checkpoint's own folder"
LONG = b'"vocab_size": ' + b"9" * 5_000 + b"}"
BROKEN = {  # the file that the message names, how it is broken, and another part of the message
    INDEX: [
        (lambda folder: shards(folder)[1].unlink(), "which is missing"),
        (placing("model-7.safetensors"), "model-7.safetensors, which is"),
        (placing("../x.safetensors"), "'../x.safetensors'"),
        *((placing(file), OUTSIDE) for file in (
            "../x.safetensors", "/etc/x.safetensors", "..\\x.safetensors", "./x.safetensors", "..",
            "sub/../../x.safetensors", "sub//x.safetensors", "C:x.safetensors", "")),
        (placing("sub/x.safetensors"), "sub/x.safetensors, which is missing"),
        (placing("a\0.safetensors"), "a"),
        (placing("a" * 300 + ".safetensors"), "aaaa"), (placing("\ud800.safetensors"), "missing"),
        (placing("pytorch_model.bin"), "only .safetensors shards are read"),
        (placing(None), "names the file None"), (placing(1), "names the file 1"),
        (placing(["x.safetensors"]), "['x.safetensors']"),
        *((with_weight_map(value), "no weight_map") for value in ([1], "x", None, {})),
        (index(lambda data: data.pop("weight_map")), "no weight_map"),
        (text_of(INDEX, b""), "not valid JSON"), (text_of(INDEX, b"[]"), "must hold an object"),
        (text_of(INDEX, b'{"\xff": 1}'), "not UTF-8"), (text_of(INDEX, b"{" + LONG), "JSON"),
        (text_of(INDEX, b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        (lambda folder: placing(shards(folder)[0].name, "model.layers.9.extra")(folder),
         "'model.layers.9.extra'"),
        (index(swap), "2 such tensors in total"),
        (lambda folder: (folder / INDEX).unlink(), "safetensors files and no"),
    ],
    "model-00001-of": [(lambda folder: copy_of_a_tensor(folder, change=1.0),
                        "embed_tokens.weight is in both")],
    "model-00002-of": [(lambda f: shards(f)[1].write_bytes(shards(f)[1].read_bytes()[:-10]),
                        "cut short")],
    "pytorch_model.bin": [(only_file("pytorch_model.bin"), "Python pickle")],
    "consolidated.00.pth": [(only_file("consolidated.00.pth"), "any code")],
    SINGLE: [(without_weights, "holds no weights")],
    "config.json": [
        (lambda folder: (folder / "config.json").unlink(), "does not exist"),
        (text_of("config.json", b"{"), "not valid JSON"),
        (text_of("config.json", b"{}"), "missing"),
        (text_of("config.json", b"[]"), "must hold an object"),
        (text_of("config.json", b"\xff\xfe{}"), "not UTF-8"),
        (text_of("config.json", b"{" + LONG), "JSON"),
    ],
}  # fmt: skip
ROWS = [(file, *row) for file, rows in BROKEN.items() for row in rows]


@pytest.mark.parametrize(("file", "spoil", "fragment"), ROWS, ids=[str(row[::2]) for row in ROWS])
def test_broken_folders_are_refused_with_a_clear_error(tmp_path, sharded, file, spoil, fragment):
    (tmp_path / "x.safetensors").write_bytes(b"damaged")  # outside: it must not even be opened
    folder = copied(sharded, tmp_path / "copy")
    Checkpoint(folder)  # valid before
    spoil(folder)
    with pytest.raises(QwenkitError) as caught:
        Checkpoint(folder).validate()
    assert type(caught.value) is (ConfigError if file == "config.json" else CheckpointError)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert file in message
    assert fragment in message


def test_what_is_not_a_folder_and_a_broken_single_file_are_refused_by_name(tmp_path, toy):
    for name in ("config.json", "missing"):
        with pytest.raises(CheckpointError, match=f"{name} is not a folder"):
            Checkpoint(toy / name)
    folder = copied(toy, tmp_path / "copy")
    (folder / SINGLE).write_bytes(pack({"a": entry(offsets=(4, 8))}, bytes(8)))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a valid .* gap"):
        Checkpoint(folder)


# --- fuzz ---


def mutations(content: bytes, header_end: int, count: int, seed: int):
    """Yield damaged copies: a bit or byte of the header changed, removed or doubled, or a cut.

    Digits, quotes and brackets replace each other, so that many copies are still JSON.
    """
    chance = random.Random(seed)
    for _ in range(count):
        at = chance.randrange(header_end)
        flipped = bytes([content[at] ^ (1 << chance.randrange(8))])
        other = bytes([chance.choice(b'0123456789"{}[],:- eE.\\')])
        doubled = content[at : at + 1] * 2
        changed = chance.choice([flipped, other, other, doubled, b"", None])
        if changed is None:
            yield content[:at]
            continue
        mutant = content[:at] + changed + content[at + 1 :]
        if len(changed) != 1 and at >= 8:  # keep the length true, to get past the first check
            mutant = (header_end - 8 + len(changed) - 1).to_bytes(8, "little") + mutant[8:]
        yield mutant


def test_a_damaged_header_is_refused_or_loads_what_safetensors_loads(tmp_path):
    folder = plain_checkpoint(tmp_path, CONFIG, WEIGHTS)
    content = save(WEIGHTS, {"note": "a change in here does no harm " * 12})
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
            assert all_same(ours, load(mutant), dtype), mutant  # it refuses? then so should we
            loaded += 1
    assert refused > 800
    assert loaded > 20


def test_cut_at_every_byte_is_refused(tmp_path):
    path = plain_checkpoint(tmp_path, CONFIG, WEIGHTS) / SINGLE
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="not a valid safetensors file"):
            Checkpoint(tmp_path)


# --- validation ---


def test_validation_names_every_problem_at_once(tmp_path):
    first = "model.layers.0."
    tensors = {
        **WEIGHTS,
        f"{first}self_attn.o_proj.bias": torch.zeros(4),
        f"{first}mlp.up_proj.weight": torch.zeros(4, 6),
        f"{first}mlp.gate_proj.weight": torch.zeros(6, 4, dtype=torch.int8),
    }
    del tensors["model.norm.weight"], tensors[f"{first}self_attn.q_proj.bias"]
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, CONFIG, tensors))
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


def test_a_head_missing_or_too_many_gets_a_hint(tmp_path):
    untied = small_config(tie_word_embeddings=False)
    missing = Checkpoint(plain_checkpoint(tmp_path / "a", untied, WEIGHTS))
    problem = "missing lm_head.weight [8, 4] (is the head tied? then config.json must say "
    assert missing.problems() == [problem + "tie_word_embeddings: true)"]
    with pytest.raises(CheckpointError, match="1 problem:"):
        missing.validate()
    extra = Checkpoint(plain_checkpoint(tmp_path / "b", CONFIG, random_tensors(untied)))
    assert extra.problems() == [
        "lm_head.weight differs from the embedding, and config.json says that they are tied "
        "(tie_word_embeddings: true); if the head was trained, it must say false"
    ]


def test_stored_rotary_frequencies_are_tolerated_and_left_out(tmp_path):
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(1)}
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, CONFIG, WEIGHTS | old))
    assert checkpoint.problems() == []
    assert checkpoint.load().keys() == WEIGHTS.keys()


def test_a_quantized_checkpoint_is_refused_with_a_clear_error(tmp_path):
    tensors = {name: tensor.to(torch.int8) for name, tensor in WEIGHTS.items()}
    checkpoint = Checkpoint(plain_checkpoint(tmp_path, CONFIG, tensors))
    with pytest.raises(CheckpointError, match="stored as I8; qwenkit reads F32, BF16, F16"):
        _ = checkpoint.dtype
    with pytest.raises(CheckpointError, match="wrong dtype of"):
        checkpoint.load()


# --- loading ---


@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("wanted", [None, *DTYPES], ids=str)
def test_a_cast_equals_that_of_torch_bit_for_bit(tmp_path, stored, wanted):
    tensors = random_tensors(CONFIG, torch.float32)
    nasty = [float("inf"), float("-inf"), -0.0, 1e-41, 65519.9, 1 + 2**-9, 1 + 3 * 2**-9]
    tensors["model.embed_tokens.weight"].view(-1)[:8] = torch.tensor([*nasty, float("nan")])
    tensors = {name: tensor.to(stored) for name, tensor in tensors.items()}
    loaded = Checkpoint(plain_checkpoint(tmp_path, CONFIG, tensors)).load(wanted)
    assert list(loaded) == list(CONFIG.tensor_shapes())
    assert all_same(loaded, tensors, wanted or stored)
    if (wanted or stored) != stored:  # they do not share the buffer they passed through
        assert len({t.untyped_storage().data_ptr() for t in loaded.values()}) == len(loaded)


def pad_header(path, padding):
    """Pad the header by some spaces; None: by as many as let the tensors begin at a cache line."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].rstrip()
    header += b" " * ((-8 - len(header)) % 64 if padding is None else padding)
    path.write_bytes(pack(header, content[end:]))


def test_what_begins_at_a_cache_line_is_mapped_once_and_not_copied(tmp_path):
    config = small_config(hidden_size=32)
    folder = plain_checkpoint(tmp_path, config, random_tensors(config, torch.float32))
    pad_header(folder / SINGLE, None)
    checkpoint = Checkpoint(folder)
    loaded, infos = checkpoint.load(), checkpoint.tensors
    # Each is in memory as far from the others as in the file: all are parts of one mapping.
    bases = {tensor.data_ptr() - infos[name].start for name, tensor in loaded.items()}
    assert len(bases) == 1
    assert sum(t.untyped_storage().nbytes() for t in loaded.values()) == checkpoint.nbytes
    cast = checkpoint.load(torch.bfloat16)
    assert len({t.data_ptr() - infos[name].start for name, t in cast.items()}) > 1


@pytest.mark.parametrize("padding", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32], ids=str)
def test_tensors_that_are_not_aligned_in_the_file_load_right(tmp_path, stored, padding):
    tensors = random_tensors(CONFIG, stored)
    plain_checkpoint(tmp_path, CONFIG, tensors)
    pad_header(tmp_path / SINGLE, padding)
    for wanted in (None, torch.float32, torch.bfloat16):
        loaded = Checkpoint(tmp_path).load(wanted)
        assert all_same(loaded, tensors, wanted or stored)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())


def test_the_model_takes_the_loaded_tensors_themselves(toy, monkeypatch):
    given = Checkpoint(toy).load()
    monkeypatch.setattr(Checkpoint, "load", lambda *_: dict(given))
    model = qk.load_model(toy, dtype=None)
    weights = model.state_dict()
    assert all_same(weights, given)
    assert all(weights[name].data_ptr() == given[name].data_ptr() for name in given)
    assert not any(t.is_meta or t.requires_grad for t in (*model.parameters(), *model.buffers()))
    assert not model.training


def test_loading_brings_in_no_compiler(toy):
    """It would cost a second and some 80 MB, for initial values that the file replaces."""
    code = "import sys, qwenkit as qk; qk.load_model(sys.argv[1], dtype=None);"
    done = python(f"{code} print('torch._dynamo' in sys.modules)", toy)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_loading_costs_the_file_once(tmp_path):
    config = small_config(vocab_size=50_000, hidden_size=1_000, intermediate_size=8)
    folder = plain_checkpoint(tmp_path, config, random_tensors(config))
    size = (folder / SINGLE).stat().st_size
    assert size > 95e6
    # float32: the copy (2 ×), which the measure must see, and the largest tensor's buffer
    for dtype, low, high in (("bfloat16", 0.9, 1.1), ("float32", 1.9, 3.2)):
        done = python(PEAK_OF_LOAD, folder, dtype)
        assert done.returncode == 0, done.stderr
        assert low <= int(done.stdout) / size <= high


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    checkpoint = Checkpoint(folder)
    content = (folder / SINGLE).read_bytes()
    for shrink in (lambda: (folder / SINGLE).write_bytes(content[:-100]), (folder / SINGLE).unlink):
        shrink()
        for dtype in (None, torch.float32):
            with pytest.raises(CheckpointError, match="cannot be read"):
                checkpoint.load(dtype)


def test_safetensors_refuses_what_a_header_of_utf16_says(tmp_path):
    """Python's JSON would read UTF-16; the format is UTF-8 alone."""
    folder, content = plain_checkpoint(tmp_path, CONFIG, WEIGHTS), save(WEIGHTS)
    end = 8 + int.from_bytes(content[:8], "little")
    mutant = pack(content[8:end].decode().encode("utf-16-le"), content[end:])
    (folder / SINGLE).write_bytes(mutant)
    with pytest.raises(SafetensorError):
        load(mutant)
    with pytest.raises(CheckpointError):
        Checkpoint(folder).load()
