"""A model on disk: headers, the folder, validation against the config, saving."""

from qwenkit.checkpoint._checkpoint import Checkpoint, Layout
from qwenkit.checkpoint._folder import ADAPTER, ADAPTER_WEIGHTS, INDEX, SINGLE, read_index
from qwenkit.checkpoint._header import TensorInfo, read_header
from qwenkit.checkpoint._names import without_wrappers
from qwenkit.checkpoint._saving import (
    refuse_to_save,
    save_checkpoint,
    write_checkpoint,
    write_tensors,
)
from qwenkit.checkpoint._values import FLOATS, read_alone

__all__ = [
    "ADAPTER",
    "ADAPTER_WEIGHTS",
    "FLOATS",
    "INDEX",
    "SINGLE",
    "Checkpoint",
    "Layout",
    "TensorInfo",
    "read_alone",
    "read_header",
    "read_index",
    "refuse_to_save",
    "save_checkpoint",
    "without_wrappers",
    "write_checkpoint",
    "write_tensors",
]
