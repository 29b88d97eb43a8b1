"""Let a model write programs for tasks, run them, and count what passes."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qwenkit.errors import InputError
from qwenkit.generate import complete_batch, row_seed
from qwenkit.model import QwenForCausalLM
from qwenkit.programs.passing import Estimate, interval, pass_at_k
from qwenkit.programs.running import Outcome, run_many
from qwenkit.programs.tasks import Task
from qwenkit.progress import bar
from qwenkit.tokenizer import Tokenizer

# Stop strings: a function ends before the next line that begins in column 0.
FUNCTION_ENDS = tuple("\n" + one for one in string.printable if not one.isspace())
_ALL, _ROWS = "all", 40
_MOST = 100_000  # programs per task


@dataclass(frozen=True)
class Sample:
    """A program that a model wrote.

    Attributes:
        text: what follows the task's prompt.
        outcome: of running it.
    """

    text: str
    outcome: Outcome


@dataclass(frozen=True)
class TaskScore:
    """What a model wrote for one task.

    Attributes:
        task: what was asked for.
        greedy: the most likely program; None: not asked for.
        samples: the sampled programs.
    """

    task: Task
    greedy: Sample | None
    samples: tuple[Sample, ...]

    def pass_at(self, k: int) -> float:
        """Return pass@k of this task; see `pass_at_k`."""
        passed = sum(sample.outcome.passed for sample in self.samples)
        return pass_at_k(len(self.samples), passed, k)


@dataclass(frozen=True)
class Score:
    """How well a model writes programs.

    Attributes:
        tasks: the score of each.
        ks: what k of pass@k the table shows.
    """

    tasks: tuple[TaskScore, ...]
    ks: tuple[int, ...]

    def pass_at(self, k: int, family: str | None = None) -> Estimate:
        """Return pass@k of a family's tasks, or of all; 95 % interval over tasks."""
        return interval([one.pass_at(k) for one in self._of(family)])

    def greedy(self, family: str | None = None) -> Estimate:
        """Return how many of the most likely programs pass, of a family or of all."""
        greedy = [one.greedy for one in self._of(family)]
        return interval([float(one.outcome.passed) for one in greedy if one])

    def reasons(self) -> dict[str, int]:
        """Return how many programs ended for which reason of `Outcome`, most frequent first."""
        greedy = [one.greedy for one in self.tasks if one.greedy]
        samples = [sample for one in self.tasks for sample in one.samples]
        return dict(Counter(one.outcome.reason for one in greedy + samples).most_common())

    def table(self) -> str:
        """Return a line per family, and one for all: tasks, and each figure with its interval.

        Of more than 40 families there is only the line for all.
        """
        families = sorted({one.task.family for one in self.tasks})
        columns: dict[str, Callable[..., Estimate]] = {}
        if self.tasks[0].greedy:
            columns["greedy"] = self.greedy
        columns |= {f"pass@{k}": partial(self.pass_at, k) for k in self.ks}
        shown = families if 1 < len(families) <= _ROWS else []
        width = max(len(name) for name in [*shown, "family"])
        lines = [f"{'family':<{width}}  tasks" + "".join(f"  {name:>24}" for name in columns)]
        for family in [*shown, None]:
            figures = "".join(f"  {figure(family)!s:>24}" for figure in columns.values())
            lines.append(f"{family or _ALL:<{width}}  {len(self._of(family)):>5}{figures}")
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons().items())
        return "\n".join([*lines, f"programs: {reasons}"])

    __str__ = table

    def _of(self, family: str | None) -> list[TaskScore]:
        found = [one for one in self.tasks if family in (None, one.task.family)]
        if not found:
            raise InputError(f"family is {family!r}; no task is of it")
        return found


def first_function(text: str) -> str:
    r"""Return a completion up to the end of the function that a prompt began.

    >>> first_function("    return 1\n\nprint(2)")
    '    return 1\n'
    """
    return re.split(r"\n(?=\S)", text, maxsplit=1)[0]


def score(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    *,
    samples: int = 10,
    ks: Sequence[int] = (1, 10),
    temperature: float = 0.8,
    greedy: bool = True,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    seed: int = 0,
    seconds: float = 2.0,
) -> Score:
    """Let a model write programs for each task, run them, and count what passes.

    A program is the prompt and its continuation up to the stop token or the next line that begins
    in column 0. Each is run by `run`; what that does not protect against is said there.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        tasks: at least one.
        samples: programs per task, for pass@k; 0: none.
        ks: for the table, each at most `samples`.
        temperature: of the samples.
        greedy: whether to write the most likely program of each task as well.
        max_new_tokens: of each program.
        batch_size: programs that are written at once.
        seed: same seed, same samples, whatever the batch size (to rounding of the logits).
        seconds: that each program may run.

    Raises:
        InputError: an argument out of its range.
    """
    if not tasks:
        raise InputError("tasks is empty; there must be at least one")
    if not 0 <= samples <= _MOST or batch_size < 1:
        raise InputError(
            f"samples is {samples} and batch_size {batch_size}; samples must be 0 to {_MOST:,}, "
            "batch_size at least 1"
        )
    if not (samples and ks) and not greedy:
        raise InputError("nothing is asked for; let samples be at least 1, or greedy be True")
    for k in ks if samples else ():
        pass_at_k(samples, 0, k)
    every = [task for task in tasks for _ in range(samples)]
    common: dict[str, Any] = {
        "batch_size": batch_size, "seed": seed, "seconds": seconds, "max_new_tokens": max_new_tokens
    }  # fmt: skip
    total = len(every) + len(tasks) * greedy
    with bar("Writing and running programs", total, "program") as advance:
        best: Sequence[Sample | None] = [None] * len(tasks)
        if greedy:
            best = _written(model, tokenizer, tasks, advance, temperature=0.0, **common)
        found = _written(model, tokenizer, every, advance, temperature=temperature, **common)
    scores = (
        TaskScore(task, best[i], tuple(found[i * samples : (i + 1) * samples]))
        for i, task in enumerate(tasks)
    )
    return Score(tuple(scores), tuple(ks) if samples else ())


def _written(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    advance: Callable[[int], object],
    *,
    batch_size: int,
    seed: int,
    seconds: float,
    **options: Any,
) -> list[Sample]:
    """Return a program for each task, as it was written and as it ended."""
    samples: list[Sample] = []
    for start in range(0, len(tasks), batch_size):
        part = tasks[start : start + batch_size]
        texts = complete_batch(
            model, tokenizer, [task.prompt for task in part], stop_strings=FUNCTION_ENDS,
            seed=row_seed(seed, start), **options,
        )  # fmt: skip
        texts = [first_function(text) for text in texts]
        pairs = [(task.prompt + text, task.tests) for task, text in zip(part, texts, strict=True)]
        samples += map(Sample, texts, run_many(pairs, seconds=seconds))
        advance(len(part))
    return samples
