"""The model, one part a file: norm, rope, mask, attention, mlp, decoder, cache, qwen."""

from qwenkit.model.attention import Attention, fused_attention, open_attention, repeat_kv
from qwenkit.model.cache import KVCache
from qwenkit.model.decoder import DecoderLayer
from qwenkit.model.mask import attention_mask, causal_mask
from qwenkit.model.mlp import MLP
from qwenkit.model.norm import RMSNorm
from qwenkit.model.qwen import QwenForCausalLM, QwenModel
from qwenkit.model.rope import RotaryEmbedding, apply_rope, inverse_frequencies

__all__ = [
    "MLP",
    "Attention",
    "DecoderLayer",
    "KVCache",
    "QwenForCausalLM",
    "QwenModel",
    "RMSNorm",
    "RotaryEmbedding",
    "apply_rope",
    "attention_mask",
    "causal_mask",
    "fused_attention",
    "inverse_frequencies",
    "open_attention",
    "repeat_kv",
]
