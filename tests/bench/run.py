"""Time qwenkit next to transformers (sdpa) and the machine's own limits, in one run.

    QWENKIT_MODEL=folder python tests/bench/run.py [--json FILE] [--rounds N] [--growth]

Machines are noisy, so nothing here is judged by a clock alone: all sides take turns, the order
changes every round, and the ratio within each round counts. A ratio below 1 means qwenkit is
faster. transformers computes in float32 throughout: bfloat16, int8 and int4 are what qwenkit
offers instead.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

import models
import processes
import qwenkit as qk
from promises import promises
from record import record
from rows import Rows, show
from sizes import SMALL, Sizes
from timing import few, others_share


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all of it to this file as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="with length and batch too (minutes)")
    parser.add_argument("--small", action="store_true", help="few tokens: tries the bench itself")
    options = parser.parse_args()
    source = os.environ.get("QWENKIT_MODEL")
    if not source:
        sys.exit("set QWENKIT_MODEL to a checkpoint folder or a Hub id first")
    folder = str(qk.resolve(source))
    longest = qk.Checkpoint(folder).config.max_position_embeddings
    sizes = SMALL if options.small else Sizes().within(longest)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    with others_share() as others:
        rows = measure(folder, options.rounds, sizes, growth=options.growth)
    kept = list(promises(rows, sizes))
    print("promises", *kept, sep="\n")
    print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")
    if options.json:
        found = record(Path(source).name, options.rounds, sizes, rows, kept, others.share)
        options.json.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def measure(folder: str, rounds: int, sizes: Sizes, *, growth: bool) -> Rows:
    """Return all rows; each is printed as soon as it is there."""
    found: Rows = {}

    def add(more: Rows) -> None:
        found.update(more)
        show(more)

    add(processes.bench_loads(folder, few(rounds, 2), sizes))
    add(processes.bench_int8_load(folder, few(rounds, 2), sizes))
    add(processes.bench_memory(folder, sizes))
    loaded = models.Models(folder, sizes)
    torch.set_grad_enabled(False)  # only now: the models are loaded as a reader loads them
    add(models.bench_machine(loaded, rounds))
    add(models.bench_forwards(loaded, rounds))
    add(models.bench_trace(loaded, rounds))
    add(models.bench_tiny_coder(rounds))
    if growth:
        add(models.bench_growth(loaded, rounds))
    return found


if __name__ == "__main__":
    main()
