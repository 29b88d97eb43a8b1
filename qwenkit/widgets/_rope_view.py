"""What RopeExplorer shows: a query and a key rotated by their positions, and their product."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.model import inverse_frequencies
from qwenkit.model.rope import attention_factor
from qwenkit.widgets._base import View

THETAS = (100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)


@dataclass
class RopeView(View):
    """What the explorer shows."""

    chosen = ("pair", "query", "key", "theta")
    config: QwenConfig  # gives head_dim D, rope_theta and, for long contexts, rope_scaling
    vectors: np.ndarray  # (2, D) a query and a key before the rotation
    positions: int  # how many there are, from 0
    pair: int = 0  # dimensions `pair` and `pair` + D/2
    query: int = 0  # the query's position
    key: int = 0  # the key's
    theta: float = 0.0  # one of `thetas`; 0: the config's own

    def __post_init__(self) -> None:
        self.theta = self.theta or float(self.config.rope_theta)

    @property
    def thetas(self) -> list[float]:
        """Values of theta to choose from: round ones, and the config's own."""
        return sorted({*THETAS, float(self.config.rope_theta)})

    @property
    def scaling(self) -> str:
        """How the config scales RoPE, for a caption; empty: not at all."""
        scaling = self.config.rope_scaling
        name = "" if scaling is None else scaling.rope_type
        return "YaRN" if name == "yarn" else f"{name} scaling" if name else ""

    @property
    def factor(self) -> float:
        """What YaRN multiplies cos and sin by; 1 without it."""
        return attention_factor(self.config.rope_scaling)

    def largest(self) -> dict[str, int]:
        """Return the last pair and position."""
        last = self.positions - 1
        return {"pair": self.config.head_dim // 2 - 1, "query": last, "key": last}

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse a theta that the page does not offer."""
        theta = state.get("theta", self.theta)
        if type(theta) not in (int, float) or theta not in self.thetas:
            wanted = ", ".join(f"{theta:,.10g}" for theta in self.thetas)
            raise InputError(f"theta is {theta!r}; it must be one of {wanted}")
        return super().checked(state) | {"theta": float(theta)}

    def data(self) -> dict[str, Any]:
        """Return what the script computes from: the frequencies at each theta, and the vectors."""
        return {
            "thetas": self.thetas,
            "own": float(self.config.rope_theta),
            "frequencies": [self.frequencies(theta).tolist() for theta in self.thetas],
            "factor": self.factor,
            "vectors": self.vectors.tolist(),
            "positions": self.positions,
            "scaled": self.scaling,
        }

    def frequencies(self, theta: float | None = None) -> np.ndarray:
        """Return (D/2,) radians per position, as the model computes them."""
        config = replace(self.config, rope_theta=self.theta if theta is None else theta)
        return inverse_frequencies(config).numpy().astype(np.float64)

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cos and sin, (positions, D/2) each."""
        angles = np.arange(self.positions)[:, None] * self.frequencies()
        return np.cos(angles) * self.factor, np.sin(angles) * self.factor

    def rotated(self) -> np.ndarray:
        """Return (2, 2, D/2): query and key rotated by their positions; a and b of each pair.

        (a, b) becomes (a cos - b sin, b cos + a sin), as in `qwenkit.model.apply_rope`.
        """
        cos, sin = (table[[self.query, self.key]] for table in self.tables())  # (2, D/2)
        a, b = np.split(self.vectors, 2, axis=-1)
        return np.stack([a * cos - b * sin, b * cos + a * sin], axis=1)

    def product(self) -> float:
        """Return q·k of the rotated vectors, over all pairs."""
        query, key = self.rotated()
        return float((query * key).sum())

    def pair_product(self) -> float:
        """Return what the chosen pair adds to q·k."""
        query, key = self.rotated()[..., self.pair]
        return float(query @ key)

    def products(self, pair: int | None = None) -> np.ndarray:
        """Return (2 positions - 1,) q·k at each distance, of all pairs or of one.

        The distance, query minus key, goes from 1 - positions to positions - 1.
        """
        (qa, ka), (qb, kb) = np.stack(np.split(self.vectors, 2, axis=-1))
        angles = np.arange(1 - self.positions, self.positions)[:, None] * self.frequencies()
        parts = (qa * ka + qb * kb) * np.cos(angles) + (qa * kb - qb * ka) * np.sin(angles)
        parts *= self.factor**2
        return np.asarray(parts.sum(-1) if pair is None else parts[:, pair])

    def title(self) -> str:
        """Name the pair, and how fast it rotates."""
        half = self.config.head_dim // 2
        turn = 2 * math.pi / self.frequencies()[self.pair]
        return (
            f"Pair {self.pair}, dimensions {self.pair} and {self.pair + half}: "
            f"a full rotation every {turn:,.1f} positions"
        )

    def alt(self) -> str:
        """Return what is shown as text."""
        angles = np.degrees(self.frequencies()[self.pair]) * np.array([self.query, self.key])
        return (
            f"RoPE with theta {self.theta:,.10g}. {self.title()}. The query at position "
            f"{self.query} is rotated by {angles[0]:,.0f} degrees, the key at {self.key} by "
            f"{angles[1]:,.0f}. Their q·k is {self.product():.2f}, of which this pair gives "
            f"{self.pair_product():.2f}; it is the same at all positions whose distance is "
            f"{self.query - self.key}."
        )
