"""The checks of notebook 01, checkpoint."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
