"""RMSNorm: divide each token's vector by its root mean square."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019, equation 4).

    y = x / sqrt(mean(x²) + eps) × weight, over the last dimension. Unlike LayerNorm it subtracts
    no mean and adds no bias.

    Args:
        size: length of the last dimension.
        eps: added under the root, so that a vector of zeros does not divide by zero.
    """

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Normalize each vector; same shape and dtype as `x`."""
        upcast = x.float()  # squares of bfloat16 values would lose most of their digits
        mean_square = upcast.pow(2).mean(dim=-1, keepdim=True)  # (..., 1)
        normed = upcast * torch.rsqrt(mean_square + self.eps)
        return self.weight * normed.to(x.dtype)  # back to x's dtype before the weight, as trained

    def extra_repr(self) -> str:
        """Show size and eps in `print(model)`."""
        return f"{self.weight.numel()}, eps={self.eps}"
