"""Pictures, one topic a file: arrays, strings and configs in, matplotlib out."""

from qwenkit.plot.architecture import architecture, architecture_alt
from qwenkit.plot.attention import (
    attention,
    attention_alt,
    attention_heads,
    attention_heads_alt,
)
from qwenkit.plot.gqa import gqa_sharing, gqa_sharing_alt, kv_repetition, kv_repetition_alt
from qwenkit.plot.rope import (
    rope_pair,
    rope_pair_alt,
    rope_tables,
    rope_tables_alt,
    rope_wavelengths,
    rope_wavelengths_alt,
)
from qwenkit.plot.show import show
from qwenkit.plot.training import training_curve, training_curve_alt

__all__ = [
    "architecture",
    "architecture_alt",
    "attention",
    "attention_alt",
    "attention_heads",
    "attention_heads_alt",
    "gqa_sharing",
    "gqa_sharing_alt",
    "kv_repetition",
    "kv_repetition_alt",
    "rope_pair",
    "rope_pair_alt",
    "rope_tables",
    "rope_tables_alt",
    "rope_wavelengths",
    "rope_wavelengths_alt",
    "show",
    "training_curve",
    "training_curve_alt",
]
