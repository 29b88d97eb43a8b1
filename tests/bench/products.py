"""Time every way to multiply by a weight, on the shapes of a model, beside what is chosen.

    QWENKIT_MODEL=folder python tests/bench/products.py [--rounds N]

Times are milliseconds for as many different weights as the model has layers, so that no weight is
still in the processor's cache; the head is one weight. "chosen" is what `linear` takes in a large
model, "turned" the same where the output may lie column by column. The last column says how many
bytes of weights a second the chosen way read.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import qwenkit as qk
from qwenkit.fast.linear import by_loop, by_slices, by_vector, from_the_left, linear, widened
from qwenkit.fast.quantize import int8_linear, quantize_rows
from qwenkit.model import reading
from rows import spread
from timing import others_share, seconds, take_turns

ROWS = (1, 2, 4, 8, 12, 16, 64, 512)
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


def ways(rows: int, dtype: torch.dtype) -> dict[str, Way]:
    """Return name -> product, of those that can do these rows in this dtype."""
    found: dict[str, Way] = {"F.linear": F.linear, "chosen": linear}
    found |= {"vector": by_vector} if rows == 1 else {"left": from_the_left}
    if rows <= 16 and reading.compiled_loop():
        found |= {"loop": lambda x, w: by_loop(x, reading.reading(w))}
    if rows > 64:
        found |= {"turned": lambda x, w: linear(x, w, may_turn=True)}
    if dtype == torch.float32:
        found |= {"slices": by_slices}
    if dtype == torch.bfloat16:
        found |= {"widened": widened}
    return found


def prepared(weights: list[torch.Tensor]) -> None:
    """Let the compiled loop read weights, as those of a large model."""
    model = nn.Module()
    for number, weight in enumerate(weights):
        model.register_buffer(str(number), weight)
    reading.prepare(model)


def row(outer: int, inner: int, count: int, rows: int, dtype: str, rounds: int) -> dict[str, float]:
    """Return way -> median seconds."""
    floating = torch.bfloat16 if dtype == "int8" else getattr(torch, dtype)
    weights = [torch.randn(outer, inner).to(floating) for _ in range(count)]
    prepared(weights)
    x = torch.randn(rows, inner).to(floating)
    works: dict[str, Callable[[], object]] = {}
    if dtype == "int8":
        small = [quantize_rows(weight) for weight in weights]
        prepared([weight for weight, _ in small])
        works["chosen"] = lambda: [int8_linear(x, *pair) for pair in small]
        works["widened"] = lambda: [widened(x, w, dtype=x.dtype) * scale for w, scale in small]
        if rows <= 64:
            works["int8pack"] = lambda: [torch._weight_int8pack_mm(x, w, s) for w, s in small]
    else:
        for name, way in ways(rows, floating).items():
            works[name] = lambda way=way: [way(x, weight) for weight in weights]
    sides = {name: (lambda work=work: seconds(work)) for name, work in works.items()}
    return {name: spread(found).median for name, found in take_turns(sides, rounds).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    reading.LARGE_MODEL = 0  # each set of weights stands for a whole model's
    folder = qk.hub.resolve(os.environ.get("QWENKIT_MODEL"))
    config = qk.Checkpoint(folder).config
    with others_share() as others, torch.no_grad():
        for dtype in ("float32", "bfloat16", "int8"):
            size = {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
            for name, (outer, inner, count) in shapes(config).items():
                for rows in ROWS if name != "head" else (1, 64):
                    found = row(outer, inner, count, rows, dtype, options.rounds)
                    rate = outer * inner * count * size / found["chosen"] / 1e9
                    times = "  ".join(f"{way} {t * 1e3:.2f}" for way, t in found.items())
                    print(f"{dtype:<9}{name:<10}{rows:>4} rows  {times}  {rate:.0f} GB/s")
    print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")


if __name__ == "__main__":
    main()
