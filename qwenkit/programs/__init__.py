"""Small programs: made from families by a seed; run in a process with limits; scored by tests."""

from qwenkit.arguments import check_public
from qwenkit.programs.contamination import Overlap, overlap
from qwenkit.programs.family import Family
from qwenkit.programs.generator import families_of, generate
from qwenkit.programs.passing import Estimate, interval, pass_at_k
from qwenkit.programs.program import Program
from qwenkit.programs.running import Outcome, run, run_many
from qwenkit.programs.scoring import (
    FUNCTION_ENDS,
    Sample,
    Score,
    TaskScore,
    first_function,
    score,
)
from qwenkit.programs.tasks import Task, generate_tasks, read_tasks

__all__ = [
    "FUNCTION_ENDS", "Estimate", "Family", "Outcome", "Overlap", "Program", "Sample", "Score",
    "Task", "TaskScore", "families_of", "first_function", "generate", "generate_tasks",
    "interval", "overlap", "pass_at_k", "read_tasks", "run", "run_many", "score",
]  # fmt: skip

check_public(globals(), __all__)
