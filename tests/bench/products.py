"""Time every way to multiply by a weight, on the shapes of a model, next to what is chosen.

    QWENKIT_MODEL=folder python tests/bench/products.py [--rounds N]

Times are milliseconds for as many different weights as the model has layers, so that no weight is
still in the processor's cache; the head is one weight. "chosen" is what `linear` takes. The last
column says how many bytes of weights per second the chosen way read.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

import qwenkit as qk
from qwenkit.config import GROUP
from qwenkit.fast import linear as fast
from qwenkit.fast._machine import kernels_problem
from qwenkit.fast.int8 import int8_linear, quantize_rows
from rows import spread
from timing import others_share, seconds, take_turns

TOKENS = (1, 2, 4, 8, 12, 16, 64, 512)
Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def shapes(config: qk.QwenConfig) -> dict[str, tuple[int, int, int]]:
    """Return name -> (rows, columns, how many) of a model's matrices."""
    layers, hidden = config.num_hidden_layers, config.hidden_size
    return {
        "k_proj": (config.num_key_value_heads * config.head_dim, hidden, layers),
        "q_proj": (config.num_attention_heads * config.head_dim, hidden, layers),
        "gate_proj": (config.intermediate_size, hidden, layers),
        "down_proj": (hidden, config.intermediate_size, layers),
        "head": (config.vocab_size, hidden, 1),
    }


def ways(tokens: int, dtype: torch.dtype) -> dict[str, Way]:
    """Return name -> product, of those that can do so many tokens in this dtype."""
    found: dict[str, Way] = {"F.linear": F.linear, "chosen": fast.linear}
    found |= {"vector": fast.by_vector} if tokens == 1 else {"left": fast.from_the_left}
    if tokens <= 16 and kernels_problem() is None:
        found["kernel"] = fast.by_kernel
    if dtype == torch.float32:
        found["slices"] = fast.by_slices
    if dtype == torch.bfloat16:
        found["upcast"] = fast.upcast_in_chunks
    return found


def row(out: int, width: int, count: int, tokens: int, dtype: str, rounds: int) -> dict[str, float]:
    """Return way -> median seconds."""
    floating = torch.bfloat16 if dtype == "int8" else getattr(torch, dtype)
    weights = [torch.randn(out, width).to(floating) for _ in range(count)]
    x = torch.randn(tokens, width).to(floating)
    works: dict[str, Callable[[], object]] = {}
    if dtype == "int8":
        small = [quantize_rows(weight, GROUP) for weight in weights]
        rows = [quantize_rows(weight) for weight in weights]
        works["chosen"] = lambda: [int8_linear(x, *pair) for pair in small]
        works["rows"] = lambda: [int8_linear(x, *pair) for pair in rows]
        if tokens <= 16 and kernels_problem() is None:
            works["kernel"] = lambda: [fast.by_kernel(x, w, scale=s) for w, s in small]
        if tokens <= 64:
            works["int8pack"] = lambda: [torch._weight_int8pack_mm(x, w, s) for w, s in rows]
    else:
        for name, way in ways(tokens, floating).items():
            works[name] = lambda way=way: [way(x, weight) for weight in weights]
    sides = {name: partial(seconds, work) for name, work in works.items()}
    return {name: spread(found).median for name, found in take_turns(sides, rounds).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = qk.Checkpoint(qk.resolve(os.environ.get("QWENKIT_MODEL"))).config
    with others_share() as others, torch.no_grad():
        for dtype, size in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
            for name, (out, width, count) in shapes(config).items():
                for tokens in TOKENS if name != "head" else (1, 64):
                    found = row(out, width, count, tokens, dtype, options.rounds)
                    rate = out * width * count * size / found["chosen"] / 1e9
                    times = "  ".join(f"{way} {t * 1e3:.2f}" for way, t in found.items())
                    print(f"{dtype:<9}{name:<10}{tokens:>4} tokens  {times}  {rate:.0f} GB/s")
    print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")


if __name__ == "__main__":
    main()
