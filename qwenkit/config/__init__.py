"""What a model is made of: `QwenConfig`, read from config.json and checked."""

from qwenkit.config._qwen_config import BYTES_PER_VALUE, CACHE_GROUP, GROUP, QwenConfig
from qwenkit.config._scaling import DynamicScaling, LinearScaling, RopeScaling, YarnScaling
from qwenkit.config._spelling import warn_of_tokens, without_row

__all__ = [
    "BYTES_PER_VALUE",
    "CACHE_GROUP",
    "GROUP",
    "DynamicScaling",
    "LinearScaling",
    "QwenConfig",
    "RopeScaling",
    "YarnScaling",
    "warn_of_tokens",
    "without_row",
]
