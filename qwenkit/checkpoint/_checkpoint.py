"""A model on disk: config.json, and its weights in one or several safetensors files."""

from __future__ import annotations

import os
import re
from io import BufferedReader
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwenkit.checkpoint._header import TensorInfo, read_header
from qwenkit.config import QwenConfig
from qwenkit.errors import CheckpointError, ConfigError
from qwenkit.files import read_json_object
from qwenkit.progress import bar

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
STORED = {**FLOATS, "I8": torch.int8}
SHARD = re.compile(r"model(-[0-9a-f]+)?-\d{5}-of-\d{5}\.safetensors")
_CACHE_LINE = 64  # bytes that the processor fetches from memory together
_BUFFER_BYTES = 1 << 22  # small enough to stay in the processor's cache
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class Checkpoint:
    """A checkpoint folder, opened by its headers alone; `load` reads the weights.

    Attributes:
        folder: where it is.
        config: its `QwenConfig`.
        tensors: name -> `TensorInfo` of every tensor, in the order of files and bytes.
        files: the weight files, in order.

    Args:
        folder: holds config.json and model.safetensors, or shards with
            model.safetensors.index.json.

    Raises:
        CheckpointError: no weights, or damaged or unsafe ones.
        ConfigError: no config.json, or an invalid one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise CheckpointError(
                f"{self.folder} is not a folder; a checkpoint is a folder with config.json and "
                f"{SINGLE}"
            )
        self.config = QwenConfig.from_file(self.folder)
        self.files, listed = _weight_files(self.folder)
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, info in read_header(file).items():
                if name in self.tensors:
                    raise CheckpointError(
                        f"{name!r} is in both {self.tensors[name].file.name} and {file.name}; a "
                        "tensor may be in one shard only: fetch the checkpoint again"
                    )
                self.tensors[name] = info
        if listed is not None:
            _check_index(self.folder / INDEX, listed, self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as stored."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that most weights are stored in.

        Raises:
            CheckpointError: no weight is stored as a float that qwenkit reads.
        """
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            if not (self.config.quantization and info.dtype == "I8"):
                sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        largest = max(sizes, key=lambda name: sizes[name], default="nothing")
        if largest not in FLOATS:
            raise CheckpointError(
                f"{self.folder} is stored as {largest}; qwenkit reads {', '.join(FLOATS)} "
                "(for a quantized model take its plain float checkpoint)"
            )
        return FLOATS[largest]

    def problems(self) -> list[str]:
        """List every way in which the tensors do not fit the config; empty when all do."""
        found, expected = [], self.config.tensor_shapes()
        for name, shape in expected.items():
            info, want = self.tensors.get(name), list(shape)
            if info is None:
                found.append(f"missing {name} {want}{_hint(self.config, name)}")
                continue
            if info.shape != shape:
                wrong = f"wrong shape of {name}: {list(info.shape)}"
                found.append(f"{wrong}, expected {want} from config.json")
            right = ("I8",) if f"{name}_scale" in expected else tuple(FLOATS)
            if info.dtype not in right:
                found.append(f"wrong dtype of {name}: {info.dtype}, expected {', '.join(right)}")
        # Old checkpoints store RoPE's frequencies (inv_freq) too; they follow from the config.
        return found + [
            f"unexpected {name} {list(info.shape)}{_hint(self.config, name)}"
            for name, info in self.tensors.items()
            if name not in expected and not name.endswith(".rotary_emb.inv_freq")
        ]

    def validate(self) -> None:
        """Refuse a checkpoint whose tensors do not fit its config.

        Raises:
            CheckpointError: listing every problem, one per line.
        """
        problems = self.problems()
        if problems:
            count = _counted(len(problems), "problem")
            head = f"{self.folder} does not fit its config.json, {count}:"
            raise CheckpointError("\n  ".join([head, *problems]))

    def load(
        self, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> dict[str, Tensor]:
        """Validate, then return name -> tensor for all that the config asks for.

        A tensor already in the wanted dtype, and aligned in the file, is mapped from it: nothing
        is copied, and its pages are read when they are first used. Any other is read into new
        memory, and cast in chunks through one small buffer. A bar shows from the first second on.

        Args:
            dtype: of the floats; None: each tensor as stored. int8 stays int8.
            device: where the tensors go.

        Raises:
            CheckpointError: the tensors do not fit the config, or reading fails.
        """
        self.validate()
        wanted = [self.tensors[name] for name in self.config.tensor_shapes()]
        loaded: dict[str, Tensor] = {}
        buffer = torch.empty(_BUFFER_BYTES, dtype=torch.uint8)
        try:
            size = sum(info.nbytes for info in wanted)
            with bar("Loading the weights", size, "B") as advance:
                for file in self.files:
                    with safe_open(file, "pt") as mapped, file.open("rb") as raw:
                        for info in (info for info in wanted if info.file == file):
                            to = dtype if dtype and info.dtype in FLOATS else STORED[info.dtype]
                            tensor = _read(mapped, raw, info, to, buffer)
                            loaded[info.name] = tensor.to(device)
                            advance(info.nbytes)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.folder} cannot be read: {error}") from None
        return {info.name: loaded[info.name] for info in wanted}

    def __repr__(self) -> str:
        size = f"{_counted(len(self.tensors), 'tensor')}, {self.nbytes:,} bytes"
        return f"Checkpoint({str(self.folder)!r}: {size} in {_counted(len(self.files), 'file')})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _read(
    mapped: safe_open, raw: BufferedReader, info: TensorInfo, dtype: torch.dtype, buffer: Tensor
) -> Tensor:
    """Map a tensor, or read it; what must be cast goes through the buffer, chunk by chunk.

    A tensor that begins within a cache line would cost each wide read of it two lines, for every
    token again; it is copied once instead, to where a line begins. (In most files the tensors
    begin 8, 16, ... bytes after one.)
    """
    stored = STORED[info.dtype]
    if dtype == stored and info.start % _CACHE_LINE == 0:
        return mapped.get_tensor(info.name)  # type: ignore[no-any-return, no-untyped-call]
    tensor = torch.empty(info.shape, dtype=dtype)
    raw.seek(info.start)
    for chunk in torch.split(tensor.view(-1), buffer.numel() // stored.itemsize):
        cast = dtype != stored
        part = buffer[: chunk.numel() * stored.itemsize] if cast else chunk.view(torch.uint8)
        if raw.readinto(part.numpy()) != part.numel():  # type: ignore[arg-type]
            raise CheckpointError(f"{info.file} cannot be read: it ends within {info.name}")
        if cast:
            chunk.copy_(part.view(stored))
    return tensor


def _weight_files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Find the weight files, and what the index lists of them (None where there is no index)."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE], None
    if (folder / INDEX).is_file():
        listed = _read_index(folder / INDEX)
        return [folder / name for name in sorted(set(listed.values()))], listed
    # Shards without an index are what a killed save leaves behind; they are not a checkpoint.
    every = sorted(folder.glob("*.safetensors"))
    others = [file for file in every if not SHARD.fullmatch(file.name)]
    if len(others) == 1:
        return others, None
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if every:
        wrong = f"has {len(every)} safetensors files and no {INDEX} that lists them; fetch it too"
    elif pickles:
        wrong = (
            f"holds its weights as {pickles[0]}, a Python pickle; qwenkit refuses those, because "
            "unpickling a file can run any code in it: take the safetensors version"
        )
    else:
        wrong = f"holds no weights; expected {SINGLE} or {INDEX}"
    raise CheckpointError(f"{folder} {wrong}")


def _read_index(path: Path) -> dict[str, str]:
    """Return tensor name -> shard's file name, each one safe and present."""
    try:
        listed = read_json_object(path).get("weight_map")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{path} has no weight_map of tensor names to files")
    for file in listed.values():
        plain = isinstance(file, str) and 0 < len(file) < 256 and not {"\0", "\\"} & set(file)
        if not plain or file != os.path.basename(file):
            raise CheckpointError(
                f"{path} names the file {file!r}; only a plain name in the checkpoint's own folder "
                "is allowed"
            )
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {file!r}; only .safetensors shards are read")
        if not (path.parent / file).is_file():
            raise CheckpointError(f"{path} names {file}, which is absent; fetch it again")
    return listed


def _check_index(path: Path, listed: dict[str, str], tensors: dict[str, TensorInfo]) -> None:
    """Refuse an index that disagrees with the shards' own headers."""
    found = {name: info.file.name for name, info in tensors.items()}
    wrong = sorted(n for n in listed.keys() | found.keys() if listed.get(n) != found.get(n))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} puts {name!r} in {listed.get(name, 'no file')}, but it is in "
            f"{found.get(name, 'no file')} ({len(wrong)} such in total); fetch the checkpoint again"
        )


def _hint(config: QwenConfig, name: str) -> str:
    if name != "lm_head.weight":
        return ""
    if config.tie_word_embeddings:
        return " (tie_word_embeddings is true: the embedding is the head)"
    return " (is the head tied? then config.json must say tie_word_embeddings: true)"
