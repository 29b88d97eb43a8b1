"""The checks of notebook 08, decoder layer."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
