"""Checkpoints of a training: all that it needs to go on as if it had never stopped.

A checkpoint is a folder, step-000500. It is written under a temporary name and renamed once it is
whole, so that whatever happens, a folder of that name is a whole checkpoint. Weights and optimizer
state are safetensors, the rest is JSON: nothing in it can run code.
"""

from __future__ import annotations

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
from torch import Tensor

from qwenkit.checkpoint import write_tensors
from qwenkit.errors import CheckpointError, InputError, TrainingError
from qwenkit.files import read_json_object, temporary_name, to_disk, write_json
from qwenkit.train.loop import Trainer
from qwenkit.train.weights import read_weights, save_weights

NAME = re.compile(r"step-(\d{6,})")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter
STATE = {"step": int, "tokens": int, "position": dict, "settings": dict, "text": dict,
         "callbacks": dict}  # fmt: skip


def save_training(folder: str | Path, trainer: Trainer, keep: int = 2) -> Path:
    """Write a checkpoint of the training's present state, and return its folder.

    Args:
        folder: holds the checkpoints; made if absent.
        trainer: between two steps.
        keep: how many checkpoints stay, the newest; older ones are removed.

    Raises:
        CheckpointError: writing fails; the checkpoints that were there are unchanged.
        TrainingError: the weights are no longer numbers; nothing is written.
        InputError: keep is below 1.
    """
    if keep < 1:
        raise InputError(f"keep is {keep}; it must be at least 1")
    refuse_broken_weights(trainer)
    folder = Path(folder)
    final = folder / f"step-{trainer.step:06}"
    temporary = temporary_name(final)
    try:
        temporary.mkdir(parents=True)
        files = save_weights(temporary, trainer.model)
        optimizer = temporary / "optimizer.safetensors"
        write_tensors(optimizer, _optimizer_tensors(trainer))
        write_json(temporary / "state.json", _state(trainer))
        for path in (*files, temporary / "state.json", temporary):
            to_disk(path)
        if not final.exists():  # else the same step once more: after resuming without a step
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
    """Give a trainer the newest checkpoint's state, and return the step it goes on from.

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
        weights, other = read_weights(newest, trainer.model)
    different = _differences(state, trainer) + other
    if different:
        raise TrainingError(
            f"{newest} belongs to another training: {'; '.join(different)}. Use its recipe and "
            "text, or begin a new training in another folder"
        )
    with _damage_named(newest):
        _check_optimizer(trainer, tensors, step)
        trainer.batches.seek(state["position"])
        for callback in trainer.callbacks:
            name = type(callback).__name__
            if name in state["callbacks"]:
                callback.load_state(state["callbacks"][name])
        torch.set_rng_state(tensors.pop("random_state"))
    with torch.no_grad():
        present = trainer.model.state_dict()
        for name, value in weights.items():
            present[name].copy_(value)
    _give_optimizer(trainer, tensors)
    trainer.step, trainer.tokens = step, state["tokens"]
    return step


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of each whole checkpoint, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    named = [(NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in named if match)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one clear error what could not be written, and why.

    Raises:
        CheckpointError: instead of what the writing raised.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error) is Exception:  # the latter from tokenizers
            raise CheckpointError(f"{path} could not be written ({error})") from None
        raise


def refuse_broken_weights(trainer: Trainer) -> None:
    """Raise rather than let weights that are no longer numbers replace good ones on the disk.

    Raises:
        TrainingError: a weight is infinite or NaN.
    """
    for name, weight in trainer.model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise TrainingError(
                f"step {trainer.step}: {name} holds values that are no numbers, and is not saved; "
                "the learning rate is probably too large, or the warm-up too short"
            )


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint leads to into one error that names its folder."""
    damage = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError)
    try:
        yield
    except damage as error:
        what = repr(error) if isinstance(error, KeyError) else error  # a KeyError is a bare name
        raise CheckpointError(
            f"{folder} is damaged ({what}); delete that folder to go on from the one before it"
        ) from None


def _read_state(path: Path, step: int) -> dict[str, Any]:
    """Read state.json, and check all that is taken from it but what its takers check themselves."""
    state = read_json_object(path)
    wrong = [name for name, kind in STATE.items() if type(state.get(name)) is not kind]
    if wrong:
        raise CheckpointError(f"{path.name} has no sound {', '.join(wrong)}")
    if state["step"] != step:
        raise CheckpointError(f"{path.name} is of step {state['step']}")
    if state["tokens"] < 0:
        raise CheckpointError(f"{path.name} has no sound tokens")
    return state


def _identity(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return what a training and the one that resumes it must have in common."""
    return {"settings": asdict(trainer.settings), "text": trainer.batches.describe()}


def _state(trainer: Trainer) -> dict[str, Any]:
    return {
        **_identity(trainer),
        "step": trainer.step,
        "tokens": trainer.tokens,
        "position": trainer.batches.position,
        "callbacks": {type(one).__name__: one.state() for one in trainer.callbacks},
        "torch": torch.__version__,
    }


def _differences(state: dict[str, Any], trainer: Trainer) -> list[str]:
    """Say what of the saved training is not as the present one."""
    return [
        f"{name} of the {part} was {state[part].get(name)!r} and is {value!r}"
        for part, present in _identity(trainer).items()
        for name, value in present.items()
        if state[part].get(name) != value
    ]


def _optimizer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {"random_state": torch.get_rng_state()}
    for name, parameter in trainer.model.named_parameters():
        for moment, value in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value.cpu().contiguous()
    return tensors


def _check_optimizer(trainer: Trainer, tensors: dict[str, Tensor], step: int) -> None:
    """Refuse moments that are not exactly those of the trained parameters."""
    random_state = torch.get_rng_state()
    expected = {"random_state": (random_state.shape, random_state.dtype)}
    if step:  # a training saved before its first step has none
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                like = (parameter.shape, parameter.dtype)
                expected |= {f"{moment}.{name}": like for moment in MOMENTS}
                expected[f"step.{name}"] = (torch.Size(), torch.float32)
    found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    names = expected.keys() | found.keys()
    wrong = sorted(name for name in names if expected.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            f"optimizer.safetensors does not fit the parameters that are trained: {wrong[0]} is "
            f"missing, too many, or of a wrong shape or dtype ({len(wrong)} such in all)"
        )


def _give_optimizer(trainer: Trainer, tensors: dict[str, Tensor]) -> None:
    """Hand each parameter its moments, copied: those of the file are mapped, and hold it open."""
    trainer.optimizer.state.clear()
    for name, parameter in trainer.model.named_parameters():
        if f"step.{name}" in tensors:
            trainer.optimizer.state[parameter] = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device, copy=True)
                for moment in MOMENTS
            }


def _remove(folder: Path) -> None:
    """Delete a checkpoint: renamed first, so that one half deleted never looks whole.

    One that cannot be deleted stays: it takes room, and the new one is safe already.
    """
    doomed = temporary_name(folder)
    with suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
