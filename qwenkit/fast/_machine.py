"""Whether this machine runs the compiled kernels, and on how many cores."""

import functools
import inspect
import os
import platform
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad

from qwenkit._deprecated import renamed
from qwenkit.errors import warn

MEASURED = ("x86_64", "amd64")
SLOWER = 1.25  # a kernel may be in one product: a token has fifty calls less


def plain_process() -> bool:
    """Tell whether QWENKIT_PLAIN asks this process to run every model as taught."""
    return os.environ.get("QWENKIT_PLAIN", "") not in ("", "0")


class Unchanged:
    """Notes functions at import; tells later whether each is still the same, its code included.

    `%autoreload` in a notebook rewrites the code of a function in its place.

    Args:
        functions: (class or module, name of the function there).
    """

    def __init__(self, *functions: tuple[Any, str]) -> None:
        self.noted = []
        for space, name in functions:
            found = getattr(space, name)
            inner = inspect.unwrap(found)
            self.noted.append((space, name, found, inner, _code(inner)))

    def __bool__(self) -> bool:
        return all(
            getattr(space, name) is found and _code(inner) is code
            for space, name, found, inner, code in self.noted
        )


def _code(function: Any) -> Any:
    """Return the code of a function; None for one written in C."""
    return getattr(function, "__code__", None)


def watched() -> str | None:
    """Say what torch does with every call at present: then each of them must be made."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "torch compiles or traces the model"
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "a mode of torch watches every call"
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return "a transform of torch.func, or forward-mode differentiation, is on"
    return "autocast is on" if torch.is_autocast_enabled("cpu") else None


def is_ordinary(tensor: Tensor) -> bool:
    """Tell whether a tensor is memory of the CPU and nothing else: not sparse, not a subclass."""
    own = type(tensor) in (Tensor, nn.Parameter) and tensor.is_cpu
    return own and tensor.layout == torch.strided and not tensor.is_neg()


def kernels_problem() -> str | None:
    """Say why the compiled kernels do not run here and now; None: they do."""
    return problem_here()


@functools.cache
def problem_here() -> str | None:
    """Say why the compiled kernels do not run on this machine; None: they do.

    They were measured on x86-64. On another processor one product decides, once per process. Numba
    is imported only here and by `fast.kernels`: it takes a second and 100 MB.
    """
    try:
        from qwenkit.fast.kernels import try_out

        try_out()
        if not is_measured():
            return lost_race()
    except Exception as error:  # of many types, by what the compiler misses; torch's products stay
        warn(f"decoding is slower than it could be: numba says {error}")
        return f"numba says {error}"
    return None


def lost_race() -> str | None:
    """Say why the kernels should not run on this processor; None: they are right, and fast."""
    from qwenkit.fast.race import NEAR, race

    found, machine = race(), platform.machine()
    if not found.difference < NEAR:
        return f"on this {machine} processor a kernel's result is wrong by {found.difference:.1e}"
    if found.kernel > SLOWER * found.torch:
        times = found.kernel / found.torch
        return f"on this {machine} processor a product takes {times:.1f} times as long as torch's"
    return None


def is_measured() -> bool:
    """Tell whether the kernels were measured on processors of this kind."""
    return platform.machine().lower() in MEASURED


def memory(tensor: Tensor) -> NDArray[Any]:
    """Return the very memory of a contiguous CPU tensor as an array; bfloat16 as uint16."""
    plain = tensor.detach()
    return (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()


def _kernels_serve() -> bool | None:
    return kernels_problem() is None or None


__getattr__ = renamed(__name__, compiled_loop="_kernels_serve")
