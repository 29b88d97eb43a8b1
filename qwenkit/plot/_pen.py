"""Boxes, lines and text of the architecture's drawing, in color or in gray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch

# Fill, line and text of each kind of part; the line colors are those of style.py.
GRAY = ("#f2f2f2", "#8f8f8f", "#474747")
COLORS = {
    "tokens": ("#dcecf7", "#0072b2", "#00496f"),
    "norm": ("#faf3c8", "#b8a400", "#574e00"),
    "attention": ("#fdeacb", "#e69f00", "#6e4b00"),
    "rope": ("#f7e3ee", "#cc79a7", "#7a2f58"),
    "mlp": ("#d5efe6", "#009e73", "#00573f"),
    "choice": ("#fbe0d1", "#d55e00", "#7f3800"),
}
LINE, BOX, TEXT = 2, 3, 4  # what is drawn above what
Span = tuple[float, float]


@dataclass
class Pen:
    """Draws parts in their colors, or in gray where another part is lit.

    Attributes:
        ax: where to draw; one unit is a tenth of an inch at full size, y running down.
        lit: names of the parts to light; None: all.
    """

    ax: Axes
    lit: set[str] | None

    def shines(self, part: str) -> bool:
        """Tell whether a part is lit."""
        return self.lit is None or part in self.lit

    def colors(self, part: str, kind: str) -> tuple[str, str, str]:
        """Return fill, line and text color of a part."""
        return COLORS[kind] if self.shines(part) else GRAY

    def text(self, x: float, y: float, words: str, part: str, kind: str, **style: object) -> None:
        """Write text; `style` is passed to `Axes.text`."""
        settings: dict[str, object] = {"ha": "center", "va": "center", "fontsize": 10}
        settings |= {"color": self.colors(part, kind)[2], "zorder": TEXT}
        self.ax.text(x, y, words, gid=part, **(settings | style))  # type: ignore[arg-type]

    def rounded(self, x: Span, y: Span, radius: float, **style: Any) -> None:
        """Draw a rounded rectangle; `style` is passed to the patch."""
        shape = f"round,pad=0,rounding_size={radius}"
        size = x[1] - x[0], y[1] - y[0]
        self.ax.add_patch(FancyBboxPatch((x[0], y[0]), *size, boxstyle=shape, **style))

    def box(
        self,
        x: Span,
        y: Span,
        part: str,
        kind: str,
        lines: Sequence[str],
        dashed: bool = False,
        edge: str | None = None,
    ) -> None:
        """Draw a rounded box; the first line of its text is bold, names as in the checkpoint.

        `edge`: the color of its line where it is lit; None: that of its kind.
        """
        fill, line, _ = self.colors(part, kind)
        line = edge if edge and self.shines(part) else line
        style = {"facecolor": "white" if dashed and self.lit is None else fill, "edgecolor": line}
        dash = (0, (3, 2)) if dashed else "-"
        width = 1.8 if self.shines(part) else 1.2
        self.rounded(x, y, 0.7, linewidth=width, linestyle=dash, zorder=BOX, **style)
        step = 2.05
        top = (y[0] + y[1]) / 2 - step * (len(lines) - 1) / 2
        for number, words in enumerate(lines):
            weight = "bold" if number == 0 else "normal"
            self.text((x[0] + x[1]) / 2, top + step * number, words, part, kind, weight=weight)

    def line(self, points: list[tuple[float, float]], part: str, color: str | None = None) -> None:
        """Draw a thin arrow along points; `color`: where it is lit, other than gray."""
        color = (color or "#8a8a8a") if self.shines(part) else "#b0b0b0"
        xs, ys = zip(*points, strict=True)
        self.ax.plot(xs, ys, color=color, lw=1.4, zorder=LINE, solid_joinstyle="round")
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
        self.ax.annotate("", points[-1], points[-2], arrowprops=style, zorder=LINE)

    def sign(self, x: float, y: float, words: str, part: str, kind: str) -> None:
        """Draw a small circle with a sign in it."""
        fill, line, _ = self.colors(part, kind)
        circle = Circle((x, y), 1.35, facecolor=fill, edgecolor=line, lw=1.4, zorder=5)
        self.ax.add_patch(circle)
        self.text(x, y, words, part, kind, fontsize=11, weight="bold", zorder=6)
