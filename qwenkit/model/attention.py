"""Attention: each token reads from the tokens before it.

Grouped-query attention (Ainslie et al. 2023): H query heads share KV key and value heads, so that
the cache is H / KV times smaller. Query head h reads kv head h // (H / KV).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qwenkit.config import QwenConfig
from qwenkit.model.cache import KVCache
from qwenkit.model.linear import Linear
from qwenkit.model.mask import causal_mask
from qwenkit.model.rope import apply_rope
from qwenkit.trace import TraceAt, tap


def repeat_kv(x: Float[Tensor, "B KV S D"], groups: int) -> Float[Tensor, "B H S D"]:
    """Repeat each kv head `groups` times in a run: [k0, k0, ..., k1, k1, ...], never [k0, k1, ...].

    Query heads 0 to groups - 1 then stand opposite kv head 0, as they were trained.
    """
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


class Attention(nn.Module):
    """Grouped-query self-attention with RoPE (biases on q, k and v; none on o)."""

    def __init__(self, config: QwenConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        query = config.num_attention_heads * config.head_dim
        key_value = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query, bias=True)
        self.k_proj = Linear(config.hidden_size, key_value, bias=True)
        self.v_proj = Linear(config.hidden_size, key_value, bias=True)
        self.o_proj = Linear(query, config.hidden_size, bias=False)

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
            x: the normalised residual stream.
            rope: cos and sin of each new token's position.
            mask: True where a query may read a key; None: causal, nothing else.
            cache: earlier keys and values; the new ones are written to it.
            trace: recorder of this layer's points.
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
            z = open_attention(q, k, v, mask, trace)
        else:
            z = fused_attention(q, k, v, mask)
        z = tap(trace, "attn.z", z)  # (B, H, T, D)
        joined = z.transpose(1, 2).reshape(batch, length, -1)  # (B, T, H·D)
        return tap(trace, "attn.out", self.o_proj(joined))  # (B, T, C)


def open_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B KV S D"],
    v: Float[Tensor, "B KV S D"],
    mask: Bool[Tensor, "#B 1 T S"] | None = None,
    trace: TraceAt | None = None,
) -> Float[Tensor, "B H T D"]:
    """Attention step by step, every intermediate in the open (Vaswani et al. 2017, equation 1).

    Args:
        q: queries, turned by RoPE.
        k: keys, turned by RoPE, kv heads unrepeated; S - T of them come before the queries.
        v: values, kv heads unrepeated.
        mask: True where a query may read a key; None: causal, nothing else.
        trace: recorder of this layer's points.
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
    """The same in one fused kernel that never stores the (T, S) scores; arguments as above."""
    groups, queries, keys = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    if queries == 1:
        # One query a head: the heads of a group are like several queries of their kv head, and
        # nothing is repeated. Repeating would copy the whole cache at each decoded token.
        grouped = q.reshape(q.shape[0], k.shape[1], groups, -1)  # (B, KV, H/KV, D)
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)
    if mask is None and queries == keys:
        # Nothing to mask but the future: the kernel leaves out that half, and finds each group's
        # kv head by itself.
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=groups > 1)
    if mask is None:
        # is_causal would align its triangle with the first key instead of the first new one
        mask = causal_mask(queries, past=keys - queries, device=q.device)
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)  # (B, H, S, D)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
