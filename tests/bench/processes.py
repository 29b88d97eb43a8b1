"""What only a fresh process can tell: how long a load takes, and the most memory it ever held."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch

import qwenkit as qk
from qwenkit.pretrained import Forecast
from rows import Row, Rows
from sizes import KEPT, Sizes
from timing import seconds, take_turns

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
MODEL_ALONE = {
    "qwenkit": "import torch; model = qwenkit.load_model({0!r}, dtype={1!r}, device='cpu')",
    "transformers": "model = Qwen2ForCausalLM.from_pretrained({0!r}, dtype=torch.{1})",
}
# The first decoded token brings a compiler along: the program's memory, not the model's.
COMPILER = "from qwenkit.fast._machine import kernels_problem; kernels_problem()"
READY = IMPORTS | {"qwenkit": f"{IMPORTS['qwenkit']}; {COMPILER}"}
# A forward of one token uses every weight; then `peak` is what the process ever held.
ONE_TOKEN = "import torch; torch.set_grad_enabled(False); model(torch.tensor([[1]]))"
FORWARDS = {
    "qwenkit": "cache = qwenkit.KVCache(model.config, max_length={0}); "
    "model(torch.ones(1, {0}, dtype=torch.long), cache=cache, logits_to_keep={1})",
    "transformers": "kept = model(torch.ones(1, {0}, dtype=torch.long), use_cache=True, "
    "logits_to_keep={1})",
}
TRACED = (
    "cache = qwenkit.KVCache(model.config, max_length={0}); trace = qwenkit.Trace(keep={1!r}); "
    "model(torch.ones(1, {0}, dtype=torch.long), cache=cache, trace=trace, logits_to_keep=1)"
)
TIMER = """
import resource, sys, time
def peak():
    try:  # Linux: of this program alone; ru_maxrss begins with the peak of whoever started it
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{setup}
imported, before = time.perf_counter(), peak()
ready = time.perf_counter()
{work}
seconds = time.perf_counter() - ready
{then}
middle = peak()
{last}
print(imported - start, seconds, before, middle, peak())
"""


class Fresh(NamedTuple):
    """Seconds in a fresh process, and the peak of its memory in bytes at three moments.

    The peak only grows: what a later part adds is what it needs beyond all before it.
    """

    importing: float
    seconds: float
    before: float
    middle: float
    after: float

    @property
    def gigabytes(self) -> float:
        """What was added after the imports."""
        return (self.after - self.before) / 1e9


def in_fresh_process(work: str, setup: str, then: str = "", last: str = "") -> Fresh:
    """Run `setup`, `work`, `then` and `last`; `middle` is the peak between the last two."""
    code = TIMER.format(work=work, setup=setup, then=then, last=last)
    out = subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    importing, took, *peaks = map(float, out.split())
    unit = 1 if sys.platform == "darwin" else 1024
    return Fresh(importing, took, *(peak * unit for peak in peaks))


def loads(
    folder: str, dtype: str, libraries: Iterable[str], rounds: int, warm_up: int
) -> tuple[dict[str, list[Fresh]], Row]:
    """Return each library's runs, and the row of their seconds next to a bare read of the file."""

    def load(library: str) -> Fresh:
        work = LOADS[library].format(folder, dtype)
        return in_fresh_process(work, IMPORTS[library], last=ONE_TOKEN)

    read = partial(seconds, partial(read_weights, folder))
    sides = {name: partial(load, name) for name in libraries}
    found = take_turns({**sides, "file read": read}, rounds, warm_up)
    bare = {"file read": found.pop("file read")}
    return found, {name: [run.seconds for run in runs] for name, runs in found.items()} | bare


def read_weights(folder: str) -> None:
    """Read the weight files through a small buffer: from the page cache, if they were read before.

    A mapped tensor can be loaded sooner than this: its pages are read when they are first used.
    """
    buffer = bytearray(1 << 22)
    for path in qk.Checkpoint(folder).files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def bench_loads(folder: str, rounds: int, sizes: Sizes) -> Rows:
    """Import, load, and the memory of a model that has computed a token."""
    rows: Rows = {}
    for dtype in sizes.floats:
        found, row = loads(folder, dtype, LOADS, rounds, sizes.warm_starts)
        if not rows:
            rows["import, s"] = {n: [run.importing for run in runs] for n, runs in found.items()}
            size = sum(file.stat().st_size for file in qk.Checkpoint(folder).files)
            read = [size / 1e9 / took for took in row["file read"]]
            rows["weight file read, GB/s"] = {"machine": read}
        rows[f"load {dtype}, s"] = row
        memory = {name: [run.gigabytes for run in runs] for name, runs in found.items()}
        rows[f"loaded, one token {dtype}, GB"] = memory
    return rows


def bench_int8_load(folder: str, rounds: int, sizes: Sizes) -> Rows:
    """Load a checkpoint that was saved in int8: its file is read as it lies."""
    with tempfile.TemporaryDirectory() as there:
        model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype="int8")
        qk.save_pretrained(model, there, tokenizer)
        del model
        found, row = loads(there, "int8", ("qwenkit",), rounds, sizes.warm_starts)
    peaks = [run.gigabytes for run in found["qwenkit"]]
    return {"load int8, s": row, "loaded, one token int8, GB": {"qwenkit": peaks}}


def bench_memory(folder: str, sizes: Sizes) -> Rows:
    """Compare what a forward adds to a process's peak with its forecast, and with transformers."""
    compiler = in_fresh_process(COMPILER, IMPORTS["qwenkit"])
    rows: Rows = {"the compiler, MB": {"qwenkit": [compiler.gigabytes * 1e3]}}
    config = qk.Checkpoint(folder).config
    length = sizes.trace
    values = config.num_attention_heads * length * length + length * config.hidden_size
    traced = TRACED.format(length, KEPT)
    for dtype in sizes.floats:
        for tokens, kept in sizes.forwards:
            compared = dtype == "float32" and tokens == sizes.forwards[0][0]
            found = {
                name: forward_alone(name, folder, dtype, FORWARDS[name].format(tokens, kept))
                for name in (("qwenkit", "transformers") if compared else ("qwenkit",))
            }
            need = qk.forecast(config, dtype, tokens, logits_to_keep=kept)
            what = f"{dtype}, {tokens} tokens, {'all' if kept == 0 else 'one'} logits"
            rows |= memory_rows(what, found, need)
        trace = config.num_hidden_layers * values * getattr(torch, dtype).itemsize
        found = {"qwenkit": forward_alone("qwenkit", folder, dtype, traced)}
        need = qk.forecast(config, dtype, length, logits_to_keep=1, eager_attention=True)
        rows |= memory_rows(f"{dtype}, {length} tokens, traced", found, need, trace)
    return rows


def forward_alone(library: str, folder: str, dtype: str, forward: str) -> Fresh:
    """Load a model, compute one token, then this forward, in a process that has its compiler."""
    work = MODEL_ALONE[library].format(folder, dtype)
    return in_fresh_process(work, READY[library], then=ONE_TOKEN, last=forward)


def memory_rows(what: str, found: dict[str, Fresh], need: Forecast, trace: int = 0) -> Rows:
    """Return the rows of one forward, all of it and what it adds; `trace`: bytes recorded."""
    whole = {name: [run.gigabytes] for name, run in found.items()}
    whole["forecast"] = [(need.total + trace) / 1e9]
    added = {name: [(run.after - run.middle) / 1e6] for name, run in found.items()}
    added["forecast"] = [(need.cache + need.activations + trace) / 1e6]
    return {f"all of it, {what}, GB": whole, f"added to weights, {what}, MB": added}
