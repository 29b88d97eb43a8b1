"""Reading a training's metrics again."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from qwenkit.errors import SourceError


def read_metrics(path: str | Path) -> dict[str, list[float]]:
    """Return each column of a metrics.csv by its name; nan where a row has no value.

    Raises:
        SourceError: no such file, or one that is no table of numbers.
    """
    path = Path(path).expanduser()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
        columns = list(rows[0]) if rows else []
        return {name: [float(row[name] or math.nan) for row in rows] for name in columns}
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise SourceError(f"{path} is no table of numbers: {error}") from None
