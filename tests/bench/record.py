"""A run as JSON: every number of every round, and all that is needed to read them later."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import qwenkit as qk
from promises import Promise
from rows import Row, Rows, ratios
from sizes import Sizes


def record(
    model: str, rounds: int, sizes: Sizes, rows: Rows, kept: Iterable[Promise], others: float
) -> dict[str, object]:
    """Return a run as JSON can hold it.

    A row's "values" are those of each round, by side; its "ratios" are those of qwenkit's value to
    each other side's: [median, lowest, highest], null where there was nothing to divide by.
    """
    return about(model, rounds) | {
        "sizes": asdict(sizes), "others": others,
        "rows": {n: {"values": row, "ratios": _ratios(row)} for n, row in rows.items()},
        "promises": [promise.as_json() for promise in kept],
    }  # fmt: skip


def about(model: str, rounds: int) -> dict[str, object]:
    """Return what the numbers of a run belong to: when, where, with what."""
    try:
        transformers = version("transformers")
    except PackageNotFoundError:
        transformers = None
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "model": model, "processor": processor(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers,
        "qwenkit": qk.__version__, "rounds": rounds,
    }  # fmt: skip


def _ratios(row: Row) -> dict[str, list[float | None]]:
    found = ratios(row).items()
    return {side: [None if math.isnan(x) else x for x in three] for side, three in found}


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
