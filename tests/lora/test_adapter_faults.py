"""Saving an adapter over another: whatever fails at whatever change of the disk, one is whole."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from interruptions import Killed, failing_at
from learned import learned
from reference import ids, tiny

import qwenkit as qk
from qwenkit.checkpoint import _saving as saving
from qwenkit.errors import CheckpointError
from qwenkit.lora import adapter, lora_layers
from qwenkit.lora.adapter import CONFIG, WEIGHTS

TEXT = ids(1, 6)
MORE = [(os, "fsync"), (os, "replace"), (saving, "save_file"), (Path, "touch"), (Path, "chmod")]
FAULTS = {
    "killed": Killed(),
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "read-only": OSError(errno.EROFS, "Read-only file system"),
}


@pytest.fixture(scope="module")
def two():
    """The models of two adapters, of other alphas, ranks and scalings (one is rsLoRA)."""
    models = [tiny(num_hidden_layers=1) for _ in range(2)]
    for number, model in enumerate(models):
        qk.add_lora(model, rank=2 + number, alpha=5 + number, targets=("q_proj", "v_proj"))
        learned(model, seed=number)
    for layer in lora_layers(models[1]).values():
        layer.scaling = layer.alpha / 3**0.5
    return models


def state(folder, two):
    """Tell which of the two a folder has: 0 or 1; it loads without error."""
    model = tiny(num_hidden_layers=1)
    qk.load_adapter(model, folder)
    logits = model(TEXT)
    found = [torch.equal(logits, one(TEXT)) for one in two]
    assert sum(found) == 1
    return found.index(True)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_save_that_fails_at_any_change_leaves_the_old_adapter_or_the_new(
    tmp_path, two, fault, monkeypatch
):
    states, failed, count = [], 0, 0
    while failed == count:
        folder = tmp_path / str(count)
        qk.save_adapter(two[0], folder)
        failed += 1
        with monkeypatch.context() as patched, suppress(Killed, CheckpointError):
            failing_at(count, patched, fault, *MORE)
            qk.save_adapter(two[1], folder)
            failed -= 1
        states.append(state(folder, two))
        qk.save_adapter(two[1], folder)
        assert sorted(os.listdir(folder)) == [CONFIG, WEIGHTS]  # nothing is left over
        count += 1
    assert count > 20
    assert states == sorted(states)  # once new, never old again
    assert (states[0], states[-1]) == (0, 1)


def test_of_two_that_save_at_once_each_is_whole_or_refused(tmp_path, two):
    def save(number):
        with suppress(CheckpointError):
            qk.save_adapter(two[number % 2], tmp_path)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            list(pool.map(save, range(6)))
            assert state(tmp_path, two) in (0, 1)
    assert sorted(os.listdir(tmp_path)) == [CONFIG, WEIGHTS]


def test_an_adapter_saved_while_another_is_loaded_is_loaded_whole(tmp_path, two, monkeypatch):
    qk.save_adapter(two[0], tmp_path)
    read = adapter.read_tensors

    def late(*args):
        monkeypatch.undo()
        qk.save_adapter(two[1], tmp_path)
        return read(*args)

    monkeypatch.setattr(adapter, "read_tensors", late)
    assert state(tmp_path, two) == 1
