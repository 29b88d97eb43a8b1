"""A model on disk: config.json and its weights in safetensors files, or one GGUF file."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwenkit.checkpoint._fit import (
    CONFIG_JSON,
    METADATA,
    cause,
    misfits,
    stored_as_head,
    tied_copies,
    unequal,
)
from qwenkit.checkpoint._folder import INDEX, SINGLE, Index, refuse_adapter, weight_files
from qwenkit.checkpoint._gguf import open_gguf
from qwenkit.checkpoint._header import TensorInfo, read_header_and_metadata
from qwenkit.checkpoint._names import can_be_derived, expected_names
from qwenkit.checkpoint._values import AS_FLOATS, FLOATS, STORED, dequantizer, new_buffer, read
from qwenkit.config import QwenConfig
from qwenkit.errors import CheckpointError, printable, shown
from qwenkit.files import expanded, undisturbed, version
from qwenkit.gguf import QUANTIZED, GgufFile, config_dict, gguf_in, is_gguf
from qwenkit.progress import bar

_MOST = 5  # problems that an error lists; `Checkpoint.problems` has them all


@dataclass(frozen=True)
class Layout:
    """How a checkpoint was divided into files, for saving it again in the same way.

    Attributes:
        files: tensor, by its name in the model -> the file it is in; empty without an index.
        index: the index's own metadata.
        metadata: file -> the `__metadata__` of its header.
        dtypes: tensor, by its name in the model -> the dtype it is stored in, as the header has it.
    """

    files: dict[str, str] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)


class Checkpoint:
    """A checkpoint folder or GGUF file, opened by its headers alone; `load` reads the weights.

    Attributes:
        folder: where it is; of a GGUF file, its path.
        config: its `QwenConfig`.
        tensors: name -> `TensorInfo` of every tensor, in the order of files and bytes.
        files: the weight files, in order.
        layout: how the tensors are divided into files.
        gguf: the header of a GGUF file, from whose metadata the config is; None: a folder.

    Args:
        folder: holds config.json and model.safetensors, or shards with
            model.safetensors.index.json; or a GGUF file, or a folder that holds only one of those.
            Their tensors get the names that they have in the model.

    Raises:
        CheckpointError: no weights, or damaged or unsafe ones.
        ConfigError: no config.json, or an invalid one.
    """

    tensors: dict[str, TensorInfo]
    _found: dict[str, TensorInfo]  # by their names in the model
    _copies: list[tuple[TensorInfo, TensorInfo]]  # which must be equal

    def __init__(self, folder: str | Path) -> None:
        self.folder = expanded(folder)
        self.gguf: GgufFile | None = None
        path = self.folder if is_gguf(self.folder) else gguf_in(self.folder)
        if path is not None:
            self.folder = path
        elif not self.folder.is_dir():
            raise CheckpointError(
                f"{self.folder} is not a folder; a checkpoint is a folder with config.json and "
                f"{SINGLE}, or a GGUF file"
            )
        undisturbed(self.folder, self._open if path is None else self._open_gguf)

    def _open_gguf(self) -> None:
        self.gguf, self.tensors = open_gguf(self.folder)
        where = f"{self.folder} (metadata)"
        self.config = QwenConfig.from_dict(config_dict(self.gguf), where=where)
        self.files, self._found, self._copies = [self.folder], self.tensors, []
        self.layout = Layout(dtypes={name: info.dtype for name, info in self.tensors.items()})
        self._versions = [version(self.folder)]

    def _open(self) -> None:
        refuse_adapter(self.folder)
        self.config = QwenConfig.from_file(self.folder)
        self.files, index = weight_files(self.folder)
        self.tensors, self._found, self._copies = {}, {}, []
        metadata = {}
        for file in self.files:
            infos, metadata[self._place(file)] = read_header_and_metadata(file)
            for name, info in infos.items():
                first = self.tensors.setdefault(name, info)
                self._copies += [(first, info)] if first is not info else []
        names = expected_names(self.tensors)
        for name, info in self.tensors.items():
            first = self._found.setdefault(names[name], info)
            self._copies += [(first, info)] if first is not info else []
        stored_as_head(self.config, self._found)
        if index is not None:
            self._check_index(index)
        files = {} if index is None else {n: self._place(i.file) for n, i in self._found.items()}
        dtypes = {name: info.dtype for name, info in self._found.items()}
        self.layout = Layout(files, {} if index is None else index.metadata, metadata, dtypes)
        self._versions = [version(file) for file in self.files]

    def _place(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _check_index(self, index: Index) -> None:
        """Refuse an index that disagrees with the shards' own headers.

        Tensors that it does not list, or that follow from others, may differ.
        """
        places = [(name, self._place(info.file)) for name, info in self.tensors.items()]
        places += [(info.name, self._place(info.file)) for _, info in self._copies]
        found, names = dict(reversed(places)), expected_names(index.weight_map)
        tied = self.config.tie_word_embeddings
        wrong = [
            name
            for name, file in index.weight_map.items() - set(places)
            if name in found or not can_be_derived(names[name], tied=tied)
        ]
        if wrong:
            name = min(wrong)
            listed, where = index.weight_map[name], found.get(name, "no file")
            raise CheckpointError(
                f"{self.folder / INDEX} puts {shown(name)} in {printable(listed)}, but it is in "
                f"{printable(where)} ({len(wrong)} such tensors in total); fetch it again"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as stored."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that most weights are stored in; bfloat16 where GGUF has quantized them.

        Raises:
            CheckpointError: no weight is stored as a float that qwenkit reads.
        """
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            if not (self.config.quantization and info.dtype in ("I8", "U8")):
                sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        largest = max(sizes, key=lambda name: sizes[name], default="nothing")
        if largest in QUANTIZED:
            return torch.bfloat16
        if largest not in FLOATS:
            raise CheckpointError(
                f"{self.folder} is stored as {largest}; qwenkit reads {', '.join(FLOATS)} "
                "(for a quantized model use its unquantized checkpoint)"
            )
        return FLOATS[largest]

    def problems(self) -> list[str]:
        """List every way in which the tensors do not fit the config; empty when all do."""
        return misfits(self.config, self._found, self._stated) + self._unequal

    @property
    def _stated(self) -> str:
        """Name what the config was read from."""
        return CONFIG_JSON if self.gguf is None else METADATA

    @cached_property
    def _unequal(self) -> list[str]:
        """List the copies of one tensor that differ; their values are read once."""
        try:
            return unequal([*self._copies, *tied_copies(self.config, self._found)])
        except OSError as error:
            raise CheckpointError(f"{self.folder} cannot be read: {error}") from None

    def validate(self) -> None:
        """Refuse a checkpoint whose tensors do not fit its config.

        Raises:
            CheckpointError: listing the first problems, one per line, and how many there are.
        """
        problems = self.problems()
        if problems:
            why = cause(self.config, self.tensors, self._found, self._stated)
            count = f"{_counted(len(problems), 'problem')}{why and f' ({why})'}"
            more = len(problems) - _MOST
            last = [f"and {more:,} more (`qwenkit inspect` lists all)"] if more > 0 else []
            head = f"{self.folder} does not fit its {self._stated}, {count}:"
            raise CheckpointError("\n  ".join([head, *problems[:_MOST], *last]))

    def load(
        self, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> dict[str, Tensor]:
        """Validate, then return name -> tensor for all that the config asks for.

        A tensor already in the wanted dtype, and aligned in the file, is mapped from it: nothing
        is copied, and its pages are read when they are first used. Any other is read into new
        memory, and cast in chunks through one small buffer. A bar shows from the first second on.
        Tensors that GGUF has quantized are dequantized chunk by chunk.

        Args:
            dtype: of the floats; None: each tensor as stored, and of a GGUF file, whose norms are
                always float32, all in `self.dtype`. int8 and int4 stay as they are.
            device: where the tensors go.

        Raises:
            CheckpointError: the tensors do not fit the config, or reading fails.
        """
        self.validate()
        wanted = {name: self._found[name] for name in self.config.tensor_shapes()}
        for kind in sorted({info.dtype for info in wanted.values()} & QUANTIZED.keys()):
            dequantizer(kind)  # the library may be missing: better before anything is read
        dtype = self.dtype if dtype is None and self.gguf is not None else dtype
        loaded: dict[str, Tensor] = {}
        buffer = new_buffer()
        try:
            size = sum(info.nbytes for info in wanted.values())
            with bar("Loading the weights", size, "B") as advance:
                for file in self.files:
                    mapping = nullcontext() if self.gguf is not None else safe_open(file, "pt")
                    with mapping as mapped, file.open("rb") as raw:
                        for name, info in wanted.items():
                            if info.file != file:
                                continue
                            to = dtype if dtype and info.dtype in AS_FLOATS else STORED[info.dtype]
                            loaded[name] = read(mapped, raw, info, to, buffer).to(device)
                            advance(info.nbytes)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{self.folder} cannot be read: {error}") from None
        if self._versions != [version(file) for file in self.files]:
            raise CheckpointError(f"{self.folder} has changed since it was opened; open it again")
        return {name: loaded[name] for name in wanted}

    def __repr__(self) -> str:
        size = f"{_counted(len(self.tensors), 'tensor')}, {self.nbytes:,} bytes"
        return f"Checkpoint({str(self.folder)!r}: {size} in {_counted(len(self.files), 'file')})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
