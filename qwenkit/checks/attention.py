"""The checks of notebook 05, attention."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
