"""A model on disk: headers, the folder, validation against the config, saving."""

from qwenkit.checkpoint._checkpoint import Checkpoint
from qwenkit.checkpoint._header import TensorInfo, read_header
from qwenkit.checkpoint._saving import save_checkpoint, write_tensors

__all__ = ["Checkpoint", "TensorInfo", "read_header", "save_checkpoint", "write_tensors"]
