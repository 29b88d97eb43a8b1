"""The MLP: SwiGLU, a gated feed-forward layer that each token passes through alone."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.trace import TraceAt, tap


class MLP(nn.Module):
    """down(SiLU(gate(x)) × up(x)), without biases (Shazeer 2020, "GLU variants", equation 6)."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(
        self, x: Float[Tensor, "B T C"], trace: TraceAt | None = None
    ) -> Float[Tensor, "B T C"]:
        """Return what the MLP adds to the residual stream."""
        gate = tap(trace, "mlp.gate", self.gate_proj(x))  # (B, T, F)
        up = tap(trace, "mlp.up", self.up_proj(x))  # (B, T, F)
        act = tap(trace, "mlp.act", F.silu(gate) * up)  # (B, T, F)
        return tap(trace, "mlp.out", self.down_proj(act))  # (B, T, C)
