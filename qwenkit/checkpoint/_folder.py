"""Which files of a folder hold the weights, and what the index says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from qwenkit.errors import CheckpointError, ConfigError, shown
from qwenkit.files import read_json_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model(-[0-9a-f]+)?-\d{5}-of-\d{5}\.safetensors")
_ONLY_SHARD = re.compile(r"model-0*1-of-0*1\.safetensors")
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_OTHERS = {".h5": "TensorFlow", ".msgpack": "Flax", ".npz": "NumPy"}


@dataclass(frozen=True)
class Index:
    """What model.safetensors.index.json says.

    Attributes:
        weight_map: name of each tensor -> the file it is in.
        metadata: the index's own, such as total_size.
    """

    weight_map: dict[str, str]
    metadata: dict[str, Any] = field(default_factory=dict)


def weight_files(folder: Path) -> tuple[list[Path], Index | None]:
    """Find the weight files, and the index that lists them (None where there is none).

    Raises:
        CheckpointError: there are none, or it is not clear which.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE], None
    if (folder / INDEX).is_file():
        index = read_index(folder / INDEX)
        names = sorted(set(index.weight_map.values()))
        for name in names:
            if not (folder / name).is_file():
                wrong = f"names {shown(name)[1:-1]}, which is missing; fetch it again"
                raise CheckpointError(f"{folder / INDEX} {wrong}")
        return [folder / name for name in names], index
    # Several shards without an index are what a broken download leaves; not a checkpoint.
    every = [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    models = [file for file in every if file.name != ADAPTER_WEIGHTS]
    others = [f for f in models if _ONLY_SHARD.fullmatch(f.name) or not SHARD.fullmatch(f.name)]
    if len(others) == 1:
        return others, None
    raise CheckpointError(f"{folder} {_why_no_weights(folder, models)}")


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that holds an adapter alone, and name the call that loads it.

    Raises:
        CheckpointError: it does.
    """
    if not (folder / ADAPTER).is_file() or (folder / INDEX).is_file():
        return
    if any(file.name != ADAPTER_WEIGHTS for file in folder.glob("*.safetensors")):
        return
    try:
        base = read_json_object(folder / ADAPTER).get("base_model_name_or_path")
    except ConfigError:
        base = None
    named = shown(base) if isinstance(base, str) and base else "its base model"
    raise CheckpointError(
        f"{folder} holds an adapter (LoRA) and no model; load the model it was trained on, "
        f"load_pretrained({named}), then load_adapter(model, {str(folder)!r})"
    )


def read_index(path: Path) -> Index:
    """Read an index; each file that it names is within the index's own folder.

    Raises:
        CheckpointError: it is damaged, or names a file that is not safetensors or is elsewhere.
    """
    try:
        data = read_json_object(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    listed, metadata = data.get("weight_map"), data.get("metadata")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{path} has no weight_map of tensor names to files")
    for file in listed.values():
        if not is_inside(file):
            raise CheckpointError(
                f"{path} names the file {shown(file)}; only a file in the checkpoint's own folder "
                "is allowed"
            )
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {shown(file)}; only .safetensors shards are read")
    return Index(listed, metadata if isinstance(metadata, dict) else {})


def is_inside(file: object) -> TypeGuard[str]:
    """Tell whether this names a file inside a folder or one of its subfolders."""
    if not isinstance(file, str) or not 0 < len(file) < 256 or {"\0", "\\", ":"} & set(file):
        return False
    return all(part not in ("", ".", "..") for part in file.split("/"))


def _why_no_weights(folder: Path, models: list[Path]) -> str:
    """Say why no weights can be read from a folder, and what to do."""
    files = sorted(file.name for file in folder.iterdir())
    pickles = [name for name in files if name.endswith(_PICKLES)]
    others = [name for name in files if Path(name).suffix in _OTHERS]
    if models:
        return f"has {len(models)} safetensors files and no {INDEX} that lists them; fetch it too"
    if others:
        return (
            f"holds its weights as {shown(others[0])[1:-1]}, a file of "
            f"{_OTHERS[Path(others[0]).suffix]}; qwenkit reads safetensors: use that version"
        )
    if pickles:
        return (
            f"holds its weights as {shown(pickles[0])[1:-1]}, a Python pickle; qwenkit refuses "
            "those, because unpickling a file can run any code in it: use the safetensors version"
        )
    return f"holds no weights; expected {SINGLE} or {INDEX}"
