"""How the same model runs quickly: faster products, int8, int4, a decode step in compiled kernels.

`Int8Cache` is a KV cache in less memory.

`qwenkit.model` is the model as taught, and knows nothing of this package. The rules, each of which
a test holds:

1. Never another truth. A kernel reads the memory of the tensors that the model holds at that
   moment. An edit is seen by the next token, however it was made. (Where a signal or the like edits
   a model while `complete` runs, by the thirty-second: see `closed_loop`.)
2. Never behind a reader's back. A kernel stands in only for code that is what it was at import.
3. One seam. The decode step is chosen in one place, `generate.steps`. `model(ids)` always runs
   the taught forward.
4. Same numbers, to rounding, in every dtype.
"""

from qwenkit.arguments import check_public
from qwenkit.fast.closed_loop import ClosedLoop, Greedy
from qwenkit.fast.decode import chosen_ahead, decode_step
from qwenkit.fast.int4 import dequantize, int4_linear, quantize_groups
from qwenkit.fast.int8 import int8_linear, quantize_rows
from qwenkit.fast.int8_cache import Int8Cache, stored_dtype
from qwenkit.fast.linear import FastLinear
from qwenkit.fast.quantize import make_room, quantize
from qwenkit.fast.switch import FAST, Explanation, accelerate, explain, plain, swap

__all__ = [
    "FAST",
    "ClosedLoop",
    "Explanation",
    "FastLinear",
    "Greedy",
    "Int8Cache",
    "accelerate",
    "chosen_ahead",
    "decode_step",
    "dequantize",
    "explain",
    "int4_linear",
    "int8_linear",
    "make_room",
    "plain",
    "quantize",
    "quantize_groups",
    "quantize_rows",
    "stored_dtype",
    "swap",
]

_SAY_WHY = {"chosen_ahead", "decode_step", "explain"}  # of whatever is not a model
check_public(globals(), set(__all__) - _SAY_WHY - {"quantize"}, only=("model",))
check_public(globals(), ("quantize",))
