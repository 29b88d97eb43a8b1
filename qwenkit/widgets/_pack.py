"""Attention on its way to the page: a byte per weight, only the lower triangle, compressed."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from qwenkit.errors import InputError

STEPS = 255  # weights are rounded to the nearest 255th: at most 1 / 510 is lost
LEVEL = 6  # zlib's own middle way between speed and size


def triangle(patterns: Any) -> np.ndarray:
    """Round attention to bytes, and leave out the half above the diagonal, which is masked.

    Args:
        patterns: (..., T, T) causal attention weights, from 0 to 1.

    Returns:
        (..., T (T + 1) / 2) uint8: row by row, row t holding its first t + 1 columns.

    Raises:
        InputError: another shape, values outside 0 to 1, or attention to a later position.

    >>> triangle([[1, 0], [0.2, 0.8]]).tolist()
    [255, 51, 204]
    """
    patterns = np.asarray(patterns)
    if patterns.ndim < 2 or patterns.shape[-1] != patterns.shape[-2] or 0 in patterns.shape:
        raise InputError(f"patterns has shape {patterns.shape}; it must be (..., T, T)")
    low, high = float(patterns.min()), float(patterns.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise InputError(f"patterns go from {low} to {high}; weights must be between 0 and 1")
    rows, columns = np.tril_indices(patterns.shape[-1])
    if np.triu(patterns, 1).any():
        raise InputError("a query attends to a later key; patterns must be causal")
    # in float64 the product is exact, so the nearest step is taken
    scaled = patterns[..., rows, columns].astype(np.float64) * STEPS
    return np.asarray(np.rint(scaled), np.uint8)


def square(weights: np.ndarray) -> np.ndarray:
    """Undo `triangle`: (..., T (T + 1) / 2) bytes become (..., T, T) float32."""
    size = round((np.sqrt(8 * weights.shape[-1] + 1) - 1) / 2)
    rows, columns = np.tril_indices(size)
    full = np.zeros((*weights.shape[:-1], size, size), dtype=np.float32)
    full[..., rows, columns] = weights / np.float32(STEPS)
    return full


def pack(values: np.ndarray) -> bytes:
    """Compress an array's bytes; `inflate` in common.js reads them."""
    return zlib.compress(np.ascontiguousarray(values).tobytes(), LEVEL)
