"""qwenkit: learn how a modern language model works by building one.

    import qwenkit as qk

    model, tokenizer = qk.load_pretrained()  # or a folder, or "Qwen/Qwen2.5-Coder-0.5B"
    print(qk.complete(model, tokenizer, "def fib(n):"))

Importing it loads torch, and neither matplotlib nor ipywidgets: `qk.plot`, `qk.widgets`
and `qk.checks` load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from qwenkit import _deprecated
from qwenkit.checkpoint import Checkpoint
from qwenkit.config import DynamicScaling, LinearScaling, QwenConfig, YarnScaling
from qwenkit.errors import QwenkitError
from qwenkit.fast import accelerate, explain, plain, quantize
from qwenkit.generate import (
    Beam,
    Conversation,
    GenerationConfig,
    Speculation,
    Step,
    beam_search,
    complete,
    complete_batch,
    fill,
    generate,
    generate_batch,
    log_probabilities,
    speculate,
    stream,
)
from qwenkit.lora import (
    add_lora,
    load_adapter,
    merge_lora,
    remove_lora,
    save_adapter,
    unmerge_lora,
)
from qwenkit.model import KVCache, QwenForCausalLM
from qwenkit.pretrained import forecast, load_model, load_pretrained, resolve, save_pretrained
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import POINTS, Trace, tap

if TYPE_CHECKING:
    from qwenkit.checks import outcome, predict
    from qwenkit.interpret import replace

__version__ = "0.1.0"
__all__ = [
    "POINTS",
    "Beam",
    "Checkpoint",
    "Conversation",
    "DynamicScaling",
    "GenerationConfig",
    "KVCache",
    "LinearScaling",
    "QwenConfig",
    "QwenForCausalLM",
    "QwenkitError",
    "Speculation",
    "Step",
    "Tokenizer",
    "Trace",
    "YarnScaling",
    "accelerate",
    "add_lora",
    "beam_search",
    "complete",
    "complete_batch",
    "explain",
    "fill",
    "forecast",
    "generate",
    "generate_batch",
    "load_adapter",
    "load_model",
    "load_pretrained",
    "log_probabilities",
    "merge_lora",
    "outcome",
    "plain",
    "predict",
    "quantize",
    "remove_lora",
    "replace",
    "resolve",
    "save_adapter",
    "save_pretrained",
    "speculate",
    "stream",
    "tap",
    "unmerge_lora",
]
_deprecated.install()
_LATE = ("checks", "interpret", "mine", "plot", "programs", "serve", "train", "widgets")
_INSIDE = {"replace": "interpret", "predict": "checks", "outcome": "checks"}


def __getattr__(name: str) -> Any:
    """Import what brings its own large libraries only when it is first used."""
    if name in _INSIDE:
        return getattr(importlib.import_module(f"qwenkit.{_INSIDE[name]}"), name)
    if name in _LATE or f"qwenkit.{name}" in _deprecated.MOVED:
        return importlib.import_module(f"qwenkit.{name}")
    raise AttributeError(f"module 'qwenkit' has no attribute {name!r}")
