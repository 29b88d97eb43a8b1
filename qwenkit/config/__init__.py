"""What a model is made of: `QwenConfig`, read from config.json and checked."""

from qwenkit.config._qwen_config import BYTES_PER_VALUE, QwenConfig
from qwenkit.config._spelling import warn_of_tokens, without_row
from qwenkit.config._yarn import YarnScaling

__all__ = ["BYTES_PER_VALUE", "QwenConfig", "YarnScaling", "warn_of_tokens", "without_row"]
