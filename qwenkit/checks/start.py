"""The checks of notebook 00, start here."""

from __future__ import annotations

EXERCISES: dict[str, str] = {}
