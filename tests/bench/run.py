"""Time qwenkit beside transformers (sdpa) in one run, and print the ratios.

    QWENKIT_MODEL=folder python tests/bench/run.py [--json FILE] [--rounds N]

Machines are noisy, so nothing here is judged by a clock alone: both sides take turns, the order
changes every round, and the ratio of the medians counts. A ratio below 1 means qwenkit is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

import qwenkit as qk

IMPORTS = {
    "qwenkit": "import qwenkit",
    "transformers": "from transformers import AutoTokenizer, Qwen2ForCausalLM",
}
LOADS = {
    "qwenkit": "import qwenkit; qwenkit.load_pretrained({0!r}, device='cpu', dtype={1!r})",
    "transformers": "from transformers import AutoTokenizer, Qwen2ForCausalLM; import torch; "
    "AutoTokenizer.from_pretrained({0!r}); "
    "Qwen2ForCausalLM.from_pretrained({0!r}, dtype=torch.{1})",
}
TIMER = """
import resource, sys, time
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{work}
print(time.perf_counter() - start, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def in_fresh_process(work: str, setup: str = "") -> tuple[float, float, float]:
    """Return seconds, and the process's peak memory before and after, in bytes."""
    code = TIMER.format(work=work, setup=setup)
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    seconds, before, after = map(float, out.split())
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, before * unit, after * unit


def take_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each side once a round, the order reversed every other round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            times[name].append(sides[name]())
    return times


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_processes(folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """Import and load, each in a process of its own."""
    rows = {}
    imports = {n: (lambda w=w: in_fresh_process(w)[0]) for n, w in IMPORTS.items()}
    rows["import"] = medians(take_turns(imports, rounds))
    for dtype in ("float32", "bfloat16"):
        peaks: dict[str, list[float]] = {name: [] for name in LOADS}

        def load(name: str, dtype: str = dtype, peaks: dict[str, list[float]] = peaks) -> float:
            work = LOADS[name].format(folder, dtype)
            took, _, peak = in_fresh_process(work, setup=IMPORTS[name])
            peaks[name].append(peak)
            return took

        sides = {name: (lambda name=name: load(name)) for name in LOADS}
        rows[f"load {dtype}"] = medians(take_turns(sides, rounds))
        rows[f"load {dtype}, peak GB"] = {n: max(p) / 1e9 for n, p in peaks.items()}
    return rows


def bench_models(folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """Prefill and decode in float32, both models in this process."""
    from transformers import Qwen2ForCausalLM

    ours, _ = qk.load_pretrained(folder, device="cpu", dtype="float32")
    theirs = Qwen2ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, ours.num_tokens, (1, 512), generator=generator)

    def decode_ours() -> float:
        cache = qk.KVCache(ours.config, max_length=192)
        ours(ids[:, :128], cache=cache)
        return seconds(lambda: [ours(ids[:, i : i + 1], cache=cache) for i in range(128, 192)])

    def decode_theirs() -> float:
        cache = theirs(ids[:, :128], use_cache=True).past_key_values
        return seconds(
            lambda: [
                theirs(ids[:, i : i + 1], past_key_values=cache, use_cache=True)
                for i in range(128, 192)
            ]
        )

    rows = {}
    with torch.no_grad():
        difference = (ours(ids) - theirs(ids).logits).abs().max().item()
        rows["max |logit difference|"] = {"qwenkit": difference, "transformers": difference}
        for length in (128, 512):
            part = ids[:, :length]
            sides = {
                "qwenkit": lambda part=part: seconds(lambda: ours(part)),
                "transformers": lambda part=part: seconds(lambda: theirs(part)),
            }
            rows[f"prefill {length}"] = medians(take_turns(sides, rounds))
        sides = {"qwenkit": decode_ours, "transformers": decode_theirs}
        rows["decode 64 after 128"] = medians(take_turns(sides, max(3, rounds // 2)))
    return rows


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    folder = os.environ.get("QWENKIT_MODEL")
    if not folder:
        sys.exit("set QWENKIT_MODEL to a checkpoint folder or a Hub id first")
    folder = str(qk.hub.resolve(folder))
    psutil.cpu_percent()
    mine = sum(psutil.Process().cpu_times()[:4])
    began = time.perf_counter()
    rows = bench_processes(folder, max(3, options.rounds // 2)) | bench_models(
        folder, options.rounds
    )
    span = (time.perf_counter() - began) * os.cpu_count()
    mine = sum(psutil.Process().cpu_times()[:4]) - mine
    others = psutil.cpu_percent() / 100 - mine / span
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    print(f"{'':<26}{'qwenkit':>12}{'transformers':>14}{'ratio':>8}")
    for name, row in rows.items():
        ratio = row["qwenkit"] / row["transformers"] if row["transformers"] else 1.0
        print(f"{name:<26}{row['qwenkit']:>12.4g}{row['transformers']:>14.4g}{ratio:>8.2f}")
    print(f"other processes took {max(others, 0):.0%} of the cores; above 10 % run it again")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "others": others}, indent=2) + "\n")


if __name__ == "__main__":
    main()
