"""The MLP: SwiGLU, a gated layer of units that each token passes through alone."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.model.linear import Linear
from qwenkit.trace import TraceAt, tap


class MLP(nn.Module):
    """down(SiLU(gate(x)) × up(x)), without biases (Shazeer 2020, "GLU variants", equation 6)."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        wide = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(*wide, bias=False, may_turn=True)
        self.up_proj = Linear(*wide, bias=False, may_turn=True)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(
        self, x: Float[Tensor, "B T C"], trace: TraceAt | None = None
    ) -> Float[Tensor, "B T C"]:
        """Return what the MLP adds to the residual stream."""
        gate = tap(trace, "mlp.gate", self.gate_proj(x))  # (B, T, F)
        up = tap(trace, "mlp.up", self.up_proj(x))  # (B, T, F)
        if trace is None and not gate.requires_grad:
            act = F.silu(gate, inplace=True).mul_(up)  # (B, T, F) the same, in gate's own memory
        else:
            act = tap(trace, "mlp.act", F.silu(gate) * up)  # (B, T, F)
        return tap(trace, "mlp.out", self.down_proj(act))  # (B, T, C)
