"""The accelerated model: the taught one, but for the head of a tied or quantized one."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.fast._machine import Unchanged
from qwenkit.fast.int4 import Int4Linear
from qwenkit.fast.int8 import Int8Embedding, Int8Linear
from qwenkit.fast.linear import linear
from qwenkit.model import QwenForCausalLM

_taught = Unchanged((QwenForCausalLM, "head"))
_product = Unchanged((F, "linear"))


class FastQwenForCausalLM(QwenForCausalLM):
    """`QwenForCausalLM` whose tied head takes the fastest product, and an int8 embedding too.

    A quantized head gives logits in float32, whatever the model computes in. bfloat16 has eight
    bits: the logits of two tokens are often equal then, or change places.
    """

    def head(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Score every token."""
        if not _taught:
            return super().head(x)
        if isinstance(self.lm_head, Int8Linear | Int4Linear):
            x = x.float()
        if self.lm_head is not None:
            return super().head(x)
        table = self.model.embed_tokens
        if isinstance(table, Int8Embedding):
            return table.as_head(x.float())
        return linear(x, table.weight) if _product else super().head(x)
