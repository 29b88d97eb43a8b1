"""The checks of notebook 04, RoPE."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
