"""LoRA: a small trained update to frozen weights, and its files."""

from qwenkit.lora.adapter import load_adapter, read_adapter, save_adapter
from qwenkit.lora.layers import LoRALinear
from qwenkit.lora.models import (
    add_lora,
    lora_layers,
    lora_off,
    merge_lora,
    remove_lora,
    unmerge_lora,
)

__all__ = [
    "LoRALinear",
    "add_lora",
    "load_adapter",
    "lora_layers",
    "lora_off",
    "merge_lora",
    "read_adapter",
    "remove_lora",
    "save_adapter",
    "unmerge_lora",
]
