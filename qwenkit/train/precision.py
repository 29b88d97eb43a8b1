"""Mixed precision: matrix products in bfloat16, weights, sums and everything else in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class _AttentionInFloat32(TorchFunctionMode):
    """Keeps autocast from attention.

    Also on a CPU that multiplies bfloat16, attention takes longer in it than in float32: most of
    the time goes into softmax and conversions, and not into products.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_upcast, args), **{name: _upcast(x) for name, x in kwargs.items()})


def _upcast(x: Any) -> Any:
    """Return a tensor of floats as float32, and anything else as it is."""
    return x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


@contextmanager
def products_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Compute the products of a block in a dtype; on a CPU those of attention in float32."""
    if dtype == torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype):
        if device.type != "cpu":
            yield
            return
        with _AttentionInFloat32():
            yield
