"""Whether tasks occur in the text that a model learned from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qwenkit.errors import InputError
from qwenkit.programs.tasks import Task

_TOKEN = re.compile(r"\w+|[^\w\s]")  # words and signs; whitespace does not count
_N = 8  # tokens of an n-gram


@dataclass(frozen=True)
class Overlap:
    """How much of some tasks occurs in a text.

    Attributes:
        tasks: how many were looked for.
        prompts: indices of those whose prompt occurs as a whole.
        solutions: indices of those whose solution does.
        shares: for each task, how many of the 8-token n-grams of prompt and solution occur, 0 to 1.
    """

    tasks: int
    prompts: tuple[int, ...]
    solutions: tuple[int, ...]
    shares: tuple[float, ...]

    def __str__(self) -> str:
        """Return it as a sentence."""
        mean, most = sum(self.shares) / self.tasks, max(self.shares)
        return (
            f"of {self.tasks:,} tasks, {len(self.prompts):,} prompts and {len(self.solutions):,} "
            f"solutions occur in the text as a whole; of their {_N}-token n-grams {mean:.1%} do, "
            f"of one task's at most {most:.1%}"
        )


def overlap(tasks: Sequence[Task], texts: Iterable[str]) -> Overlap:
    """Look for tasks in the text that a model learns from, whatever the whitespace.

    Short n-grams such as `) : return [ x for x in` occur in any code; a share far above the other
    tasks' is what tells. Texts are read one after another, and none is kept.

    Args:
        tasks: at least one.
        texts: of documents.

    Raises:
        InputError: no tasks.
    """
    if not tasks:
        raise InputError("tasks is empty; there must be at least one")
    prompts = [_tokens(task.prompt) for task in tasks]
    solutions = [_tokens(task.solution) for task in tasks]
    grams = [{*_grams(p), *_grams(s)} for p, s in zip(prompts, solutions, strict=True)]
    wanted = set[str]().union(*grams)
    seen: set[str] = set()
    whole: tuple[set[int], set[int]] = (set(), set())
    # By the first n-gram, since a text is searched only for what may be in it. None: shorter.
    parts: dict[str | None, list[tuple[set[int], int, str]]] = defaultdict(list)
    for some, found in zip((prompts, solutions), whole, strict=True):
        for i, part in enumerate(some):
            if part:
                joined = f" {' '.join(part)} "
                parts[next(_grams(part), None)].append((found, i, joined))
    for text in texts:
        tokens = _tokens(text)
        here = wanted.intersection(_grams(tokens))
        seen |= here
        whole_text = f" {' '.join(tokens)} "
        for first in (*here, None):
            for found, i, joined in parts.get(first, ()):
                if joined in whole_text:
                    found.add(i)
    shares = tuple(len(one & seen) / len(one) if one else 0.0 for one in grams)
    return Overlap(len(tasks), tuple(sorted(whole[0])), tuple(sorted(whole[1])), shares)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _grams(tokens: Sequence[str]) -> Iterator[str]:
    return (" ".join(tokens[i : i + _N]) for i in range(len(tokens) - _N + 1))
