"""Which operators have a kernel for MPS: read from the list that torch itself ships.

torch builds its dispatcher from a file, native_functions.yaml, that names every operator and the
devices it has a kernel for. The wheel contains the file, on Linux too, and torchgen, its parser.
"""

import functools
from pathlib import Path

import torch
import torchgen
from torchgen.gen import parse_native_yaml

from qwenkit.errors import QwenkitError

# A composite kernel is made of other operators, and so serves every device. An implicit one is
# decomposed before a rehearsal sees it; an explicit one hides its operators until it is opened.
EXPLICIT = "CompositeExplicitAutograd"
IMPLICIT = "CompositeImplicitAutograd"
SERVE_MPS = (
    "MPS", "SparseMPS", "SparseCsrMPS",
    IMPLICIT, EXPLICIT, "CompositeExplicitAutogradNonFunctional",
)  # fmt: skip

# What torch takes because the rehearsal is on the CPU -> what it takes on MPS for the same call.
ON_MPS = {
    # Flash attention is written for the CPU; on MPS one kernel computes eager attention, and
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


def kernels(operator: str) -> frozenset[str]:
    """Return the backends and composites that an operator has kernels for.

    Args:
        operator: with its namespace and overload, such as "aten::add.Tensor". The overload
            "default" has no name there: "aten::mm".
    """
    namespace, _, name = operator.partition("::")
    if namespace == "aten" and name in native_functions():
        return native_functions()[name]
    # Not in the file: an operator that was registered from Python or by another library.
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
    mps = "MPS" in kernels(ON_MPS.get(operator, operator))
    return not mps and _registered(operator, EXPLICIT)


@functools.cache
def native_functions() -> dict[str, frozenset[str]]:
    """Return name -> backends of every operator in torch's own list.

    Raises:
        QwenkitError: this torch came without its list.
    """
    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    file = folder / "native_functions.yaml"
    try:
        parsed = parse_native_yaml(str(file), str(folder / "tags.yaml"))
    except OSError:
        message = f"{file} is missing; torch's wheel brings it, so install torch with pip"
        raise QwenkitError(message) from None
    written = {f.func.name: f for f in parsed.native_functions if "generated" not in f.tags}
    found: dict[str, frozenset[str]] = {}
    for name, function in written.items():
        source = written[function.structured_delegate or name]  # it has the kernels
        backends = {str(k) for k, index in parsed.backend_indices.items() if index.has_kernel(source)}
        if source.has_composite_implicit_autograd_kernel:
            backends.add(IMPLICIT)
        found[str(name)] = frozenset(backends)
        # Variants that torch generates (in place, out=) call the operator they are generated from.
        for variant in function.autogen:
            found.setdefault(str(variant), found[str(name)])
    return found
