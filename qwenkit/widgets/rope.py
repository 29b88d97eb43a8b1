"""RopeExplorer: rotate a query and a key by their positions; only the distance matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.plot.style import GRAY, KEY, QUERY, SIGNED, TEXT, WIDEST, color_bar, plain
from qwenkit.widgets._base import Inspector, check_config, check_integer
from qwenkit.widgets._rope_view import RopeView

MOST = 4096  # positions
MOST_DIMENSIONS = 1024  # of a head
LARGEST = 1e15  # theta


class RopeExplorer(Inspector):
    """One pair of dimensions rotating, the cos and sin tables, and q·k against the distance.

    Shifting query and key together changes every angle, and leaves q·k as it is.

    Args:
        config: a model's, which gives theta, head_dim and rope_scaling; None: the next two do.
        theta: the larger, the more slowly the slowest pairs rotate; None: 10,000.
        head_dim: dimensions of a head; None: 64.
        vectors: a query and a key, `head_dim` values each, such as `attn.q` and `attn.k` of a trace
            at some positions; None: (1, 0) in every pair, so that q·k is a sum of cosines.
        positions: how many positions there are to choose from.

    Raises:
        InputError: a config and theta or head_dim; vectors of another shape; positions out of
            range.
    """

    script = "rope"
    view: RopeView

    def __init__(
        self,
        config: QwenConfig | None = None,
        *,
        theta: float | None = None,
        head_dim: int | None = None,
        vectors: Sequence[Any] | None = None,
        positions: int = 256,
    ) -> None:
        if config is None:
            dim, theta = 64 if head_dim is None else head_dim, 10_000.0 if theta is None else theta
            _check_size(dim, theta)
            config = QwenConfig(1, dim, 1, 1, 1, 1, head_dim=dim, rope_theta=theta)
        elif theta is not None or head_dim is not None:
            raise InputError("a config has its own theta and head_dim; give either it or them")
        check_config(config)
        _check_size(config.head_dim, config.rope_theta)
        check_integer("positions", positions, 2, MOST)
        view = RopeView(config, _vectors(vectors, config.head_dim), positions)
        view.choose(pair=min(2, config.head_dim // 2 - 1), query=min(12, positions - 1))
        super().__init__(view)

    def snapshot(self) -> Figure:
        """Draw the pair, the tables and q·k against the distance."""
        view = self.view
        figure, axes = plt.subplot_mosaic(
            [["pair", "cos", "sin"], ["products"] * 3], figsize=(WIDEST, 6.2),
            layout="constrained", height_ratios=(1.25, 1),
        )  # fmt: skip
        _draw_pair(axes["pair"], view)
        _draw_tables(axes["cos"], axes["sin"], view)
        _draw_products(axes["products"], view)
        figure.suptitle(f"{view.title()}; theta {view.theta:,.10g}", fontsize=TEXT + 1)
        return figure


def _check_size(head_dim: object, theta: object) -> None:
    check_integer("head_dim", head_dim, 2, MOST_DIMENSIONS)
    number = isinstance(theta, int | float) and not isinstance(theta, bool)
    if not number or not 1 < theta <= LARGEST:  # type: ignore[operator]
        raise InputError(f"theta is {theta!r}; it must be a number above 1, at most {LARGEST:g}")


def _vectors(vectors: Sequence[Any] | None, head_dim: int) -> np.ndarray:
    if vectors is None:
        return np.repeat([[1.0, 0.0]] * 2, head_dim // 2, axis=-1)
    try:
        pair = [torch.as_tensor(one).detach().float().cpu().numpy() for one in vectors]
    except (TypeError, ValueError, RuntimeError):
        rule = f"a query and a key of {head_dim} finite numbers each"
        raise InputError(f"vectors is a {type(vectors).__name__}; it must be {rule}") from None
    shapes = [one.shape for one in pair]
    large = any(np.abs(one).max(initial=0) > LARGEST for one in pair)
    if shapes != [(head_dim,)] * 2 or large or not all(np.isfinite(one).all() for one in pair):
        raise InputError(
            f"vectors have shapes {shapes}; they must be a query and a key of {head_dim} finite "
            "numbers each"
        )
    return np.stack(pair).astype(np.float64)


def _draw_pair(ax: Axes, view: RopeView) -> None:
    before = view.vectors.reshape(2, 2, -1)[..., view.pair]
    after = view.rotated()[..., view.pair]
    reach = max(float(np.hypot(*np.concatenate([before, after]).T).max()), 1e-9)
    for color, old, new in zip((QUERY, KEY), before, after, strict=True):
        circle = Circle((0, 0), float(np.hypot(*new)), fill=False, edgecolor=GRAY, linestyle=":")
        ax.add_patch(circle)
        ax.plot([0, old[0]], [0, old[1]], color=color, linewidth=1, linestyle="--")
        ax.annotate("", new, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2.5})
    limits, partner = (-1.2 * reach, 1.2 * reach), view.pair + view.config.head_dim // 2
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set(xlabel=f"dimension {view.pair}", ylabel=f"dimension {partner}")
    ax.set_title("query blue, key orange\ndashed: before the rotation", fontsize=TEXT)


def _draw_tables(cos: Axes, sin: Axes, view: RopeView) -> None:
    for ax, name, table in zip((cos, sin), ("cos", "sin"), view.tables(), strict=True):
        image = ax.imshow(table, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto")
        ax.set_title(name, fontsize=TEXT)
        ax.set_xlabel("pair")
        ax.axvline(view.pair, color="black", linewidth=1)
        ax.axhline(view.query, color=QUERY, linewidth=1.5)
        ax.axhline(view.key, color=KEY, linewidth=1.5)
    cos.set_ylabel("position")
    color_bar(image, "value", cos, sin, aspect=30)


def _draw_products(ax: Axes, view: RopeView) -> None:
    distances = np.arange(1 - view.positions, view.positions)
    ax.axvspan(distances[0], -0.5, color="#efefef", label="the key comes later: masked")
    ax.plot(distances, view.products(), color="#333333", linewidth=1, label="all pairs")
    ax.plot(distances, view.products(view.pair), color=GRAY, linewidth=1, label="this pair")
    ax.axvline(view.query - view.key, color=KEY, linewidth=1)
    ax.plot([view.query - view.key], [view.product()], "o", color=KEY, markersize=6)
    ax.margins(x=0)
    plain(ax, "distance: query position − key position", "q·k")
    ax.legend(frameon=False, fontsize=TEXT, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
