"""Programs: run what a model writes, in a separate process with limits, and score it."""

from qwenkit.arguments import check_public
from qwenkit.programs.running import Outcome, run, run_many

__all__ = ["Outcome", "run", "run_many"]

check_public(globals(), __all__)
