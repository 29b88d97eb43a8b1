"""The embedding: one row of numbers for each token; read the other way round, the tied head."""

from jaxtyping import Float
from torch import Tensor, nn

from qwenkit.model.linear import linear


class Embedding(nn.Embedding):
    """A table with a vector for each token, as `nn.Embedding`."""

    def as_head(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T V"]:
        """Score every token by the dot product of its vector with x (Press and Wolf 2017)."""
        return linear(x, self.weight)  # (B, T, V)
