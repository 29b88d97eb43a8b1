"""A decoder layer: attention, then the MLP, each reading a normalized copy of the stream."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.model.attention import Attention
from qwenkit.model.cache import KVCache
from qwenkit.model.mlp import MLP
from qwenkit.model.norm import RMSNorm
from qwenkit.trace import TraceAt, tap


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the pre-norm layer of Qwen2."""

    def __init__(self, config: QwenConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rope: tuple[Float[Tensor, "#B T D"], Float[Tensor, "#B T D"]],
        mask: Bool[Tensor, "#B 1 T S"] | None,
        cache: KVCache | None = None,
        trace: TraceAt | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return the residual stream after this layer; arguments as in `Attention.forward`."""
        x = tap(trace, "resid_pre", x)
        normed = tap(trace, "attn_norm", self.input_layernorm(x))
        x = tap(trace, "resid_mid", x + self.self_attn(normed, rope, mask, cache, trace))
        normed = tap(trace, "mlp_norm", self.post_attention_layernorm(x))
        return tap(trace, "resid_post", x + self.mlp(normed, trace))
