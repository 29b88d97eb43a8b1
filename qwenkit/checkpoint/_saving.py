"""Writing a checkpoint: config.json, and the weights in one file or in shards with an index.

All files are written through `files.saving`, which puts them in place in one step: after a crash, a
full disk or a killed process, the folder holds all of the old checkpoint or all of the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from qwenkit.checkpoint._checkpoint import Layout
from qwenkit.checkpoint._folder import INDEX, SHARD, SINGLE, read_index
from qwenkit.checkpoint._values import STORED, stored_as
from qwenkit.config import QwenConfig
from qwenkit.errors import CheckpointError, ConfigError, few, printable
from qwenkit.files import Save, expanded, saving, settle, to_disk, write_json

SHARD_BYTES = 5_000_000_000


def save_checkpoint(
    folder: str | Path,
    config: QwenConfig,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json and the weights as a Hugging Face checkpoint, sharded by size.

    Args:
        folder: made if absent; a checkpoint already there is replaced.
        config: its dtype is set to that of the weights.
        tensors: name -> tensor, as the config expects them.
        max_shard_bytes: a shard takes at most this much, or one tensor if that is larger.

    Raises:
        CheckpointError: tensors that do not fit the config, another model in the folder, or
            writing fails; the checkpoint that was there is then unchanged.
    """
    refuse_to_save(folder, config, tensors, max_shard_bytes)
    with saving(folder) as save:
        write_checkpoint(save, config, tensors, max_shard_bytes)


def write_checkpoint(
    save: Save,
    config: QwenConfig,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int | None = None,
    layout: Layout | None = None,
) -> None:
    """Write config.json and the weights into a save, to which other files can be added.

    Args:
        save: from `files.saving`.
        config: see `save_checkpoint`.
        tensors: see `save_checkpoint`.
        max_shard_bytes: None: the files of `layout`, or 5 GB where it says nothing.
        layout: of the checkpoint that the tensors were loaded from.

    Raises:
        OSError: writing fails.
    """
    layout = layout or Layout()
    ordered = {name: tensors[name] for name in config.tensor_shapes()}
    floats = (t.dtype for t in ordered.values() if t.is_floating_point())
    stored = str(next(floats)).removeprefix("torch.")
    shards = _divided(ordered, max_shard_bytes, layout)
    common = next(iter(layout.metadata.values()), {})
    starts: set[int] = set()
    for file, shard in shards.items():
        (save.path / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            plain = _separate(shard, starts)
        except RuntimeError as error:  # no memory for a copy
            raise OSError(str(error)) from None
        write_tensors(save.path / file, plain, **layout.metadata.get(file, common))
    # What was loaded keeps its dtype and its total, even where they were wrong.
    as_loaded = all(STORED.get(layout.dtypes.get(n, "")) == t.dtype for n, t in ordered.items())
    config = config if as_loaded else replace(config, dtype=stored)
    write_json(save.path / "config.json", config.to_file())
    if list(shards) != [SINGLE]:
        listed = {name: file for file, shard in shards.items() for name in shard}
        total = {"total_size": sum(tensor.nbytes for tensor in ordered.values())}
        whole = as_loaded and layout.dtypes.keys() == ordered.keys()
        head = {**total, **layout.index} if whole else {**layout.index, **total}
        write_json(save.path / INDEX, {"metadata": head, "weight_map": listed})
    save.obsolete |= _weight_names(save.path.parent) - {*shards, INDEX}
    save.obsolete |= {INDEX} if list(shards) == [SINGLE] else set()


def write_tensors(path: Path, tensors: dict[str, Tensor], /, **metadata: str) -> None:
    """Write one safetensors file to the disk itself, readable as the umask allows.

    Raises:
        OSError: writing fails.
    """
    path.touch()
    mode = path.stat().st_mode  # what the user's umask gives; save_file lets no one else read
    try:
        save_file(tensors, path, metadata={"format": "pt", **metadata})
    except (RuntimeError, SafetensorError) as error:
        raise OSError(str(error)) from None
    path.chmod(mode)
    to_disk(path)


def refuse_to_save(
    folder: str | Path,
    config: QwenConfig,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int | None,
) -> None:
    """Refuse what cannot be saved, or would replace another model, before anything is written.

    Raises:
        CheckpointError: saying what is wrong.
    """
    folder = expanded(folder)
    problem = _problem(tensors, config.tensor_shapes(), max_shard_bytes)
    problem = problem or _other_model(folder, config)
    if problem:
        raise CheckpointError(f"nothing was saved to {folder}: {problem}")


def _problem(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], most: int | None
) -> str | None:
    """Say why these tensors cannot be saved; None: they can."""
    if most is not None and most < 1:
        return f"max_shard_bytes is {most}; it must be at least 1"
    wrong = [n for n in expected if n not in tensors or tuple(tensors[n].shape) != expected[n]]
    wrong += [name for name in tensors if name not in expected]
    if wrong:
        return f"these do not fit the config: {few(map(printable, wrong))}"
    for name, tensor in tensors.items():
        right = [STORED[one] for one in stored_as(name, expected)]
        if tensor.is_meta or tensor.dtype not in right:
            names = " or ".join(str(one).removeprefix("torch.") for one in right)
            rule = f"{names}, with values"
            return f"{name} is {tensor.dtype} on {tensor.device}; it must be {rule}"
    return None


def _other_model(folder: Path, config: QwenConfig) -> str | None:
    """Say whether the folder holds a model of another config, which would be lost; None: no."""
    settle(folder)
    if not (folder / "config.json").exists():
        return None
    try:
        if replace(QwenConfig.from_file(folder), dtype=config.dtype) == config:
            return None
    except ConfigError:
        return "its config.json cannot be read; save to another folder, or delete it first"
    return "it holds a model of another config; save to another folder, or delete that one first"


def _divided(
    tensors: dict[str, Tensor], max_shard_bytes: int | None, layout: Layout
) -> dict[str, dict[str, Tensor]]:
    """Return file -> the tensors in it: the loaded layout, unless a size is given."""
    shards: dict[str, dict[str, Tensor]] = {}
    if max_shard_bytes is None and tensors.keys() <= layout.files.keys():
        for name, tensor in tensors.items():
            shards.setdefault(layout.files[name], {})[name] = tensor
        return shards
    parts = _split(tensors, max_shard_bytes or SHARD_BYTES)
    count = len(parts)
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    return dict(zip(names if count > 1 else [SINGLE], parts, strict=True))


def _split(tensors: dict[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Fill shards in order; a new one starts where the next tensor would not fit."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _separate(shard: dict[str, Tensor], starts: set[int]) -> dict[str, Tensor]:
    """Return the tensors as the format requires: contiguous, on the CPU, sharing no memory.

    Args:
        shard: name -> tensor.
        starts: the addresses of the tensors written before; updated here.
    """
    separate = {}
    for name, tensor in shard.items():
        tensor = tensor.detach().cpu().contiguous()
        twice = tensor.data_ptr() in starts  # one tensor under two names: each is written
        starts.add(tensor.data_ptr())
        separate[name] = tensor.clone() if twice else tensor
    return separate


def _weight_names(folder: Path) -> set[str]:
    """Return the names of the weight files that a checkpoint in this folder has."""
    names = {SINGLE, INDEX, *(f.name for f in folder.glob("*.safetensors"))}
    names = {name for name in names if name in (SINGLE, INDEX) or SHARD.fullmatch(name)}
    with suppress(CheckpointError):  # no index, or a damaged one
        names |= set(read_index(folder / INDEX).weight_map.values())
    return names
