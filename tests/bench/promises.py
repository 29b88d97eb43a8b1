"""What qwenkit promises of its speed and memory, judged by the rows of one run."""

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
    for what, (row, side), (other, other_side), bounds in asked(sizes):
        if row in rows and other in rows:
            yield Promise(what, ratio(rows[row][side], rows[other][other_side]), **bounds)
    for name in (name for name in rows if name.startswith("all of it")):
        what = f"forecast of {name[len('all of it, ') : -len(', GB')]}, times measured"
        yield Promise(what, ratio(rows[name]["forecast"], rows[name]["qwenkit"]), 0.9, 1.1)


Cell = tuple[str, str]  # a row, and one of its sides


def asked(sizes: Sizes) -> Iterator[tuple[str, Cell, Cell, dict[str, float]]]:
    """Yield what is promised, the two cells whose ratio it is, and its bounds."""
    length, past, ours, theirs = max(sizes.prefills), sizes.past, "qwenkit", "transformers"
    prefill, memory = f"prefill {length}, s, {{}}".format, "loaded, one token {}, GB".format
    float32, what = prefill("float32"), f"float32 prefill {length}, times transformers"
    yield what, (float32, ours), (float32, theirs), {"most": 1.0}
    for dtype in ("bfloat16", "int8", "int4"):
        what = f"{dtype} prefill {length}, times float32"
        yield what, (prefill(dtype), ours), (float32, ours), {"most": 1.1}
    for dtype, least in (("float32", 0.8), ("bfloat16", 0.8), ("int8", 0.8), ("int4", 0.65)):
        what, row = f"{dtype} decode, times memory's speed", f"decode after {past}, GB/s, {dtype}"
        yield what, (row, ours), (row, "memory"), {"least": least}
    for dtype, least in (("float32", 1.35), ("bfloat16", 2.4), ("int8", 4.0), ("int4", 5.0)):
        what = f"{dtype} decode, times transformers' speed in float32"
        decode = f"decode after {past}, s a token, {dtype}"  # theirs above ours: speed is 1 / time
        yield what, (decode, theirs), (decode, ours), {"least": least}
    for dtype, other in (("bfloat16", "float32"), ("int8", "bfloat16")):
        what = f"{dtype} memory, times {other}"
        yield what, (memory(dtype), ours), (memory(other), ours), {"most": 0.6}
    tiny, what = "tiny-coder, s a token", "tiny-coder, times transformers' speed"
    yield what, (tiny, theirs), (tiny, ours), {"least": 3.0}
    long, short = (f"decode after {tokens}, ms a token" for tokens in (sizes.long, past))
    for dtype in ("float32", "bfloat16", "int8"):
        what = f"{dtype} decode after {sizes.long} tokens, times after {past}"
        yield what, (long, dtype), (short, dtype), {"most": 1.5}
