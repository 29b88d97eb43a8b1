"""Where to compute, in which dtype, how much memory is free there, and what the CPU can do."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import psutil
import torch

from qwenkit.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Silent wrong results on MPS in what this model computes, by the torch version's first two numbers.
# `qwenkit.mps.defects` has each defect, and its source.
_CAUSAL = "causal attention in half precision sees up to three tokens of its future"
_MASKS = "attention of up to 8 queries takes the first sequence's mask for all of a batch"
_BATCHES = "attention of up to 8 queries mixes up the sequences of a batch"
KNOWN_BAD_ON_MPS = {
    "2.8": "F.linear on non-contiguous input and attention at lengths up to 8 give wrong numbers",
    "2.9": f"{_CAUSAL}, and {_BATCHES}",
    "2.10": f"{_CAUSAL}, and {_BATCHES}",
    "2.11": f"{_CAUSAL}, and {_BATCHES}",
    "2.12": f"{_CAUSAL}, and {_MASKS}",
}

LONGEST_SUM_ON_MPS = 32_766  # terms of one sum in a matrix product; see training_problem


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device for a name; "auto": MPS where there is one, else the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if isinstance(name, torch.device):
        name = str(name)
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(f"device is {name!r}; it must be 'auto', 'cpu', 'mps' or 'cuda'") from None
    have = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if not have.get(device.type, True):
        raise InputError(f"device is {name!r}, which this machine has not; use 'auto' or 'cpu'")
    return device


def pick_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype for a name; "auto": `default_dtype`.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        return default_dtype(device)
    if not isinstance(name, str) or name not in DTYPES:
        raise InputError(f"dtype is {name!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def default_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on MPS from macOS 14 on (older ones have none), else float32.

    Most CPUs compute float32 faster than the bfloat16 that checkpoints are stored in.
    """
    macos = int(platform.mac_ver()[0].split(".")[0] or 0)
    return torch.bfloat16 if device.type == "mps" and macos >= 14 else torch.float32


@functools.cache
def has_bfloat16_products() -> bool:
    """Tell whether this processor multiplies bfloat16 by instructions of its own."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what it was given; needed before reading a clock."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory() -> int:
    """Return the bytes this process may still take without swapping.

    Apple's GPU shares the machine's memory, so the number serves for MPS too. Inside a container
    its own limit counts, where that is lower than what the machine has free.
    """
    free = int(psutil.virtual_memory().available)
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit is None or used is None:
        return free
    return min(free, max(limit - used + _cached_files(), 0))


def known_problem(device: torch.device) -> str | None:
    """Return what is known to go wrong with this torch on this device; None: nothing is."""
    version = ".".join(torch.__version__.split(".")[:2])
    if device.type == "mps" and version in KNOWN_BAD_ON_MPS:
        return (
            f"torch {version} on MPS: {KNOWN_BAD_ON_MPS[version]}; upgrade torch to 2.13 or newer"
        )
    return None


def training_problem(device: torch.device, vocab_size: int) -> str | None:
    """Return what is known to go wrong when a vocabulary of this size is trained; None: nothing.

    The gradient that a head hands down to the layers is a sum over the vocabulary. On the GPUs of
    the M1 and M2, torch before 2.14 may add to so long a sum what lies behind the operands
    (pytorch/pytorch, issue 195163).
    """
    major, minor = torch.__version__.split(".")[:2]
    mended = (int(major), int(minor)) >= (2, 14)
    if device.type != "mps" or vocab_size <= LONGEST_SUM_ON_MPS or mended:
        return None
    return (
        f"torch {major}.{minor} on MPS: on an M1 or M2, a sum of more than "
        f"{LONGEST_SUM_ON_MPS:,} terms in a matrix product may be wrong, and the gradient of a "
        f'head with {vocab_size:,} tokens is one; train with device="cpu", or upgrade torch to '
        "2.14 or newer"
    )


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None


def _cached_files() -> int:
    """Return the container's bytes of cached files, which it counts as used and gives up freely."""
    try:
        lines = Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
