"""Widgets that open the model: any layer, any head, any token.

A notebook shows one that is the last expression of a cell. Each has `.choose(...)`, `.snapshot()`
(a figure) and `.to_html(path)` (one page that works from disk). Those that run a model on a text
take another one: `.choose(prompt=...)`, or the box in the page.
"""

from qwenkit.widgets.attention import AttentionExplorer
from qwenkit.widgets.checkpoint import CheckpointBrowser
from qwenkit.widgets.explorer import ModelExplorer
from qwenkit.widgets.gqa import GQAExplorer
from qwenkit.widgets.layer import LayerInspector
from qwenkit.widgets.rope import RopeExplorer
from qwenkit.widgets.sampling import SamplingExplorer
from qwenkit.widgets.stepper import GenerationStepper

__all__ = [
    "AttentionExplorer", "CheckpointBrowser", "GQAExplorer", "GenerationStepper", "LayerInspector",
    "ModelExplorer", "RopeExplorer", "SamplingExplorer",
]  # fmt: skip
