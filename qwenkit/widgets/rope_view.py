"""What RopeExplorer shows: a query and a key turned by their positions, and their product."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.model.rope import attention_factor, inverse_frequencies
from qwenkit.widgets.choices import check_names, check_whole

THETAS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)


@dataclass
class RopeView:
    """What the explorer shows.

    Attributes:
        config: gives head_dim D, rope_theta and, for long contexts, rope_scaling.
        vectors: (2, D) a query and a key before they are turned.
        positions: how many there are, from 0.
        pair: chosen, as are the following: dimensions `pair` and `pair` + D/2.
        query: the query's position.
        key: the key's.
        theta: one of `thetas`.
    """

    config: QwenConfig
    vectors: np.ndarray
    positions: int
    pair: int = 0
    query: int = 0
    key: int = 0
    theta: float = 0.0

    def __post_init__(self) -> None:
        """Begin with the config's own theta."""
        self.theta = self.theta or float(self.config.rope_theta)

    @property
    def thetas(self) -> list[float]:
        """Values of theta to choose from: round ones, and the config's own."""
        return sorted({*THETAS, float(self.config.rope_theta)})

    def state(self) -> dict[str, Any]:
        """Return what is chosen now."""
        return {name: getattr(self, name) for name in ("pair", "query", "key", "theta")}

    def choose(self, **state: Any) -> None:
        """Choose others; all or, where one cannot be, none of them."""
        sizes = {"pair": self.config.head_dim // 2, "query": self.positions, "key": self.positions}
        check_names(state, self.state())
        for name, value in state.items():
            if name in sizes:
                check_whole(name, value, 0, sizes[name] - 1)
            elif type(value) not in (int, float) or value not in self.thetas:
                wanted = ", ".join(f"{theta:,.10g}" for theta in self.thetas)
                raise InputError(f"theta is {value!r}; it must be one of {wanted}")
        for name, value in state.items():
            setattr(self, name, float(value) if name == "theta" else value)

    def data(self) -> dict[str, Any]:
        """Return what the script computes from: the frequencies at each theta, and the vectors."""
        return {
            "thetas": self.thetas,
            "own": float(self.config.rope_theta),
            "frequencies": [self.frequencies(theta).tolist() for theta in self.thetas],
            "factor": attention_factor(self.config.rope_scaling),
            "vectors": self.vectors.tolist(),
            "positions": self.positions,
            "scaled": self.config.rope_scaling is not None,
        }

    def frequencies(self, theta: float | None = None) -> np.ndarray:
        """Return (D/2,) radians a position, as the model computes them."""
        config = replace(self.config, rope_theta=self.theta if theta is None else theta)
        return inverse_frequencies(config).numpy().astype(np.float64)

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cos and sin, (positions, D/2) each."""
        angles = np.arange(self.positions)[:, None] * self.frequencies()
        factor = attention_factor(self.config.rope_scaling)
        return np.cos(angles) * factor, np.sin(angles) * factor

    def turned(self) -> np.ndarray:
        """Return (2, 2, D/2): the query and the key turned by their positions; a and b of a pair.

        (a, b) becomes (a cos - b sin, b cos + a sin), as in `qwenkit.model.rope.apply_rope`.
        """
        cos, sin = (table[[self.query, self.key]] for table in self.tables())  # (2, D/2)
        a, b = np.split(self.vectors, 2, axis=-1)
        return np.stack([a * cos - b * sin, b * cos + a * sin], axis=1)

    def product(self) -> float:
        """Return q·k of the turned vectors, over all pairs."""
        query, key = self.turned()
        return float((query * key).sum())

    def pair_product(self) -> float:
        """Return what the chosen pair adds to q·k."""
        query, key = self.turned()[..., self.pair]
        return float(query @ key)

    def products(self, pair: int | None = None) -> np.ndarray:
        """Return (2 positions - 1,) q·k at each distance, from all pairs or from one.

        The distance, query minus key, goes from 1 - positions to positions - 1.
        """
        (qa, ka), (qb, kb) = np.stack(np.split(self.vectors, 2, axis=-1))
        angles = np.arange(1 - self.positions, self.positions)[:, None] * self.frequencies()
        parts = (qa * ka + qb * kb) * np.cos(angles) + (qa * kb - qb * ka) * np.sin(angles)
        parts *= attention_factor(self.config.rope_scaling) ** 2
        return np.asarray(parts.sum(-1) if pair is None else parts[:, pair])

    def title(self) -> str:
        """Name the pair, and how fast it turns."""
        half = self.config.head_dim // 2
        turn = 2 * math.pi / self.frequencies()[self.pair]
        return (
            f"Pair {self.pair}, dimensions {self.pair} and {self.pair + half}: "
            f"a full turn every {turn:,.1f} positions"
        )

    def alt(self) -> str:
        """Return in words what is shown."""
        angles = np.degrees(self.frequencies()[self.pair]) * np.array([self.query, self.key])
        return (
            f"RoPE with theta {self.theta:,.10g}. {self.title()}. The query at position "
            f"{self.query} is turned by {angles[0]:,.0f} degrees, the key at {self.key} by "
            f"{angles[1]:,.0f}. Their q·k is {self.product():.2f}, of which this pair gives "
            f"{self.pair_product():.2f}; it is the same wherever their distance is "
            f"{self.query - self.key}."
        )
