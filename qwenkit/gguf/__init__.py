"""GGUF, the file format of llama.cpp, Ollama and LM Studio: header, metadata, and tensor types."""

from qwenkit.gguf._config import config_dict, generation_dict, refuse_other_kinds
from qwenkit.gguf._finding import gguf_in, is_gguf
from qwenkit.gguf._header import GgufFile, GgufTensor, read_gguf
from qwenkit.gguf._types import QUANTIZED

__all__ = [
    "QUANTIZED",
    "GgufFile",
    "GgufTensor",
    "config_dict",
    "generation_dict",
    "gguf_in",
    "is_gguf",
    "read_gguf",
    "refuse_other_kinds",
]
