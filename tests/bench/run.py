"""Time qwenkit beside transformers (sdpa) and the machine's own limits, in one run.

    QWENKIT_MODEL=folder python tests/bench/run.py [--json FILE] [--rounds N] [--growth]

Machines are noisy, so nothing here is judged by a clock alone: all sides take turns, the order
changes every round, and the ratio of the medians counts. A ratio below 1 means qwenkit is faster.
transformers computes in float32 throughout: bfloat16 and int8 are what qwenkit offers instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
import torch.nn.functional as F

import qwenkit as qk

DTYPES = ("float32", "bfloat16", "int8")
IMPORTS = {
    "qwenkit": "import qwenkit",
    "transformers": "import torch; from transformers import AutoTokenizer, Qwen2ForCausalLM",
}
LOADS = {
    "qwenkit": "model, _ = qwenkit.load_pretrained({0!r}, device='cpu', dtype={1!r})",
    "transformers": "AutoTokenizer.from_pretrained({0!r}); "
    "model = Qwen2ForCausalLM.from_pretrained({0!r}, dtype=torch.{1})",
}
# The forecast is of a model; a tokenizer of Qwen's size takes memory of its own.
MODEL_ALONE = "import torch; model = qwenkit.load_model(qwenkit.Checkpoint({0!r}), torch.{1})"
# A forward of one token reads every weight; then `peak` is what the process ever held.
ONE_TOKEN = "import torch; torch.set_grad_enabled(False); model(torch.tensor([[1]]))"
FORWARD = (
    "import torch; torch.set_grad_enabled(False); "
    "cache = qwenkit.KVCache(model.config, max_length={0}); "
    "model(torch.ones(1, {0}, dtype=torch.long), cache=cache, logits_to_keep={1})"
)
TIMER = """
import resource, sys, time
{setup}
def peak():
    try:  # Linux: of this program alone; ru_maxrss begins with the peak of whoever started it
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
{then}
middle = peak()
{last}
print(seconds, before, middle, peak())
"""
Rows = dict[str, dict[str, float]]


def in_fresh_process(
    work: str, setup: str = "", then: str = "", last: str = ""
) -> tuple[float, float, float, float]:
    """Return seconds of `work`, and the peak memory in bytes after setup, after then, after last.

    On the CPU the peak only grows: what `last` adds is what it needs beyond all before it.
    """
    code = TIMER.format(work=work, setup=setup, then=then, last=last)
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    took, *peaks = map(float, out.split())
    unit = 1 if sys.platform == "darwin" else 1024
    return (took, *(peak * unit for peak in peaks))  # type: ignore[return-value]


def take_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each side once a round, the order reversed every other round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            times[name].append(sides[name]())
    return times


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return each side's median."""
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def others_share() -> Iterator[SimpleNamespace]:
    """Measure which share of the cores went to processes that are not this one or its children."""

    def own() -> float:
        times = psutil.Process().cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def busy() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    found = SimpleNamespace(share=0.0)
    mine, all_of_them, began = own(), busy(), time.perf_counter()
    try:
        yield found
    finally:
        span = (time.perf_counter() - began) * (os.cpu_count() or 1)
        found.share = max((busy() - all_of_them) - (own() - mine), 0.0) / span


def bench_processes(folder: str, rounds: int) -> Rows:
    """Import, load and memory, each in a process of its own."""
    rows: Rows = {}
    imports = {n: (lambda w=w: in_fresh_process(w)[0]) for n, w in IMPORTS.items()}
    rows["import, s"] = medians(take_turns(imports, rounds))
    for dtype in ("float32", "bfloat16"):
        peaks: dict[str, list[float]] = {name: [] for name in LOADS}

        def load(name: str, dtype: str = dtype, peaks: dict[str, list[float]] = peaks) -> float:
            work = LOADS[name].format(folder, dtype)
            took, before, _, after = in_fresh_process(work, IMPORTS[name], last=ONE_TOKEN)
            peaks[name].append(after - before)
            return took

        sides = {name: (lambda name=name: load(name)) for name in LOADS}
        rows[f"load {dtype}, s"] = medians(take_turns(sides, rounds))
        rows[f"loaded, one token {dtype}, GB"] = {n: max(p) / 1e9 for n, p in peaks.items()}
    return rows


def bench_int8_load(folder: str, rounds: int) -> Rows:
    """Load a checkpoint that was saved in int8: its file is read as it lies."""
    with tempfile.TemporaryDirectory() as there:
        model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="int8")
        qk.save_pretrained(model, there, tokenizer)
        del model
        work = LOADS["qwenkit"].format(there, "int8")
        found = [in_fresh_process(work, IMPORTS["qwenkit"], last=ONE_TOKEN) for _ in range(rounds)]
    return {
        "load int8, s": {"qwenkit": statistics.median(one[0] for one in found)},
        "loaded, one token int8, GB": {"qwenkit": max(one[3] - one[1] for one in found) / 1e9},
    }


def bench_memory(folder: str) -> Rows:
    """Compare the forecast of a forward's own memory with what it adds to the process's peak."""
    config = qk.Checkpoint(folder).config
    rows: Rows = {}
    for dtype in ("float32", "bfloat16"):
        for length, kept in ((512, 1), (512, 0), (2048, 1), (4096, 1)):
            load = MODEL_ALONE.format(folder, dtype)
            last = FORWARD.format(length, kept)
            _, before, loaded, after = in_fresh_process(
                load, IMPORTS["qwenkit"], then=ONE_TOKEN, last=last
            )
            need = qk.forecast(config, dtype, length, logits_to_keep=kept)
            what = f"{dtype}, {length} tokens, {'all' if kept == 0 else 'one'} logits"
            rows[f"all of it, {what}, GB"] = {
                "qwenkit": (after - before) / 1e9, "forecast": need.total / 1e9
            }  # fmt: skip
            rows[f"beside weights, {what}, MB"] = {
                "qwenkit": (after - loaded) / 1e6,
                "forecast": (need.cache + need.activations) / 1e6,
            }
    return rows


class Models:
    """The models under test, and what each takes turns at."""

    def __init__(self, folder: str) -> None:
        from transformers import Qwen2ForCausalLM

        self.ours = {d: qk.load_pretrained(folder, device="cpu", dtype=d)[0] for d in DTYPES}
        self.theirs = Qwen2ForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        first = self.ours["float32"]
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, first.num_tokens, (1, 4096), generator=generator)
        # What a forward multiplies by: every matrix once, the embedding as the head.
        self.weights = [p for p in first.parameters() if p.dim() == 2]

    def decode_ours(self, dtype: str, past: int = 128, tokens: int = 16, batch: int = 1) -> float:
        """Return the seconds a step of `tokens` steps after `past` tokens takes."""
        model = self.ours[dtype]
        ids = self.ids[:, : past + tokens].expand(batch, -1)
        cache = qk.KVCache(model.config, batch, max_length=past + tokens)
        model(ids[:, :past], cache=cache, logits_to_keep=1)
        steps = range(past, past + tokens)
        took = seconds(lambda: [model(ids[:, i : i + 1], cache=cache) for i in steps])
        return took / tokens

    def decode_theirs(self, past: int = 128, tokens: int = 16) -> float:
        """The same in transformers."""
        cache = self.theirs(self.ids[:, :past], use_cache=True, logits_to_keep=1).past_key_values
        steps = range(past, past + tokens)

        def run() -> None:
            for i in steps:
                self.theirs(self.ids[:, i : i + 1], past_key_values=cache, use_cache=True)

        return seconds(run) / tokens

    def products(self, rows: int) -> float:
        """Multiply `rows` rows by every weight, with F.linear in float32, and nothing else."""
        inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in self.weights}
        layers = [w for w in self.weights if len(w) != self.theirs.config.vocab_size]
        head = [w for w in self.weights if len(w) == self.theirs.config.vocab_size]

        def run() -> None:
            for weight in layers:
                F.linear(inputs[weight.shape[1]], weight)
            for weight in head:  # for the last position alone
                F.linear(inputs[weight.shape[1]][-1:], weight)

        return seconds(run)


def bench_models(models: Models, rounds: int) -> Rows:
    """Prefill, decode and trace, beside transformers and the bare products."""
    rows: Rows = {}
    ours, theirs, ids = models.ours, models.theirs, models.ids
    part = ids[:, :512]
    difference = (ours["float32"](part) - theirs(part).logits).abs().max().item()
    rows["max |logit difference|"] = {"qwenkit": difference}
    for length in (128, 512):
        part = ids[:, :length]
        sides: dict[str, Callable[[], float]] = {
            f"qwenkit {d}": (
                lambda d=d, part=part: seconds(lambda: ours[d](part, logits_to_keep=1))
            )
            for d in DTYPES
        }
        sides["transformers"] = lambda part=part: seconds(lambda: theirs(part, logits_to_keep=1))
        sides["bare products"] = lambda length=length: models.products(length)
        rows |= side_by_side(f"prefill {length}, s", medians(take_turns(sides, rounds)))
    sides = {f"qwenkit {d}": (lambda d=d: models.decode_ours(d)) for d in DTYPES}
    sides["transformers"] = models.decode_theirs
    sides["bare products"] = lambda: models.products(1)
    rows |= side_by_side("decode after 128, s a token", medians(take_turns(sides, rounds)))
    return rows | bench_trace(models, rounds)


def bench_trace(models: Models, rounds: int) -> Rows:
    """A trace of all patterns and hidden states, beside a plain forward."""
    model, part = models.ours["float32"], models.ids[:, :256]
    keep = ("attn.pattern", "resid_post")
    sides = {
        "plain": lambda: seconds(lambda: model(part)),
        "qwenkit": lambda: seconds(lambda: model(part, trace=qk.Trace(keep=keep))),
    }
    return {"trace of 256 beside a plain forward, s": medians(take_turns(sides, rounds))}


def side_by_side(name: str, found: dict[str, float]) -> Rows:
    """Return one row for each dtype of ours, with the two it is compared with."""
    others = {n: found[n] for n in ("transformers", "bare products")}
    return {f"{name}, {d}": {"qwenkit": found[f"qwenkit {d}"], **others} for d in DTYPES}


def bench_machine(models: Models, rounds: int) -> Rows:
    """Return what the machine can do at most: read memory, and multiply."""
    big = torch.ones(1 << 28)  # 1 GiB
    square = torch.randn(2048, 2048)
    reads = [big.nbytes / 1e9 / seconds(big.sum) for _ in range(rounds)]
    products = [2 * 2048**3 / 1e9 / seconds(lambda: square @ square) for _ in range(rounds)]
    bytes_read = sum(weight.nbytes for weight in models.weights) / 1e9
    rate = [bytes_read / models.products(1) for _ in range(rounds)]
    return {
        "memory read, GB/s": {"machine": statistics.median(reads)},
        "one-row products read, GB/s": {"machine": statistics.median(rate)},
        "float32 products, GFLOP/s": {"machine": statistics.median(products)},
    }


def bench_growth(models: Models, rounds: int) -> Rows:
    """How prefill and decode grow with the length, and decode with the batch."""
    rows: Rows = {}
    for length in (64, 128, 256, 512, 1024, 2048, 4096):
        part = models.ids[:, :length]
        few = max(rounds // 2, 1) if length > 512 else rounds
        sides = {
            d: (lambda d=d, part=part: seconds(lambda: models.ours[d](part, logits_to_keep=1)))
            for d in DTYPES
        }
        found = medians(take_turns(sides, few))
        rows[f"prefill {length}, ms a token"] = {d: t / length * 1e3 for d, t in found.items()}
    for past in (128, 512, 2048, 4080):
        sides = {d: (lambda d=d, past=past: models.decode_ours(d, past, 8)) for d in DTYPES}
        found = medians(take_turns(sides, max(rounds // 2, 1)))
        rows[f"decode after {past}, ms a token"] = {d: t * 1e3 for d, t in found.items()}
    for batch in (1, 2, 4, 8):
        sides = {d: (lambda d=d, b=batch: models.decode_ours(d, 64, 8, b)) for d in DTYPES}
        found = medians(take_turns(sides, max(rounds // 2, 1)))
        rows[f"decode, batch {batch}, ms a step"] = {d: t * 1e3 for d, t in found.items()}
    return rows


def show(rows: Rows) -> None:
    """Print rows, and how many times each other side's number ours is."""
    for name, row in rows.items():
        ours = row.get("qwenkit")
        cells = [f"{side} {value:.4g}" for side, value in row.items()]
        if ours is not None:
            cells += [f"= {ours / v:.2f} × {side}" for side, v in row.items() if side != "qwenkit"]
        print(f"{name:<52}{'   '.join(cells)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="with length and batch too (minutes)")
    options = parser.parse_args()
    folder = os.environ.get("QWENKIT_MODEL")
    if not folder:
        sys.exit("set QWENKIT_MODEL to a checkpoint folder or a Hub id first")
    folder = str(qk.hub.resolve(folder))
    few = max(2, options.rounds // 2)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    rows: Rows = {}

    def add(more: Rows) -> None:
        rows.update(more)
        show(more)

    with others_share() as others:
        add(bench_processes(folder, few))
        add(bench_int8_load(folder, few))
        add(bench_memory(folder))
        models = Models(folder)  # outside of inference mode, in which torch counts no changes
        torch.set_grad_enabled(False)
        add(bench_machine(models, options.rounds))
        add(bench_models(models, options.rounds))
        if options.growth:
            add(bench_growth(models, options.rounds))
    print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "others": others.share}, indent=2) + "\n")


if __name__ == "__main__":
    main()
