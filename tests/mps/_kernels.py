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
EXPLICIT, IMPLICIT = "CompositeExplicitAutograd", "CompositeImplicitAutograd"
SERVE_MPS = ("MPS", "SparseMPS", "SparseCsrMPS", IMPLICIT, EXPLICIT, f"{EXPLICIT}NonFunctional")
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


def kernels(operator: str) -> set[str]:
    """Return those of SERVE_MPS that an operator, such as "aten::add.Tensor", has kernels for."""
    namespace, _, name = operator.partition("::")
    if namespace == "aten" and name in native_functions():
        return native_functions()[name]
    # Not in the file: an operator that was registered from Python or by another library.
    return {key for key in SERVE_MPS if _registered(operator, key)}


def _registered(operator: str, key: str) -> bool:
    """Tell whether torch, as it runs here, has a kernel of an operator for a dispatch key."""
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)
    except RuntimeError:  # no such operator
        return False


@functools.cache
def runs_on_mps(operator: str) -> bool:
    """Tell whether an operator has a kernel that serves tensors on MPS."""
    return bool(kernels(ON_MPS.get(operator, operator)))


@functools.cache
def hides_others(operator: str) -> bool:
    """Tell whether MPS would run this operator as a composite of others, which may lack a kernel.

    Calling a kernel that is not there would crash, so torch itself is asked whether it has one.
    """
    return "MPS" not in kernels(ON_MPS.get(operator, operator)) and _registered(operator, EXPLICIT)


@functools.cache
def native_functions() -> dict[str, set[str]]:
    """Return `kernels` of every operator in torch's own list.

    Raises:
        QwenkitError: this torch came without its list.
    """
    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    files = [str(folder / name) for name in ("native_functions.yaml", "tags.yaml")]
    try:
        parsed = parse_native_yaml(*files)
    except OSError:
        message = f"{files[0]} is missing; torch's wheel brings it, so install torch with pip"
        raise QwenkitError(message) from None
    indices = {str(key): index for key, index in parsed.backend_indices.items()}
    written = {f.func.name: f for f in parsed.native_functions if "generated" not in f.tags}
    found: dict[str, set[str]] = {}
    for name, function in written.items():
        source = written[function.structured_delegate or name]  # it has the kernels
        has = {key for key in SERVE_MPS if key in indices and indices[key].has_kernel(source)}
        has |= {IMPLICIT} if source.has_composite_implicit_autograd_kernel else set()
        # Variants that torch generates (in place, out=) call the operator they are generated from.
        found |= {str(variant): has for variant in (name, *function.autogen)}
    return found
