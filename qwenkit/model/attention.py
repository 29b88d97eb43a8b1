"""Attention: each token gathers values from the tokens before it and from itself.

Grouped-query attention (Ainslie et al. 2023): H query heads share KV key and value heads, so that
the cache is H / KV times smaller. Query head h uses kv head h // (H / KV).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.model.cache import KVCache
from qwenkit.model.mask import causal_mask
from qwenkit.model.rope import apply_rope
from qwenkit.trace import TraceAt, tap


class Attention(nn.Module):
    """Grouped-query self-attention with RoPE (biases on q, k and v; none on o)."""

    def __init__(self, config: QwenConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        query = config.num_attention_heads * config.head_dim
        key_value = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=True)
        self.k_proj = nn.Linear(config.hidden_size, key_value, bias=True)
        self.v_proj = nn.Linear(config.hidden_size, key_value, bias=True)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rope: tuple[Float[Tensor, "#B T D"], Float[Tensor, "#B T D"]],
        mask: Bool[Tensor, "#B 1 T S"] | None,
        cache: KVCache | None = None,
        trace: TraceAt | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Return what attention adds to the residual stream.

        Args:
            x: the normalized residual stream.
            rope: cos and sin of each new token's position.
            mask: True where a query may attend to a key; None: causal, nothing else.
            cache: earlier keys and values; the new ones are written to it.
            trace: records this layer's activation points.
        """
        batch, length, _ = x.shape
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads

        def split(projected: Tensor, count: int) -> Tensor:
            return projected.view(batch, length, count, -1).transpose(1, 2)  # (B, count, T, D)

        q = tap(trace, "attn.q", split(self.q_proj(x), heads))  # (B, H, T, D)
        k = tap(trace, "attn.k", split(self.k_proj(x), kv_heads))  # (B, KV, T, D)
        v = tap(trace, "attn.v", split(self.v_proj(x), kv_heads))  # (B, KV, T, D)
        q = tap(trace, "attn.q_rot", apply_rope(q, *rope))
        k = tap(trace, "attn.k_rot", apply_rope(k, *rope))
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # (B, KV, S, D)

        if trace is not None and (trace.wants("attn.scores") or trace.wants("attn.pattern")):
            z = eager_attention(q, k, v, mask, trace)
        else:
            z = fused_attention(q, k, v, mask)
        z = tap(trace, "attn.z", z)  # (B, H, T, D)
        joined = z.transpose(1, 2).reshape(batch, length, -1)  # (B, T, H·D)
        return tap(trace, "attn.out", self.o_proj(joined))  # (B, T, C)


def eager_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B KV S D"],
    v: Float[Tensor, "B KV S D"],
    mask: Bool[Tensor, "#B 1 T S"] | None = None,
    trace: TraceAt | None = None,
) -> Float[Tensor, "B H T D"]:
    """Attention step by step, every intermediate a tensor (Vaswani et al. 2017, equation 1).

    Args:
        q: queries, rotated by RoPE.
        k: keys, rotated by RoPE, kv heads not repeated; S - T of them come before the queries.
        v: values, kv heads not repeated.
        mask: True where a query may attend to a key; None: causal, nothing else.
        trace: records this layer's activation points.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)  # (B, H, S, D)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    scores = tap(trace, "attn.scores", scores)
    if mask is None:
        mask = causal_mask(q.shape[2], past=k.shape[2] - q.shape[2], device=q.device)  # (T, S)
    scores = scores.masked_fill(~mask, float("-inf"))
    pattern = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)  # (B, H, T, S)
    pattern = tap(trace, "attn.pattern", pattern)
    return pattern @ v  # (B, H, T, D)


def fused_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B KV S D"],
    v: Float[Tensor, "B KV S D"],
    mask: Bool[Tensor, "#B 1 T S"] | None = None,
) -> Float[Tensor, "B H T D"]:
    """The same in one fused kernel, which never stores the (T, S) scores; arguments as above.

    Where all of a query's scores are NaN, PyTorch's CPU kernel may return 0: `eager_attention`, and
    so a trace of `attn.pattern`, shows the NaN.
    """
    queries, keys = q.shape[2], k.shape[2]
    if mask is None and queries != keys:
        # is_causal would align the triangle with the first key, not with the first new one.
        mask = causal_mask(queries, past=keys - queries, device=q.device)  # (T, S)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
    )  # (B, H, T, D); enable_gqa pairs each query head with its kv head, as repeat_kv does


def repeat_kv(x: Float[Tensor, "B KV S D"], groups: int) -> Float[Tensor, "B H S D"]:
    """Repeat each kv head `groups` times consecutively: [k0, k0, ..., k1, k1, ...].

    Never [k0, k1, ..., k0, k1, ...]: query heads 0 to groups - 1 were trained with kv head 0.
    """
    return x.repeat_interleave(groups, dim=1)
