"""A training's metrics as a CSV file: written while it runs, and read again."""

import csv
import math
import re
from pathlib import Path
from typing import Any

from qwenkit.errors import SourceError, shown
from qwenkit.files import clear_leftovers, expanded, replacing
from qwenkit.train._checks import is_number
from qwenkit.train._stored import writing
from qwenkit.train.loop import Callback, Metrics, Trainer

_COLUMNS = (
    "step", "tokens", "loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "evaluation_loss", "evaluation_bits_per_byte",
)  # fmt: skip


class CsvLog(Callback):
    """Writes the metrics as a table: a row every `log_every` steps and at each evaluation.

    Loss, gradient norm and tokens per second are means over the steps since the row before.

    Args:
        path: of the CSV file. A new training replaces it; a resumed one drops the rows of steps
            that it does again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._sums = [0.0, 0.0, 0.0, 0.0]  # loss, norm, seconds per token, steps

    def on_start(self, trainer: Trainer) -> None:
        """Open the file with the rows that are still valid."""
        clear_leftovers(self.path.parent, re.escape(self.path.name))
        with writing(self.path):
            rows = self._rows(trainer.step) if self.path.is_file() else []
            text = "\n".join([",".join(_COLUMNS), *rows, ""])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """Count the step, and write a row if one is due."""
        step = (metrics.loss, metrics.gradient_norm, 1 / metrics.tokens_per_second, 1.0)
        self._sums = [old + new for old, new in zip(self._sums, step, strict=True)]
        last = metrics.step == trainer.settings.steps
        if metrics.step % trainer.settings.log_every and not metrics.evaluation and not last:
            return
        loss, norm, seconds, count = self._sums
        found = metrics.evaluation
        row = [metrics.step, metrics.tokens, f"{loss / count:.5f}", f"{metrics.learning_rate:.4g}"]
        row += [f"{norm / count:.4f}", f"{count / seconds:.0f}"]
        row += [f"{found.loss:.5f}", f"{found.bits_per_byte:.5f}"] if found else ["", ""]
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        self._sums = [0.0, 0.0, 0.0, 0.0]

    def state(self) -> dict[str, Any]:
        """Return the sums since the last row."""
        return {"sums": self._sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        loss, norm, seconds, count = state["sums"]
        sums = [loss, norm, seconds, count]
        if not all(map(is_number, sums)):
            raise ValueError(f"sums is {shown(sums, 60)}; it must be four numbers")
        self._sums = [float(one) for one in sums]

    def _rows(self, step: int) -> list[str]:
        """Return the rows up to a step, without a partial row that a crash may leave."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        rows = [line for line in lines if line.count(",") == len(_COLUMNS) - 1]
        return [r for r in rows if (n := r.partition(",")[0]).isdecimal() and int(n) <= step]


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """Return each column of a metrics.csv by its name; NaN where a row has no value.

    Raises:
        SourceError: no such file, or one that is not a table of numbers.
    """
    path = expanded(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
        columns = list(rows[0]) if rows else []
        return {name: [float(row[name] or math.nan) for row in rows] for name in columns}
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise SourceError(f"{path} is not a table of numbers: {error}") from None
