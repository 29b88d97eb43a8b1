"""A trained model, ready to run: find it, forecast its memory, load it, save it again."""

from qwenkit.fast import accelerate
from qwenkit.pretrained._loading import load_model, load_pretrained
from qwenkit.pretrained._memory import Forecast, forecast
from qwenkit.pretrained._saving import save_pretrained
from qwenkit.pretrained.compare import trusted_device
from qwenkit.pretrained.hub import EMBEDDED, cached_models, resolve

__all__ = [
    "EMBEDDED",
    "Forecast",
    "accelerate",
    "cached_models",
    "forecast",
    "load_model",
    "load_pretrained",
    "resolve",
    "save_pretrained",
    "trusted_device",
]
