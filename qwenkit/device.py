"""Where to compute, in which dtype, how much memory is free there, and what goes wrong there."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from qwenkit.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LONGEST_SUM_ON_MPS = 32_766  # terms of one sum in a matrix product; see training_problem


class Defect(NamedTuple):
    """What MPS computes wrong, without an error, in some versions of torch."""

    issue: int  # number in pytorch/pytorch; or of the pull request that fixes it
    since: str  # first version with it
    fixed: str | None  # first version without it
    avoid: bool  # whether not to use MPS at all: the model cannot compute it in another way
    wrong: str  # what happens
    instead: str = ""  # what to do without another version


_FEW = "attention of up to 8 queries"
DEFECTS_OF_MPS = (
    Defect(163598, "2.8", "2.9", True, f"{_FEW} reads non-contiguous queries as contiguous"),
    Defect(174945, "2.8", "2.11", True, f"{_FEW} to 1024 keys or more is garbage in 16-bit dtypes"),
    Defect(181151, "2.8", "2.12", True, f"{_FEW} mixes up the sequences of a transposed batch"),
    Defect(184180, "2.8", "2.13", True, f"{_FEW} uses the first sequence's mask for the batch"),
    Defect(181575, "2.5", "2.13", True, "causal attention in 16-bit dtypes sees up to "
           "three future tokens"),
    Defect(161641, "2.8", "2.9", False, "F.linear reads a non-contiguous input or weight as "
           "contiguous", "call .contiguous() first"),
    Defect(181466, "2.8", "2.13", False, "on an M5, F.linear without a bias in a 16-bit dtype "
           "varies from call to call for some shapes"),
    Defect(192934, "2.13", None, False, "on an M1 with macOS 26, F.linear with a bias is wrong for "
           "an input of 3 or more dimensions", "multiply without the bias, then add it"),
    Defect(183535, "2.7", "2.14", False, "on an M1 or M2, a matrix product that sums 32,767 terms "
           "or more reads past its operands"),
    Defect(195012, "2.7", None, False, "on an M1 or M2, a batch of matrix products that sum 32,767 "
           "terms or more reads past its operands", "make the sums shorter"),
)  # fmt: skip


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
    have = {
        "cpu": 1, "mps": int(torch.backends.mps.is_available()), "meta": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
    }  # fmt: skip
    if device.type not in have:
        raise InputError(f"device is {name!r}; it must be 'auto', 'cpu', 'mps' or 'cuda'")
    if (device.index or 0) >= have[device.type]:
        raise InputError(f"device is {name!r}, which is not on this machine; use 'auto' or 'cpu'")
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
    """Return bfloat16 on MPS from macOS 14 on (older ones do not have it), else float32.

    Most CPUs compute float32 faster than the bfloat16 that checkpoints are stored in.
    """
    macos = int(platform.mac_ver()[0].split(".")[0] or 0)
    return torch.bfloat16 if device.type == "mps" and macos >= 14 else torch.float32


@functools.cache
def has_bfloat16_products() -> bool:
    """Tell whether this processor has instructions that multiply bfloat16."""
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

    Apple's GPU shares the machine's memory, so this holds for MPS too. A container's limit counts
    if it is lower than what the machine has free; its cached files count as free.
    """
    free = int(psutil.virtual_memory().available)
    limit, used = _container("max").strip(), _container("current").strip()
    if not (limit.isdecimal() and used.isdecimal()):  # no such file, or "max": no limit
        return free
    lines = _container("stat").splitlines()
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return min(free, max(int(limit) - int(used) + cached, 0))


def _container(file: str) -> str:
    try:
        return Path(f"/sys/fs/cgroup/memory.{file}").read_text()
    except OSError:
        return ""


def known_defects(device: torch.device, version: str) -> list[Defect]:
    """Return what a device gets wrong in a version of torch.

    >>> [defect.issue for defect in known_defects(torch.device("mps"), "2.14.0+cpu")]
    [192934, 195012]

    Raises:
        InputError: the version does not begin with two numbers.
    """
    if device.type != "mps":
        return []
    number = _numbers(version)
    known = [defect for defect in DEFECTS_OF_MPS if _numbers(defect.since) <= number]
    return [defect for defect in known if not defect.fixed or number < _numbers(defect.fixed)]


def known_problem(device: torch.device, version: str | None = None) -> str | None:
    """Return why not to use a device with a version of torch (None: this one); None: no reason."""
    version = version or torch.__version__
    bad = [defect for defect in known_defects(device, version) if defect.avoid]
    if not bad:
        return None
    major, minor = _numbers(version)
    wrong = "; ".join(defect.wrong for defect in bad)
    fixed = max((defect.fixed for defect in bad if defect.fixed), key=_numbers)
    return f"torch {major}.{minor} on MPS: {wrong}; upgrade torch to {fixed} or newer"


def training_problem(device: torch.device, vocab_size: int) -> str | None:
    """Return what is known to go wrong when a vocabulary of this size is trained; None: nothing.

    The gradient that a head passes to the layers is a sum over the vocabulary (#183535).
    """
    bad = [one for one in known_defects(device, torch.__version__) if one.issue == 183535]
    if vocab_size <= LONGEST_SUM_ON_MPS or not bad:
        return None
    major, minor = _numbers(torch.__version__)
    return (
        f"torch {major}.{minor} on MPS: {bad[0].wrong}, as for the gradient of a head with "
        f'{vocab_size:,} tokens; train with device="cpu", or upgrade torch to {bad[0].fixed} or '
        "newer"
    )


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise InputError(f"version is {version!r}; it must begin with two numbers, such as 2.13")
    return int(match[1]), int(match[2])
