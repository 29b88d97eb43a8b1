"""Programs: run what a model writes, in a process of its own with limits, and score it."""

from qwenkit.arguments import check_public
from qwenkit.programs.contamination import Overlap, overlap
from qwenkit.programs.passing import Estimate, interval, pass_at_k
from qwenkit.programs.running import Outcome, run, run_many
from qwenkit.programs.scoring import (
    FUNCTION_ENDS,
    Sample,
    Score,
    TaskScore,
    first_function,
    score,
)
from qwenkit.programs.tasks import Task, read_tasks

__all__ = [
    "FUNCTION_ENDS", "Estimate", "Outcome", "Overlap", "Sample", "Score", "Task", "TaskScore",
    "first_function", "interval", "overlap", "pass_at_k", "read_tasks", "run", "run_many", "score",
]  # fmt: skip

check_public(globals(), __all__)
