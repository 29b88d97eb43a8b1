"""What qwenkit promises of its speed and memory, judged by the rows of one run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rows import Rows, Spread, apart, ratio
from sizes import Sizes


@dataclass(frozen=True)
class Promise:
    """A number, how far its rounds lie apart, and the bounds asked of its median."""

    what: str
    found: Spread
    least: float = -math.inf
    most: float = math.inf

    @property
    def holds(self) -> bool:
        """Whether the median lies within the bounds; NaN does not."""
        return self.least <= self.found.median <= self.most

    def __str__(self) -> str:
        if self.most == math.inf:
            asked = f"{self.least:g} or more"
        elif self.least == -math.inf:
            asked = f"{self.most:g} or less"
        else:
            asked = f"{self.least:g} to {self.most:g}"
        verdict = "holds" if self.holds else "FAILS"
        number = f"{self.found.median:.2f}{apart(self.found)}"
        return f"{verdict}  {self.what:<62}{number:<26}asked {asked}"

    def as_json(self) -> dict[str, object]:
        """Return what stands in the file; a bound that is not there is null."""
        bounds = {name: getattr(self, name) for name in ("least", "most")}
        bounds = {name: bound if math.isfinite(bound) else None for name, bound in bounds.items()}
        return {"what": self.what, **self.found._asdict(), **bounds, "holds": self.holds}


def promises(rows: Rows, sizes: Sizes) -> Iterator[Promise]:
    """Yield each promise that these rows can tell of; most need the rows of a whole run."""
    for what, (row, side), (other, beside), bounds in asked(sizes):
        if row in rows and other in rows:
            yield Promise(what, ratio(rows[row][side], rows[other][beside]), **bounds)
    for name, row in rows.items():
        if name.startswith("all of it"):
            forward = name.removeprefix("all of it, ").removesuffix(", GB")
            what = f"forecast of {forward}, times measured"
            yield Promise(what, ratio(row["forecast"], row["qwenkit"]), 0.9, 1.1)


Cell = tuple[str, str]  # a row, and one of its sides


def asked(sizes: Sizes) -> Iterator[tuple[str, Cell, Cell, dict[str, float]]]:
    """Yield what is promised, the two cells whose ratio it is, and its bounds."""
    length = max(sizes.prefills)

    def prefill(dtype: str, side: str = "qwenkit") -> Cell:
        return f"prefill {length}, s, {dtype}", side

    def decode(dtype: str, side: str = "qwenkit") -> Cell:
        return f"decode after {sizes.past}, s a token, {dtype}", side

    def memory(dtype: str, side: str = "qwenkit") -> Cell:
        return f"loaded, one token {dtype}, GB", side

    what = f"float32 prefill {length}, times transformers"
    yield what, prefill("float32"), prefill("float32", "transformers"), {"most": 1.0}
    for dtype, most in (("bfloat16", 1.25), ("int8", 1.25)):
        what = f"{dtype} prefill {length}, times float32"
        yield what, prefill(dtype), prefill("float32"), {"most": most}
    for dtype, least in (("float32", 1.35), ("bfloat16", 1.75), ("int8", 2.6)):
        what = f"{dtype} decode, times transformers' speed in float32"
        theirs = decode(dtype, "transformers")  # above ours: speed is 1 / time
        yield what, theirs, decode(dtype), {"least": least}
    bfloat16 = memory("bfloat16")
    yield "bfloat16 memory, times float32", bfloat16, memory("float32"), {"most": 0.6}
    yield "int8 memory, times bfloat16", memory("int8"), bfloat16, {"most": 0.6}
    tiny = "tiny-coder, s a token"
    what = "tiny-coder, times transformers' speed"
    yield what, (tiny, "transformers"), (tiny, "qwenkit"), {"least": 1.5}
    long, short = (f"decode after {past}, ms a token" for past in (sizes.long, sizes.past))
    for dtype in ("float32", "bfloat16", "int8"):
        what = f"{dtype} decode after {sizes.long} tokens, times after {sizes.past}"
        yield what, (long, dtype), (short, dtype), {"most": 1.5}
