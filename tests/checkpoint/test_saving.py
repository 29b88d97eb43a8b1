"""Saving: transformers reads the same back, and nothing is ever half done, whatever interrupts."""

import errno
import itertools
import json
import os
from dataclasses import replace

import pytest
import torch
from fixtures_toy import (
    copied,
    plain_checkpoint,
    random_tensors,
    same_bits,
    small_config,
    toy_of,
)
from forked import python_forked
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2ForCausalLM

import qwenkit as qk
from qwenkit.checkpoint import Checkpoint, save_checkpoint
from qwenkit.checkpoint import _saving as saving
from qwenkit.checkpoint._folder import INDEX, SINGLE
from qwenkit.errors import CheckpointError

CONFIG = small_config()
NORM, LAYER = "model.norm.weight", "model.layers.0."
OLD, WEIGHTS = random_tensors(CONFIG, seed=1), random_tensors(CONFIG, seed=2)
SHARD, ANY = 120, 10**9  # bytes: two or three tensors, or all
KINDS = {"single": ANY, "shards": SHARD, "other shards": 40}
CODE = "def area(width, height):\n    return width * height  # 面積\n"


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def toy(request, tmp_path_factory):
    return toy_of(tmp_path_factory, tied=request.param)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def holds(folder, tensors):
    """Tell whether the folder's checkpoint is exactly these tensors."""
    loaded = Checkpoint(folder).load()
    same = (same_bits(loaded[name], tensors[name]) for name in tensors)
    return loaded.keys() == tensors.keys() and all(same)


# --- what was written is read back ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("limit", [ANY, SHARD])
def test_round_trip_keeps_every_bit(tmp_path, dtype, limit):
    tensors = random_tensors(CONFIG, dtype)
    tensors[NORM][:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    folder = tmp_path / "made" / "here"
    save_checkpoint(folder, CONFIG, tensors, limit)
    assert holds(folder, tensors)
    saved = Checkpoint(folder)
    assert f"torch.{saved.config.dtype}" == str(saved.dtype) == str(dtype)
    assert limit == SHARD or content(folder).keys() == {"config.json", SINGLE}


@pytest.mark.parametrize("limit", [ANY, 100_000])
def test_transformers_reads_the_same_model(tmp_path, toy, limit):
    model, tokenizer = qk.load_pretrained(toy, dtype="float32")
    qk.save_pretrained(model, tmp_path, tokenizer, limit)
    assert (tmp_path / INDEX).is_file() == (limit == 100_000)
    tied = Checkpoint(toy).config.tie_word_embeddings
    assert ("lm_head.weight" in Checkpoint(tmp_path).tensors) == (not tied)
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = tokenizer(CODE)
    assert AutoTokenizer.from_pretrained(tmp_path)(CODE).input_ids == ids[0].tolist()
    with torch.no_grad():
        want = theirs(ids).logits
    assert want.std() > 0.1
    torch.testing.assert_close(model(ids), want, atol=1e-5, rtol=1e-5)
    assert theirs.config.tie_word_embeddings == model.config.tie_word_embeddings == tied
    again, _ = qk.load_pretrained(tmp_path, dtype="float32")
    assert torch.equal(again(ids), model(ids))
    assert again.stop_ids == model.stop_ids
    qk.save_pretrained(model.requires_grad_(True), tmp_path, max_shard_bytes=limit)
    assert holds(tmp_path, {n: t.detach() for n, t in model.state_dict().items()})


def test_transformers_own_checkpoint_is_read_here(tmp_path, toy):
    theirs = Qwen2ForCausalLM.from_pretrained(toy, dtype=torch.float32)
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    model = qk.load_model(tmp_path, dtype=None)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_shards_are_no_larger_than_asked_unless_of_one_tensor(tmp_path):
    save_checkpoint(tmp_path, CONFIG, WEIGHTS, SHARD)
    shards = {f.name: load_file(f) for f in tmp_path.glob("*.safetensors")}
    for shard in shards.values():
        assert len(shard) == 1 or sum(t.nbytes for t in shard.values()) <= SHARD
    assert any(len(shard) > 1 for shard in shards.values())
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["weight_map"] == {n: file for file, shard in shards.items() for n in shard}
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in WEIGHTS.values())
    usual = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    assert sorted(shards) == usual


def strided(tensors):
    """Return equal tensors, none of them contiguous: matrices by columns, vectors with gaps."""
    views = {
        name: one.repeat_interleave(2)[::2] if one.dim() == 1 else one.T.contiguous().T
        for name, one in tensors.items()
    }
    assert not any(view.is_contiguous() for view in views.values())
    return views


def slices(tensors):
    """Return equal tensors, all of them slices of one buffer."""
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {n: part.view(tensors[n].shape) for n, part in zip(tensors, parts, strict=True)}


def shared(tensors):
    """Let pairs of names share one tensor."""
    tensors[LAYER + "input_layernorm.weight"] = tensors[NORM]
    tensors[LAYER + "mlp.up_proj.weight"] = tensors[LAYER + "mlp.gate_proj.weight"]
    return tensors


@pytest.mark.parametrize("views", [strided, slices, shared])
def test_views_of_every_kind_are_saved_right(tmp_path, views):
    tensors = random_tensors(CONFIG)
    save_checkpoint(tmp_path, CONFIG, views(tensors))
    assert holds(tmp_path, tensors)


def test_a_model_is_saved_over_the_files_it_is_mapped_from(tmp_path, toy):
    folder = copied(toy, tmp_path / "copy")
    before = {name: tensor.clone() for name, tensor in load_file(folder / SINGLE).items()}
    model = qk.load_model(folder, dtype=None)
    for limit in (ANY, 100_000, ANY):
        qk.save_pretrained(model, folder, max_shard_bytes=limit)
        assert holds(folder, before)
        assert all(same_bits(t, before[n]) for n, t in model.state_dict().items())


# --- one checkpoint replaces another ---


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_overwriting_leaves_exactly_the_new_checkpoint(tmp_path, old, new):
    save_checkpoint(tmp_path, CONFIG, OLD, KINDS[old])
    users = {"notes.txt": b"mine", "adapter_model.safetensors": b"mine too", "x.tmp": b"x"}
    for name, text in users.items():
        (tmp_path / name).write_bytes(text)
    save_checkpoint(tmp_path, CONFIG, WEIGHTS, KINDS[new])
    assert holds(tmp_path, WEIGHTS)
    assert users.items() <= content(tmp_path).items()
    weights = {SINGLE}
    if new != "single":
        weights = {INDEX, *json.loads((tmp_path / INDEX).read_text())["weight_map"].values()}
    assert content(tmp_path).keys() == weights | {"config.json"} | users.keys()


# --- what must not be saved ---


@pytest.mark.parametrize(("change", "limit", "message"), [
    (lambda: {name: one for name, one in WEIGHTS.items() if name != NORM}, ANY, NORM),
    (lambda: {**WEIGHTS, "model.extra": torch.zeros(1)}, ANY, "model.extra"),
    (lambda: {**WEIGHTS, "lm_head.weight": torch.zeros(8, 4)}, ANY, "lm_head.weight"),
    (lambda: {**WEIGHTS, NORM: torch.zeros(4, 1)}, ANY, NORM),
    (lambda: {**WEIGHTS, NORM: torch.zeros(4, dtype=torch.int8)}, ANY, NORM),
    (lambda: {name: one.double() for name, one in WEIGHTS.items()}, ANY, "float64"),
    (lambda: {**WEIGHTS, NORM: torch.zeros(4, device="meta")}, ANY, NORM),
    (dict, ANY, "model.embed_tokens.weight"), (lambda: WEIGHTS, 0, "max_shard_bytes is 0"),
    (lambda: WEIGHTS, -1, "max_shard_bytes is -1"),
])  # fmt: skip
def test_what_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path, change, limit, message):
    save_checkpoint(tmp_path / "old", CONFIG, OLD)
    before = content(tmp_path / "old")
    for folder in ("old", "new"):
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(tmp_path / folder, CONFIG, change(), limit)
    assert content(tmp_path / "old") == before
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"nothing was saved to .*file \(File exists\)"):
        save_checkpoint(tmp_path / "file", CONFIG, WEIGHTS)
    assert content(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.name != "posix", reason="needs a umask")
@pytest.mark.parametrize("limit", [SHARD, ANY])
def test_a_checkpoint_is_readable_as_the_umask_allows(tmp_path, limit):
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path, CONFIG, WEIGHTS, limit)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


# --- failures ---


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, old, fails_at):
    save_checkpoint(tmp_path, CONFIG, OLD, KINDS[old])
    before = content(tmp_path)
    real, calls = saving.save_file, []

    def full(tensors, path, metadata=None):
        calls.append(path)
        real(tensors, path, metadata)
        if len(calls) == fails_at:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, CONFIG, WEIGHTS, SHARD)
    assert len(calls) == fails_at
    assert content(tmp_path) == before


LIMITED = """
import resource, sys, torch, qwenkit as qk
from qwenkit.errors import CheckpointError
model = qk.load_model(sys.argv[1], dtype="float32", device="cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    qk.save_pretrained(model, sys.argv[2])
except CheckpointError as error:
    print("refused:", error)
"""


def test_a_file_that_the_system_will_not_let_grow_leaves_the_old_checkpoint(tmp_path):
    pytest.importorskip("resource")
    config = small_config(vocab_size=20_000)
    source = plain_checkpoint(tmp_path / "source", config, random_tensors(config))
    folder = copied(source, tmp_path / "copy")
    before = content(folder)
    done = python_forked(LIMITED, source, folder, 200_000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"refused: nothing was saved to {folder} (")
    assert content(folder) == before
    assert python_forked(LIMITED, source, folder, 10**9).stdout == ""  # the limit was the reason
    assert content(folder) != before


# Saves in a forked child that kills itself at its n-th step towards the disk, for every n, and
# prints what the folder then holds.
KILLED = """
import json, os, pathlib, shutil, signal, sys, torch
torch.set_num_threads(1)
from fixtures_toy import random_tensors, same_bits, small_config
from qwenkit.checkpoint import _saving as saving
from qwenkit.checkpoint import Checkpoint

base, old_folder, limit = pathlib.Path(sys.argv[1]), *sys.argv[2:]
new_config = small_config()
old, new = Checkpoint(old_folder).load(), random_tensors(new_config, seed=2)

def state(folder):
    loaded = Checkpoint(folder).load()
    for name, want in (("old", old), ("new", new)):
        if loaded.keys() == want.keys() and all(same_bits(loaded[n], want[n]) for n in want):
            return name
    return "a mixture"

def save_and_die(folder, at):
    steps = 0
    def deadly(function):
        def wrapped(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapped
    os.replace = deadly(os.replace)
    saving.save_file = deadly(saving.save_file)
    pathlib.Path.unlink = deadly(pathlib.Path.unlink)
    pathlib.Path.write_text = deadly(pathlib.Path.write_text)
    saving.save_checkpoint(folder, new_config, new, int(limit))

found, at, running = [], 0, True
while running:
    at += 1
    folder = base / str(at)
    shutil.copytree(old_folder, folder)
    child = os.fork()
    if not child:
        try:
            save_and_die(folder, at)
        finally:
            os._exit(0)
    running = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    found.append((state(folder), running))
print(json.dumps(found))
"""


PAIRS = [*itertools.product(["single", "shards"], repeat=2), ("single of another name", "shards")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_killed_process_leaves_the_old_checkpoint_or_the_new(tmp_path, old, new):
    folder = tmp_path / "old"
    save_checkpoint(folder, CONFIG, OLD, KINDS.get(old, ANY))
    if old == "single of another name":
        (folder / SINGLE).rename(folder / "weights.safetensors")
    (tmp_path / "runs").mkdir()
    done = python_forked(KILLED, tmp_path / "runs", folder, KINDS[new])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = [state for state, _ in found]
    assert set(states) == {"old", "new"}
    assert states == sorted(states, reverse=True)  # once new, never old again
    assert found[-1] == ["new", False]  # the last child was not killed
    assert sum(killed for _, killed in found) >= 5


def test_another_model_in_the_folder_is_never_replaced(tmp_path):
    """No step replaces config and weights at once: a crash would leave one of each."""
    save_checkpoint(tmp_path, CONFIG, OLD)
    before = content(tmp_path)
    for changed in ({"hidden_size": 8, "head_dim": 4}, {"rope_theta": 10_000.0}):
        other = replace(CONFIG, **changed)
        with pytest.raises(CheckpointError, match="another config; save to another folder"):
            save_checkpoint(tmp_path, other, random_tensors(other))
    assert content(tmp_path) == before
    other = replace(CONFIG, dtype="float32")  # it names the weights' dtype, and is the same model
    save_checkpoint(tmp_path, other, WEIGHTS)
    assert content(tmp_path) != before
