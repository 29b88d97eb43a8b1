"""Attention on its way to the page: a byte a share, only what a token may read, compressed."""

from __future__ import annotations

import zlib

import numpy as np

from qwenkit.errors import InputError

STEPS = 255  # a share of 1; shares are rounded to the nearest 255th: at most 1 / 510 is lost
LEVEL = 6  # zlib's own middle way between speed and size


def triangle(patterns: np.ndarray) -> np.ndarray:
    """Round attention to bytes, and leave out the half above the diagonal, which is never read.

    Args:
        patterns: (..., T, T) shares from 0 to 1; no token reads a later one.

    Returns:
        (..., T (T + 1) / 2) uint8: row by row, row t holding its first t + 1 columns.

    Raises:
        InputError: another shape, values that are no shares, or a token that reads a later one.
    """
    patterns = np.asarray(patterns)
    if patterns.ndim < 2 or patterns.shape[-1] != patterns.shape[-2] or 0 in patterns.shape:
        raise InputError(f"patterns has shape {patterns.shape}; it must be (..., T, T)")
    low, high = float(patterns.min()), float(patterns.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise InputError(f"patterns go from {low} to {high}; shares lie between 0 and 1")
    rows, columns = np.tril_indices(patterns.shape[-1])
    if np.triu(patterns, 1).any():
        raise InputError("a token reads a later one; patterns must be causal, as the model's are")
    # in float64 the product is exact, so that the nearest step is taken
    scaled = patterns[..., rows, columns].astype(np.float64) * STEPS
    return np.rint(scaled).astype(np.uint8)


def square(shares: np.ndarray) -> np.ndarray:
    """Undo `triangle`: (..., T (T + 1) / 2) bytes become (..., T, T) float32."""
    size = round((np.sqrt(8 * shares.shape[-1] + 1) - 1) / 2)
    rows, columns = np.tril_indices(size)
    full = np.zeros((*shares.shape[:-1], size, size), dtype=np.float32)
    full[..., rows, columns] = shares / np.float32(STEPS)
    return full


def pack(shares: np.ndarray) -> bytes:
    """Compress the bytes of `triangle`; `inflate` in common.js reads them."""
    return zlib.compress(np.ascontiguousarray(shares).tobytes(), LEVEL)
