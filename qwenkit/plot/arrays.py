"""Numbers from wherever they come: lists, NumPy, or torch in any dtype and on any device."""

from __future__ import annotations

from typing import Any

import numpy as np

from qwenkit.errors import InputError


def numbers(values: Any, name: str, *shapes: str, finite: bool = True) -> np.ndarray:
    """Return values as float32, or refuse them in words.

    Args:
        values: anything that NumPy or torch holds.
        name: what to call them in an error.
        shapes: those that fit, a letter for each dimension, such as "T S"; none may be empty.
        finite: whether infinities are refused; NaN always is.

    Raises:
        InputError: another number of dimensions, nothing at all, or a number that is none.
    """
    if hasattr(values, "detach"):  # torch: NumPy knows no bfloat16, and nothing of other devices
        values = values.detach().float().cpu()
    array = np.asarray(values, np.float32)
    if array.ndim not in [len(shape.split()) for shape in shapes] or 0 in array.shape:
        wanted = " or ".join(f"({', '.join(shape.split())})" for shape in shapes)
        raise InputError(f"{name} has shape {array.shape}; it must be {wanted}, none of them 0")
    if np.isnan(array).any() or (finite and np.isinf(array).any()):
        raise InputError(f"{name} holds NaN or infinity; it must hold numbers alone")
    return array


def pool_columns(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Shrink a table to at most `size` columns, each the largest of a run of them.

    Returns:
        The table, and how many columns one of it stands for.
    """
    rows, columns = values.shape
    factor = -(-columns // size)
    padded = np.full((rows, -(-columns // factor) * factor), -np.inf, values.dtype)
    padded[:, :columns] = values
    return padded.reshape(rows, -1, factor).max(axis=2), factor
