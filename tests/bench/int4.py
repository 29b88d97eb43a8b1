"""What int8 and int4 cost: bytes on disk, and bits per byte of code that was not calibrated on.

    QWENKIT_MODEL=folder python tests/bench/int4.py [--rows rtn gptq]

Each row is one way to store the model that QWENKIT_MODEL names.
Methods with calibration take some minutes at 0.5B. The code is four files of Python's standard
library, none of which the methods are calibrated on by default.
"""

import argparse
import inspect
import math
import os
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch

import qwenkit as qk
from qwenkit.fast.calibration import MODULES

HELD_OUT = ("bisect", "heapq", "shelve", "textwrap")
TOKENS = 1000  # of each file
ROWS = ("bfloat16", "int8", "rtn", "awq", "gptq")


def bits_per_byte(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> float:
    """Return how many bits the model needs per byte of the code."""
    nats, size = 0.0, 0
    for name in HELD_OUT:
        ids = tokenizer(inspect.getsource(import_module(name)))[:, :TOKENS]  # (1, T)
        chosen = model(ids).float().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])  # (T-1, 1)
        nats -= chosen.sum().item()
        size += len(tokenizer.decode(ids[0, 1:].tolist()).encode())
    return nats / size / math.log(2)


def made(row: str, folder: str) -> tuple[qk.QwenForCausalLM, qk.Tokenizer]:
    """Return the model as a row stores it."""
    if row in ("bfloat16", "int8"):
        return qk.load_pretrained(folder, device="cpu", dtype=row)
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="bfloat16")
    needed = {} if row == "rtn" else {"tokenizer": tokenizer}
    qk.quantize(model, "int4", method=row, **needed)
    return model, tokenizer


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    assert not set(HELD_OUT) & set(MODULES)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    folder = os.environ["QWENKIT_MODEL"]
    for row in parser.parse_args().rows:
        start = time.perf_counter()
        model, tokenizer = made(row, folder)
        took = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as saved:
            qk.save_pretrained(model, saved)
            size = sum(file.stat().st_size for file in Path(saved).glob("*.safetensors"))
        score = bits_per_byte(model, tokenizer)
        made_in = f"made in {took:.0f} s"
        print(f"{row:<9} {size / 1e6:7.1f} MB  {score:.4f} bits per byte  {made_in}", flush=True)


if __name__ == "__main__":
    main()
