"""The checks of notebook 06, grouped-query attention."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
