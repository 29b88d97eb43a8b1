"""The checks of notebook 03, RMSNorm."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
