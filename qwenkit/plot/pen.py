"""Boxes, lines and words of the architecture's drawing, in colour or in grey."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch

# Fill, line and text of each kind of part (line colours: Okabe and Ito's colour-blind-safe set).
GREY = ("#f6f6f6", "#bdbdbd", "#6b6b6b")
COLOURS = {
    "tokens": ("#dcecf7", "#0072b2", "#00496f"),
    "norm": ("#faf3c8", "#b8a400", "#574e00"),
    "attention": ("#fdeacb", "#e69f00", "#6e4b00"),
    "rope": ("#f7e3ee", "#cc79a7", "#7a2f58"),
    "mlp": ("#d5efe6", "#009e73", "#00573f"),
    "choice": ("#fbe0d1", "#d55e00", "#7f3800"),
}
LINE, BOX, TEXT = 2, 3, 4  # what lies above what


@dataclass
class Pen:
    """Draws parts in their colours, or in grey where another part is lit.

    Attributes:
        ax: where to draw; one unit is a tenth of an inch at full size, y running down.
        lit: names of the parts to light; None: all.
    """

    ax: Axes
    lit: set[str] | None

    def shines(self, part: str) -> bool:
        """Tell whether a part is lit."""
        return self.lit is None or part in self.lit

    def colours(self, part: str, kind: str) -> tuple[str, str, str]:
        """Return fill, line and text colour of a part."""
        return COLOURS[kind] if self.shines(part) else GREY

    def text(self, x: float, y: float, words: str, part: str, kind: str, **style: object) -> None:
        """Write words; `style` is passed to `Axes.text`."""
        settings: dict[str, object] = {"ha": "center", "va": "center", "fontsize": 8.5}
        settings |= {"color": self.colours(part, kind)[2], "zorder": TEXT}
        self.ax.text(x, y, words, gid=part, **(settings | style))  # type: ignore[arg-type]

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        part: str,
        kind: str,
        lines: tuple[str, ...],
        dashed: bool = False,
    ) -> None:
        """Draw a rounded box; the first line of its text is bold, names as in the checkpoint."""
        fill, line, _ = self.colours(part, kind)
        self.ax.add_patch(
            FancyBboxPatch(
                (x[0], y[0]),
                x[1] - x[0],
                y[1] - y[0],
                boxstyle="round,pad=0,rounding_size=0.7",
                facecolor="white" if dashed and self.lit is None else fill,
                edgecolor=line,
                linewidth=1.4,
                linestyle=(0, (3, 2)) if dashed else "-",
                zorder=BOX,
            )
        )
        step = 1.95
        top = (y[0] + y[1]) / 2 - step * (len(lines) - 1) / 2
        for number, words in enumerate(lines):
            weight = "bold" if number == 0 else "normal"
            self.text((x[0] + x[1]) / 2, top + step * number, words, part, kind, weight=weight)

    def line(self, points: list[tuple[float, float]], part: str) -> None:
        """Draw a thin arrow along points."""
        colour = "#8a8a8a" if self.shines(part) else "#c4c4c4"
        xs, ys = zip(*points, strict=True)
        self.ax.plot(xs, ys, color=colour, lw=1.2, zorder=LINE, solid_joinstyle="round")
        style = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
        self.ax.annotate("", points[-1], points[-2], arrowprops=style, zorder=LINE)

    def sign(self, x: float, y: float, words: str, part: str, kind: str) -> None:
        """Draw a small circle with a sign in it."""
        fill, line, _ = self.colours(part, kind)
        circle = Circle((x, y), 1.35, facecolor=fill, edgecolor=line, lw=1.4, zorder=5)
        self.ax.add_patch(circle)
        self.text(x, y, words, part, kind, fontsize=11, weight="bold", zorder=6)
