"""Pictures, one topic a file: arrays, strings and configs in, matplotlib out."""

from qwenkit.plot.architecture import architecture, architecture_alt
from qwenkit.plot.show import show

__all__ = ["architecture", "architecture_alt", "show"]
