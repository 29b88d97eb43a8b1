"""Writing a checkpoint so that a crash, a full disk or a killed process never leaves a broken one.

Everything is written under temporary names first. Then a single rename makes the new checkpoint
valid: of model.safetensors, or of the index that names the new shards. Before it the old checkpoint
is complete, after it the new one; what is left of the old one is removed last.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from qwenkit.checkpoint._checkpoint import FLOATS, INDEX, SHARD, SINGLE
from qwenkit.config import QwenConfig
from qwenkit.errors import CheckpointError, ConfigError
from qwenkit.files import temporary_name, to_disk, write_json


def save_checkpoint(
    folder: str | Path,
    config: QwenConfig,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int = 5_000_000_000,
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
    folder = Path(folder).expanduser()
    expected = config.tensor_shapes()
    problem = _problem(tensors, expected, max_shard_bytes) or _other_model(folder, config)
    if problem:
        raise CheckpointError(f"nothing was saved to {folder}: {problem}")
    shards = _split({name: tensors[name] for name in expected}, max_shard_bytes)
    floats = (t.dtype for t in tensors.values() if t.dtype != torch.int8)
    stored = str(next(floats)).removeprefix("torch.")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written += [temporary_name(folder / "model") for _ in shards]
        for path, shard in zip(written, shards, strict=True):
            write_tensors(path, {name: tensor.cpu() for name, tensor in shard.items()})
        write_json(folder / "config.json", {**config.to_dict(), "torch_dtype": stored})
        _commit(folder, shards, written)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} could not be written ({error}); the checkpoint that was there is unchanged"
        ) from None
    finally:
        for file in written:
            file.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], **metadata: str) -> None:
    """Write one safetensors file to the disk itself, readable as the umask allows.

    Raises:
        OSError, SafetensorError: writing fails.
    """
    path.touch()
    mode = path.stat().st_mode  # what the user's umask gives; save_file lets no one else read
    save_file(tensors, path, metadata={"format": "pt", **metadata})
    path.chmod(mode)
    to_disk(path)


def _problem(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], max_shard_bytes: int
) -> str | None:
    """Say why these tensors cannot be saved; None: they can."""
    if max_shard_bytes < 1:
        return f"max_shard_bytes is {max_shard_bytes}; it must be at least 1"
    wrong = [n for n in expected if n not in tensors or tuple(tensors[n].shape) != expected[n]]
    wrong += [name for name in tensors if name not in expected]
    if wrong:
        return f"these do not fit the config: {', '.join(wrong)}"
    for name, tensor in tensors.items():
        int8 = f"{name}_scale" in expected
        if tensor.is_meta or tensor.dtype not in ([torch.int8] if int8 else FLOATS.values()):
            rule = f"{'int8' if int8 else 'float32, bfloat16 or float16'}, with values"
            return f"{name} is {tensor.dtype} on {tensor.device}; it must be {rule}"
    return None


def _other_model(folder: Path, config: QwenConfig) -> str | None:
    """Say whether the folder holds a model of another config; None: it does not.

    Config and weights are two files, and no step replaces both at once: a crash between the two
    would pair one model's config with the other's weights.
    """
    if not (folder / "config.json").exists():
        return None
    try:
        if replace(QwenConfig.from_file(folder), dtype=config.dtype) == config:
            return None
    except ConfigError:
        return "its config.json cannot be read; save to another folder, or delete it first"
    return "it holds a model of another config; save to another folder, or delete that one first"


def _split(tensors: dict[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    """Fill shards in order; a new one starts where the next tensor would not fit."""
    shards: list[dict[str, Tensor]] = [{}]
    starts: set[int] = set()
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        tensor = tensor.detach().contiguous()
        twice = tensor.data_ptr() in starts  # one tensor under two names: each is written
        starts.add(tensor.data_ptr())
        shards[-1][name] = tensor.clone() if twice else tensor
        size += tensor.nbytes
    return shards


def _commit(folder: Path, shards: list[dict[str, Tensor]], temporary: list[Path]) -> None:
    """Make the new weights the checkpoint, then remove what is left of the old one."""
    old = {folder / INDEX, folder / SINGLE}
    old |= {file for file in folder.glob("*.safetensors") if SHARD.fullmatch(file.name)}
    if len(shards) == 1:
        os.replace(temporary[0], folder / SINGLE)
        keep = {folder / SINGLE}
    else:
        # Names of no old shard: the old index stays true until the new one replaces it.
        count, tag = len(shards), secrets.token_hex(2)
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        if any((folder / name).exists() for name in names):
            names = [name.replace("model-", f"model-{tag}-") for name in names]
        for path, name in zip(temporary, names, strict=True):
            os.replace(path, folder / name)
        listed = {n: file for file, shard in zip(names, shards, strict=True) for n in shard}
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": listed})
        (folder / SINGLE).unlink(missing_ok=True)  # a single file would be read before the index
        keep = {folder / INDEX, *(folder / name for name in names)}
    for file in old - keep:
        file.unlink(missing_ok=True)
