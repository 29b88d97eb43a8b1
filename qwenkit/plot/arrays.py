"""Values from wherever they come (lists, NumPy, torch in any dtype and on any device), pooled."""

from __future__ import annotations

from typing import Any

import numpy as np

from qwenkit.errors import InputError


def numbers(values: Any, name: str, *shapes: str, finite: bool = True) -> np.ndarray:
    """Return values as a float32 array.

    Args:
        values: anything that NumPy or torch holds.
        name: what to call them in an error.
        shapes: those allowed, a letter for each dimension, such as "T S"; none may be empty.
        finite: whether infinities are refused; NaN always is.

    Raises:
        InputError: another number of dimensions, an empty array, NaN or an infinity.
    """
    if hasattr(values, "detach"):  # torch: NumPy has no bfloat16 and cannot read other devices
        values = values.detach().float().cpu()
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{name} is a {type(values).__name__} that is not an array of numbers"
        ) from None
    if array.ndim not in [len(shape.split()) for shape in shapes] or 0 in array.shape:
        wanted = " or ".join(f"({', '.join(shape.split())})" for shape in shapes)
        raise InputError(f"{name} has shape {array.shape}; it must be {wanted}, none of them 0")
    if np.isnan(array).any() or (finite and np.isinf(array).any()):
        raise InputError(f"{name} holds NaN or infinity; it must hold numbers only")
    return array


def pool(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Shrink a square picture to at most `size` pixels a side, each the largest of a block.

    Returns:
        The picture, and the side of a block. The largest and not the mean: a thin bright line, such
        as that of a previous-token head, stays bright.

    >>> pool(np.arange(9.0).reshape(3, 3), 2)[0].tolist()
    [[4.0, 5.0], [7.0, 8.0]]
    """
    factor = -(-max(values.shape) // size)
    return _largest(values, factor, factor), factor


def pool_columns(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Shrink a table to at most `size` columns; return it, and how many columns became one."""
    factor = -(-values.shape[1] // size)
    return _largest(values, 1, factor), factor


def _largest(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the largest value of each block of `rows` × `columns`."""
    more = (0, -values.shape[0] % rows), (0, -values.shape[1] % columns)
    padded = np.pad(values, more, constant_values=-np.inf)
    return np.asarray(padded.reshape(len(padded) // rows, rows, -1, columns).max(axis=(1, 3)))
