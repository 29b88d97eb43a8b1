"""Which operators have a kernel for MPS: read from the list that torch itself ships.

torch builds its dispatcher from a file, native_functions.yaml, that names every operator and the
devices it has a kernel for. The wheel contains the file, on Linux too, so it can be asked here
what a Mac would do with the same version of torch.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from qwenkit.errors import QwenkitError

# A composite kernel is made of other operators, and so serves every device. An implicit one is
# taken apart before a rehearsal sees it; an explicit one hides its operators until it is opened.
EXPLICIT = "CompositeExplicitAutograd"
IMPLICIT = "CompositeImplicitAutograd"
SERVE_MPS = (
    "MPS", "SparseMPS", "SparseCsrMPS",
    IMPLICIT, EXPLICIT, "CompositeExplicitAutogradNonFunctional",
)  # fmt: skip

# What torch takes because the rehearsal is on the CPU -> what it takes on MPS for the same call.
ON_MPS = {
    # Flash attention is written for the CPU; on MPS one kernel does the open computation, and
    # where gradients are needed torch differentiates matmul and softmax.
    "aten::_scaled_dot_product_flash_attention_for_cpu": (
        "aten::_scaled_dot_product_attention_math_for_mps"
    ),
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "aten::_softmax_backward_data",
    # oneDNN ("mkldnn") is Intel's library for the CPU.
    "aten::mkldnn_rnn_layer": "aten::_lstm_mps",
    "aten::mkldnn_rnn_layer_backward": "aten::lstm_mps_backward",
    # These are composites that look at the device and choose.
    "aten::convolution": "aten::_mps_convolution",
    "aten::convolution_backward": "aten::mps_convolution_backward",
}


@dataclass
class _Entry:
    """One operator of the file; `delegate` names another one that has its kernels."""

    backends: set[str] = field(default_factory=set)
    delegate: str | None = None
    generated: list[str] = field(default_factory=list)


def kernels(operator: str) -> frozenset[str]:
    """Return the backends and composites that an operator has kernels for.

    Args:
        operator: with its namespace and overload, such as "aten::add.Tensor". The overload
            "default" has no name there: "aten::mm".
    """
    namespace, _, name = operator.partition("::")
    listed = native_functions() if namespace == "aten" else {}
    if name in listed:
        return listed[name]
    # Not of the file: an operator that was registered from Python or by another library.
    return frozenset(key for key in SERVE_MPS if _registered(operator, key))


def _registered(operator: str, key: str) -> bool:
    """Tell whether torch, as it runs here, has a kernel of an operator for a dispatch key."""
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)
    except RuntimeError:  # no such operator
        return False


@functools.cache
def runs_on_mps(operator: str) -> bool:
    """Tell whether an operator has a kernel that serves tensors on MPS."""
    return not kernels(ON_MPS.get(operator, operator)).isdisjoint(SERVE_MPS)


@functools.cache
def hides_others(operator: str) -> bool:
    """Tell whether MPS would run this operator as a composite of others, which may lack a kernel.

    Calling a kernel that is not there would crash, so torch itself is asked whether it has one.
    """
    if "MPS" in kernels(ON_MPS.get(operator, operator)):
        return False
    return _registered(operator, EXPLICIT)


@functools.cache
def native_functions() -> dict[str, frozenset[str]]:
    """Return name -> backends of every operator in torch's own list.

    torchgen has a parser for the file, which takes seconds: it checks every signature. Here only
    the lines about kernels matter.

    Raises:
        QwenkitError: this torch came without its list.
    """
    spec = importlib.util.find_spec("torchgen")  # finds the folder without importing it
    folder = Path(spec.origin).parent if spec and spec.origin else Path("torchgen")
    file = folder / "packaged" / "ATen" / "native" / "native_functions.yaml"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise QwenkitError(
            f"{file} is missing; torch's wheel brings it, so install torch with pip"
        ) from None
    entries = _entries(lines)
    found = {name: frozenset(_backends(entry, entries)) for name, entry in entries.items()}
    # Variants that torch generates (in place, out=) call the operator they are generated from.
    for name, entry in entries.items():
        found.update({variant: found[name] for variant in entry.generated if variant not in found})
    return found


def _backends(entry: _Entry, entries: dict[str, _Entry]) -> set[str]:
    if entry.delegate is not None:
        return entries[entry.delegate].backends
    return entry.backends or {IMPLICIT}  # the file's rule: no dispatch means implicit


def _entries(lines: Iterable[str]) -> dict[str, _Entry]:
    """Read the lines that name an operator, its dispatch, its delegate or generated variants."""
    entries: dict[str, _Entry] = {}
    entry = _Entry()
    in_dispatch = False
    for line in lines:
        text = line.partition("#")[0].rstrip()
        indent, (key, _, value) = len(text) - len(text.lstrip()), text.strip().partition(":")
        if text.startswith("- func:"):
            entry = entries.setdefault(value.partition("(")[0].strip(), _Entry())
        elif indent == 2:
            in_dispatch = key == "dispatch"
            if key == "structured_delegate":
                entry.delegate = value.strip()
            elif key == "autogen":
                entry.generated = [name.strip() for name in value.split(",")]
            elif in_dispatch and value.strip() == "{}":
                entry.backends.add("none")  # written out: no kernel at all
        elif indent == 4 and in_dispatch:
            entry.backends.update(backend.strip() for backend in key.split(","))
    return entries
