"""Checkpoints of a training: all that it needs to resume as if it had never stopped.

A checkpoint is a folder, step-000500. It is written under a temporary name and renamed once it is
complete, so that whatever happens, a folder of that name is a complete checkpoint. Weights and
optimizer state are safetensors, the rest is JSON: nothing in it can run code.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from qwenkit.checkpoint import write_tensors
from qwenkit.errors import CheckpointError, TrainingError, shown
from qwenkit.files import clear_leftovers, read_json_object, temporary_name, to_disk, write_json
from qwenkit.train import _stored
from qwenkit.train._checks import at_least
from qwenkit.train.loop import Callback, Metrics, Trainer

_NAME = re.compile(r"step-(\d{6,})")
_STATE = {"step": int, "tokens": int, "position": dict, "settings": dict, "text": dict,
          "callbacks": dict}  # fmt: skip


def save_training(folder: str | Path, trainer: Trainer, keep: int = 2) -> Path:
    """Write a checkpoint of the training's present state, and return its folder.

    Args:
        folder: holds the checkpoints; made if absent.
        trainer: between two steps.
        keep: how many checkpoints stay, the newest; older ones are removed.

    Raises:
        CheckpointError: writing fails; the checkpoints that were there are unchanged.
        TrainingError: weights are NaN or infinite; nothing is written.
        InputError: keep is below 1.
    """
    at_least(1, keep=keep)
    _stored.refuse_broken_weights(trainer)
    folder = Path(folder)
    final = folder / f"step-{trainer.step:06}"
    temporary = temporary_name(final)
    try:
        temporary.mkdir(parents=True)
        _stored.save_weights(temporary, trainer.model)
        write_tensors(temporary / "optimizer.safetensors", _stored.optimizer_tensors(trainer))
        write_json(temporary / "state.json", _state(trainer))
        for path in (*temporary.iterdir(), temporary):
            to_disk(path)
        if not final.exists():  # it does where a run was resumed and took no step
            temporary.rename(final)
            to_disk(folder)
    except (OSError, RuntimeError, SafetensorError, CheckpointError) as error:
        raise CheckpointError(
            f"no checkpoint could be written to {folder} ({error}); those that were there are "
            "unchanged"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for _, old in checkpoints(folder)[:-keep]:
        if old != final:
            _remove(old)
    return final


def load_training(folder: str | Path, trainer: Trainer) -> int:
    """Give a trainer the newest checkpoint's state, and return the step it resumes from.

    Args:
        folder: holds the checkpoints.
        trainer: made of the same config, settings and text as the one that was saved.

    Raises:
        CheckpointError: no checkpoint, or one whose files are damaged.
        TrainingError: it belongs to another training.
    """
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder} holds no checkpoint; begin without resuming")
    step, newest = found[-1]
    with _damage_named(newest):
        state = _read_state(newest / "state.json", step)
        tensors = load_file(newest / "optimizer.safetensors")
        weights, other = _stored.read_weights(newest, trainer.model)
    different = _differences(state, trainer) + other
    if different:
        raise TrainingError(
            f"{newest} belongs to another training: {'; '.join(different)}. Use its recipe and "
            "text, or begin a new training in another folder"
        )
    with _damage_named(newest):
        _stored.check_optimizer(trainer, tensors, step)
        with _put_back_on_error(trainer):
            trainer.batches.seek(state["position"])
            for callback in trainer.callbacks:
                if (name := type(callback).__name__) in state["callbacks"]:
                    callback.load_state(state["callbacks"][name])
            torch.set_rng_state(tensors.pop("random_state"))
    trainer.model.load_state_dict(weights, strict=False)  # with LoRA, the adapter alone
    _stored.load_optimizer(trainer, tensors)
    trainer.step, trainer.tokens = step, state["tokens"]
    return step


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of each complete checkpoint, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    named = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in named if match)


class SaveTraining(Callback):
    """Writes a checkpoint every `save_every` steps, and one when the run ends.

    It must be the last callback, so that the states of the others are those after the step.

    Args:
        folder: holds the checkpoints.
        keep: how many stay, at least 1.

    Raises:
        InputError: keep is below 1.
        CheckpointError: when a new training starts where another one's checkpoints are.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        at_least(1, keep=keep)
        self.folder, self.keep = Path(folder), keep

    def on_start(self, trainer: Trainer) -> None:
        """Remove what a killed run was writing."""
        clear_leftovers(self.folder, _NAME.pattern)
        if trainer.step == 0 and checkpoints(self.folder):
            raise CheckpointError(
                f"{self.folder} holds the checkpoints of an earlier training; resume that, or take "
                "another folder"
            )

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Save if it is due."""
        every = trainer.settings.save_every
        if every and metrics.step % every == 0:
            save_training(self.folder, trainer, self.keep)

    def on_end(self, trainer: Trainer) -> None:
        """Save the last state, unless it is saved already or there was no step."""
        saved = checkpoints(self.folder)
        if trainer.step and (not saved or saved[-1][0] != trainer.step):
            save_training(self.folder, trainer, self.keep)


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint leads to into one error that names its folder."""
    damage = (
        OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError,
        OverflowError, AttributeError,
    )  # fmt: skip
    try:
        yield
    except damage as error:
        what = repr(error) if isinstance(error, KeyError) else error  # a KeyError is a bare name
        raise CheckpointError(
            f"{folder} is damaged ({what}); delete that folder to resume from the one before it"
        ) from None


@contextmanager
def _put_back_on_error(trainer: Trainer) -> Iterator[None]:
    """Leave position and callbacks as they were where one of them refuses what is stored."""
    position, states = trainer.batches.position, [one.state() for one in trainer.callbacks]
    try:
        yield
    except BaseException:
        trainer.batches.seek(position)
        for callback, state in zip(trainer.callbacks, states, strict=True):
            callback.load_state(state)
        raise


def _read_state(path: Path, step: int) -> dict[str, Any]:
    """Read state.json, and check what the functions that take its values do not check."""
    state = read_json_object(path)
    wrong = [name for name, kind in _STATE.items() if type(state.get(name)) is not kind]
    if not wrong and state["tokens"] < 0:
        wrong = ["tokens"]
    if wrong:
        raise CheckpointError(f"{path.name} has no valid {', '.join(wrong)}")
    if state["step"] != step:
        raise CheckpointError(f"{path.name} is of step {state['step']}")
    return state


def _identity(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return what a training and the one that resumes it must have in common."""
    return {"settings": asdict(trainer.settings), "text": trainer.batches.describe()}


def _state(trainer: Trainer) -> dict[str, Any]:
    now = {"step": trainer.step, "tokens": trainer.tokens, "position": trainer.batches.position}
    callbacks = {type(one).__name__: one.state() for one in trainer.callbacks}
    return {**_identity(trainer), **now, "callbacks": callbacks, "torch": torch.__version__}


def _differences(state: dict[str, Any], trainer: Trainer) -> list[str]:
    """Say how the saved training differs from the present one."""
    before = {part: state[part] for part in ("settings", "text")}
    older = {"master_weights": False, "optimizer": "adamw"}  # before these could be chosen
    before["settings"] = {**older, **before["settings"]}
    before["text"] = {"short_epochs": 0, **before["text"]}
    if isinstance(mix := before["text"].get("mix"), dict):
        mix.setdefault("programs", 0.0)
        mix.setdefault("fim_lengths", "log-uniform")
    return [
        f"{name} of the {part} was {shown(before[part].get(name), 90)} and is {shown(value, 90)}"
        for part, present in _identity(trainer).items()
        for name, value in present.items()
        if before[part].get(name) != value
    ]


def _remove(folder: Path) -> None:
    """Delete a checkpoint: renamed first, so that a half-deleted one never looks complete.

    One that cannot be deleted stays: it takes space, and the new one is safe already.
    """
    doomed = temporary_name(folder)
    with suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
