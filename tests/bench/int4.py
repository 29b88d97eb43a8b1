"""What int8 and int4 cost: bytes on disk, and what they lose on code not calibrated on.

    QWENKIT_MODEL=folder python tests/bench/int4.py [--rows rtn "gptq 32"] [--tokens N]

Each row is one way to store the model that QWENKIT_MODEL names; a number after a method is the size
of its groups. "same token" is the share of positions at which the most likely next token is that
of the model in float32. Methods with calibration take some minutes at 0.5B. The code is four files
of Python's standard library, none of which the methods are calibrated on by default.
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
from torch import Tensor

import qwenkit as qk
from qwenkit.fast.calibration import MODULES
from qwenkit.generate import cache_for

HELD_OUT = ("bisect", "heapq", "shelve", "textwrap")
TOKENS = 1000  # of each file
ROWS = ("bfloat16", "int8", "rtn", "rtn 32", "awq", "gptq", "gptq 32")


def judged(
    model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer, tokens: int, cache_dtype: str = "auto"
) -> tuple[float, int, Tensor]:
    """Return bits per byte of the code, its bytes, and the most likely token at each position."""
    nats, size, likely = 0.0, 0, []
    for name in HELD_OUT:
        ids = tokenizer(inspect.getsource(import_module(name)))[:, :tokens]  # (1, T)
        cache = cache_for(model, 1, ids.shape[1], cache_dtype)
        logits = model(ids, cache=cache)[0, :-1].float()  # (T-1, V)
        nats -= logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
        size += len(tokenizer.decode(ids[0, 1:].tolist()).encode())
        likely.append(logits.argmax(-1))  # (T-1)
    return nats / size / math.log(2), size, torch.cat(likely)


def made(row: str, folder: str) -> tuple[qk.QwenForCausalLM, qk.Tokenizer]:
    """Return the model as a row stores it."""
    method, _, group = row.partition(" ")
    if method in ("float32", "bfloat16", "int8"):
        return qk.load_pretrained(folder, device="cpu", dtype=method)
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="bfloat16")
    needed = {} if method == "rtn" else {"tokenizer": tokenizer}
    qk.quantize(model, "int4", method=method, group=int(group) if group else None, **needed)
    return model, tokenizer


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    assert not set(HELD_OUT) & set(MODULES)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each file")
    options, folder = parser.parse_args(), os.environ["QWENKIT_MODEL"]
    score, size, likely = judged(*made("float32", folder), options.tokens)
    print(f"float32, {score:.4f} bits per byte on {len(likely)} tokens, {size} bytes", flush=True)
    for row in options.rows:
        start = time.perf_counter()
        model, tokenizer = made(row, folder)
        took = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as saved:
            qk.save_pretrained(model, saved)
            size = sum(file.stat().st_size for file in Path(saved).glob("*.safetensors"))
        score, _, own = judged(model, tokenizer, options.tokens)
        same = (own == likely).float().mean().item()
        print(
            f"{row:<9} {size / 1e6:7.1f} MB  {score:.4f} bits per byte  same token {same:.1%}  "
            f"made in {took:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
