"""The model as taught, one part per file: norm, rope, mask, attention, mlp, cache, decoder, qwen.

`pages` is a cache of several texts. Plain PyTorch throughout. `qwenkit.fast` runs the same model
quickly, and nothing here knows of it.
"""

from qwenkit._deprecated import renamed
from qwenkit.model.attention import Attention, eager_attention, fused_attention, repeat_kv
from qwenkit.model.cache import KVCache
from qwenkit.model.decoder import DecoderLayer
from qwenkit.model.inputs import check_input_ids, real_tokens
from qwenkit.model.mask import attention_mask, causal_mask
from qwenkit.model.mlp import MLP
from qwenkit.model.norm import RMSNorm
from qwenkit.model.pages import PageBatch, PagePool, PageTable
from qwenkit.model.qwen import QwenForCausalLM, QwenModel
from qwenkit.model.rope import RotaryEmbedding, apply_rope, inverse_frequencies

__all__ = [
    "MLP",
    "Attention",
    "DecoderLayer",
    "KVCache",
    "PageBatch",
    "PagePool",
    "PageTable",
    "QwenForCausalLM",
    "QwenModel",
    "RMSNorm",
    "RotaryEmbedding",
    "apply_rope",
    "attention_mask",
    "causal_mask",
    "check_input_ids",
    "eager_attention",
    "fused_attention",
    "inverse_frequencies",
    "real_tokens",
    "repeat_kv",
]

__getattr__ = renamed(__name__, open_attention="eager_attention")
