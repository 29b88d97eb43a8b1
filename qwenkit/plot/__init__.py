"""Pictures, one topic a file: arrays, strings and configs in, matplotlib out."""

from qwenkit.plot.architecture import architecture, architecture_alt
from qwenkit.plot.show import show
from qwenkit.plot.training import training_curve, training_curve_alt

__all__ = ["architecture", "architecture_alt", "show", "training_curve", "training_curve_alt"]
