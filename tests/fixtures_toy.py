"""Checkpoints for tests: tiny ones, files written by hand, and a measured subprocess."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy import write_toy_checkpoint

from qwenkit.config import QwenConfig
from qwenkit.files import write_json

ROOT = Path(__file__).parent.parent


def toy_of(tmp_path_factory, **options) -> Path:
    """Return a fresh toy checkpoint's folder."""
    return write_toy_checkpoint(tmp_path_factory.mktemp("toy"), **options)


def copied(folder: Path, to: Path) -> Path:
    """Return a copy of a folder that a test may break."""
    shutil.copytree(folder, to)
    return to


def small_config(**overrides) -> QwenConfig:
    """Return a config of a few hundred parameters."""
    values = {
        "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    return QwenConfig(**{**values, **overrides})


# layers, hidden, intermediate, heads, kv heads, tied, vocabulary, head_dim, parameters
PUBLISHED = {
    "0.5B": (24, 896, 4864, 14, 2, True, 151_936, 64, 494_032_768),
    "1.5B": (28, 1536, 8960, 12, 2, True, 151_936, 128, 1_543_714_304),
    "3B": (36, 2048, 11008, 16, 2, True, 151_936, 128, 3_085_938_688),
    "7B": (28, 3584, 18944, 28, 4, False, 152_064, 128, 7_615_616_512),
    "14B": (48, 5120, 13824, 40, 8, False, 152_064, 128, 14_770_033_664),
    "32B": (64, 5120, 27648, 40, 8, False, 152_064, 128, 32_763_876_352),
    "a GPT-2-like design": (12, 768, 3072, 12, 4, False, 32_000, 64, 152_995_584),
}


def published(size: str) -> QwenConfig:
    """Return the config of a published size."""
    layers, hidden, intermediate, heads, kv_heads, tied, vocabulary, *_ = PUBLISHED[size]
    sizes = (vocabulary, hidden, intermediate, layers, heads, kv_heads)
    return QwenConfig(*sizes, tie_word_embeddings=tied)


def random_tensors(
    config: QwenConfig, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return random weights for a config."""
    generator = torch.Generator().manual_seed(seed)
    shapes = config.tensor_shapes()
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}


def plain_checkpoint(folder: Path, config: QwenConfig, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a checkpoint with safetensors itself, whether or not it fits the config."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.to_dict())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def pack(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file of a header, raw bytes or to be written as JSON, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> dict:
    """Return one tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether dtype, shape and every bit are equal (NaN equals itself, 0 is not -0)."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    one, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right))
    return torch.equal(one, other)


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh Python, with QWENKIT_MODEL unset unless given."""
    env = {k: v for k, v in os.environ.items() if k != "QWENKIT_MODEL" and not k.startswith("HF_")}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env=env, timeout=300, check=False,
    )  # fmt: skip


# Prints how far the peak of resident memory rose above what it was after the imports.
PEAK_OF_LOAD = """
import sys, torch, qwenkit as qk
folder, dtype = sys.argv[1:]
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = status("VmRSS")
model = qk.load_model(folder, dtype=dtype, device="cpu")
for parameter in model.parameters():  # every page is read, not only mapped
    int(parameter.view(torch.int16).max())
print(status("VmHWM") - before)
"""
