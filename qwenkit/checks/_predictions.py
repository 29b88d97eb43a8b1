"""Predictions: what a reader expected before running a cell, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets

from qwenkit.checks import _kept, _progress
from qwenkit.errors import InputError

_OPTIONS: dict[str, tuple[str, ...]] = {}  # of the questions asked in this process


def file() -> Path:
    """Return where predictions are kept: next to the reader's progress."""
    return _progress.file().with_name("predictions.json")


class Prediction(ipywidgets.HBox):  # type: ignore[misc]
    """Buttons to choose from; a click is recorded, until the answer was shown.

    Args:
        name: "04.3" is the third prediction of notebook 04.
        options: what the reader can choose from.
    """

    def __init__(self, name: str, options: Sequence[str]) -> None:
        self.name, self.options = name, tuple(options)
        said = _recorded().get(name, {}).get("said")
        self.buttons = ipywidgets.ToggleButtons(
            options=self.options, value=said if said in self.options else None,
            style={"button_width": "auto"},
        )  # fmt: skip
        self.note = ipywidgets.Label("")
        self.buttons.observe(self._choose, "value")
        super().__init__([self.buttons, self.note], layout={"flex_flow": "row wrap"})

    def _choose(self, change: dict[str, Any]) -> None:
        if _recorded().get(self.name, {}).get("was") is not None:
            self.note.value = "The answer was shown already: this is not recorded."
            return
        _record(self.name, said=change["new"])
        self.note.value = "Recorded. Now run the next cell."

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": f"Prediction {self.name}: {' / '.join(self.options)}"}


def predict(name: str, options: Sequence[str]) -> Prediction:
    """Ask for a prediction: buttons in a notebook. `outcome` says later what came.

    Args:
        name: "04.3" is the third prediction of notebook 04.
        options: two or more answers to choose from.

    Raises:
        InputError: fewer than two options, or one that is not text.
    """
    several = isinstance(options, list | tuple) and len(options) >= 2
    if not several or not all(isinstance(one, str) for one in options):
        raise InputError(f"options is {options!r}; it must be a list of two or more texts")
    _OPTIONS[name] = tuple(options)
    return Prediction(name, options)


def outcome(name: str, answer: str) -> None:
    """Print what came, next to what the reader predicted, and record it.

    Args:
        name: as in `predict`.
        answer: one of its options, as the cell computed it.

    Raises:
        InputError: not one of the options.
    """
    options = _OPTIONS.get(name, (answer,))
    if answer not in options:
        raise InputError(f"the answer is {answer!r}; it must be one of {', '.join(options)}")
    said = _recorded().get(name, {}).get("said")
    _record(name, was=answer)
    if said is None:
        print(f"Prediction {name}: the answer is {answer!r}.")
    elif said == answer:
        print(f"Prediction {name}: you said {said!r}, and that is right.")
    else:
        print(f"Prediction {name}: you said {said!r}; the answer is {answer!r}.")


@dataclass(frozen=True)
class Predictions:
    """The predictions that were recorded and answered: name -> (what was said, what came)."""

    answered: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        """Return a line per prediction, and how many came true."""
        lines = [
            f"{name}  {'true ' if said == was else 'false'}  said {said!r}, came {was!r}"
            for name, (said, was) in sorted(self.answered.items())
        ]
        true = sum(said == was for said, was in self.answered.values())
        total = len(self.answered)
        end = f"{true} of {total} predictions came true" if total else "No prediction recorded yet"
        return "\n".join([*lines, end])


def predictions(notebook: str = "") -> Predictions:
    """Return the reader's predictions: `print(qk.checks.predictions("04"))`.

    Args:
        notebook: "04"; all of the course if it is empty.
    """
    found = {}
    for name, one in _recorded().items():
        if name.startswith(notebook) and {"said", "was"} <= one.keys():
            found[name] = one["said"], one["was"]
    return Predictions(found)


def _recorded() -> dict[str, dict[str, str]]:
    return {
        name: {kind: text for kind, text in one.items() if isinstance(text, str)}
        for name, one in _kept.read(file()).items()
        if isinstance(one, dict)
    }


def _record(name: str, **values: str) -> None:
    """Record; if the file cannot be written, the record is lost, and all works the same."""
    found = _recorded()
    found[name] = {**found.get(name, {}), **values}
    _kept.write(file(), found)
