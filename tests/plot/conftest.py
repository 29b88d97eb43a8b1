"""Figures are drawn without a screen, and closed after each test."""

from fixtures_figures import closed_figures  # noqa: F401
