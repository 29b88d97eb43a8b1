"""A row holds what each side took in each round; sides are compared within their round.

The sides of a round run one right after the other, so that what slows the machine for a while
slows them alike: it moves the medians of both, and hardly their ratio.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

Row = dict[str, list[float]]  # side -> its value in each round
Rows = dict[str, Row]


class Spread(NamedTuple):
    """The middle of some values, and how far they lie apart."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(these: Sequence[float], those: Sequence[float]) -> Spread:
    """Divide round by round; NaN where there is nothing to divide by."""
    pairs = zip(these, those, strict=True)
    return spread([this / that if that else math.nan for this, that in pairs])


def ratios(row: Row) -> dict[str, Spread]:
    """Return for each other side how many times its value qwenkit's is."""
    others = [side for side in row if side != "qwenkit"] if "qwenkit" in row else []
    return {side: ratio(row["qwenkit"], row[side]) for side in others}


def by_dtype(name: str, found: Row, dtypes: Sequence[str]) -> Rows:
    """Return one row for each dtype of ours, with the sides that it is compared with."""
    others = {side: found[side] for side in ("transformers", "bare products")}
    return {f"{name}, {d}": {"qwenkit": found[f"qwenkit {d}"], **others} for d in dtypes}


def show(rows: Rows) -> None:
    """Print each side's median and how many times each other side's value ours is."""
    for name, row in rows.items():
        compared = ratios(row)
        cells = [f"{side} {spread(values).median:.4g}" for side, values in row.items()]
        if not compared:
            cells = [cell + apart(spread(row[side])) for cell, side in zip(cells, row, strict=True)]
        cells += [f"= {f.median:.2f}{apart(f)} × {side}" for side, f in compared.items()]
        print(f"{name:<54}{'   '.join(cells)}", flush=True)


def apart(found: Spread) -> str:
    """Write the lowest and the highest, where they differ."""
    same = found.lowest == found.highest
    return "" if same else f" ({found.lowest:.3g} to {found.highest:.3g})"
