"""What a reader has solved, and which mistakes occurred: one JSON file, outside the repository."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from qwenkit.checks import _kept

RIGHT, TRIED = "right", "not yet"
_MARKS = {RIGHT: "solved", TRIED: "tried"}
_BAR = (
    '<div style="border: 1px solid currentColor; width: 20em; height: 0.8em" role="img" '
    'aria-label="{text}"><div style="background: #0072b2; width: {percent:.0f}%; height: 100%">'
    "</div></div><p>{text}</p>"
)


def _row(tag: str, *cells: str) -> str:
    inner = "".join(f'<{tag} style="text-align: left">{escape(one)}</{tag}>' for one in cells)
    return f"<tr>{inner}</tr>"


@dataclass(frozen=True)
class Tried:
    """What happened in one exercise: its best outcome, and how often each mistake was named."""

    outcome: str
    mistakes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """The exercises of the course: as text a line for each, in a notebook a table and a bar.

    Args:
        titles: number -> title of every exercise.
        tried: number -> what happened, for those that were tried.
    """

    titles: Mapping[str, str]
    tried: Mapping[str, Tried]

    def __str__(self) -> str:
        """Return a line per exercise (solved, tried, or still to come), and how many are solved."""
        lines = []
        for mark, name, title, mistakes in self._rows():
            after = f"  (mistakes: {mistakes})" if mistakes else ""
            lines.append(f"{mark or '-':<7} {name}  {title}{after}")
        return "\n".join([*lines, self._sum()])

    def _repr_html_(self) -> str:
        """Return a bar, and a table with a row per exercise."""
        solved = 100 * self._solved() / max(len(self.titles), 1)
        heads = _row("th", "exercise", "", "", "mistakes so far")
        rows = "".join(
            _row("td", name, title, mark, mistakes) for mark, name, title, mistakes in self._rows()
        )
        bar = _BAR.format(text=self._sum(), percent=solved)
        return f"{bar}<table><thead>{heads}</thead><tbody>{rows}</tbody></table>"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = []
        for name, title in sorted(self.titles.items()):
            one = self.tried.get(name, Tried(""))
            named = (f"{what} ({n})" if n > 1 else what for what, n in one.mistakes.items())
            rows.append((_MARKS.get(one.outcome, ""), name, title, ", ".join(named)))
        return rows

    def _solved(self) -> int:
        return sum(self.tried.get(name, Tried("")).outcome == RIGHT for name in self.titles)

    def _sum(self) -> str:
        return f"{self._solved()} of {len(self.titles)} exercises solved"


def file() -> Path:
    """Return where progress is kept: $QWENKIT_PROGRESS, or a file in the home folder."""
    named = os.environ.get("QWENKIT_PROGRESS")
    return Path(named) if named else Path.home() / ".qwenkit" / "progress.json"


def record(exercise: str, outcome: str, mistake: str | None = None) -> None:
    """Record an outcome; what was right once stays right, and an empty stub does not count.

    If the file cannot be read or written, the record is lost; the check works all the same.
    """
    found = recorded()
    before = found.get(exercise, Tried(outcome))
    mistakes = dict(before.mistakes)
    if mistake is not None:
        mistakes[mistake] = mistakes.get(mistake, 0) + 1
    now = Tried(RIGHT if RIGHT in (before.outcome, outcome) else outcome, mistakes)
    if outcome == "empty" or found.get(exercise) == now:
        return
    found[exercise] = now
    values = {n: {"outcome": one.outcome, "mistakes": one.mistakes} for n, one in found.items()}
    _kept.write(file(), values)


def recorded() -> dict[str, Tried]:
    """Return exercise -> what happened, for the exercises that were tried."""
    return {name: _tried(one) for name, one in _kept.read(file()).items()}


def _tried(value: object) -> Tried:
    """Read an entry; one that is a text has the outcome alone, as files of earlier versions."""
    if not isinstance(value, dict):
        return Tried(str(value))
    counts = value.get("mistakes")
    counts = counts.items() if isinstance(counts, dict) else ()
    mistakes = {name: count for name, count in counts if type(count) is int}
    return Tried(str(value.get("outcome")), mistakes)
